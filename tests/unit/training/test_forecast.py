"""The time left: a lower bound until everything ahead was timed."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from seqgan_hf.objectives import Turn
from seqgan_hf.runs.console import roughly
from seqgan_hf.training.forecast import Forecast
from seqgan_hf.training.progress import Meter


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
