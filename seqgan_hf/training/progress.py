"""How fast a run is, how long it will take, and how much memory it has needed."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from ..generation.rollouts import rollouts_done
from ..samples import Samples


# Names of what is measured here; they differ between two runs that are equal otherwise.
TIMINGS = (
    "sequences_per_second",
    "tokens_per_second",
    "rollouts_per_second",
    "phase_seconds_left",
    "peak_memory_gib",
    "peak_gpu_memory_gib",
)


class Meter:
    """Counts the work of this process between two reports.

    Args:
        device: where the models are.
    """

    def __init__(self, device: torch.device):
        self.device, self.phase = device, ""
        self.sequences, self.tokens = 0, torch.zeros((), dtype=torch.long, device=device)
        self.rollouts = rollouts_done()
        self.since = self.phase_since = time.perf_counter()
        self.phase_done = 0

    def begin(self, phase: str, done: int) -> None:
        """A unit of a phase begins, of which so many are done; the time left is told from those that follow."""
        if phase != self.phase:
            self.phase, self.phase_done = phase, done
            self.phase_since = self.since = time.perf_counter()

    def count(self, *samples: Samples) -> None:
        """A model has learnt from these sequences."""
        for batch in samples:
            self.sequences += batch.batch_size
            self.tokens += batch.mask.sum()

    def work(self) -> dict[str, float]:
        """What was done since the last call, and in how many seconds: sums over processes are sums of these."""
        now, rollouts = time.perf_counter(), rollouts_done()
        done = {"sequences": self.sequences, "tokens": int(self.tokens), "rollouts": rollouts - self.rollouts}
        seconds, self.since, self.rollouts = now - self.since, now, rollouts
        self.sequences = 0
        self.tokens.zero_()
        return done | {"seconds": seconds} | peak_memory(self.device)

    def resume_clock(self) -> None:
        """What has happened since the last report, an evaluation for example, was no training."""
        self.since = time.perf_counter()

    def seconds_left(self, done: int, total: int) -> float:
        """Of the phase, if its units go on to take as long as those of this session did."""
        return (time.perf_counter() - self.phase_since) / max(1, done - self.phase_done) * (total - done)


def rates(work: list[dict[str, float]]) -> dict[str, float]:
    """Values to log from the `work` of all processes: rates of all together, the memory of the largest."""
    seconds = max(own["seconds"] for own in work)
    values = {}
    for name in ("sequences", "tokens", "rollouts"):
        if total := sum(own[name] for own in work):
            values[f"{name}_per_second"] = round(total / seconds, 1)
    for name in ("peak_memory_gib", "peak_gpu_memory_gib"):
        if name in work[0]:
            values[name] = round(max(own[name] for own in work), 3)
    return values


def peak_memory(device: torch.device) -> dict[str, float]:
    """The most main memory that this process has held so far, and the most memory of its GPU, in GiB."""
    found = {}
    try:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # of `ru_maxrss`, in bytes
        found["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    except ImportError:  # not on Windows
        pass
    if device.type == "cuda":
        found["peak_gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return found


def log_line(phase: str, done: int, total: int, metrics: Mapping[str, float | Tensor], shown: tuple[str, ...]) -> str:
    """One line for a log: where the run is, how well it does, how fast it is, how long it will take."""
    values = [f"{name} {metrics[name]:.3f}" for name in shown if name in metrics]
    speed = [
        f"{metrics[f'{name}_per_second']:,.0f} {name}/s"
        for name in ("sequences", "tokens", "rollouts")
        if f"{name}_per_second" in metrics
    ]
    memory = [f"{metrics[name]:.2f} GiB{kind}" for name, kind in MEMORY.items() if name in metrics]
    left = int(metrics["phase_seconds_left"])
    clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
    return f"{phase} {done}/{total}: {', '.join(values)}; {', '.join([*speed, *memory, clock])}"


MEMORY = {"peak_memory_gib": "", "peak_gpu_memory_gib": " on the GPU"}
