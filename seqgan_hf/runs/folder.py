"""The folder of a run: what it holds, and what may not be overwritten."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ..errors import RunFolderError


# Settings of `training` that say how a run is started, not what it is.
STARTING = ("resume_from_checkpoint", "overwrite_run", "estimate_time")


class RunFolder:
    """Paths of a run and its records: the attributes are what a run may leave in its folder, and nothing else.

    Args:
        path: of the folder; made when it is opened.
        recipe: the resolved recipe as YAML.
    """

    def __init__(self, path: Path, recipe: str | None = None):
        self.path, self.recipe_text = path, recipe
        self.recipe = path / "recipe.yaml"
        self.generator = path / "generator"
        self.discriminator = path / "discriminator"
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"  # a line for each unit of training
        self.samples = path / "samples"  # a file for each evaluation
        self.figures = path / "figures"
        self.summary = path / "summary.json"  # written when the run has ended
        self.oracle = path / "oracle"  # of synthetic data
        self.evaluation = path / "evaluation"  # of the finished generator

    def _contents(self) -> list[Path]:
        return [path for path in vars(self).values() if isinstance(path, Path) and path != self.path]

    def open(self, resuming: bool, overwrite: bool) -> None:
        """Make the folder ready.

        Raises:
            RunFolderError: it holds another run, or things that are no run and would be removed, or cannot be written.
        """
        held = ", ".join(path.name for path in self._contents() if path.exists())
        if held and not resuming and not overwrite:
            ways = "resume with training.resume_from_checkpoint=true, or replace that run with "
            fix = f"choose a new `training.output_dir`, {ways}training.overwrite_run=true"
            raise RunFolderError(f"output_dir={str(self.path)!r} already holds a run ({held})", fix=fix)
        if held and overwrite and not self.metrics.exists():
            why = f"it holds {held} but no {self.metrics.name}, so it is not a run"
            fix = "choose another `training.output_dir`, or remove these yourself"
            raise RunFolderError(f"refusing to overwrite {str(self.path)!r}: {why}", fix=fix)
        with writable(self.path):
            for path in [] if resuming else self._contents():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            for folder in (self.path, self.checkpoints, self.samples, self.figures):
                folder.mkdir(parents=True, exist_ok=True)
            if self.recipe_text is not None and not (resuming and self.recipe.exists()):
                self.recipe.write_text(self.recipe_text, encoding="utf-8")
            self.metrics.touch()

    def update_recipe(self) -> None:
        """Keep the settings with which a resumed run has gone on; how it was started stays as it was."""
        if self.recipe_text is None or not self.recipe.exists():
            return
        if (kept := self.recipe.read_text(encoding="utf-8")) == self.recipe_text:
            return
        old, new = yaml.safe_load(kept), yaml.safe_load(self.recipe_text)
        for name in STARTING:
            if name in old["training"]:
                new["training"][name] = old["training"][name]
            else:
                new["training"].pop(name, None)
        if new != old:
            with writable(self.recipe):
                self.recipe.write_text(yaml.safe_dump(new, sort_keys=False, allow_unicode=True), encoding="utf-8")

    def recipe_differences(self, checkpoint: Path) -> list[str]:
        """Settings in which a checkpoint's run differs from the one that goes on: `name=value (was value)`, each."""
        recipe = checkpoint.resolve().parents[1] / self.recipe.name  # <run>/checkpoints/<checkpoint>
        if not recipe.exists():
            recipe = self.recipe
        if self.recipe_text is None or not recipe.exists():
            return []
        old, new = (_flatten(yaml.safe_load(text)) for text in (recipe.read_text(encoding="utf-8"), self.recipe_text))
        ignored = {f"training.{name}" for name in (*STARTING, "output_dir")}
        return [
            f"{name}={new.get(name)} (was {old.get(name)})"
            for name in sorted((old.keys() | new.keys()) - ignored)
            if old.get(name) != new.get(name)
        ]

    def append_metrics(self, line: dict[str, Any]) -> None:
        with writable(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def count_metrics(self) -> int:
        """Lines that are logged."""
        with self.metrics.open("rb") as file:
            return sum(1 for _ in file)

    def truncate_metrics(self, lines: int) -> None:
        """Forget what was logged after a checkpoint, since it is about to be done again."""
        kept = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)[:lines]
        aside = self.metrics.with_suffix(".partial")
        with writable(aside):
            aside.write_text("".join(kept), encoding="utf-8")
            aside.replace(self.metrics)

    def own(self, path: Path) -> Path:
        """The same path, if it lies in this folder, else a RunFolderError: what is shared comes from nowhere else."""
        if path.is_symlink() or not path.resolve().is_relative_to(self.path.resolve()):
            problem = f"{str(path)!r} is a link or leads out of the run's folder"
            raise RunFolderError(problem, fix="put the file itself into the folder")
        return path

    def write_summary(self, summary: dict[str, Any]) -> None:
        """What the model card needs to know of the run that has ended."""
        self.summary.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")

    def read_summary(self) -> dict[str, Any]:
        """What `write_summary` wrote; raises a RunFolderError if the run has not ended."""
        if not self.metrics.exists():
            found = "does not exist" if not self.path.exists() else f"holds no {self.metrics.name}"
            raise RunFolderError(f"{str(self.path)!r} {found}", "the folder of a run", "check the path")
        if not (self.summary.exists() and self.generator.is_dir()):
            why = f"there is no `generator` or no `{self.summary.name}`"
            fix = "train to the end, or resume with --training.resume_from_checkpoint true"
            raise RunFolderError(f"the run in {str(self.path)!r} has not ended: {why}", fix=fix)
        return json.loads(self.summary.read_text(encoding="utf-8"))

    def write_samples(self, name: str, lines: list[str]) -> None:
        """Write texts, one in each line, as the samples of an evaluation."""
        path = self.samples / f"{name}.txt"
        with writable(path):
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Say in one line, by a RunFolderError, that a file or a folder cannot be written."""
    try:
        yield
    except Exception as error:
        # libraries written in Rust have errors of their own for the disk
        if not isinstance(error, OSError) and "(os error " not in str(error):
            raise
        why = getattr(error, "strerror", None) or str(error).strip()
        resume = "a run that has checkpoints goes on with training.resume_from_checkpoint=true"
        fix = f"make room, change the permissions or choose another `training.output_dir`; {resume}"
        raise RunFolderError(f"cannot write {str(path)!r} ({why})", fix=fix) from error


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
