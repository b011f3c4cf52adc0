"""Checkpoints: the state of every part of a run, written aside and renamed when whole, so that a kill loses nothing.

A part is anything with `state_dict` and `load_state_dict`. A new one is named where the trainer makes its parts;
nothing here knows what they are.
"""

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
from pickle import UnpicklingError
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, set_seed
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import RunFolderError, TrainingError
from ..objectives import Models
from ..runs.folder import writable
from .batches import seeded
from .best import Best
from .processes import agreed, alone_by_mistake, check_same_weights, some_of
from .session import Session


PREFIX = "checkpoint-"
COMPLETE = "complete.json"  # written last
# Files without which nothing can be resumed from, as patterns.
NEEDED = ("shared.pt", "process-0.pt", "generator/*.safetensors")
# Endings of folders that are no checkpoints yet, or no more.
PARTIAL, REPLACED, REMOVED = ".partial", ".replaced", ".removed"


class RandomState:
    """The state of every source of random numbers of this process, as tensors and plain values."""

    def state_dict(self) -> dict[str, Any]:
        version, words, gauss = random.getstate()
        legacy: Any = np.random.get_state()
        name, keys, *rest = legacy
        return {
            "python": [version, list(words), gauss],
            "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
            "torch": torch.get_rng_state(),
            "accelerator": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
        torch.set_rng_state(state["torch"].cpu())
        for cuda_state in state["accelerator"]:
            torch.cuda.set_rng_state(cuda_state.cpu())


class Part(Protocol):
    """Something whose state survives a checkpoint; the state holds tensors and plain values only."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Checkpoints:
    """Saves and loads the state of a run.

    Args:
        models: each becomes a folder as `save_pretrained` writes it.
        best: the best evaluation so far, whose checkpoint is never rotated away.
        shared: parts whose state is the same on all processes, by name; saved once.
        own: parts whose state may differ from process to process; saved by each.
        fingerprint: of the training data, to tell whether a run goes on with others.
        tokenizers: by the name of the model that each is saved with, so that a checkpoint can be sampled from.
    """

    def __init__(
        self,
        session: Session,
        models: Models,
        best: Best,
        shared: dict[str, Part],
        own: dict[str, Part],
        fingerprint: int,
        tokenizers: dict[str, PreTrainedTokenizerBase],
    ):
        self.session, self.models, self.best, self.fingerprint = session, models, best, fingerprint
        self.tokenizers = tokenizers
        self.shared: dict[str, Part] = {"session": session, "best": best, **shared}
        self.own: dict[str, Part] = {**own, "random": RandomState()}  # last, since loading the others may draw numbers

    def save(self) -> Path:
        """Everything that the run needs to go on exactly as if it had not stopped; returns the checkpoint's folder.

        Raises:
            TrainingError: the weights differ between processes, or are not finite.
            RunFolderError: it cannot be written.
        """
        session = self.session
        check_same_weights(session.accelerator, self.models.named())
        with agreed(session.accelerator):
            check_finite_weights(self.models.named(), session)
        writer = CheckpointWriter(session.folder.checkpoints, f"{PREFIX}{session.state.global_step}")
        self.best.name_checkpoint(writer.path.name)
        for write in (self._write_shared, self._write_own, self._seal):
            with agreed(session.accelerator), writer.clear_of_errors():
                write(writer)
        session.call("on_save")
        return writer.path

    def _write_shared(self, writer: CheckpointWriter) -> None:
        if self.session.is_main:
            writer.begin()
            for name, model in self.models.named().items():
                model.save_pretrained(writer.aside / name)
            for name, tokenizer in self.tokenizers.items():
                tokenizer.save_pretrained(writer.aside / name)
            torch.save({name: part.state_dict() for name, part in self.shared.items()}, writer.aside / "shared.pt")

    def _write_own(self, writer: CheckpointWriter) -> None:
        state = {name: part.state_dict() for name, part in self.own.items()}
        torch.save(state, writer.aside / f"process-{self.session.accelerator.process_index}.pt")

    def _seal(self, writer: CheckpointWriter) -> None:
        session = self.session
        if session.is_main:
            session.folder.update_recipe()
            processes, lines = session.accelerator.num_processes, session.folder.count_metrics()
            facts = {"metrics_lines": lines, "training_data": self.fingerprint, "processes": processes}
            writer.commit(facts | {"models": list(self.models.named())})
            rotate(session.folder.checkpoints, session.args.save_total_limit, keep=self.best.checkpoint)

    def open_run(self) -> None:
        """Make the run's folder ready, and go on from a checkpoint if the settings ask for it; raises as both do."""
        session, resumed = self.session, None
        with agreed(session.accelerator):
            if session.is_main:
                if resuming := session.args.resume_from_checkpoint not in (None, False, "false", "False"):
                    with writable(session.folder.path):
                        tidy(session.folder.checkpoints)
                    resumed = self.find()
                session.folder.open(resuming, session.args.overwrite_run)
        (resumed,) = broadcast_object_list([resumed])
        if resumed is not None:
            with agreed(session.accelerator):
                self.resume(resumed)
        if alone := alone_by_mistake(session.accelerator):
            session.say("%s", alone)

    def find(self) -> Path:
        """What `resume_from_checkpoint` names, or the newest whole one; a RunFolderError if it is broken or absent."""
        named, folder = self.session.args.resume_from_checkpoint, self.session.folder.checkpoints
        if named not in (True, "true", "True"):
            if (broken := fault(path := Path(str(named)))) is None:
                return path
            problem = f"resume_from_checkpoint={named!r} is no complete checkpoint ({broken})"
            raise RunFolderError(problem, fix="name another one, or `true` for the newest complete one")
        for path in reversed(checkpoints(folder)):
            if (broken := fault(path)) is None:
                return path
            self.session.say("Skipping corrupt %s: %s", path.name, broken)
        fix = "check `training.output_dir`, or start again without resume_from_checkpoint"
        raise RunFolderError(f"no complete checkpoint in {str(folder)!r} to resume from", fix=fix)

    def resume(self, path: Path) -> None:
        """Take back everything, and forget what the run did later; a RunFolderError if it is another's, or damaged."""
        session = self.session
        for difference in (differences := session.folder.recipe_differences(path)):
            session.say("The recipe differs from the checkpoint's: %s", difference)
        try:
            metrics_lines = self._load(path)
        except (RuntimeError, LookupError, ValueError, OSError, SafetensorError, UnpicklingError) as error:
            differ = f"; the recipes differ in {', '.join(differences)}" if differences else ""
            why = (str(error).strip() or "no message").splitlines()[0]
            problem = f"{str(path)!r} does not fit this run or is damaged ({type(error).__name__}: {why}{differ})"
            fix = "resume with the recipe that it was made with, or name an older checkpoint"
            raise RunFolderError(problem, fix=fix) from error
        if session.is_main:
            with writable(session.folder.path):
                later = remove_after(session.folder.checkpoints, session.state.global_step)
            if later:
                session.say("Going on from %s; removed later checkpoints: %s", path.name, ", ".join(later))
            session.folder.truncate_metrics(metrics_lines)

    def _load(self, path: Path) -> int:
        """Load models and parts; returns how many lines of metrics had been written."""
        session, facts = self.session, json.loads((path / COMPLETE).read_text(encoding="utf-8"))
        if not set(facts["models"]) <= set(self.models.named()):
            self.models.begin()
        models = self.models.named()
        if list(models) != facts["models"]:
            raise ValueError(f"it holds the models {', '.join(facts['models'])}, this run {', '.join(models)}")
        for name, model in models.items():
            load_weights(model, path / name)
        _load_parts(self.shared, path / "shared.pt", session)
        index, number, saved = session.accelerator.process_index, session.accelerator.num_processes, facts["processes"]
        own = self.own if number == saved else {name: p for name, p in self.own.items() if name != "random"}
        _load_parts(own, path / f"process-{min(index, saved - 1)}.pt", session)
        if number != saved:
            counts = f"The checkpoint is of {saved} processes, this run has {number}"
            session.say("%s: it goes on with other batches and random numbers", counts)
            set_seed(seeded((session.args.seed, session.state.global_step, index)) % 2**32)
        if facts["training_data"] != self.fingerprint:
            session.say("The training data differ from those of the checkpoint; going on with the new ones")
        return facts["metrics_lines"]


def _load_parts(parts: dict[str, Part], path: Path, session: Session) -> None:
    state = torch.load(path, map_location=session.device, weights_only=True)
    if lacking := [name for name in parts if name not in state]:
        raise ValueError(f"{path.name} has no state of {', '.join(lacking)}")
    for name, part in parts.items():
        part.load_state_dict(state[name])


def load_weights(model: PreTrainedModel, folder: Path) -> None:
    """Put the weights that `save_pretrained` wrote into a model that exists; of an adapted one, those of its adapter.

    Raises:
        ValueError: the folder lacks some of them.
    """
    if getattr(model, "peft_config", None):
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        saved = load_file(folder / "adapter_model.safetensors")
        state = {name.removeprefix("base_model.model."): weight for name, weight in saved.items()}
        if lacking := [name for name in get_peft_model_state_dict(model) if name not in state]:
            raise ValueError(f"the adapter in {folder.name} has no {some_of(lacking)}")
        set_peft_model_state_dict(model, state)
        return
    saved_model = type(model).from_pretrained(folder, dtype=model.dtype, use_safetensors=True)
    model.load_state_dict(saved_model.state_dict())


def check_finite_weights(models: dict[str, PreTrainedModel], session: Session) -> None:
    """A checkpoint is something to go back to, so none is made of bad weights: a TrainingError names some of them."""
    named = {f"{name}.{key}": p for name, model in models.items() for key, p in model.named_parameters()}
    finite = torch.stack([parameter.isfinite().all() for parameter in named.values()]).tolist()
    if bad := [name for name, good in zip(named, finite, strict=True) if not good]:
        problem = f"weights that are not finite ({some_of(bad)}) at step {session.state.global_step}"
        fix = f"lower the learning rate or clip the gradient, and {way_back(session.folder.checkpoints)}"
        raise TrainingError(f"{problem}; no checkpoint is made of them", fix=fix)


# --- Files -----------------------------------------------------------------------------------------------------------


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints below `folder` that have a name, oldest first; a fault of the disk may have broken them since."""
    found = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)))


def fault(path: Path) -> str | None:
    """What is wrong with a checkpoint; `None` if it is whole: all its files are there, with the bytes written then."""
    try:
        files = json.loads((path / COMPLETE).read_text(encoding="utf-8"))["files"]
        for needed in NEEDED:
            if not fnmatch.filter(files, needed):
                return f"{COMPLETE} lists no {needed}"
        for name, (size, checksum) in files.items():
            if (found := (path / name).stat().st_size) != size:
                return f"{name} has {found} bytes instead of {size}"
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


def way_back(folder: Path) -> str:
    """The remedy for a run that went wrong, as part of a message."""
    whole = next((path.name for path in reversed(checkpoints(folder)) if fault(path) is None), None)
    return f"resume from {whole} with resume_from_checkpoint=true" if whole else "start again"


def rotate(folder: Path, limit: int | None, keep: str | None) -> None:
    """Remove what is older than the newest `limit` complete checkpoints; the one named `keep` stays."""
    if limit is None:
        return
    whole = 0
    for path in reversed(checkpoints(folder)):
        if whole < max(1, limit):
            whole += fault(path) is None  # a broken one takes no other's place
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
    """Collects the files of a checkpoint in a folder aside, and gives it its name when all are written."""

    def __init__(self, folder: Path, name: str):
        self.path = folder / name
        self.aside = folder / f".{name}{PARTIAL}"
        self.replaced = folder / f".{name}{REPLACED}"

    def begin(self) -> None:
        shutil.rmtree(self.aside, ignore_errors=True)
        self.aside.mkdir(parents=True)

    def commit(self, progress: dict[str, Any]) -> None:
        """Seal the files with a list of them, and give the folder its name: from now on it counts."""
        paths = sorted(path for path in self.aside.rglob("*") if path.is_file())
        files = {path.relative_to(self.aside).as_posix(): [path.stat().st_size, _checksum(path)] for path in paths}
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
        """Say in one line, by a RunFolderError, what could not be written, and leave the room that it took."""
        try:
            yield
        except (OSError, SafetensorError, RuntimeError) as error:
            shutil.rmtree(self.aside, ignore_errors=True)
            fix = f"make room on the disk, or check its permissions, and {way_back(self.path.parent)}"
            raise RunFolderError(f"cannot write {str(self.path)!r} ({str(error).strip()})", fix=fix) from error


def _flush(path: Path) -> None:
    """Make sure that a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
