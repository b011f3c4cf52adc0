"""The benchmarks of every step run, and compute what their references compute; how fast is not asked here."""

from __future__ import annotations

import pytest
import torch
from benchmarks.measuring import Turn, measure_rates, peak_memory, summary, table, whole_seconds
from benchmarks.steps import OPERATIONS, SIZES, SMALL


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_step_runs_beside_its_reference(operation):
    case = OPERATIONS[operation](SMALL)
    case.check()
    turn = Turn(measure_rates(), whole_seconds(case.ours), whole_seconds(case.plain))
    row = summary(case, [turn])
    assert row["ours"] > 0 and row["plain"] > 0 and row["floor"] > 0 and row["ours_peak"] > row["ours_added"] >= 0
    assert len(table({operation: row})) == 3


@pytest.mark.parametrize("size", [*SIZES, SMALL], ids=lambda size: size.name)
def test_the_prefixes_that_stand_for_all_are_as_long_as_these(size):
    assert sum(size.prefix_lengths) / len(size.prefix_lengths) == size.length / 2


def test_work_is_that_of_the_paper():
    """Floating-point operations counted by hand from the filters, and from 320,000 weights of the output layer."""
    paper = SIZES[0]
    assert paper.judge_work(1).flops == pytest.approx(27e6, rel=0.01)
    head = 2 * 32 * 5000
    assert paper.generator_work(1).flops == head + 2 * 4 * 32 * 64


def test_peak_memory_sees_what_is_freed_before_the_end():
    held = peak_memory(lambda: torch.ones(25_000_000).sum())[1]  # 95 MiB
    assert 90 < held < 130
