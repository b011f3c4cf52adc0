"""How long a run will take, told before it begins: the work of each phase is tried on copies of the models."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

from ..generation.modes import train_without_dropout
from ..objectives import Models, Objective, Turn
from ..objectives.base import Phase, frozen
from ..samples import Samples
from .batches import InMemoryData
from .checkpoint import RandomState
from .compiling import sharing
from .schedule import totals
from .session import Session


# A first try of so many seconds is believed; a shorter one may be libraries that warm up, and is repeated.
LONG = 1.0
# Sequences that are drawn, at most, to time what the discriminator is shown.
DRAWN = 500


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """What is drawn within it is drawn again after it."""
    source = RandomState()
    state = source.state_dict()
    try:
        yield
    finally:
        source.load_state_dict(state)


def left(turns: list[Turn], done: dict[str, int]) -> list[Turn]:
    """The turns with what is left of their units, still counted through them."""
    return [turn._replace(units=max(0, turn.units - done.get(turn.phase, 0))) for turn in turns]


class Rehearsal:
    """A batch of each phase on copies, without steps of optimizers: weights, states and records stay as they are.

    `objectives` are the run's own and that of pretraining, by `objective` and `pretraining`; T is the longest sample.
    """

    def __init__(self, session: Session, models: Models, objectives: dict[str, Objective], data: InMemoryData, T: int):
        self.session, self.args, self.data, self.max_new_tokens = session, session.args, data, T
        # what is never trained is shared, as copies of the generator share it
        fixed = {id(p): p for model in models.named().values() for p in model.parameters() if not p.requires_grad}
        self.models, copies = copy.deepcopy((models, objectives), fixed)
        self.objective, self.pretraining = copies["objective"], copies["pretraining"]

    def seconds(self, turns: list[Turn], done: dict[str, int]) -> dict[Phase, float]:
        """Of what is left of each phase of a schedule, without evaluations.

        Args:
            turns: the schedule, with units counted through the run.
            done: units of each phase, by its name, where the run goes on from a checkpoint.
        """
        args, turns, found = self.args, left(turns, done), dict[Phase, float]()
        units = totals(turns)
        epoch = generator = discriminator = 0.0
        if units["pretrain_generator"]:
            batch = self.real(args.pretrain_batch_size or 1)
            steps = len(self.data) / batch.batch_size
            epoch = steps * self.timed(partial(self.generator_step, self.pretraining, batch))
        self.models.begin()
        if units["adversarial"]:
            batch = self.real(args.per_device_train_batch_size)
            work = partial(self.generator_step, self.objective, batch)
            generator = args.gradient_accumulation_steps * self.timed(work)
        if units["discriminator_steps"]:
            discriminator = self.discriminator_step()
        before = dict[str, int]()
        for turn in turns:
            number, before[turn.phase] = turn.units - before.get(turn.phase, 0), turn.units
            of_round = turn.generator_steps * generator + turn.discriminator_steps * discriminator
            unit = {"pretrain_generator": epoch, "pretrain_discriminator": discriminator}.get(turn.phase, of_round)
            found[turn.phase] = found.get(turn.phase, 0.0) + number * unit
        return {phase: seconds for phase, seconds in found.items() if before[phase]}

    def real(self, number: int) -> Samples:
        """So many training sequences, or all if there are fewer."""
        return self.data.take((self.args.seed,), min(len(self.data), number))

    def generator_step(self, objective: Objective, real: Samples) -> None:
        """As the trainer's, on one batch."""
        models, autocast, fake = self.models, self.session.accelerator.autocast, None
        with models.generator_learns(objective):
            if objective.draws:
                with torch.no_grad(), autocast():
                    fake = objective.credit(models, real, objective.sample(models, real, self.max_new_tokens)).samples
            with sharing(self.args, models.of_step(objective)):
                for _ in range(objective.updates):
                    with autocast():
                        loss = objective.generator_loss(models, real, fake)
                    loss.value.backward()

    def discriminator_step(self) -> float:
        """Seconds of a d-step: some of its sequences are drawn, and one batch of them is learnt from."""
        args, models, autocast = self.args, self.models, self.session.accelerator.autocast
        share = args.discriminator_share  # of all sequences, of which the generator's are the others
        shown = args.num_fakes or max(1, round(len(self.data) * (share / (1 - share) if share else 1)))
        prompts, drawn = self.real(min(shown, DRAWN)), list[Samples]()
        half = prompts.select(slice(0, args.discriminator_batch_size // 2))

        def draw() -> None:
            train_without_dropout(models.generator)
            with torch.no_grad(), autocast():
                drawn[:] = [self.objective.fakes(models, prompts, self.max_new_tokens)]

        def learn() -> None:
            models.discriminator.train()
            with frozen(models.generator), sharing(self.args, models.of_step(self.objective)):
                with autocast():
                    fake = drawn[0].select(slice(0, half.batch_size))
                    loss = self.objective.discriminator_loss(models, half, fake)
                loss.value.backward()

        drawing = shown / prompts.batch_size * self.timed(draw)
        return drawing + args.discriminator_epochs * shown / half.batch_size * self.timed(learn)

    def timed(self, work: Callable[[], None]) -> float:
        """Seconds of some work, once nothing has to warm up any more."""
        for _ in range(2):
            began = time.perf_counter()
            work()
            if self.session.device.type != "cpu":
                torch.accelerator.synchronize()
            if (took := time.perf_counter() - began) > LONG:
                break
        return took
