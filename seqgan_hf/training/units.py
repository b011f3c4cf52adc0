"""Units of work, between two of which a run can be interrupted and resumed; signals; what all processes vote on."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import Interrupted
from ..objectives.base import Phase
from ..runs.interrupts import handling_signals
from ..runs.record import UNITS
from .checkpoint import Checkpoints, checkpoints
from .progress import Progress
from .session import Session


class Units:
    """Counts what is done: epochs, d-steps of the pretraining, rounds, and the steps within a round.

    Attributes:
        done: units of each phase, and steps of the present round; evaluations draw their seeds from these.
        discriminator_steps: of the whole run, whichever phase they were in.
        seconds: of work since the generator's pretraining, evaluations and checkpoints left out, see `max_seconds`.
        out_of_time: whether these are as many as `max_seconds`, on any process.
        checkpoints: set once they are made, since the counts are in them.
    """

    checkpoints: Checkpoints

    def __init__(self, session: Session, progress: Progress):
        self.session, self.progress = session, progress
        self.done = dict.fromkeys((*UNITS, "generator_steps", "discriminator_steps"), 0)
        self.discriminator_steps = 0
        self.seconds, self.out_of_time = 0.0, False
        self.clock = time.process_time if session.device.type == "cpu" else time.perf_counter
        self._signal: int | None = None

    def of(self, phase: Phase, total: int) -> Iterator[int]:
        """What is still to do of `total` units of a phase; after each a checkpoint is saved if it is due."""
        session = self.session
        while self._goes_on(self.done[phase], total, timed=phase != "pretrain_generator"):
            self.progress.begin(phase, self.done[phase])
            session.call("on_epoch_begin")
            started = self.clock()
            yield self.done[phase]
            if phase == "pretrain_discriminator":  # the work of a round is timed by its steps
                self.seconds += self.clock() - started
            self._count(phase)
            self.done["generator_steps"] = self.done["discriminator_steps"] = 0
            self._save_if_due(self.done[phase], total)
            self._stop_if_interrupted()

    def within(self, name: str, total: int) -> Iterator[int]:
        """What is still to do of `total` units inside a round; they begin anew with every round."""
        while self._goes_on(self.done[name], total):
            started = self.clock()
            yield self.done[name]
            self.seconds += self.clock() - started
            self._count(name)
            self._stop_if_interrupted()

    @contextmanager
    def untimed(self) -> Iterator[None]:
        """Measurements within a unit whose time is that of its work."""
        started = self.clock()
        yield
        self.seconds -= self.clock() - started

    def _goes_on(self, done: int, total: int, timed: bool = True) -> bool:
        return done < total and not self.session.control.should_training_stop and not (timed and self.out_of_time)

    @property
    def time_used(self) -> float:
        """How much of `max_seconds` is used, from 0; 0 where there is no limit."""
        return self.seconds / (self.session.args.max_seconds or float("inf"))

    def _count(self, name: str) -> None:
        """Count a unit, and vote on what follows: signals and callbacks may reach one process only."""
        self.done[name] += 1
        self.discriminator_steps += name in ("pretrain_discriminator", "discriminator_steps")
        control, signalled = self.session.control, self._signal is not None
        votes = (signalled, control.should_training_stop, control.should_save, self.time_used >= 1)
        interrupted, control.should_training_stop, control.should_save, self.out_of_time = self.session.vote(*votes)
        if interrupted and self._signal is None:
            self._signal = signal.SIGTERM

    def _save_if_due(self, done: int, total: int) -> None:
        control, every = self.session.control, self.session.args.save_every
        due = done == total or (every and done % every == 0) or self.out_of_time
        if self._signal is None and (due or control.should_save or control.should_training_stop):
            control.should_save = False
            self.checkpoints.save()

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """End the run after the unit in progress, as if this signal had come."""
        if self._signal is None:
            kept = checkpoints(self.session.folder.checkpoints)  # their bytes are not read: that takes long
            again = f"resume from {kept[-1].name}" if kept else "start again, as there is no checkpoint yet"
            self.session.say(  # launchers kill what does not end soon, and a unit may take longer
                "Stopping after this unit (an epoch of pretraining, the g-steps of a round, a d-step) and saving a "
                "checkpoint; if it is killed before, %s. Ctrl-C again stops now",
                again,
            )
        self._signal = number

    def _stop_if_interrupted(self) -> None:
        if self._signal is not None:
            saved = f"Interrupted; a checkpoint is saved in {self.checkpoints.save()}"
            raise Interrupted(f"{saved}. To go on, run the same command with --training.resume_from_checkpoint true.")

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM end the run after the unit of work in progress; a second Ctrl-C ends it at once."""

        def handle(number: int, frame: Any) -> None:
            if number == self._signal == signal.SIGINT:
                raise KeyboardInterrupt
            self.interrupt(number)  # launchers answer Ctrl-C with a SIGTERM of their own: that is no second one

        with handling_signals(handle):
            yield

    def state_dict(self) -> dict[str, Any]:
        return {"done": dict(self.done), "discriminator_steps": self.discriminator_steps, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done, self.discriminator_steps = dict(state["done"]), state["discriminator_steps"]
        self.seconds = state["seconds"]
        self.out_of_time = self.time_used >= 1
