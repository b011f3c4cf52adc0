"""`docs/learn/first-hour.md`, command after command, in an environment that holds the wheel and no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from seqgan_hf import __version__
from tests.tools.documents import ROOT, snippets
from tests.tools.fake_hub import TOKEN, serve
from tests.tools.warm import warm_commands


PAGE = "docs/learn/first-hour.md"
# Added to every training: the same work, less of it. Then to those that begin from nothing.
SHORT = (
    "--training.num_fakes 32 --training.discriminator_pretrain_steps 1 --training.generator_steps 1 "
    "--training.eval_samples 20 --training.use_cpu true --generator.config '{embedding_size: 8, hidden_size: 16}' "
    "--discriminator.config '{filter_sizes: [1, 2], num_filters: [4, 4]}'"
)
FRESH = "--objective.rollouts 1 --training.per_device_train_batch_size 512"


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """An environment of its own with the wheel; what it needs comes from this one."""
    folder = tmp_path_factory.mktemp("environment")
    dist, env = folder / "dist", folder / "venv"
    # a checkout on the path may hold metadata of the package, and pip would take it for installed
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", dist]
    subprocess.run(build, cwd=ROOT, env=variables, check=True)
    venv.create(env, with_pip=False)
    (wheel,) = dist.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(env / "bin/python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", str(wheel)], env=variables, check=True)
    (site,) = env.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return env


def commands(heading: str) -> list[str]:
    """The lines of the page's shell blocks, from a heading on."""
    start = (ROOT / PAGE).read_text().splitlines().index(heading) + 1
    blocks = [each.text for each in snippets() if each.page == PAGE and each.language == "bash" and each.line > start]
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line]


def shortened(command: str) -> str:
    """A training that takes a second."""
    if not command.startswith("seqgan-hf train"):
        return command
    return f"{command} {SHORT} {'' if 'generator.pretrained' in command else FRESH}"


def test_every_command_of_the_first_hour_works(environment, tmp_path):
    lines = commands("## A file")
    with serve() as hub:
        variables = {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
        variables |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}
        said = {}
        with warm_commands(environment / "bin/python", variables) as warm:
            variables["PATH"] = f"{warm}:{environment / 'bin'}:{variables['PATH']}"
            for line in lines:
                done = subprocess.run(
                    ["bash", "-c", shortened(line)], env=variables, cwd=tmp_path, capture_output=True, text=True
                )
                assert done.returncode == 0, f"{line}\n{done.stderr}"
                said[line] = done.stdout
        assert len(hub.commits["someone/colours"]) == 2
    assert str(ROOT) not in said[lines[0]] and len(said) == len(lines) > 12
    page = (ROOT / PAGE).read_text()
    for start in ("head -n 3 colours.txt", "seqgan-hf data"):  # what does not depend on the machine is as shown
        (output,) = (text for line, text in said.items() if line.startswith(start))
        shown = page.partition(start)[2].partition("```text\n")[2].partition("```")[0]
        assert shown in output
    assert "generated_text" in said[lines[-1]]


def test_the_package_is_that_of_the_wheel(environment):
    where = "import seqgan_hf; print(seqgan_hf.__file__)"
    done = subprocess.run(
        [environment / "bin/python", "-c", where], env={"PATH": ""}, cwd="/", capture_output=True, text=True
    )
    assert done.stdout.startswith(str(environment))
    done = subprocess.run([environment / "bin/seqgan-hf", "--version"], cwd="/", capture_output=True, text=True)
    assert done.stdout == f"seqgan-hf {__version__}\n"
