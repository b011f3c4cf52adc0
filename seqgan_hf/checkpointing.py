"""Checkpoints of a run: written aside and renamed when whole, so that a kill leaves the last good one."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch


PREFIX = "checkpoint-"
COMPLETE = "progress.json"  # written last


def rng_state() -> dict[str, Any]:
    """The state of every source of random numbers of this process, as tensors and plain values."""
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "accelerator": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Take back what `rng_state` gave."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    for cuda_state in state["accelerator"]:
        torch.cuda.set_rng_state(cuda_state.cpu())


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints below `folder`, oldest first."""
    found = [path for path in folder.glob(f"{PREFIX}*") if (path / COMPLETE).is_file()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)))


def rotate(folder: Path, limit: int | None, keep: str | None) -> None:
    """Remove all but the newest `limit` checkpoints; the one named `keep` stays."""
    if limit is None:
        return
    for path in checkpoints(folder)[: -max(1, limit)]:
        if path.name != keep:
            shutil.rmtree(path)


class CheckpointWriter:
    """Collects the files of a checkpoint in a folder aside, and gives it its name when all are written.

    Args:
        folder: holds all checkpoints.
        name: of this one, `checkpoint-<number>`.
    """

    def __init__(self, folder: Path, name: str):
        self.path = folder / name
        self.aside = folder / f".{name}.partial"

    def begin(self) -> Path:
        shutil.rmtree(self.aside, ignore_errors=True)
        self.aside.mkdir(parents=True)
        return self.aside

    def commit(self, progress: dict[str, Any]) -> None:
        (self.aside / COMPLETE).write_text(json.dumps(progress, indent=1))
        _flush(self.aside)
        shutil.rmtree(self.path, ignore_errors=True)
        os.replace(self.aside, self.path)


def _flush(folder: Path) -> None:
    """Make sure that the files are on the disk before the folder gets its name."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
