"""The estimate before a run begins: every objective can be tried, and nothing that trains notices."""

from __future__ import annotations

import os
import random
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from seqgan_hf.objectives import SeqGAN, Turn
from seqgan_hf.training import Interrupted
from seqgan_hf.training.rehearsal import Rehearsal, same_random_numbers
from tests.tools.objectives import ROWS, build_objective
from tests.tools.small_runs import build, metrics, same, small_corpus, weights
from tests.tools.tiny import EOS, build_discriminator, build_generator


@pytest.fixture(scope="module")
def corpus():
    return small_corpus()


def rehearsal(trainer) -> Rehearsal:
    objectives = {"objective": trainer.objective, "pretraining": trainer.pretraining}
    return Rehearsal(trainer.session, trainer.models, objectives, trainer.data, trainer.max_new_tokens)


def run_of(name: str, corpus, folder, **settings):
    """A trainer of an objective, with the models that it asks for."""
    row, objective, eos = ROWS[name], build_objective(name), None
    if row.conditional:
        corpus, eos = replace(corpus, train=row.data(48), eval=row.data(20, 1)), EOS
    kind = "cnn" if row.opponents[0] == "none" else row.opponents[0]
    language_model = objective.adversary == "language_model"
    opponent = (
        build_generator(kind, eos, seed=1) if language_model else build_discriminator(kind, labels=objective.labels)
    )
    players = {"generator": build_generator(row.generators[0], eos), "discriminator": opponent}
    return build(corpus, folder, objective, **players, **settings)


@pytest.mark.parametrize("name", ROWS)
def test_every_objective_is_tried_and_nothing_changes(name, corpus, tmp_path):
    trainer = run_of(name, corpus, tmp_path / "run")
    before, flags = (
        weights(trainer),
        [p.requires_grad for m in trainer.models.named().values() for p in m.parameters()],
    )
    modes = [module.training for model in trainer.models.named().values() for module in model.modules()]
    state = repr(trainer.objective.state_dict())
    drawn = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with same_random_numbers():
        seconds = rehearsal(trainer).seconds(trainer.turns, {})
    planned = {turn.phase for turn in trainer.turns if turn.units}
    assert seconds.keys() == planned and all(each > 0 for each in seconds.values())
    models = trainer.models.named().values()
    assert same(before, weights(trainer)) and repr(trainer.objective.state_dict()) == state
    assert flags == [p.requires_grad for m in models for p in m.parameters()]
    assert modes == [module.training for model in models for module in model.modules()]
    assert all(p.grad is None for model in models for p in model.parameters())
    assert not any(player.optimizer.state_dict()["state"] for player in trainer.parts.players.values())
    assert torch.equal(torch.get_rng_state(), drawn[0]) and random.getstate() == drawn[2]
    assert np.array_equal(np.random.get_state()[1], drawn[1]) and trainer.session.state.global_step == 0


@pytest.mark.parametrize("name", ["SeqGAN", "LeakGAN", "GRPO"])
def test_a_run_that_was_estimated_is_bit_for_bit_the_same(name, corpus, tmp_path, caplog):
    caplog.set_level("INFO")
    runs = []
    for folder, estimate in (("with", True), ("without", False)):
        torch.manual_seed(0)
        runs.append(run_of(name, corpus, tmp_path / folder, estimate_time=estimate))
        runs[-1].train()
    assert sum(line.startswith("Estimated time: ") for line in caplog.messages) == 1
    assert same(*map(weights, runs)) and metrics(tmp_path / "with") == metrics(tmp_path / "without")
    rates = [
        [" ".join(key for key in line if "per_second" in key) for line in run.session.state.log_history]
        for run in runs
    ]
    assert rates[0] == rates[1]  # what was tried is no work of the first unit


@pytest.mark.parametrize("name", ["SeqGAN", "DGSAN"])
def test_a_resumed_run_that_was_estimated_is_bit_for_bit_the_same(name, corpus, tmp_path):
    runs = []
    for folder, estimate in (("with", True), ("without", False)):
        for rounds in (1, 2):
            torch.manual_seed(0)
            settings = {"rounds": rounds, "resume_from_checkpoint": rounds == 2, "estimate_time": estimate}
            runs.append(run_of(name, corpus, tmp_path / folder, **settings))
            runs[-1].train()
    assert same(*map(weights, runs[1::2])) and not same(*map(weights, runs[:2]))
    assert metrics(tmp_path / "with") == metrics(tmp_path / "without")


def test_the_estimate_multiplies_what_was_timed(corpus, tmp_path, monkeypatch):
    settings = {"num_fakes": 480, "discriminator_epochs": 3, "gradient_accumulation_steps": 2}
    trainer = build(corpus, tmp_path / "run", **settings, pretrain_batch_size=12)
    monkeypatch.setattr(Rehearsal, "timed", lambda self, work: work() or 1.0)
    turns = [Turn("pretrain_generator", 5), Turn("pretrain_discriminator", 7), Turn("adversarial", 9, 3, 2)]
    step = 480 / 48 + 480 / 8 * 3  # of 48 prompts that there are, and of halves of 16 rows
    assert rehearsal(trainer).seconds(turns, {}) == {
        "pretrain_generator": 5 * 48 / 12,
        "pretrain_discriminator": 7 * step,
        "adversarial": 9 * (3 * 2 + 2 * step),
    }
    again = [turns[0], turns[1], Turn("pretrain_generator", 6), Turn("adversarial", 0, 3, 2)]
    done = {"pretrain_generator": 5, "pretrain_discriminator": 3, "adversarial": 0, "generator_steps": 2}
    assert rehearsal(trainer).seconds(turns, done) == {
        "pretrain_discriminator": 4 * step,
        "adversarial": 9 * (3 * 2 + 2 * step),
    }
    assert rehearsal(trainer).seconds(again, {}) == {
        "pretrain_generator": 6 * 48 / 12,
        "pretrain_discriminator": 7 * step,
    }


def estimate(caplog) -> str:
    """The line before the first unit."""
    (at,) = (number for number, line in enumerate(caplog.messages) if line.startswith("Schedule: "))
    return caplog.messages[at + 1]


def test_what_a_run_says_of_its_time(corpus, tmp_path, caplog):
    caplog.set_level("INFO")
    build(corpus, tmp_path / "run", estimate_time=True, max_seconds=1e-6).train()
    assert re.fullmatch(
        r"Estimated time: \d+ s \(pretrain generator \d+ s, pretrain discriminator \d+ s, adversarial \d+ s, which "
        r"max_seconds cuts to 0 s\), "
        "evaluations not counted; told anew from the first unit on",
        estimate(caplog),
    )
    caplog.clear()
    build(corpus, tmp_path / "run", estimate_time=True, resume_from_checkpoint=True, rounds=3).train()
    assert re.fullmatch(
        r"Estimated time: \d+ s \(pretrain discriminator \d+ s, adversarial \d+ s\), .*", estimate(caplog)
    )
    caplog.clear()
    build(corpus, tmp_path / "run", estimate_time=True, resume_from_checkpoint=True, rounds=3).train()
    assert estimate(caplog).startswith("Estimated time: 0 s (nothing is left)")


class Once(SeqGAN):
    """What cannot be copied."""

    def __deepcopy__(self, memo):
        raise TypeError("no copies of this")


def test_where_nothing_can_be_tried_the_run_goes_on(corpus, tmp_path, caplog):
    caplog.set_level("INFO")
    build(corpus, tmp_path / "run", Once(rollouts=2), estimate_time=True).train()
    expected = "Estimated time: unknown, trying a batch failed (TypeError: no copies of this). Time left is told from"
    assert estimate(caplog).startswith(expected) and caplog.messages[-1].startswith("Next: ")


def test_an_interrupt_during_the_trial_leaves_a_checkpoint(corpus, tmp_path, monkeypatch):
    """As it does in a unit of work: the run can go on."""
    timed = Rehearsal.timed

    def interrupted(self, work):
        monkeypatch.setattr(Rehearsal, "timed", timed)
        os.kill(os.getpid(), signal.SIGINT)
        return timed(self, work)

    monkeypatch.setattr(Rehearsal, "timed", interrupted)
    with pytest.raises(Interrupted, match="a checkpoint is saved"):
        build(corpus, tmp_path / "run", estimate_time=True).train()
