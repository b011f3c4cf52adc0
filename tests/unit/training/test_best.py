"""The best evaluation of a run."""

from __future__ import annotations

import math

import pytest

from seqgan_hf.evaluation.record import Estimate
from tests.tools.small_runs import build, small_corpus


@pytest.mark.parametrize(("greater", "expected"), [(True, [None, 2, 2, 2, 2, 3]), (False, [None, 2, 2, 1, 1, 1])])
def test_the_best_value_is_the_largest_or_the_smallest_and_never_no_number(tmp_path, greater, expected):
    settings = {"metric_for_best_model": "score", "greater_is_better": greater}
    trainer = build(small_corpus(), tmp_path / "run", **settings)
    best, found, asked = trainer.parts.best, [], []
    for number, value in enumerate([math.nan, 2, math.nan, 1, 1, 3]):
        trainer.session.control.should_save = False
        best.consider({"name": str(number)}, {"score": Estimate(value)})
        found.append(best.value)
        asked.append(trainer.session.control.should_save)
    assert found == expected
    changed = [now != before for before, now in zip([None, *expected], expected, strict=False)]
    assert asked == changed, "a checkpoint is asked for where the value is a new best one"
    assert best.evaluation == {"name": str(max(i for i, new in enumerate(changed) if new))}


def test_a_metric_that_nobody_measures_is_refused(tmp_path):
    trainer = build(small_corpus(), tmp_path / "run", metric_for_best_model="bleu")
    with pytest.raises(ValueError, match="metric_for_best_model='bleu': expected one of nll, score"):
        trainer.parts.best.consider({}, {"score": Estimate(1.0), "nll": Estimate(2.0)})
