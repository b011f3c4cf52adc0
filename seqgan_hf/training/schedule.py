"""What a run does, in which order: data that an objective may state."""

from __future__ import annotations

from ..objectives import Objective, Turn
from .arguments import AdversarialTrainingArguments


def schedule(objective: Objective, args: AdversarialTrainingArguments) -> list[Turn]:
    """Pretrain G by maximum likelihood, pretrain D on samples of G, then alternate; or as the objective has it.

    Without an opponent there are no discriminator steps.

    Returns:
        Turns whose `units` are counted through the run: a phase that comes again goes on where its last turn ended.
    """
    turns = objective.schedule(
        [
            Turn("pretrain_generator", args.pretrain_epochs),
            Turn("pretrain_discriminator", args.discriminator_pretrain_steps),
            Turn("adversarial", args.rounds, args.generator_steps, args.discriminator_steps),
        ]
    )
    if objective.adversary is None:
        turns = [turn._replace(discriminator_steps=0) for turn in turns if turn.phase != "pretrain_discriminator"]
    done: dict[str, int] = {}
    through = []
    for turn in turns:
        done[turn.phase] = done.get(turn.phase, 0) + turn.units
        through.append(turn._replace(units=done[turn.phase]))
    return through


def pretraining_steps(turns: list[Turn]) -> int:
    """How many d-steps of pretraining a schedule has in all."""
    return max((turn.units for turn in turns if turn.phase == "pretrain_discriminator"), default=0)
