"""The folder of a run: what it holds, and what may not be overwritten."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedTokenizerBase

from ..data import decode_batch
from ..samples import Samples
from ..errors import RunFolderError


# Sequences that are written as text at every evaluation.
SHOWN_SAMPLES = 50




class RunFolder:
    """Paths of a run and its records.

    Holds `recipe.yaml`, `generator/`, `discriminator/`, `checkpoints/`, `metrics.jsonl`, `samples/`, `figures/`,
    `oracle/` (of synthetic data) and, once the run has ended, `summary.json` and perhaps `evaluation/`.

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
        self.metrics = path / "metrics.jsonl"
        self.samples = path / "samples"
        self.figures = path / "figures"
        self.summary = path / "summary.json"

    def open(self, resuming: bool, overwrite: bool) -> None:
        """Make the folder ready.

        Raises:
            RunFolderError: it holds another run, or things that are no run and would be removed, or cannot be written.
        """
        held = [path for path in self._contents() if path.exists()]
        if held and not resuming and not overwrite:
            raise RunFolderError(
f"output_dir={str(self.path)!r}, which holds a run ({', '.join((p.name for p in held))})",
"a new folder",
"set `training.output_dir`, or resume that run with "
"training.resume_from_checkpoint=true, or replace it with training.overwrite_run=true")
        if held and overwrite and not self.metrics.exists():
            raise RunFolderError(
f"training.overwrite_run=true and output_dir={str(self.path)!r}, which holds "
f"{', '.join((p.name for p in held))} but no run (no {self.metrics.name})",
"a run to replace",
"set `training.output_dir` to another folder, or remove these yourself")
        with self.permitted():
            if not resuming:
                self._clear()
            for folder in (self.path, self.checkpoints, self.samples, self.figures):
                folder.mkdir(parents=True, exist_ok=True)
            if self.recipe_text is not None and not (resuming and self.recipe.exists()):
                self.recipe.write_text(self.recipe_text, encoding="utf-8")
            self.metrics.touch()

    @contextmanager
    def permitted(self) -> Iterator[None]:
        """Say in one line that the folder may not be changed.

        Raises:
            RunFolderError: instead of the `OSError`.
        """
        try:
            yield
        except OSError as error:
            raise RunFolderError(
f"output_dir={str(self.path)!r}, which cannot be written ({error.strerror})",
"a folder with write permission",
"set `training.output_dir`") from error

    def _contents(self) -> list[Path]:
        return [
            self.recipe,
            self.generator,
            self.discriminator,
            self.checkpoints,
            self.metrics,
            self.samples,
            self.figures,
            self.summary,
            self.path / "oracle",
            self.path / "evaluation",
        ]

    def _clear(self) -> None:
        for path in self._contents():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def recipe_differences(self, checkpoint: Path) -> list[str]:
        """Settings in which the run that a checkpoint is of differs from the one that is about to go on with it."""
        recipe = checkpoint.resolve().parents[1] / self.recipe.name  # <run>/checkpoints/<checkpoint>
        if not recipe.exists():
            recipe = self.recipe
        if self.recipe_text is None or not recipe.exists():
            return []
        old = _flatten(yaml.safe_load(recipe.read_text(encoding="utf-8")))
        new = _flatten(yaml.safe_load(self.recipe_text))
        names = sorted(old.keys() | new.keys())
        ignored = ("training.resume_from_checkpoint", "training.overwrite_run", "training.output_dir")
        return [
            f"{name}: {old.get(name)} -> {new.get(name)}"
            for name in names
            if old.get(name) != new.get(name) and name not in ignored
        ]

    def append_metrics(self, line: dict[str, Any]) -> None:
        with writable(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def count_metrics(self) -> int:
        """Lines that are logged."""
        with self.metrics.open("rb") as file:
            return sum(1 for _ in file)

    def read_metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def truncate_metrics(self, lines: int) -> None:
        """Forget what was logged after a checkpoint, since it is about to be done again."""
        kept = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)[:lines]
        aside = self.metrics.with_suffix(".partial")
        with writable(aside):
            aside.write_text("".join(kept), encoding="utf-8")
            aside.replace(self.metrics)

    def own(self, path: Path) -> Path:
        """The same path, once it is certain that it lies in this folder: what is shared comes from nowhere else.

        Raises:
            RunFolderError: it is a link, or leads out of the folder.
        """
        if path.is_symlink() or not path.resolve().is_relative_to(self.path.resolve()):
            raise RunFolderError(
f"{str(path)!r}, which is a link or leads out of the run's folder",
"a file of the run",
"put the file itself there")
        return path

    def write_summary(self, summary: dict[str, Any]) -> None:
        """What the model card needs to know of the run that has ended."""
        self.summary.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")

    def read_summary(self) -> dict[str, Any] | None:
        """What `write_summary` wrote; `None` if the run has not ended."""
        return json.loads(self.summary.read_text(encoding="utf-8")) if self.summary.exists() else None

    def write_samples(self, name: str, samples: Samples, tokenizer: PreTrainedTokenizerBase | None) -> None:
        """Sequences, one a line: as text, or as ids where there is no tokenizer."""
        lines = decode(samples, tokenizer)
        path = self.samples / f"{name}.txt"
        with writable(path):
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Say in one line that a file cannot be written.

    Raises:
        RunFolderError: instead of the error of the disk.
    """
    try:
        yield
    except Exception as error:
        # libraries written in Rust have errors of their own for the disk
        if not isinstance(error, OSError) and "(os error " not in str(error):
            raise
        why = getattr(error, "strerror", None) or str(error).strip()
        raise RunFolderError(
f"{str(path)!r}, which cannot be written ({why})",
"room on the disk and the permission to write",
"make room, and resume from the last checkpoint with training.resume_from_checkpoint=true") from error


def decode(samples: Samples, tokenizer: PreTrainedTokenizerBase | None) -> list[str]:
    """Continuations as text, one line each, unknown words as such; ids if there is no tokenizer."""
    rows = [ids[mask].tolist() for ids, mask in zip(samples.ids.cpu(), samples.mask.cpu(), strict=True)]
    if tokenizer is None:
        return [" ".join(map(str, row)) for row in rows]
    return [text.strip().replace("\n", "\\n") for text in decode_batch(tokenizer, rows)]


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
