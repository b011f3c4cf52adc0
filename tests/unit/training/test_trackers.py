"""What is reported of a run: speed, memory, time left; and that trackers receive the curves and the samples."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import sys
from types import SimpleNamespace

import pytest
import torch

from seqgan_hf.objectives import SeqGAN, Turn
from seqgan_hf.runs.console import roughly
from seqgan_hf.runs.record import COST
from seqgan_hf.samples import Samples
from seqgan_hf.training.callbacks.progress_lines import log_line
from seqgan_hf.training.forecast import Forecast
from seqgan_hf.training.progress import Meter, rates
from tests.tools import soak
from tests.tools.small_runs import build, small_corpus


TIMED = re.compile(r"(\d (s|min) left|in \d+:\d\d:\d\d)$")  # how a line of a unit ends


@pytest.fixture(scope="module")
def corpus():
    return small_corpus()


def test_work_is_counted(corpus, tmp_path, monkeypatch):
    trainer = build(corpus, tmp_path / "run", objective=SeqGAN(rollouts=3), rounds=1, discriminator_steps=1)
    work, read = [], Meter.work

    def recorded(meter):
        work.append(read(meter))
        return work[-1]

    monkeypatch.setattr(Meter, "work", recorded)
    trainer.train()
    counted = [(own["sequences"], own["tokens"], own["rollouts"]) for own in work]
    # 2 epochs of 48 sequences; 2 d-steps of 48 real and 48 generated; a g-step of 16, each 3 x 4 times completed
    assert counted == [(48, 240, 0)] * 2 + [(96, 480, 0)] * 2 + [(112, 560, 192)]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert 0 < line["sequences_per_second"] * 4.9 < line["tokens_per_second"]
        assert 0.05 < line["peak_memory_gib"] < 100
        assert ("rollouts_per_second" in line) == (line["phase"] == "adversarial")
    assert all(line["seconds_left_at_least"] >= 0 for line in lines[:-1]) and lines[-1]["seconds_left"] == 0
    assert set(lines[-1]) & COST == COST - {"peak_gpu_memory_gib", "seconds_left_at_least"}


def test_evaluations_are_no_training_time(corpus, tmp_path, monkeypatch):
    events, clock = [], Meter.resume_clock
    trainer = build(corpus, tmp_path / "run", rounds=0, discriminator_pretrain_steps=0)
    monkeypatch.setattr(trainer, "evaluate", lambda name: events.append("evaluation") or {})
    monkeypatch.setattr(Meter, "resume_clock", lambda meter: events.append("clock") or clock(meter))
    trainer.train()
    assert events == ["evaluation", "clock"] * 2


def test_rates_are_those_of_all_processes():
    one = {"sequences": 30, "tokens": 100, "rollouts": 0, "seconds": 2.0, "peak_memory_gib": 1.0}
    other = {"sequences": 50, "tokens": 100, "rollouts": 0, "seconds": 4.0, "peak_memory_gib": 0.5}
    assert rates([one, other]) == {"sequences_per_second": 20.0, "tokens_per_second": 50.0, "peak_memory_gib": 1.0}


class Planned:
    """A run whose units and evaluations take as long as the test says."""

    def __init__(self, monkeypatch, turns, **settings):
        self.now, self.units = 0.0, SimpleNamespace(seconds=0.0)
        for module in ("progress", "forecast"):
            monkeypatch.setattr(f"seqgan_hf.training.{module}.time.perf_counter", lambda: self.now)
        self.meter = Meter(torch.device("cpu"))
        args = SimpleNamespace(**{"eval_epochs": 0, "eval_rounds": 0, "max_seconds": None} | settings)
        self.forecast = Forecast(args, turns, self.units, self.meter)

    def unit(self, turn, done, seconds, evaluation=None):
        self.meter.begin(turn.phase)
        self.now += seconds
        self.meter.work()
        self.now += evaluation or 0.0
        left = self.forecast.after(turn, done, evaluation is not None)
        self.meter.resume_clock()
        return left


EPOCHS, STEPS, ROUNDS = Turn("pretrain_generator", 4), Turn("pretrain_discriminator", 2), Turn("adversarial", 10)


def test_the_time_left_is_a_lower_bound_until_everything_ahead_was_timed(monkeypatch):
    run = Planned(monkeypatch, [EPOCHS, STEPS, ROUNDS], eval_epochs=2, eval_rounds=4)
    assert run.unit(EPOCHS, 1, 10.0) == {"seconds_left_at_least": 30.0}
    assert run.unit(EPOCHS, 2, 20.0, evaluation=5.0) == {"seconds_left_at_least": 2 * 15.0 + 5.0}
    assert run.unit(EPOCHS, 4, 15.0, evaluation=7.0) == {"seconds_left_at_least": 0.0}  # nothing but epochs is known
    assert run.unit(STEPS, 1, 3.0) == {"seconds_left_at_least": 3.0}
    # of nine rounds the fourth, the eighth and the last are evaluated
    assert run.unit(ROUNDS, 1, 100.0) == {"seconds_left": 9 * 100.0 + 3 * 6.0}
    assert run.unit(ROUNDS, 8, 100.0, evaluation=6.0) == {"seconds_left": 2 * 100.0 + 6.0}
    assert run.unit(ROUNDS, 10, 100.0, evaluation=6.0) == {"seconds_left": 0.0}


def test_evaluations_that_were_not_timed_are_not_guessed(monkeypatch):
    run = Planned(monkeypatch, [ROUNDS], eval_rounds=5)
    assert run.unit(ROUNDS, 7, 1.0) == {"seconds_left_at_least": 3.0}  # resumed, the last round will be evaluated
    assert run.unit(ROUNDS, 8, 1.0, evaluation=9.0) == {"seconds_left": 2.0 + 9.0}  # asked for by a callback


def test_phases_that_take_turns_are_told_once_each_was_timed(monkeypatch):
    turns = [Turn("pretrain_generator", 1), STEPS, Turn("pretrain_generator", 3), Turn("pretrain_discriminator", 6)]
    run = Planned(monkeypatch, turns)
    assert run.unit(turns[0], 1, 10.0) == {"seconds_left_at_least": 20.0}
    assert run.unit(turns[1], 1, 1.0) == {"seconds_left": 1.0 + 20.0 + 4.0}
    assert run.unit(turns[2], 2, 10.0) == {"seconds_left": 10.0 + 4.0}


def test_the_time_left_ends_with_the_budget(monkeypatch):
    run = Planned(monkeypatch, [EPOCHS, STEPS, Turn("adversarial", 10**6)], eval_rounds=10**6, max_seconds=60.0)
    run.units.seconds = 20.0
    assert run.unit(Turn("adversarial", 10**6), 1, 3.0) == {"seconds_left": 39.0}  # 13 whole rounds fit in 40 s
    run.units.seconds = 61.0
    assert run.unit(Turn("adversarial", 10**6), 2, 3.0) == {"seconds_left": 0.0}


def test_durations_are_told_as_roughly_as_they_are_known():
    assert [roughly(seconds) for seconds in (0.4, 89, 91, 3600, 5400, 90_000)] == [
        "0 s",
        "89 s",
        "2 min",
        "60 min",
        "1 h 30 min",
        "25 h 0 min",
    ]


def test_padding_is_not_counted():
    meter = Meter(torch.device("cpu"))
    mask = torch.tensor([[True, True, False], [True, False, False]])
    meter.count(Samples(torch.zeros(2, 1).long(), mask.long(), mask))
    work = meter.work()
    assert (work["sequences"], work["tokens"]) == (2, 3)
    assert meter.work()["sequences"] == 0


def test_a_log_without_bars_has_few_lines(corpus, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    build(corpus, tmp_path / "run", pretrain_epochs=6).train()
    lines = [line for line in caplog.messages if TIMED.search(line)]
    # the first unit, and the end of each phase: the others come within the same seconds
    assert [line.split(":")[0] for line in lines] == [
        "pretrain generator 1/6",
        "pretrain generator 6/6",
        "pretrain discriminator 2/2",
        "adversarial 2/2",
    ]
    assert "nll_oracle" in lines[1] and " sequences/s, " in lines[1] and " rollouts/s, " in lines[-1]
    monkeypatch.setattr("seqgan_hf.training.callbacks.progress_lines.LOG_SECONDS", 0.0)
    caplog.clear()
    build(corpus, tmp_path / "more", pretrain_epochs=6).train()
    assert len([line for line in caplog.messages if TIMED.search(line)]) == 10


def test_a_run_says_what_it_will_do_and_what_comes_next(corpus, tmp_path, caplog):
    caplog.set_level("INFO")
    trainer = build(corpus, tmp_path / "run")
    trainer.models.discriminator.get_input_embeddings().requires_grad_(False)
    trainer.train()
    shown = [line for line in caplog.messages if not TIMED.search(line) and "  sample: " not in line]
    generator, discriminator = trainer.models.generator, trainer.models.discriminator
    trained = discriminator.num_parameters() - discriminator.get_input_embeddings().weight.numel()
    run = tmp_path / "run"
    assert shown[:5] == [
        f"Objective: SeqGAN; device: cpu; folder: {run}",
        f"Generator: {type(generator).__name__}, {generator.num_parameters():,} parameters",
        f"Discriminator: {type(discriminator).__name__}, {discriminator.num_parameters():,} parameters, "
        f"{trained:,} trained",
        "Data: 48 training sequences; vocabulary of 13 tokens; samples of up to 5 tokens",
        "Schedule: 2 epochs of pretrain generator, then 2 steps of pretrain discriminator, then 2 rounds of "
        "adversarial (1 generator step and 2 discriminator steps each). "
        "Time left is told from the first unit on, as `at least` until each phase and an evaluation are timed",
    ]
    assert shown[-2].startswith("Done in 0:00:") and f"in {run}; card: {run}/generator/README.md" in shown[-2]
    calls = [f"generate {run}", f"evaluate --model {run} --references FILE", f"push {run} user/name"]
    assert re.findall("`seqgan-hf (.*?)`", shown[-1]) == calls
    samples = [line.removeprefix("  sample: ") for line in caplog.messages if line.startswith("  sample: ")]
    first = (run / "samples" / "pretrain_generator-1.txt").read_text().splitlines()
    last = (run / "samples" / "adversarial-2.txt").read_text().splitlines()
    assert samples[:3] == first[:3] and samples[-3:] == last[:3] and len(samples) == 9


def test_where_nobody_watches_there_is_no_bar(corpus, tmp_path, monkeypatch, capsys):
    build(corpus, tmp_path / "file", disable_tqdm=False).train()
    assert "pretrain generator: " not in capsys.readouterr().err
    monkeypatch.setattr("seqgan_hf.training.parts.watched", lambda: True)
    build(corpus, tmp_path / "terminal", disable_tqdm=False).train()
    shown = capsys.readouterr().err
    first, _, second = shown.partition("pretrain discriminator: ")
    assert "pretrain generator: " in first and second
    assert "\r  " in first  # it is gone when the phase has ended


def test_a_line_of_the_log():
    metrics = {
        "nll_test": 3.14159,
        "sequences_per_second": 1234.5,
        "peak_memory_gib": 0.5,
        "seconds_left": 3725.2,
    }
    line = log_line("adversarial", 3, 200, metrics)
    assert line == "adversarial 3/200: nll_test 3.142; 1,234 sequences/s, 0.50 GiB, about 62 min left"
    bound = {"seconds_left_at_least": 40.0}
    assert log_line("pretrain_generator", 9, 9, bound, took=61.2).endswith("; in 0:01:01, at least 40 s left")
    assert log_line("adversarial", 200, 200, {"seconds_left": 0.0}, took=61.2).endswith("; in 0:01:01")


# --- Trackers --------------------------------------------------------------------------------------------------------

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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_soak_measures_what_a_run_holds(tmp_path):
    """The hour itself is run by hand: tests/tools/soak.py."""
    (tmp_path / "log.txt").write_text("x" * 2048)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "weights").write_bytes(bytes(3 * 2**20))
    (tmp_path / "metrics.jsonl").write_text('{"phase": "adversarial"}\n{"phase": "pretrain_generator"}\n')
    before = soak.measure(os.getpid(), tmp_path / "log.txt", tmp_path)
    with (tmp_path / "log.txt").open():
        row = soak.measure(os.getpid(), tmp_path / "log.txt", tmp_path)
    assert row["file_handles"] == before["file_handles"] + 1
    assert (row["log_kib"], row["checkpoints_mib"], row["round"]) == (2.0, 3.0, 1)
    assert 50 < row["memory_mib"] < 100_000 and set(row) == set(soak.COLUMNS[1:])
    axes = soak.draw([{"seconds": 60.0} | before, {"seconds": 120.0} | row]).axes[0]
    (line,) = axes.lines
    assert line.get_xdata().tolist() == [1.0, 2.0] and axes.get_ylabel() == soak.COLUMNS[1]
