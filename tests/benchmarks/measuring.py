"""What a benchmark measures besides its own time: the machine's limits, peak memory, and what a step cannot avoid."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch


def seconds_of(run: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


# --- The machine -----------------------------------------------------------------------------------------------------


class Rates(NamedTuple):
    """What the machine does at this moment, a second, with the threads that torch has.

    Attributes:
        float32: floating-point operations of a large matrix product by `torch.mm`.
        float32_onednn: the same by oneDNN, which is the faster one on some processors.
        bfloat16: the same by `torch.mm` in bfloat16.
        exponentials: `exp2` of float32 numbers in the cache, the fastest exponential that torch has on a CPU.
        bytes: read or written by copying memory that no cache holds.
    """

    float32: float
    float32_onednn: float
    bfloat16: float
    exponentials: float
    bytes: float


def measure_rates() -> Rates:
    """A tenth of a second or two; the better of two calls each."""
    width, onednn = 1536, getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    a, b = torch.randn(width, width), torch.randn(width, width)
    low_a, low_b = a.bfloat16(), b.bfloat16()
    cached, large = torch.rand(2**17), torch.empty(2**24)
    other = torch.empty_like(large)

    def best(run: Callable[[], object]) -> float:
        return min(seconds_of(run) for _ in range(2))

    product = 2 * width**3
    float32 = product / best(lambda: torch.mm(a, b))
    return Rates(
        float32=float32,
        float32_onednn=float32 if onednn is None else product / best(lambda: onednn(a, b, None, "none", [], "")),
        bfloat16=product / best(lambda: torch.mm(low_a, low_b)),
        exponentials=32 * cached.numel() / best(lambda: [torch.exp2(cached) for _ in range(32)]),
        bytes=2 * 4 * large.numel() / best(lambda: other.copy_(large)),
    )


@dataclass(frozen=True)
class Work:
    """What a step cannot avoid: floating-point operations of its matrix products, exponentials, bytes moved."""

    flops: float = 0.0
    exponentials: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.exponentials + other.exponentials, self.bytes + other.bytes)

    def __mul__(self, times: float) -> Work:
        return Work(self.flops * times, self.exponentials * times, self.bytes * times)

    def floor(self, rates: Rates, low_precision: bool = False) -> tuple[float, str]:
        """The least seconds it can take, and what takes them: whichever kind of work takes longest by itself."""
        products = rates.bfloat16 if low_precision else max(rates.float32, rates.float32_onednn)
        limits = {
            "products": self.flops / products,
            "exp": self.exponentials / rates.exponentials,
            "bytes": self.bytes / rates.bytes,
        }
        name = max(limits, key=limits.get)
        return limits[name], name


# --- Others on the machine -------------------------------------------------------------------------------------------


class OtherWork:
    """How many cores others than this process and its children keep busy, from now on. Linux only."""

    def __init__(self):
        self.before = self._seconds()

    @staticmethod
    def _seconds() -> tuple[float, float]:
        # user, nice, system, (idle, iowait), irq, softirq, steal
        ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        busy = (sum(ticks[:3]) + sum(ticks[5:])) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy - sum(os.times()[:4])

    def cores(self) -> float:
        (began, before), (now, busy) = self.before, self._seconds()
        return max(0.0, busy - before) / (now - began)


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """A process that spins, pinned nowhere."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


# --- Memory ----------------------------------------------------------------------------------------------------------


def peak_memory(run: Callable[[], object]) -> tuple[float, float]:
    """MiB that the process holds at its peak during `run`, and how much of it `run` added.

    The kernel keeps the peak of the resident memory (`VmHWM`). It is set back before the call
    (`/proc/self/clear_refs`), once memory that is free but still held has been given back. Linux only.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    run()
    peak = _resident("VmHWM")
    return peak, peak - before


def _resident(name: str) -> float:
    kibibytes = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(kibibytes.group(1)) / 1024


# --- A step beside its reference and its floor -----------------------------------------------------------------------


class Part(NamedTuple):
    """A piece of a step: what is run, and how many times the whole step would run it."""

    run: Callable[[], object]
    times: float = 1.0


@dataclass
class Case:
    """A step of training or evaluation, ours and plain; what is too long is measured in parts and scaled.

    Attributes:
        ours, plain: the parts; the step takes the sum of their seconds, each multiplied by its `times`.
        work: what the whole step cannot avoid.
        low_precision: ours multiplies in bfloat16 (the plain one stays in float32).
        check: raises where the two do not compute the same.
    """

    ours: list[Part]
    plain: list[Part]
    work: Work
    low_precision: bool = False
    check: Callable[[], None] = lambda: None


class Turn(NamedTuple):
    """One measurement of everything, one after the other, so that a busy neighbour slows all of it."""

    rates: Rates
    ours: float
    plain: float


def whole_seconds(parts: list[Part]) -> float:
    return sum(seconds_of(part.run) * part.times for part in parts)


def summary(case: Case, turns: list[Turn], in_company: list[float], others: float) -> dict[str, float | str]:
    """Medians over turns, ratios taken within each; and the peak memory of one more run, in MiB.

    Args:
        in_company: seconds of ours beside a busy neighbour.
        others: cores that others kept busy during the turns.
    """
    floors = [case.work.floor(turn.rates, case.low_precision) for turn in turns]
    ours_peak, ours_added = peak_memory(lambda: [part.run() for part in case.ours])
    plain_peak, plain_added = peak_memory(lambda: [part.run() for part in case.plain])
    return {
        "ours": statistics.median(turn.ours for turn in turns),
        "plain": statistics.median(turn.plain for turn in turns),
        "ours_of_plain": statistics.median(turn.ours / turn.plain for turn in turns),
        "in_company": statistics.median(in_company),
        "others": others,
        "speeds": _spread([turn.rates for turn in turns]),
        "floor": statistics.median(seconds for seconds, _ in floors),
        "floor_is": statistics.mode(name for _, name in floors),
        "ours_of_floor": statistics.median(
            turn.ours / seconds for turn, (seconds, _) in zip(turns, floors, strict=True)
        ),
        "ours_peak": ours_peak,
        "ours_added": ours_added,
        "plain_peak": plain_peak,
        "plain_added": plain_added,
        "share_of_ours": _share(case.ours),
        "share_of_plain": _share(case.plain),
    }


# Cores that others may keep busy, and how many times as fast a product may be at one turn as at another, while the
# machine still counts as quiet. (A virtual machine does not see who else works on its cores, only that it gets less.)
QUIET, STEADY = 0.1, 1.3


def _spread(rates: list[Rates]) -> float:
    """The fastest product of all turns over the slowest."""
    products = [max(rate.float32, rate.float32_onednn) for rate in rates]
    return max(products) / min(products)


def disturbed(rows: dict[str, dict]) -> str:
    """Which steps were measured while others worked or the machine's own speed changed; empty if none was."""
    busy = [f"{step} ({row['others']:.1f})" for step, row in rows.items() if row["others"] > QUIET]
    unsteady = [f"{step} ({row['speeds']:.1f})" for step, row in rows.items() if row["speeds"] > STEADY]
    said = [f"NOT QUIET: others kept so many cores busy during {', '.join(busy)}."] if busy else []
    if unsteady:
        said.append(
            f"NOT STEADY: so many times as fast was the machine at one turn as at another: {', '.join(unsteady)}."
        )
    return " ".join(said)


def _share(parts: list[Part]) -> str:
    """What was measured of the whole, part by part."""
    return " + ".join("all" if part.times == 1 else f"1/{part.times:.3g}" for part in parts)


COLUMNS = (
    "step",
    "ours",
    "plain",
    "ours / plain",
    "with a busy neighbour",
    "floor",
    "ours / floor",
    "peak MiB, ours (added)",
    "peak MiB, plain (added)",
    "measured of ours",
    "measured of plain",
)


def table(rows: dict[str, dict]) -> list[str]:
    """Summaries by the steps' names as lines of a Markdown table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for step, row in rows.items():
        cells = [
            step,
            f"{row['ours']:.3g} s",
            f"{row['plain']:.3g} s",
            f"{row['ours_of_plain']:.3g}",
            f"{row['in_company']:.3g} s",
            f"{row['floor']:.3g} s ({row['floor_is']})",
            f"{row['ours_of_floor']:.3g}",
            f"{row['ours_peak']:.0f} (+{row['ours_added']:.0f})",
            f"{row['plain_peak']:.0f} (+{row['plain_added']:.0f})",
            row["share_of_ours"],
            row["share_of_plain"],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
