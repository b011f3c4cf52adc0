"""Does the package work where it is installed, without a checkout?

    python -m build                                # dist/*.whl and dist/*.tar.gz, or let the script build them
    python tests/tools/installed.py [--dist dist]

Wheel and sdist are built and compared with the files of the repository; the wheel is unpacked into a new virtual
environment, in an empty folder, which takes all other packages from the environment of this interpreter. There the
commands of a first hour run in miniature: train by the name of a recipe, generate, evaluate, benchmark, push to a Hub
of this machine. It takes two minutes of processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.tools import fake_hub  # noqa: E402  (it imports the standard library alone)


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
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dist", type=Path, help="folder with a built wheel and sdist (default: they are built)")
    dist = parser.parse_args().dist
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        wheel, sdist = find(dist) if dist else build(place / "dist")
        check_contents(wheel, sdist)
        Installed(place, wheel).first_hour()
    print("1 passed, 0 failed")


def build(dist: Path) -> tuple[Path, Path]:
    """The sdist of this checkout, and the wheel that is built from the sdist."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(dist), str(ROOT)], check=True)
    return find(dist)


def find(dist: Path) -> tuple[Path, Path]:
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    return wheel, sdist


def check_contents(wheel: Path, sdist: Path) -> None:
    """Every file of the package and every recipe is in both, and nothing else is in the wheel."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    packed = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
    missing = {name for name in tracked if name.startswith(("seqgan_hf/", "recipes/", "tests/", "docs/"))} - packed
    assert not missing, f"not in {sdist.name}: {sorted(missing)}"
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {name for name in tracked if name.startswith("seqgan_hf/")}
    expected |= {f"seqgan_hf/{name}" for name in tracked if name.startswith("recipes/")}
    assert names == expected, f"{wheel.name} differs in {sorted(names ^ expected)}"


class Installed:
    """The wheel in a virtual environment of its own, and an empty folder to work in."""

    def __init__(self, place: Path, wheel: Path):
        self.work = place / "work"
        self.work.mkdir()
        venv.create(place / "env", with_pip=False)
        self.bin = place / "env" / "bin"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        packages = place / "env" / "lib" / version / "site-packages"
        call = [sys.executable, "-m", "pip", "--quiet", "--python", str(self.bin / "python")]
        subprocess.run([*call, "install", "--no-deps", str(wheel)], check=True)
        # after its own packages come those of this interpreter, without what its *.pth files add (editable installs)
        (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.environment |= {"HF_HOME": str(place / "home"), "OMP_NUM_THREADS": "1"}

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
        assert json.loads((self.work / "report" / "metrics.json").read_text())["results"]["bleu_2"]["value"] >= 0
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


if __name__ == "__main__":
    main()
