"""Does the package work where it is installed, without a checkout?

    python tests/tools/installed.py

Wheel and sdist are built and, in a checkout, compared with its files; it also runs in an unpacked sdist. The first
block of `docs/learn/first-hour.md` installs the package from a copy of these files, with all that it needs in the
versions of `constraints.txt`. In an empty folder the commands of a first hour then run in miniature: train by the name
of a recipe, generate, evaluate, benchmark, push to a Hub of this machine. Elsewhere a Space of the run is installed
from its own files, and answers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

from gradio_client import Client


ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.tools import fake_hub  # noqa: E402
from tests.tools.documents import snippets  # noqa: E402
from tests.tools.spaces import serve  # noqa: E402


TINY = {
    "training.pretrain_epochs": 1,
    "training.discriminator_pretrain_steps": 1,
    "training.rounds": 1,
    "training.generator_steps": 1,
    "training.discriminator_steps": 1,
    "training.num_fakes": 64,
    "training.eval_samples": 32,
    "training.use_cpu": "true",
    "generator.config.hidden_size": 8,
    "generator.config.embedding_size": 8,
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        subprocess.run([sys.executable, "-m", "build", "--outdir", str(place / "dist"), str(ROOT)], check=True)
        (wheel,), (sdist,) = (list((place / "dist").glob(kind)) for kind in ("*.whl", "*.tar.gz"))
        files = source_files(sdist)
        check_contents(files, wheel, sdist)
        installed = Installed(place, files)
        installed.first_hour()
        installed.space()
    print("1 passed, 0 failed")


def source_files(sdist: Path, root: Path = ROOT) -> list[str]:
    """The files of a checkout, those that are not committed yet included; elsewhere those of the sdist built there."""
    if (root / ".git").exists():
        call = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        return subprocess.run(call, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    with tarfile.open(sdist) as archive:
        packed = [member.name.partition("/")[2] for member in archive if member.isfile()]
    return [name for name in packed if name != "PKG-INFO"]


def check_contents(files: list[str], wheel: Path, sdist: Path) -> None:
    """Every file of the package and every recipe is in both, and nothing else is in the wheel."""
    packed = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
    missing = {name for name in files if name.startswith(("seqgan_hf/", "recipes/", "tests/", "docs/"))} - packed
    assert not missing, f"not in {sdist.name}: {sorted(missing)}"
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {name for name in files if name.startswith("seqgan_hf/")}
    expected |= {f"seqgan_hf/{name}" for name in files if name.startswith("recipes/")}
    assert names == expected, f"{wheel.name} differs in {sorted(names ^ expected)}"


class Installed:
    """What the first block of `docs/learn/first-hour.md` installs in a checkout, and an empty folder to work in."""

    def __init__(self, place: Path, files: list[str]):
        self.place, self.work = place, place / "work"
        self.work.mkdir()
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # whose python3 makes the environment
        self.environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.environment |= {"HF_HOME": str(place / "home"), "OMP_NUM_THREADS": "1", "PATH": path}
        self.environment |= {"PIP_CONSTRAINT": str(ROOT / "constraints.txt"), "PIP_NO_COMPILE": "1"}
        checkout = place / "checkout"
        for name in files:
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
        install, shown, *_ = (each.text for each in snippets() if each.page == "docs/learn/first-hour.md")
        print(install, flush=True)
        done = subprocess.run(
            ["bash", "-ec", install], cwd=checkout, env=self.environment, stdout=subprocess.PIPE, text=True, check=True
        )
        assert done.stdout.endswith(f"\n{shown}"), done.stdout
        self.bin = checkout / "venv" / "bin"

    def run(self, *command: str, **more: str) -> str:
        """What a command of the environment writes to standard output."""
        print("$", *command, flush=True)
        environment = self.environment | more
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]], cwd=self.work, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"exit status {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def first_hour(self) -> None:
        where = self.run("python", "-c", "import seqgan_hf; print(seqgan_hf.__file__)").strip()
        assert where.startswith(str(self.bin.parent)), f"imported from {where}, not from the wheel"
        version = self.run("seqgan-hf", "--version").split()[1]
        assert (
            version
            == self.run("python", "-c", "from importlib import metadata as m; print(m.version('seqgan-hf'))").strip()
        )
        names = [line.split()[0] for line in self.run("seqgan-hf", "recipes").splitlines()]
        recipes = {
            path.relative_to(ROOT / "recipes").with_suffix("").as_posix() for path in ROOT.glob("recipes/*/*.yaml")
        }
        assert set(names) == recipes
        words = "a the cat dog sits runs on under mat table".split()
        lines = [" ".join(words[(i * j + j) % 10] for j in range(1, 3 + i % 5)) for i in range(200)]
        (self.work / "lines.txt").write_text("\n".join(lines[:160]) + "\n")
        (self.work / "held_out.txt").write_text("\n".join(lines[160:]) + "\n")
        settings = [part for name, value in TINY.items() for part in (f"--{name}", str(value))]
        self.run(
            "seqgan-hf",
            "train",
            "text/seqgan",
            "--data.train_file",
            "lines.txt",
            "--training.output_dir",
            "runs/mine",
            *settings,
        )
        assert len(self.run("seqgan-hf", "generate", "runs/mine", "--num_samples", "5").splitlines()) == 5
        self.run(
            "seqgan-hf",
            "evaluate",
            "evaluation/full",
            "--model",
            "runs/mine",
            "--references",
            "held_out.txt",
            "--metrics",
            "bleu,distinct",
            "--output",
            "report",
        )
        assert json.loads((self.work / "report" / "metrics.json").read_text())["results"]["distinct_1"]["value"] > 0
        rounds = settings.index("--training.rounds")  # which the budget sets
        call = ["benchmark", "text/seqgan", "--seeds", "1", "--budget", "1rounds", "--output", "bench"]
        call += ["--temperatures", "0.8", "1.0", "--num_samples", "40", "--metrics", "distinct"]
        call += ["--data.train_file", "lines.txt", *settings[:rounds], *settings[rounds + 2 :]]
        assert "maximum likelihood" in self.run("seqgan-hf", *call)
        # a class in a file beside the recipe, which no search path names
        self.run(
            "seqgan-hf",
            "train",
            "text/functionreward",
            "--data.num_train",
            "200",
            "--data.num_eval",
            "32",
            "--training.output_dir",
            "runs/rewarded",
            *settings,
        )
        self.run("seqgan-hf", "recipes", "copy", "text/functionreward", "copied")
        assert {path.name for path in (self.work / "copied").iterdir()} == {"functionreward.yaml", "rewards.py"}
        with fake_hub.serve() as hub:
            pushed = self.run(
                "seqgan-hf", "push", "runs/mine", "someone/mine", HF_ENDPOINT=hub.url, HF_TOKEN=fake_hub.TOKEN
            )
            assert re.search(r"someone/mine", pushed)
            assert {"model.safetensors", "README.md"} <= hub.files("someone/mine").keys()
            shared = self.run("seqgan-hf", "generate", "someone/mine", "--num_samples", "2", HF_ENDPOINT=hub.url)
            assert len(shared.splitlines()) == 2

    def space(self) -> None:
        """The Space of the run answers in a new environment that holds what its files ask for, and nothing else."""
        self.run("pip", "install", "--quiet", "seqgan-hf[demo]")
        with fake_hub.serve() as hub:
            here = {"HF_ENDPOINT": hub.url, "HF_TOKEN": fake_hub.TOKEN}
            self.run("seqgan-hf", "push", "runs/mine", "--space", "someone/shown", **here)
            files = hub.files("spaces/someone/shown")
        shutil.rmtree(self.bin.parent)  # gigabytes, which the disk may not have twice
        folder = self.place / "space"
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        venv.create(folder / "env", with_pip=True)
        (gradio,) = re.findall(r"^sdk_version: (\S+)$", files["README.md"].decode(), re.MULTILINE)
        call = [str(folder / "env/bin/python"), "-m", "pip", "install", "--quiet", "--no-compile"]
        subprocess.run([*call, "-r", "requirements.txt", f"gradio=={gradio}"], cwd=folder, check=True)
        with serve(folder, folder / "env/bin/python") as address:
            page = Client(address, verbose=False).predict(prompt="the cat", number=3, api_name="/write")
        assert page.count('<span class="prompt">the cat</span>') == 3 and "<mark" in page, page


if __name__ == "__main__":
    main()
