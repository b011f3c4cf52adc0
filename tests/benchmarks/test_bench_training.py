"""Every step of training and evaluation beside plain code and its floor, at three sizes; tables are printed.

    GOMP_SPINCOUNT=3000 pytest tests/benchmarks/test_bench_training.py -o addopts="--import-mode=importlib" \
        --benchmark-only --benchmark-json=benchmark.json

The variable is what the command sets for itself. One size: `-k paper`, `-k coco` or `-k gpt2`; one step:
`-k "paper and rollout"`. Run it on an otherwise idle machine; it says so where others worked meanwhile. What is
measured, and how much of it, is in `steps.py`; the references are in `plain.py`.
"""

from __future__ import annotations

import pytest

from tests.benchmarks.conftest import RESULTS
from tests.benchmarks.measuring import OtherWork, Turn, busy_neighbour, measure_rates, summary, whole_seconds
from tests.benchmarks.steps import OPERATIONS, SIZES, Size


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)
def test_step(benchmark, size: Size, operation: str):
    """Rates of the machine, plain code, ours, and again; the first turn warms up.

    A run beside a busy neighbour follows, or two, and one that measures memory.
    """
    case = OPERATIONS[operation](size)
    case.check()
    before, ours, others = [], [], OtherWork()
    benchmark.group = size.name
    benchmark.pedantic(
        lambda: ours.append(whole_seconds(case.ours)),
        setup=lambda: before.append((measure_rates(), whole_seconds(case.plain))),
        rounds=size.rounds,
        warmup_rounds=1,
    )
    turns = [Turn(rates, seconds, other) for (rates, other), seconds in zip(before, ours, strict=True)][1:]
    elsewhere = others.cores()
    with busy_neighbour():
        in_company = [whole_seconds(case.ours) for _ in range(min(2, size.rounds))]
    row = summary(case, turns, in_company, elsewhere)
    benchmark.extra_info.update(row, rates=[turn.rates._asdict() for turn in turns])
    RESULTS.setdefault(size.name, {})[operation] = (row, turns)
