"""Nothing lost: checkpoints that are whole or not there, and faults that are told in one line."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from transformers import TrainerCallback

from seqgan_hf.commands import main
from seqgan_hf.objectives import ConstantReward, Reinforce
from seqgan_hf.runs.folder import RunFolder, RunFolderError
from seqgan_hf.runs.record import read_lines
from seqgan_hf.training import checkpoint as checkpointing
from seqgan_hf.training.checkpoint import CheckpointWriter, RandomState, checkpoints, fault, tidy
from tests.tools.small_runs import (
    BRIEF,
    build,
    cut_and_resumed,
    finished,
    metrics,
    quickstart,
    same,
    small_corpus,
    weights,
)


pytestmark = pytest.mark.usefixtures("without_pictures")
FULL = OSError(errno.ENOSPC, "No space left on device")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    """Another byte, the same size: a fault of the disk."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def unlist(*names: str):
    """The list of files loses some, or all if none is named."""

    def damage(path: Path) -> None:
        progress = json.loads(path.read_text())
        kept = {name: entry for name, entry in progress["files"].items() if names and name not in names}
        path.write_text(json.dumps(progress | {"files": kept}))

    return damage


DAMAGE = {
    "nothing listed": ("complete.json", unlist(), "complete.json lists no shared.pt"),
    "state not listed": ("complete.json", unlist("shared.pt"), "complete.json lists no shared.pt"),
    "random numbers not listed": ("complete.json", unlist("process-0.pt"), "complete.json lists no process-0.pt"),
    "weights not listed": ("complete.json", unlist("generator/model.safetensors"), "lists no generator/"),
    "truncated weights": ("generator/model.safetensors", truncate, "bytes instead of"),
    "a flipped bit": ("discriminator/model.safetensors", flip, "have changed"),
    "no weights": ("generator/model.safetensors", Path.unlink, "cannot be read"),
    "no random numbers": ("process-0.pt", Path.unlink, "cannot be read"),
    "half-written state": ("shared.pt", truncate, "bytes instead of"),
    "half-written progress": ("complete.json", truncate, "complete.json is broken"),
    "no progress": ("complete.json", Path.unlink, "complete.json cannot be read"),
    "an empty folder": ("", shutil.rmtree, "complete.json cannot be read"),
}


@pytest.fixture(scope="module")
def corpus():
    return small_corpus()


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    trainer = build(corpus, folder, save_every=1, save_total_limit=2)
    trainer.train()
    return folder, weights(trainer)


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_run_goes_on_from_the_newest_whole_checkpoint(kind, whole, corpus, tmp_path, caplog):
    folder, end = whole
    shutil.copytree(folder, tmp_path / "run")
    name, damage, message = DAMAGE[kind]
    newest = tmp_path / "run" / "checkpoints" / "checkpoint-44"
    damage(newest / name)
    if not newest.exists():
        newest.mkdir()
    assert message in fault(newest) and fault(newest.with_name("checkpoint-31")) is None
    (newest.parent / ".checkpoint-50.partial").mkdir()
    resumed = build(corpus, tmp_path / "run", resume_from_checkpoint=True, save_every=1)
    resumed.train()
    assert not list(newest.parent.glob(".*")), "litter"
    assert "Skipping corrupt checkpoint-44: " in caplog.text
    assert same(weights(resumed), end)
    assert metrics(tmp_path / "run") == metrics(folder)
    assert fault(newest) is None, "it has been written again"


def test_a_broken_checkpoint_that_is_named_is_refused(whole, corpus, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    named = tmp_path / "run" / "checkpoints" / "checkpoint-44"
    truncate(named / "generator" / "model.safetensors")
    with pytest.raises(RunFolderError, match="no complete checkpoint .generator/model.safeten.* bytes instead of"):
        build(corpus, tmp_path / "run", resume_from_checkpoint=str(named)).train()
    truncate(named.with_name("checkpoint-31") / "shared.pt")
    with pytest.raises(RunFolderError, match="No complete checkpoint in"):
        build(corpus, tmp_path / "run", resume_from_checkpoint=True).train()


def test_going_on_from_an_older_checkpoint_gives_up_the_later_ones(corpus, tmp_path, caplog):
    """They would be newer than all that follows: it would be rotated away at once, and they be resumed from."""
    folder = tmp_path / "run" / "checkpoints"
    build(corpus, tmp_path / "run", save_every=1, save_total_limit=9).train()
    truncate(folder / "checkpoint-44" / "shared.pt")
    settings = {"save_every": 1, "save_total_limit": 2, "discriminator_pretrain_steps": 3, "rounds": 0}
    resumed = build(corpus, tmp_path / "run", resume_from_checkpoint=str(folder / "checkpoint-12"), **settings)
    kept = []
    resumed.session.callbacks.append(Listing(folder, kept))
    resumed.train()
    message = "Going on from checkpoint-12; removed later checkpoints: checkpoint-18, checkpoint-31, checkpoint-44"
    assert message in caplog.messages
    assert kept == [["checkpoint-12", "checkpoint-18"], ["checkpoint-18", "checkpoint-24"]]
    assert [line["global_step"] for line in metrics(tmp_path / "run")] == [3, 6, 12, 18, 24]


class Listing(TrainerCallback):
    def __init__(self, folder: Path, found: list[list[str]]):
        self.folder, self.found = folder, found

    def on_save(self, args, state, control, **kwargs):
        self.found.append([path.name for path in checkpoints(self.folder)])


def test_broken_checkpoints_take_nobodys_place(tmp_path):
    for number in range(1, 7):
        write(tmp_path, f"checkpoint-{number}", "content")
    for number in (3, 5):
        flip(tmp_path / f"checkpoint-{number}" / "shared.pt")
    checkpointing.rotate(tmp_path, 2, keep="checkpoint-1")
    assert [path.name for path in checkpoints(tmp_path)] == [f"checkpoint-{number}" for number in (1, 4, 5, 6)]


class Killed(BaseException):
    pass


def write(folder: Path, name: str, content: str) -> None:
    writer = CheckpointWriter(folder, name)
    writer.begin()
    (writer.aside / "generator").mkdir()
    for name in ("shared.pt", "process-0.pt", "generator/model.safetensors"):
        (writer.aside / name).write_text(content)
    writer.commit({"content": content})


@pytest.mark.parametrize("moment", range(1, 12))
@pytest.mark.parametrize("name", ["checkpoint-1", "checkpoint-2"], ids=["the same name", "a new name"])
def test_a_kill_at_any_instant_leaves_a_whole_checkpoint(name, moment, tmp_path, monkeypatch):
    """Killed before every call that changes the disk, while a checkpoint is written, replaced and rotated."""
    write(tmp_path, "checkpoint-1", "old")
    calls, removing = 0, shutil.rmtree

    def deadly(function):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == moment:
                if function is removing:  # half of it is gone
                    next((path for path in Path(arguments[0]).glob("shared.pt")), Path("none")).unlink(missing_ok=True)
                raise Killed
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patched:
        for module, function in ((checkpointing.os, "replace"), (shutil, "rmtree"), (checkpointing, "_flush")):
            patched.setattr(module, function, deadly(getattr(module, function)))
        patched.setattr(Path, "write_text", deadly(Path.write_text))
        try:
            write(tmp_path, name, "new")
            checkpointing.rotate(tmp_path, 1, None)
            assert calls < moment
        except Killed:
            pass
    tidy(tmp_path)
    found = checkpoints(tmp_path)
    assert found and [fault(path) for path in found] == [None] * len(found)
    assert (found[-1] / "shared.pt").read_text() in ("old", "new")
    assert not list(tmp_path.glob(".*")), "litter"


def test_what_counts_is_on_the_disk(tmp_path, monkeypatch):
    """All files and folders are flushed before a checkpoint has its name, and then the name."""
    flushed, rename = set(), os.replace

    def replace(aside, path):
        assert {entry.stat().st_ino for entry in (aside, *aside.rglob("*"))} == flushed
        flushed.clear()
        rename(aside, path)

    monkeypatch.setattr("os.fsync", lambda descriptor: flushed.add(os.fstat(descriptor).st_ino))
    monkeypatch.setattr("os.replace", replace)
    write(tmp_path, "checkpoint-1", "content")
    assert flushed == {tmp_path.stat().st_ino}


def test_every_random_source_is_kept():
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    torch.randn(1), np.random.randn(1), random.gauss(0, 1)  # leaves half of a pair in each
    state = RandomState().state_dict()

    def draw():
        return random.gauss(0, 1), random.random(), np.random.randn(), float(torch.randn(1)), float(torch.rand(1))

    first = draw()
    draw()
    RandomState().load_state_dict(state)
    assert draw() == first


# --- Faults ----------------------------------------------------------------------------------------------------------


def fails_at(call: int, function, error: Exception):
    """The function, which raises at its n-th call."""
    calls = 0

    def wrapped(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == call:
            raise error
        return function(*arguments, **options)

    return wrapped


@pytest.mark.parametrize(
    ("target", "name", "error"),
    [
        (torch, "save", FULL),
        (torch, "save", RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")),
        (checkpointing, "_flush", FULL),
        (None, "save_pretrained", SafetensorError("Error while serializing: I/O error: No space left on device")),
    ],
)
def test_a_full_disk_leaves_the_old_checkpoint_and_one_clear_line(
    target, name, error, whole, corpus, tmp_path, monkeypatch
):
    trainer = build(corpus, tmp_path / "run", save_every=1)
    target = type(trainer.models.generator) if target is None else target
    first = 3 if target is torch else 26 if name == "_flush" else 2
    monkeypatch.setattr(target, name, fails_at(first, getattr(target, name), error))
    with pytest.raises(RunFolderError, match="Cannot write .*Make room on the disk.* and resume from") as got:
        trainer.train()
    assert len(str(got.value).splitlines()) == 1
    (old,) = checkpoints(tmp_path / "run" / "checkpoints")
    assert fault(old) is None and not list(old.parent.glob(".*"))
    monkeypatch.undo()
    resumed = build(corpus, tmp_path / "run", resume_from_checkpoint=True)
    resumed.train()
    assert same(weights(resumed), whole[1])


def test_a_full_disk_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "save", fails_at(1, torch.save, FULL))
    assert main(quickstart(tmp_path / "run")) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in error and "and start again" in error


def test_a_full_disk_while_logging(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(json, "dumps", fails_at(3, json.dumps, FULL))
    with pytest.raises(RunFolderError, match="Cannot write .*metrics.jsonl' .No space left on device"):
        build(corpus, tmp_path / "run").train()


@pytest.mark.parametrize(
    ("owner", "name"), [("model", "save_pretrained"), ("tokenizer", "save_pretrained"), ("folder", "write_summary")]
)
def test_a_full_disk_at_the_very_end(owner, name, whole, corpus, tmp_path, monkeypatch):
    """Only the results are to be written: the run is done, and resuming it writes them."""
    shutil.copytree(whole[0], tmp_path / "run")
    trainer = build(corpus, tmp_path / "run", resume_from_checkpoint=True)
    target = {"model": trainer.models.discriminator, "tokenizer": trainer.tokenizer, "folder": trainer.session.folder}[
        owner
    ]
    error = {
        "model": SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        "tokenizer": Exception("No space left on device (os error 28)"),
        "folder": FULL,
    }[owner]
    monkeypatch.setattr(type(target), name, fails_at(1, getattr(type(target), name), error))
    with pytest.raises(RunFolderError, match="Cannot write .*No space left .*Make room") as got:
        trainer.train()
    assert len(str(got.value).splitlines()) == 1
    build(corpus, tmp_path / "run", resume_from_checkpoint=True).train()
    assert RunFolder(tmp_path / "run").read_summary()["global_step"] == 44


def test_a_full_disk_while_resuming_is_no_fault_of_the_checkpoint(whole, corpus, tmp_path, monkeypatch):
    shutil.copytree(whole[0], tmp_path / "run")

    def refuse(*arguments, **options):
        raise FULL

    trainer = build(corpus, tmp_path / "run", resume_from_checkpoint=True)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RunFolderError, match="^Cannot write .*metrics.partial' .No space left"):
        trainer.train()


@pytest.mark.parametrize("left", [".checkpoint-50.partial", "checkpoint-99"])
def test_what_cannot_be_removed_from_a_read_only_folder(left, whole, corpus, tmp_path, monkeypatch):
    shutil.copytree(whole[0], tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / left).mkdir()

    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    monkeypatch.setattr(checkpointing.os, "replace", refuse)
    with pytest.raises(RunFolderError, match="Cannot write .*Read-only file system"):
        build(corpus, tmp_path / "run", resume_from_checkpoint=True).train()


def test_a_folder_that_became_read_only(whole, corpus, tmp_path, monkeypatch):
    shutil.copytree(whole[0], tmp_path / "run")

    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(RunFolderError, match="Cannot write .*Read-only file system"):
        build(corpus, tmp_path / "run", resume_from_checkpoint=True).train()


def test_a_checkpoint_of_another_recipe(tmp_path, capsys, caplog):
    assert main(quickstart(tmp_path / "run")) == 0
    capsys.readouterr()
    more = ["--training.resume_from_checkpoint", "true", "--training.generator_learning_rate", "0.003"]
    assert main(quickstart(tmp_path / "run", *more)) == 0
    assert "generator_learning_rate=0.003 (was 0.002)" in caplog.text
    assert main(quickstart(tmp_path / "run", *more, "--generator.config.hidden_size", "9")) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "does not fit this run or is damaged" in error
    assert "the recipes differ in generator.config.hidden_size=9 (was 8), training.generator_learning_rate" in error


def test_going_on_in_another_folder(tmp_path, caplog):
    """It gets the recipe, and the differences are those from the run that the checkpoint is of."""
    assert main(quickstart(tmp_path / "run", "--training.metric_for_best_model", "nll_test")) == 0
    caplog.clear()
    old = checkpoints(tmp_path / "run" / "checkpoints")[0]
    more = ["--training.resume_from_checkpoint", str(old), "--training.generator_learning_rate", "0.003"]
    more += ["--training.metric_for_best_model", "nll_test", "--training.load_best_model_at_end", "true"]
    assert main(quickstart(tmp_path / "other", *more)) == 0
    assert "generator_learning_rate=0.003 (was 0.002)" in caplog.text and "looking for a new best one" in caplog.text
    assert "generator_learning_rate: 0.003" in (tmp_path / "other" / "recipe.yaml").read_text()
    assert "generator_learning_rate: 0.002" in (tmp_path / "run" / "recipe.yaml").read_text()
    assert old in checkpoints(tmp_path / "run" / "checkpoints"), "another run's checkpoints are left alone"


def test_changed_data_are_noticed(corpus, tmp_path, caplog):
    build(corpus, tmp_path / "run", rounds=1).train()
    assert "training data differ" not in caplog.text
    build(corpus, tmp_path / "run", rounds=1, resume_from_checkpoint=True).train()
    assert "training data differ" not in caplog.text
    ids = corpus.train.ids.clone()
    ids[7, 2] = (ids[7, 2] + 1) % 13
    other = dataclasses.replace(corpus, train=corpus.train._replace(ids=ids))
    build(other, tmp_path / "run", rounds=1, resume_from_checkpoint=True).train()
    assert "training data differ from those of the checkpoint" in caplog.text


@pytest.mark.parametrize(("place", "file"), [("shared", "shared.pt"), ("own", "process-0.pt")])
def test_a_checkpoint_without_the_state_of_a_part_is_refused_in_one_line(corpus, tmp_path, place, file):
    settings = {"pretrain_epochs": 1, "rounds": 0, "eval_epochs": 0}
    build(corpus, tmp_path / "run", ConstantReward(), **settings).train()
    again = build(corpus, tmp_path / "run", ConstantReward(), resume_from_checkpoint=True, **settings)
    getattr(again.parts.checkpoints, place).update(mine=RandomState(), yours=RandomState())
    with pytest.raises(RunFolderError, match=rf"does not fit .*: {file} has no state of mine, yours") as got:
        again.train()
    assert len(str(got.value).splitlines()) == 1


class Scaled(Accelerator):
    """With a gradient scaler, as in float16 on a GPU, whose scale grows after every third step."""

    def __init__(self, **options):
        super().__init__(**options)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)

    def unscale_gradients(self, optimizer):
        self.scaler.unscale_(optimizer.optimizer)


@pytest.mark.parametrize("step", [4, 13])
def test_a_gradient_scaler_goes_on_where_the_checkpoint_left_it(corpus, tmp_path, monkeypatch, step):
    monkeypatch.setattr("seqgan_hf.training.session.Accelerator", Scaled)

    def make():
        return {"objective": Reinforce()}

    whole = finished(make, corpus, tmp_path / "whole", **BRIEF)
    cut, resumed = cut_and_resumed(make, corpus, tmp_path / "cut", step, **BRIEF)
    assert cut.session.accelerator.scaler.get_scale() > 8.0
    states = [trainer.session.accelerator.scaler.state_dict() for trainer in (whole, resumed)]
    assert states[0] == states[1] and same(weights(whole), weights(resumed))


def test_metrics_are_cut_back_whole(tmp_path):
    folder = RunFolder(tmp_path)
    for step in range(4):
        folder.append_metrics({"step": step})
    with folder.metrics.open("a") as file:
        file.write('{"step": 4, "half')
    assert folder.count_metrics() == 5
    folder.truncate_metrics(3)
    assert read_lines(folder.metrics) == [{"step": 0}, {"step": 1}, {"step": 2}]
