"""What is about to run, and when it is done, where it lies and what comes next."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, TrainerCallback

from ...generation.vocabulary import vocabulary_size
from ...objectives import Models, Objective, Turn
from ...runs.console import clock, roughly
from ...runs.record import UNITS
from ..batches import InMemoryData, TrainingData
from ..rehearsal import Rehearsal, same_random_numbers
from ..session import Session
from ..units import Units


logger = logging.getLogger(__name__)

LATER = "Time left is told from the first unit on, as `at least` until each phase and an evaluation are timed"


@dataclass
class Announcements(TrainerCallback):
    """A few lines of the log before a run begins, and two when it has ended."""

    session: Session
    objectives: dict[str, Objective]  # `objective` and `pretraining`
    models: Models
    data: TrainingData  # that the generator learns from
    max_new_tokens: int  # T, the length of the longest sample
    turns: list[Turn]  # the schedule, with units counted through the run
    units: Units  # what is done, where the run goes on from a checkpoint

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            for line in [*self.plan(), self.duration()]:
                logger.info("%s", line)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            for line in self.outcome():
                logger.info("%s", line)

    def plan(self) -> list[str]:
        """What is trained, from what, on what, and in which order."""
        session, processes = self.session, self.session.accelerator.num_processes
        device = f"{session.device}" if processes == 1 else f"{processes} processes, {session.device.type}"
        name = type(self.objectives["objective"]).__name__
        lines = [f"Objective: {name}; device: {device}; folder: {session.folder.path}"]
        lines += [f"{name.capitalize()}: {size(model)}" for name, model in self.models.players().items()]
        count = f"{len(self.data):,}" if isinstance(self.data, InMemoryData) else "a stream of"
        known = f"vocabulary of {vocabulary_size(self.models.generator):,} tokens"
        lines.append(f"Data: {count} training sequences; {known}; samples of up to {self.max_new_tokens} tokens")
        return [*lines, f"Schedule: {', then '.join(in_turns(steps(self.turns)))}"]

    def duration(self) -> str:
        """How long a run will take, where a batch of each phase can be tried first; else when that will be told."""
        session, args, data = self.session, self.session.args, self.data
        alone = session.accelerator.num_processes == 1 and not args.torch_compile
        if not (args.estimate_time and alone and isinstance(data, InMemoryData)):
            return LATER
        try:
            with same_random_numbers():
                rehearsal = Rehearsal(session, self.models, self.objectives, data, self.max_new_tokens)
                phases = rehearsal.seconds(self.turns, self.units.done)
        except Exception as error:  # models and functions of one's own may hold and do anything; the run will show
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return f"Estimated time: unknown, trying a batch failed ({why}). {LATER}"
        pretraining = phases.get("pretrain_generator", 0.0)
        limit = float("inf") if args.max_seconds is None else max(0.0, args.max_seconds - self.units.seconds)
        total = pretraining + min(sum(phases.values()) - pretraining, limit)
        cut = f", which max_seconds cuts to {roughly(limit)}" if sum(phases.values()) - pretraining > limit else ""
        parts = ", ".join(f"{phase.replace('_', ' ')} {roughly(seconds)}" for phase, seconds in phases.items())
        parts = f"{parts}{cut}" or "nothing is left"
        return f"Estimated time: {roughly(total)} ({parts}), evaluations not counted; told anew from the first unit on"

    def outcome(self) -> list[str]:
        """Where everything is, and commands that go on from there."""
        session, folder = self.session, self.session.folder
        run = shlex.quote(str(folder.path))
        held = "models, metrics, samples and learning curve"
        lines = [f"Done in {clock(session.seconds)}: {held} in {folder.path}; card: {folder.generator / 'README.md'}"]
        prompt = " --prompt TEXT" if self.data.conditional else ""
        real = f"evaluation/oracle --model {run} --oracle {run}/oracle" if folder.oracle.exists() else None
        commands = {
            "to write samples": f"generate {run}{prompt}",
            "to measure": f"evaluate {real or f'--model {run} --references FILE'}",
        }
        if not session.args.push_to_hub:
            commands["to share"] = f"push {run} user/name"
        return [*lines, f"Next: {'; '.join(f'{what}: `seqgan-hf {command}`' for what, command in commands.items())}"]


def size(model: PreTrainedModel) -> str:
    """The class of a model and its number of parameters."""
    total, trained = model.num_parameters(), model.num_parameters(only_trainable=True)
    return f"{type(model).__name__}, {total:,} parameters" + (f", {trained:,} trained" if trained < total else "")


def steps(turns: list[Turn]) -> list[str]:
    """The schedule in words, a phase each: `8 epochs of pretrain generator`."""
    words, before = [], dict[str, int]()
    for turn in turns:
        units, before[turn.phase] = turn.units - before.get(turn.phase, 0), turn.units
        if not units:
            continue
        text = f"{plural(units, UNITS[turn.phase])} of {turn.phase.replace('_', ' ')}"
        of_round = [("generator step", turn.generator_steps), ("discriminator step", turn.discriminator_steps)]
        if turn.phase == "adversarial" and (each := [plural(number, name) for name, number in of_round if number]):
            text += f" ({' and '.join(each)} each)"
        words.append(text)
    return words or ["nothing to train"]


def in_turns(words: list[str]) -> list[str]:
    """Two phases that alternate, told once: `3 times 2 steps of ... and 4 epochs of ...`."""
    told, at = list[str](), 0
    while at < len(words):
        pair, times = words[at : at + 2], 1
        while words[at + 2 * times : at + 2 * times + 2] == pair and len(pair) == 2:
            times += 1
        told.append(f"{times} times {' and '.join(pair)}" if times > 1 else words[at])
        at += 2 * times if times > 1 else 1
    return told


def plural(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"
