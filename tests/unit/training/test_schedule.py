"""The order of a run: what an objective states, and what is refused."""

from __future__ import annotations

import pytest
import torch

from seqgan_hf.errors import UserError
from seqgan_hf.objectives import Copy, Reinforce, Turn
from seqgan_hf.training.schedule import schedule
from tests.tools.small_runs import BRIEF, build, small_corpus


class Stated(Reinforce):
    """Follows the turns that it is given; tells whether its reference had begun when the discriminator was trained."""

    def __init__(self, *turns: Turn):
        super().__init__()
        self.turns, self.begun = turns, []

    def copies(self):
        return {"reference": Copy()}

    def schedule(self, turns):
        return list(self.turns)

    def fakes(self, models, prompts, max_new_tokens):
        assert not models.generator.training or not any(
            module.training for module in models.generator.modules() if isinstance(module, torch.nn.Dropout)
        )
        self.begun.append(models["reference"] is not models.generator)
        return super().fakes(models, prompts, max_new_tokens)


def run(tmp_path, *turns):
    """Train; which d-steps there were, and the objective."""
    trainer = build(small_corpus(), tmp_path / "run", Stated(*turns), **BRIEF)
    steps, train_discriminator = [], trainer.train_discriminator

    def watched(index):
        steps.append(index)
        train_discriminator(index)

    trainer.train_discriminator = watched
    trainer.train()
    return steps, trainer.objective


def test_no_two_discriminator_steps_see_the_same_order(tmp_path):
    """Though the turns have different numbers of them."""
    turns = Turn("adversarial", 1, 1, 3), Turn("pretrain_discriminator", 1), Turn("adversarial", 2, 1, 1)
    steps, _ = run(tmp_path, *turns)
    assert steps == list(range(6))


def test_copies_wait_for_the_first_step_of_the_objective(tmp_path):
    """Until then they are the generator, which pretraining still moves."""
    turns = Turn("pretrain_discriminator", 1), Turn("pretrain_generator", 1), Turn("adversarial", 1, 1, 1)
    _, objective = run(tmp_path, *turns)
    assert objective.begun == [False, True]


def test_a_phase_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(UserError, match="Stated schedules the phase 'pretrain': expected one of pretrain_generator"):
        build(small_corpus(), tmp_path / "run", Stated(Turn("pretrain", 1)))


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        (None, r"Stated.schedule returned None: expected a list of `Turn`"),
        ([("adversarial", 1)], r"Stated.schedule returned \[\('adversarial', 1\)\]: expected a list of `Turn`"),
        ([Turn("pretrain_generator", -1)], "Stated schedules units=-1 of pretrain_generator: expected a whole number"),
        (
            [Turn("adversarial", 1, 1.5)],
            "Stated schedules generator_steps=1.5 of adversarial: expected a whole number",
        ),
        ([Turn("adversarial", "2")], "Stated schedules units='2' of adversarial: expected a whole number"),
    ],
)
def test_turns_that_no_run_can_take_are_refused(turns, message, tmp_path):
    objective = Stated()
    objective.schedule = lambda given: turns
    with pytest.raises(UserError, match=message):
        build(small_corpus(), tmp_path / "run", objective)


def test_units_are_counted_through_the_run(tmp_path):
    trainer = build(small_corpus(), tmp_path / "run")
    turns = [Turn("adversarial", 2, 1, 1), Turn("pretrain_generator", 1), Turn("adversarial", 3, 2, 1)]
    assert [turn.units for turn in schedule(Stated(*turns), trainer.args)] == [2, 1, 5]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"updates": 0}, r"Stated.updates=0: expected 1 or more"),
        ({"copies": lambda: {"a copy": Copy()}}, r"a copy named 'a copy': expected a name of letters and digits"),
        ({"copies": lambda: {"old": Copy("x")}}, r"Copy\(decay='x'\) for 'old': expected a share in \[0, 1\)"),
        ({"copies": lambda: {"old": 0.5}}, r"0.5 for the copy 'old': expected a `Copy`"),
    ],
)
def test_settings_that_no_run_could_follow_are_refused(tmp_path, attributes, message):
    objective = Stated()
    for name, value in attributes.items():
        setattr(objective, name, value)
    with pytest.raises(UserError, match=message):
        build(small_corpus(), tmp_path / "run", objective)


@pytest.mark.parametrize("drawn", ["no row", "None"])
def test_fakes_that_are_none_are_refused(drawn, tmp_path):
    class Empty(Stated):
        def fakes(self, models, prompts, max_new_tokens):
            return super().fakes(models, prompts, max_new_tokens).select(slice(0, 0)) if drawn == "no row" else None

    with pytest.raises(UserError, match=rf"Empty.fakes gave {drawn}: expected `Samples` of 1 row or more"):
        build(small_corpus(), tmp_path / "run", Empty()).draw_fakes(0)


def test_pairs_need_as_many_rows_as_prompts(tmp_path):
    class Half(Stated):
        paired = True

        def fakes(self, models, prompts, max_new_tokens):
            return super().fakes(models, prompts, max_new_tokens).select(slice(0, 5))

    trainer = build(small_corpus(), tmp_path / "run", Half())
    with pytest.raises(UserError, match=r"Half.fakes gave 5 rows for \d+ prompts: expected one row each"):
        trainer.draw_fakes(0)
