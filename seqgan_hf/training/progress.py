"""What a run reports: means of what happened in a unit, rates, and one line of the record."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from ..evaluation.record import Estimate
from ..generation.rollouts import rollouts_done
from ..objectives.base import Phase
from ..runs.record import UNITS
from ..samples import Samples
from .session import Session


class Progress:
    """Collects metrics during a unit of work and reports their means when it is done."""

    def __init__(self, session: Session):
        self.session, self.meter = session, Meter(session.device)
        self.position = "nothing done yet"  # where the run is, in words
        self._collected: dict[str, list[Tensor | float]] = defaultdict(list)

    def begin(self, phase: Phase, done: int) -> None:
        """A unit of a phase begins, of which so many are done."""
        self.position = f"{phase}, {UNITS[phase]} {done + 1}"
        self.meter.begin(phase)

    def add(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Values whose mean is logged when the unit is done; tensors stay on the device until then."""
        for name, value in metrics.items():
            self._collected[name].append(value)

    def measure(self) -> dict[str, float]:
        """Means and speed of the unit that was just done."""
        return self._means() | rates(gather_object([self.meter.work()]))

    def report(
        self, phase: Phase, done: int, total: int, values: Mapping[str, float], results: Mapping[str, Estimate]
    ) -> None:
        """Write a unit's values of `measure` and results of its evaluation, if any, and hand them to the callbacks."""
        session, unit = self.session, UNITS[phase]
        metrics = dict(values) | {name: result.value for name, result in results.items()}
        intervals = {name: [r.low, r.high] for name, r in results.items() if r.low is not None}
        signatures = {name: result.signature for name, result in results.items() if result.signature}
        record = {name: found for name, found in [("intervals", intervals), ("signatures", signatures)] if found}
        position = {"phase": phase, unit: done, "global_step": session.state.global_step}
        line: dict[str, Any] = {**position, "seconds": round(session.seconds, 3), **metrics}
        session.state.epoch = float(done)
        session.state.log_history.append(line)
        if session.is_main:
            session.folder.append_metrics(line | record)
        session.call("on_log", logs={f"{phase}/{unit}": done, f"{phase}/total": total, **metrics})
        session.call("on_epoch_end")
        self.meter.resume_clock()

    def _means(self) -> dict[str, float]:
        """The means of what was collected in a unit, over the processes that did."""
        own, values = {}, defaultdict[str, list[float]](list)
        for name, collected in self._collected.items():
            tensors = [torch.as_tensor(value, dtype=torch.float32, device=self.session.device) for value in collected]
            own[name] = float(torch.stack(tensors).mean())
        self._collected.clear()
        for name, value in sorted(item for means in gather_object([own]) for item in means.items()):
            values[name].append(value)
        return {name: sum(means) / len(means) for name, means in values.items()}

    def state_dict(self) -> dict[str, Any]:
        return {name: [float(value) for value in values] for name, values in self._collected.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._collected.update(state)


class Meter:
    """Counts the work of this process, whose models are on `device`, between two reports.

    Work that is counted began at `since`; what was counted last took `seconds`.
    """

    def __init__(self, device: torch.device):
        self.device, self.phase = device, ""
        self.sequences, self.tokens = 0, torch.zeros((), dtype=torch.long, device=device)
        self.rollouts = rollouts_done()
        self.since, self.seconds = time.perf_counter(), 0.0

    def begin(self, phase: str) -> None:
        """A unit of a phase begins; what has happened between two phases was no training."""
        if phase != self.phase:
            self.phase, self.since, self.rollouts = phase, time.perf_counter(), rollouts_done()

    def count(self, *samples: Samples) -> None:
        """A model has learnt from these sequences."""
        for batch in samples:
            self.sequences += batch.batch_size
            self.tokens += batch.mask.sum()

    def work(self) -> dict[str, float]:
        """What was done since the last call, and in how many seconds: sums over processes are sums of these."""
        now, rollouts = time.perf_counter(), rollouts_done()
        done = {"sequences": self.sequences, "tokens": int(self.tokens), "rollouts": rollouts - self.rollouts}
        self.seconds, self.since, self.rollouts = now - self.since, now, rollouts
        self.sequences = 0
        self.tokens.zero_()
        return done | {"seconds": self.seconds} | peak_memory(self.device)

    def resume_clock(self) -> None:
        """What has happened since the last report, an evaluation for example, was no training."""
        self.since = time.perf_counter()


def rates(work: list[dict[str, float]]) -> dict[str, float]:
    """Values to log from the `work` of all processes: rates of all together, the memory of the largest."""
    seconds = max(own["seconds"] for own in work)
    totals = {name: sum(own[name] for own in work) for name in ("sequences", "tokens", "rollouts")}
    memory = [name for name in ("peak_memory_gib", "peak_gpu_memory_gib") if name in work[0]]
    values = {f"{name}_per_second": round(total / seconds, 1) for name, total in totals.items() if total}
    return values | {name: round(max(own[name] for own in work), 3) for name in memory}


def peak_memory(device: torch.device) -> dict[str, float]:
    """The most main memory that this process has held so far, and the most memory of its GPU, in GiB."""
    found = {}
    with suppress(ImportError):  # on Windows
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # of `ru_maxrss`, in bytes
        found["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    if device.type == "cuda":
        found["peak_gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return found
