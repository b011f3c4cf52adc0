"""Benchmarks print ratios within one run, since machines drift: to plain code, and to what the arithmetic costs."""

from __future__ import annotations

import statistics
import time

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def threads():
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def matrix_rate() -> float:
    """Floating-point operations per second of a large float32 matrix product, measured now."""
    a = torch.randn(2048, 2048)
    return 2 * 2048**3 / median_seconds(lambda: a @ a, repeats=9)


def median_seconds(function, repeats: int = 3) -> float:
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
