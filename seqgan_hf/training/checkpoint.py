"""Checkpoints of a run: written aside and renamed when whole, so that a kill leaves the last good one."""

from __future__ import annotations

import fnmatch
import json
import os
import random
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from ..errors import RunFolderError


PREFIX = "checkpoint-"
COMPLETE = "progress.json"  # written last
# Files without which nothing can be resumed from, as patterns.
NEEDED = ("trainer.pt", "process-0.pt", "generator/*.safetensors")
# Endings of folders that are no checkpoints yet, or no more.
PARTIAL, REPLACED, REMOVED = ".partial", ".replaced", ".removed"


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
    """Checkpoints below `folder` that have a name, oldest first; a fault of the disk may have broken them since."""
    found = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)))


def fault(path: Path) -> str | None:
    """What is wrong with a checkpoint; `None` if it is whole: all its files are there, with the bytes written then."""
    try:
        files = json.loads((path / COMPLETE).read_text(encoding="utf-8"))["files"]
        for needed in NEEDED:
            if not fnmatch.filter(files.keys(), needed):
                return f"{COMPLETE} lists no {needed}"
        for name, (size, checksum) in files.items():
            if (path / name).stat().st_size != size:
                return f"{name} has {(path / name).stat().st_size} bytes instead of {size}"
            if _checksum(path / name) != checksum:
                return f"the bytes of {name} have changed"
    except OSError as error:
        return f"{error.filename and Path(error.filename).name} cannot be read ({error.strerror})"
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"{COMPLETE} is broken"
    return None


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            checksum = zlib.crc32(block, checksum)
    return checksum


def newest_whole(folder: Path) -> Path | None:
    """The checkpoint to go back to, if there is any."""
    return next((path for path in reversed(checkpoints(folder)) if fault(path) is None), None)


def way_back(folder: Path) -> str:
    """The remedy for a run that went wrong, as part of a message."""
    whole = newest_whole(folder)
    return "start anew" if whole is None else f"resume from {whole.name} with resume_from_checkpoint=true"


def rotate(folder: Path, limit: int | None, keep: str | None) -> None:
    """Remove what is older than the newest `limit` whole checkpoints; the one named `keep` stays."""
    if limit is None:
        return
    whole = 0
    for path in reversed(checkpoints(folder)):
        if whole < max(1, limit):
            whole += fault(path) is None  # a broken one takes nobody's place
        elif path.name != keep:
            _remove(path)


def remove_after(folder: Path, number: int) -> list[str]:
    """Remove the checkpoints with a number above `number`, newest first; returns their names, oldest first."""
    later = [path for path in checkpoints(folder) if int(path.name.removeprefix(PREFIX)) > number]
    for path in reversed(later):
        _remove(path)
    return [path.name for path in later]


def _remove(path: Path) -> None:
    """Take the name first, so that a kill leaves no half of a checkpoint."""
    gone = path.with_name(f".{path.name}{REMOVED}")
    shutil.rmtree(gone, ignore_errors=True)
    os.replace(path, gone)
    shutil.rmtree(gone)


def tidy(folder: Path) -> None:
    """Clear away what a kill has left behind; a checkpoint that was about to be replaced gets its name back."""
    for path in folder.glob(f".{PREFIX}*{REPLACED}"):
        named = folder / path.name[1:].removesuffix(REPLACED)
        if not named.exists():
            os.replace(path, named)
    for left in (PARTIAL, REPLACED, REMOVED):
        for path in folder.glob(f".{PREFIX}*{left}"):
            shutil.rmtree(path)


class CheckpointWriter:
    """Collects the files of a checkpoint in a folder aside, and gives it its name when all are written.

    Args:
        folder: holds all checkpoints.
        name: of this one, `checkpoint-<number>`.
    """

    def __init__(self, folder: Path, name: str):
        self.path = folder / name
        self.aside = folder / f".{name}{PARTIAL}"
        self.replaced = folder / f".{name}{REPLACED}"

    def begin(self) -> None:
        shutil.rmtree(self.aside, ignore_errors=True)
        self.aside.mkdir(parents=True)

    def commit(self, progress: dict[str, Any]) -> None:
        """Seal the files with a list of them, and give the folder its name: from now on it counts."""
        files = {
            path.relative_to(self.aside).as_posix(): [path.stat().st_size, _checksum(path)]
            for path in sorted(self.aside.rglob("*"))
            if path.is_file()
        }
        (self.aside / COMPLETE).write_text(json.dumps(progress | {"files": files}, indent=1), encoding="utf-8")
        for path in (*self.aside.rglob("*"), self.aside):
            _flush(path)
        if self.path.exists():
            os.replace(self.path, self.replaced)
        os.replace(self.aside, self.path)
        _flush(self.path.parent)
        shutil.rmtree(self.replaced, ignore_errors=True)

    @contextmanager
    def clear_of_errors(self) -> Iterator[None]:
        """Say in one line what could not be written, and leave the room that it took.

        Raises:
            RunFolderError: the disk is full, or something else keeps a file from being written.
        """
        try:
            yield
        except (OSError, SafetensorError, RuntimeError) as error:
            shutil.rmtree(self.aside, ignore_errors=True)
            whole = newest_whole(self.path.parent)
            left = (
                f"{whole.name} is untouched: resume from it" if whole else "there is none to resume from: start anew"
            )
            raise RunFolderError(
                f"{str(self.path)!r}, which cannot be written ({str(error).strip()})",
                "room on the disk and the permission to write",
                f"make room; {left}",
            ) from error


def _flush(path: Path) -> None:
    """Make sure that a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
