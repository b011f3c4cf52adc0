"""Where a run is: a progress bar, or a line in the log now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from ...runs.record import UNITS


logger = logging.getLogger(__name__)

# Seconds between two lines of the log at least.
LOG_SECONDS = 30.0
# What bars and lines show, where it was measured.
SHOWN = ("nll_train", "reward", "discriminator_loss", "discriminator_accuracy", "nll_test", "nll_oracle")
MEMORY = {"peak_memory_gib": "", "peak_gpu_memory_gib": " on the GPU"}


def _unit(logs: Mapping[str, float]) -> tuple[str, int, int]:
    """Phase, number and total of the unit that a log speaks of."""
    phase = next(phase for phase, unit in UNITS.items() if f"{phase}/{unit}" in logs)
    return phase, int(logs[f"{phase}/{UNITS[phase]}"]), int(logs[f"{phase}/total"])


class ProgressBar(TrainerCallback):
    """One bar a phase, which counts its units."""

    def __init__(self):
        self.bar: tqdm | None = None
        self.shown: dict[str, str] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_local_process_zero:
            return
        phase, done, total = _unit(logs)
        name = phase.replace("_", " ")
        if self.bar is None or self.bar.desc.rstrip(": ") != name:
            self.close()
            self.bar = tqdm(total=total, initial=done - 1, desc=name, dynamic_ncols=True)
        self.shown |= {key: f"{logs[key]:.3f}" for key in SHOWN if key in logs}
        if "sequences_per_second" in logs:
            self.shown["sequences/s"] = f"{logs['sequences_per_second']:,.0f}"
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class LogLines(TrainerCallback):
    """The first unit of a run, the last of each phase, and one every half minute."""

    def __init__(self):
        self.logged = -LOG_SECONDS

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        phase, done, total = _unit(logs)
        if state.is_local_process_zero and (done == total or time.perf_counter() - self.logged > LOG_SECONDS):
            self.logged = time.perf_counter()
            logger.info("%s", log_line(phase, done, total, logs))

    def close(self) -> None:
        """Nothing is left open."""


def log_line(phase: str, done: int, total: int, metrics: Mapping[str, float]) -> str:
    """One line for a log: where the run is, how well it does, how fast it is, how long it will take."""
    values = [f"{name} {metrics[name]:.3f}" for name in SHOWN if name in metrics]
    rates = {name: metrics.get(f"{name}_per_second") for name in ("sequences", "tokens", "rollouts")}
    speed = [f"{rate:,.0f} {name}/s" for name, rate in rates.items() if rate is not None]
    memory = [f"{metrics[name]:.2f} GiB{kind}" for name, kind in MEMORY.items() if name in metrics]
    left = int(metrics["phase_seconds_left"])
    clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
    return f"{phase.replace('_', ' ')} {done}/{total}: {', '.join(values)}; {', '.join([*speed, *memory, clock])}"
