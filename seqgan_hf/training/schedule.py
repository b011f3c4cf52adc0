"""What a run does, in which order: data that an objective may state."""

from __future__ import annotations

from collections import Counter

from ..errors import UserError
from ..objectives import Objective, Turn
from ..runs.record import UNITS
from .arguments import AdversarialTrainingArguments


def totals(turns: list[Turn]) -> dict[str, int]:
    """Epochs, rounds and d-steps of a whole run, from the turns that `schedule` gave."""
    found, before = {"pretrain_generator": 0, "adversarial": 0, "discriminator_steps": 0}, dict[str, int]()
    for turn in turns:
        units, before[turn.phase] = turn.units - before.get(turn.phase, 0), turn.units
        if turn.phase == "pretrain_discriminator":
            found["discriminator_steps"] += units
        else:
            found[turn.phase] += units
            found["discriminator_steps"] += units * turn.discriminator_steps
    return found


def schedule(objective: Objective, args: AdversarialTrainingArguments) -> list[Turn]:
    """Pretrain G by maximum likelihood, pretrain D on samples of G, then alternate; or as the objective has it.

    Without an opponent there are no discriminator steps.

    Returns:
        Turns whose `units` are counted through the run: a phase that comes again goes on where its last turn ended.

    Raises:
        UserError: the objective states a phase that there is not, a number that none can be, or no turns.
    """
    usual = [
        Turn("pretrain_generator", args.pretrain_epochs),
        Turn("pretrain_discriminator", args.discriminator_pretrain_steps),
        Turn("adversarial", args.rounds, args.generator_steps, args.discriminator_steps),
    ]
    turns, name = objective.schedule(usual), type(objective).__name__
    if not isinstance(turns, list) or not all(isinstance(turn, Turn) for turn in turns):
        raise UserError(f"{name}.schedule returned {turns!r:.80}", "a list of `Turn`", "return one")
    for turn in turns:
        if turn.phase not in UNITS:
            problem = f"{name} schedules the phase {turn.phase!r}"
            raise UserError(problem, f"one of {', '.join(UNITS)}", "name one of these")
        for setting, number in zip(Turn._fields[1:], turn[1:], strict=True):
            if not isinstance(number, int) or number < 0:
                problem = f"{name} schedules {setting}={number!r} of {turn.phase}"
                raise UserError(problem, "a whole number, 0 or more", "round it, or leave the turn out")
    if objective.adversary is None:
        turns = [turn._replace(discriminator_steps=0) for turn in turns if turn.phase != "pretrain_discriminator"]
    done, through = Counter[str](), []
    for turn in turns:
        done[turn.phase] += turn.units
        through.append(turn._replace(units=done[turn.phase]))
    return through
