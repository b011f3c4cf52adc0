"""The folder of a run: what may be overwritten, and that a disk that refuses is answered in one line."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from seqgan_hf.errors import RunFolderError
from seqgan_hf.runs.folder import RunFolder, writable
from seqgan_hf.runs.record import read_lines


def opened(path: Path, recipe: str | None = None) -> RunFolder:
    folder = RunFolder(path, recipe)
    folder.open(resuming=False, overwrite=False)
    return folder


def test_a_run_is_replaced_only_on_request_and_then_wholly(tmp_path):
    first = opened(tmp_path / "run", "training: {seed: 1}")
    first.append_metrics({"phase": "adversarial", "round": 1})
    first.write_samples("adversarial-1", ["a b", "c"])
    assert (first.samples / "adversarial-1.txt").read_text() == "a b\nc\n"
    (first.path / "mine.txt").write_text("not of the run")
    for name in ("oracle", "evaluation", "generator"):
        (first.path / name).mkdir()
    with pytest.raises(
        RunFolderError, match="already holds a run .recipe.yaml, generator, .*. Choose a new `training"
    ):
        opened(first.path)
    second = RunFolder(first.path, "training: {seed: 2}")
    second.open(resuming=False, overwrite=True)
    assert second.recipe.read_text() == "training: {seed: 2}" and read_lines(second.metrics) == []
    left = {path.name for path in first.path.iterdir()}
    assert left == {"recipe.yaml", "metrics.jsonl", "checkpoints", "samples", "figures", "mine.txt"}


def test_what_is_no_run_is_never_overwritten(tmp_path):
    (tmp_path / "figures").mkdir()
    with pytest.raises(RunFolderError, match="Refusing to overwrite '.*': it holds figures but no metrics.jsonl"):
        RunFolder(tmp_path).open(resuming=False, overwrite=True)


def test_a_resumed_run_keeps_its_recipe_and_the_differences_are_named(tmp_path):
    opened(tmp_path, "training: {seed: 1, rounds: 2, output_dir: a}\nobjective: {}")
    again = RunFolder(tmp_path, "training: {seed: 1, rounds: 5, output_dir: b, resume_from_checkpoint: true}")
    again.open(resuming=True, overwrite=False)
    assert "rounds: 2" in again.recipe.read_text()
    differences = again.recipe_differences(tmp_path / "checkpoints" / "checkpoint-1")
    assert differences == ["objective=None (was {})", "training.rounds=5 (was 2)"]


def test_the_log_is_cut_back_whole(tmp_path):
    folder = opened(tmp_path)
    for number in range(4):
        folder.append_metrics({"round": number})
    with folder.metrics.open("a") as file:
        file.write('{"round": 4, "half')
    assert folder.count_metrics() == 5
    folder.truncate_metrics(3)
    assert read_lines(folder.metrics) == [{"round": 0}, {"round": 1}, {"round": 2}]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (Exception("Error while saving: No space left on device (os error 28)"), "os error 28"),  # of safetensors
    ],
)
def test_a_full_disk_is_answered_in_one_line(error, why):
    with pytest.raises(
        RunFolderError, match=f"Cannot write 'a/b' .*{why}.*. Make room, change the permissions"
    ) as got:
        with writable(Path("a/b")):
            raise error
    assert len(str(got.value).splitlines()) == 1


def test_other_errors_are_left_as_they_are():
    with pytest.raises(KeyError):
        with writable(Path("a/b")):
            raise KeyError("x")


def test_nothing_from_outside_is_a_run_s_own(tmp_path):
    folder = opened(tmp_path / "run")
    (folder.path / "link").symlink_to(tmp_path)
    for path in (folder.path / "link", folder.path / ".." / "secret"):
        with pytest.raises(RunFolderError, match="is a link or leads out of the run's folder. Put the file itself"):
            folder.own(path)
    assert folder.own(folder.metrics) == folder.metrics
