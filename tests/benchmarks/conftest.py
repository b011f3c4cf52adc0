"""Benchmarks print ratios within one run, since machines drift: to plain code, and to what the work costs at least."""

from __future__ import annotations

import statistics

import pytest
import torch

from tests.benchmarks.measuring import Rates, disturbed, table


# What test_bench_training.py measured: size, step -> summary and turns.
RESULTS: dict[str, dict] = {}


@pytest.fixture(scope="session", autouse=True)
def threads():
    torch.set_num_threads(2)


def pytest_terminal_summary(terminalreporter):
    """The tables, ready for docs/performance.md."""
    for size, steps in RESULTS.items():
        terminalreporter.section(f"speed: {size}")
        rows = {name: row for name, (row, _) in steps.items()}
        for line in (*table(rows), disturbed(rows)):
            terminalreporter.write_line(line)
        rates = [turn.rates for _, turns in steps.values() for turn in turns]
        medians = Rates(*map(statistics.median, zip(*rates, strict=True)))
        terminalreporter.write_line(
            f"\n{torch.get_num_threads()} threads, torch {torch.__version__}; matrix products at "
            f"{medians.float32 / 1e9:.0f} GFLOP/s by torch.mm, {medians.float32_onednn / 1e9:.0f} by oneDNN, "
            f"{medians.bfloat16 / 1e9:.0f} in bfloat16; {medians.exponentials / 1e9:.2f} exp a nanosecond; "
            f"{medians.bytes / 1e9:.0f} GB/s."
        )
