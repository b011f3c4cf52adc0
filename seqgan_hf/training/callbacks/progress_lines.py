"""Where a run is: a progress bar, or some lines of the log for each phase; and what the generator writes."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from ...runs.console import clock, roughly
from ...runs.record import UNITS


logger = logging.getLogger(__name__)

# Lines of the log in a phase, at most: after every tenth of its units. Nothing but counts decides, no clock.
LINES = 10
# Samples that are shown beside a line, and characters of each.
SAMPLES, SAMPLE_WIDTH = 3, 160
# What bars and lines show, where it was measured.
SHOWN = ("nll_train", "reward", "discriminator_loss", "discriminator_accuracy", "nll_test", "nll_oracle")
LEFT = {"seconds_left": "about", "seconds_left_at_least": "at least"}  # see `Forecast`
MEMORY = {"peak_memory_gib": "", "peak_gpu_memory_gib": " on the GPU"}


def _unit(logs: Mapping[str, float]) -> tuple[str, int, int]:
    """Phase, number and total of the unit that a log speaks of."""
    phase = next(phase for phase, unit in UNITS.items() if f"{phase}/{unit}" in logs)
    return phase, int(logs[f"{phase}/{UNITS[phase]}"]), int(logs[f"{phase}/total"])


class LogLines(TrainerCallback):
    """A line after the first unit of a phase and after every tenth of them, with the samples drawn since the last.

    The first unit is that of this session, and a phase that time ends before its last unit has a line for where it is.
    Pretraining shows samples when it ends. `plain` says whether there are lines without samples before a phase ends.
    """

    plain = True

    def __init__(self):
        self.began = self.logged = time.perf_counter()  # the phase, and its last unit
        self.samples: Sequence[str] = ()
        self.drawn: int | None = None  # after so many units of the phase
        self.phase = ""
        self.unsaid: tuple[str, int, int, Mapping[str, float]] | None = None  # the last unit, if no line spoke of it

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = time.perf_counter()  # the first phase does

    def on_evaluate(self, args: Any, state: Any, control: Any, texts: Sequence[str] = (), **kwargs: Any) -> None:
        self.drawn = None  # after the unit that is logged next
        self.samples = [text if len(text) <= SAMPLE_WIDTH else f"{text[:SAMPLE_WIDTH]}..." for text in texts[:SAMPLES]]

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        phase, done, total = _unit(logs)
        if begins := phase != self.phase:
            self._end()  # of the phase before, if time has ended it
        self.logged = time.perf_counter()
        self.phase, self.drawn = phase, self.drawn or done
        if done < total and phase != "adversarial":
            self.samples = ()
        self.unsaid = (phase, done, total, logs) if state.is_local_process_zero else None
        if done == total:
            self._end()
        elif self.unsaid and (begins or due(done, total)) and (self.plain or self.samples):
            self._say()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._end()

    def _end(self) -> None:
        """The phase is over, with the unit that was logged last."""
        if self.unsaid is not None:
            took, self.began = self.logged - self.began, self.logged
            self._say(took)

    def _say(self, took: float | None = None) -> None:
        (phase, done, total, logs), self.unsaid = self.unsaid, None
        of = "" if self.drawn == done else f" of {UNITS[phase]} {self.drawn}"
        for line in (log_line(phase, done, total, logs, took), *(f"  sample{of}: {text}" for text in self.samples)):
            logger.info("%s", line)
        self.samples = ()

    def close(self) -> None:
        """Nothing is left open."""


class ProgressBar(LogLines):
    """One bar a phase, which counts its units; when the phase ends, its line takes the place of the bar."""

    plain = False

    def __init__(self):
        super().__init__()
        self.bar: tqdm | None = None
        self.shown: dict[str, str] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        phase, done, total = _unit(logs)
        if phase != self.phase:
            self.close()
        if state.is_local_process_zero:
            self._move(phase, done, total, logs)
        if done == total:
            self.close()
        super().on_log(args, state, control, logs, **kwargs)

    def _move(self, phase: str, done: int, total: int, logs: Mapping[str, float]) -> None:
        if self.bar is None:
            name = phase.replace("_", " ")
            self.bar = tqdm(total=total, initial=done - 1, desc=name, dynamic_ncols=True, leave=False)
        self.shown |= {key: f"{logs[key]:.3f}" for key in SHOWN if key in logs}
        for name, how in LEFT.items():
            if logs.get(name):
                self.shown["run left"] = f"{how} {roughly(logs[name])}"
        if "sequences_per_second" in logs:
            self.shown["sequences/s"] = f"{logs['sequences_per_second']:,.0f}"
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def due(done: int, total: int) -> bool:
    """Whether a line follows this unit of a phase: the first, the last, and each that ends a tenth of them."""
    return done in (1, total) or done % -(-total // LINES) == 0


def log_line(phase: str, done: int, total: int, metrics: Mapping[str, float], took: float | None = None) -> str:
    """Where the run is, how well it does, how fast; how many seconds a phase that is over took, and what is left."""
    values = [f"{name} {metrics[name]:.3f}" for name in SHOWN if name in metrics]
    rates = {name: metrics.get(f"{name}_per_second") for name in ("sequences", "tokens", "rollouts")}
    speed = [f"{rate:,.0f} {name}/s" for name, rate in rates.items() if rate is not None]
    memory = [f"{metrics[name]:.2f} GiB{kind}" for name, kind in MEMORY.items() if name in metrics]
    times = [] if took is None else [f"in {clock(took)}"]
    times += [f"{how} {roughly(metrics[name])} left" for name, how in LEFT.items() if metrics.get(name)]
    return f"{phase.replace('_', ' ')} {done}/{total}: {', '.join(values)}; {', '.join([*speed, *memory, *times])}"
