"""Pictures, by what is drawn, and the page."""

import numpy as np
import pytest

from seqgan_hf.evaluation.record import Estimate, Result
from seqgan_hf.evaluation.report import draw_lengths, draw_quality_diversity, format_estimate, report_page
from seqgan_hf.evaluation.suite import Evaluation, evaluate_texts
from seqgan_hf.evaluation.sweep import Point, draw_sweep


@pytest.fixture(scope="module")
def evaluation():
    samples = ["a cat sat", "a dog ran far", "a cat ran"] * 15
    return evaluate_texts(samples, ["a cat sat down", "the dog ran far away"] * 15, samples, ["bleu", "self_bleu"])


def points(container):
    """x, y, and the ends of the bars of an errorbar, each as an array."""
    line, _, (bars,) = container
    return line.get_xdata(), line.get_ydata(), np.array([segment[:, 1] for segment in bars.get_segments()])


def test_quality_and_diversity_are_drawn_with_intervals_beside_real_text(evaluation):
    panels = draw_quality_diversity(evaluation).axes
    assert [axes.get_title() for axes in panels] == ["BLEU (quality)", "Self-BLEU (repetition)"]
    for axes, prefix in zip(panels, ("bleu_", "self_bleu_"), strict=True):
        results = [evaluation.results[f"{prefix}{n}"] for n in (2, 3, 4, 5)]
        assert [container.get_label() for container in axes.containers] == ["samples", "real text"]
        for container, estimates in zip(axes.containers, (results, [r.real for r in results]), strict=True):
            _, values, bars = points(container)
            assert values.tolist() == [e.value for e in estimates]
            ends = [(e.low, e.high) if e.low is not None else (e.value, e.value) for e in estimates]
            np.testing.assert_allclose(bars, ends)
        assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "3", "4", "5"]


def test_what_was_not_measured_is_not_drawn():
    evaluation = Evaluation({"bleu_2": Result(0.5, 0.4, 0.6)})
    [axes] = draw_quality_diversity(evaluation).axes
    assert [container.get_label() for container in axes.containers] == ["samples"]  # no real text beside it
    nothing = Evaluation({"nll_test": Result(3.0)})
    assert draw_quality_diversity(nothing) is None and draw_lengths(nothing) is None
    assert draw_sweep([Point("a", 1.0, nothing)]) is None


def test_lengths_are_drawn_as_shares(evaluation):
    [axes] = draw_lengths(evaluation).axes
    samples, real = (patch.get_data() for patch in axes.patches)
    assert samples.values.tolist() == pytest.approx([0, 0, 0, 2 / 3, 1 / 3, 0])  # tokens 0 .. 5
    assert real.values.tolist() == pytest.approx([0, 0, 0, 0, 0.5, 0.5])
    assert samples.edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5]


def test_a_sweep_is_a_curve_for_each_generator_from_cold_to_hot():
    def point(model, temperature, repetition, quality):
        results = {
            "self_bleu_4": Result(repetition, real=Estimate(0.3)),
            "bleu_4": Result(quality, real=Estimate(0.7)),
            "nll_test": Result(1.0),  # without nll_oracle: no panel
        }
        return Point(model, temperature, Evaluation(results))

    [axes] = draw_sweep([point("a", 1.0, 0.5, 0.6), point("b", 1.0, 0.4, 0.5), point("a", 0.5, 0.9, 0.8)]).axes
    drawn = {line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines[:2]}
    assert drawn == {"a": ([0.9, 0.5], [-0.8, -0.6]), "b": ([0.4], [-0.5])}
    star = axes.lines[2]
    assert (star.get_label(), *star.get_xdata(), *star.get_ydata()) == ("real text", 0.3, -0.7)
    assert [text.get_text() for text in axes.texts] == ["0.5", "1", "1"]


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (None, "-"),
        (Estimate(float("nan")), "-"),
        (Estimate(0.00012), "1.2e-04"),
        (Estimate(12.0), "12"),
        (Estimate(1234.5), "1,234"),
        (Estimate(0.74, 0.7349, 0.745), "0.740 [0.735, 0.745]"),
    ],
)
def test_values_are_written_short(estimate, expected):
    assert format_estimate(estimate) == expected


def test_where_nothing_is_wrong_the_page_says_what_this_was_found_on():
    real = Estimate(0.5, 0.4, 0.6)
    results = {
        "bleu_2": Result(0.5, 0.4, 0.6, real=real),
        "self_bleu_2": Result(0.9, real=real),
        "length_sd": Result(1.0),
    }
    page = report_page(Evaluation(results), "Mine", [])
    assert "None of these lies on the bad side of real text's by more than the intervals: bleu_2." in page
    assert "Not judged, as an interval is missing: self_bleu_2." in page


def test_where_nothing_can_be_said_the_page_does_not_say_that_nothing_is_wrong():
    page = report_page(evaluate_texts(["abc", "abd"] * 20, ["abc", "abe"] * 20, None, ["bleu"]), "Mine", [])
    assert "- cannot judge: the median text has 1 token" in page and "None of these" not in page


def test_the_page_shows_flags_values_and_samples(evaluation):
    page = report_page(evaluation, "Mine", ["lengths.png"])
    bleu = evaluation.results["bleu_2"]
    assert f"| bleu_2 | {format_estimate(bleu)} | {format_estimate(bleu.real)} | near real text |" in page
    assert "![lengths](lengths.png)" in page and "a dog ran far" in page and f"bleu_2|{bleu.signature}" in page
    assert all(flag in page for flag in evaluation.flags) and all(note in page for note in evaluation.notes)
