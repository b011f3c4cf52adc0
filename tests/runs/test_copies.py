"""Frozen copies of the generator: when they begin, how they follow, and where a checkpoint keeps them."""

from __future__ import annotations

import pytest
import torch

from seqgan_hf.errors import UserError
from seqgan_hf.objectives import Copy, Reinforce
from seqgan_hf.training.checkpoint import checkpoints
from tests.tools.small_runs import (
    BRIEF,
    TwoCopies,
    build,
    cut_and_resumed,
    finished,
    kept_twice,
    metrics,
    parameters,
    same,
    small_corpus,
    weights,
)


@pytest.fixture(scope="module")
def corpus():
    return small_corpus()


class Recorded(TwoCopies):
    """Keeps the weights of the generator and of its copies, before the first g-step and after each."""

    def __init__(self):
        super().__init__()
        self.generators, self.averages, self.snapshots = [], [], []

    def record(self, models):
        self.generators.append(parameters(models.generator))
        self.averages.append(parameters(models["rollout_policy"]))
        self.snapshots.append(parameters(models["snapshot"]))

    def credit(self, models, real, fake):
        if not self.generators:
            self.record(models)
        return super().credit(models, real, fake)

    def after_step(self, player, models):
        super().after_step(player, models)
        self.record(models)


def test_copies_begin_as_the_pretrained_generator_and_follow_or_wait(corpus, tmp_path):
    objective = Recorded()
    settings = BRIEF | {"discriminator_pretrain_steps": 0, "discriminator_steps": 0, "generator_steps": 2, "rounds": 2}
    trainer = build(corpus, tmp_path / "run", objective, **settings)
    start = parameters(trainer.models.generator)
    trainer.train()
    generators, averages, snapshots = objective.generators, objective.averages, objective.snapshots
    assert len(generators) == 5 and not same(start, generators[0]) and not same(generators[2], generators[3])
    assert same(averages[0], generators[0]) and same(snapshots[0], generators[0])
    for step in range(1, 5):
        for old, now, found in zip(averages[step - 1], generators[step], averages[step], strict=True):
            torch.testing.assert_close((old + now) / 2, found)
    refreshed = [generators[step] for step in (0, 0, 2, 2, 4)]
    assert all(same(one, other) for one, other in zip(snapshots, refreshed, strict=True))


def test_copies_are_in_a_checkpoint_once_and_come_back_from_the_middle_of_a_round(corpus, tmp_path):
    # 9 steps of pretraining; then rounds of 3 g-steps and 2 d-steps of 6: step 13 is in the first d-step
    settings = BRIEF | {"rounds": 2, "generator_steps": 3, "discriminator_steps": 2}
    whole = finished(lambda: {"objective": TwoCopies()}, corpus, tmp_path / "whole", **settings)
    cut, resumed = cut_and_resumed(lambda: {"objective": TwoCopies()}, corpus, tmp_path / "cut", 13, **settings)
    assert (cut.parts.units.done["adversarial"], cut.parts.units.done["discriminator_steps"]) == (0, 1)
    assert same(weights(whole), weights(resumed)) and metrics(tmp_path / "whole") == metrics(tmp_path / "cut")
    players = ["generator", "discriminator", "rollout_policy", "snapshot"]
    assert list(whole.models.named()) == players, "`weights` holds the copies"
    path = checkpoints(tmp_path / "cut" / "checkpoints")[-1]
    assert {folder.name for folder in path.iterdir() if folder.is_dir()} == set(players)
    assert not kept_twice(path, "rollout_policy", "snapshot")


def test_a_checkpoint_gives_its_copies_back_before_a_step_is_taken(corpus, tmp_path):
    settings = BRIEF | {"generator_steps": 3}
    first = build(corpus, tmp_path / "run", TwoCopies(), **settings)
    first.train()
    again = build(corpus, tmp_path / "run", TwoCopies(), resume_from_checkpoint=True, **settings)
    again.parts.checkpoints.open_run()
    assert same(weights(first), weights(again)) and again.objective.steps == 3
    assert not any(p.requires_grad for name in again.objective.copies() for p in again.models[name].parameters())


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_a_copy_cannot_take_a_players_name(corpus, tmp_path, name):
    class Greedy(Reinforce):
        def copies(self):
            return {name: Copy()}

    with pytest.raises(UserError, match=f"a copy named '{name}'"):
        build(corpus, tmp_path / "run", Greedy())
