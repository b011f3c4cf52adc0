"""Trackers receive the curves and the samples."""

from __future__ import annotations

import json
import sqlite3

import pytest

from tests.tools.small_runs import build, small_corpus


@pytest.fixture(scope="module")
def corpus():
    return small_corpus()


CURVES = ("nll_oracle", "nll_test", "reward", "discriminator_accuracy", "sequences_per_second", "peak_memory_gib")


def written(folder) -> list[str]:
    return (folder / "samples" / "adversarial-2.txt").read_text().splitlines()


def test_tensorboard_receives_curves_and_samples(corpus, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    build(corpus, tmp_path / "run", report_to="tensorboard").train()
    (events,) = (tmp_path / "run" / "runs").rglob("events*")
    accumulator = EventAccumulator(str(events.parent)).Reload()
    scalars = accumulator.Tags()["scalars"]
    assert {f"train/{name}" for name in CURVES} <= set(scalars)
    steps = [event.step for event in accumulator.Scalars("train/nll_oracle")]
    assert steps == [3, 6, 31, 44]
    shown = accumulator.Tensors("samples/text_summary")
    assert [event.step for event in shown] == steps
    text = shown[-1].tensor_proto.string_val[0].decode()
    assert [line.strip() for line in text.splitlines()] == written(tmp_path / "run")


def test_wandb_receives_curves_and_samples_offline(corpus, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    build(corpus, tmp_path / "run", report_to="wandb").train()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    (log,) = folder.glob("*.wandb")
    record = log.read_bytes()
    for name in CURVES:
        assert f"train/{name}".encode() in record, name
    tables = sorted(
        (folder / "files" / "media" / "table").glob("samples*.json"), key=lambda path: path.stat().st_mtime
    )
    assert len(tables) == 4
    rows = [row for (row,) in json.loads(tables[-1].read_text())["data"]]
    assert rows == written(tmp_path / "run")


def test_trackio_receives_curves_and_samples_offline(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    build(corpus, tmp_path / "run", report_to="trackio", project="seqgan-test").train()
    (database,) = (tmp_path / "trackio").glob("seqgan-test*.db")
    with sqlite3.connect(database) as connection:
        rows = [json.loads(text) for (text,) in connection.execute("SELECT metrics FROM metrics ORDER BY id")]
    names = {name for row in rows for name in row}
    assert {f"train/{name}" for name in CURVES} <= names
    tables = [row["samples"] for row in rows if "samples" in row]
    assert len(tables) == 4
    assert "_value" in tables[-1] or "file_path" in json.dumps(tables[-1])
