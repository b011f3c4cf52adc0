"""The first picture of the README: its dots lie where the benchmark has measured."""

import pytest

from tests.tools.gain_and_price import REFERENCE, draw, places
from tests.tools.small_runs import ROOT


def test_dots_lie_where_the_benchmark_has_measured():
    found = places(ROOT / "docs/figures/benchmark_oracle/leaderboard.csv")
    assert found["relgan"][0] == pytest.approx([6.459, 7.980], abs=1e-3)  # as in docs/benchmark.md
    assert found["relgan"][1] == pytest.approx([0.065, 0.130], abs=1e-3)
    (axes,) = draw(found).axes
    dots = {
        tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() in "os" and len(line.get_xdata()) == 1
    }
    origin = found[REFERENCE][0]
    assert (0.0, 0.0) in dots and tuple(a - b for a, b in zip(found["relgan"][0], origin, strict=True)) in dots
    shown = [text.get_text() for text in axes.texts]
    assert "RelGAN" in shown and "StepGAN" not in shown and "better in both:\nnone of them" in shown
    named = " ".join(text.get_text() for text in axes.figure.texts)
    assert "StepGAN" in named and "RelGAN" not in named


def test_what_is_better_in_both_is_named():
    found = {REFERENCE: ([6.0, 8.0], [0.1, 0.1]), "gsgan": ([5.9, 7.9], [0.1, 0.1])}
    (axes,) = draw(found).axes
    assert "better in both:\nGSGAN" in [text.get_text() for text in axes.texts]
