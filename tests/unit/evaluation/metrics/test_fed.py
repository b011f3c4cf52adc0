"""Frechet distance of embeddings, against the matrix root and closed forms."""

import math

import numpy as np
import pytest
import scipy.linalg

from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.metrics.fed import frechet_embedding_distance


def fed(ours, theirs):
    return frechet_embedding_distance(ours, theirs)["fed"]


def reference_frechet(ours, theirs):
    s, t = np.cov(ours, rowvar=False), np.cov(theirs, rowvar=False)
    shift = ours.mean(0) - theirs.mean(0)
    return shift @ shift + np.trace(s + t) - 2 * np.trace(scipy.linalg.sqrtm(s @ t)).real


@pytest.mark.parametrize(("size", "other", "width"), [(500, 400, 8), (200, 300, 40)])
def test_frechet_distance_equals_the_matrix_root(size, other, width):
    source = np.random.default_rng(0)
    mix = source.normal(size=(width, width))
    ours, theirs = source.normal(size=(size, width)) @ mix, source.normal(size=(other, width)) + 0.3
    assert fed(ours, theirs) == pytest.approx(reference_frechet(ours, theirs), rel=1e-9)


def test_frechet_distance_is_exact_with_fewer_texts_than_dimensions():
    source = np.random.default_rng(1)
    ours = source.normal(size=(20, 64))
    assert fed(ours, ours) == pytest.approx(0.0, abs=1e-9)
    assert fed(ours, ours + 2.0) == pytest.approx(64 * 4.0, rel=1e-12)


def test_frechet_distance_of_gaussians_has_its_closed_form():
    scales = np.array([1.0, 2.0, 3.0])
    grid = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T.astype(float)  # uncorrelated columns
    deviation = math.sqrt(8 / 7)
    expected = ((scales - 1) ** 2).sum() * deviation**2
    assert fed(grid * scales, grid) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (np.zeros((1, 2)), np.zeros((5, 2)), r"shapes \(1, 2\) and \(5, 2\)"),
        (np.zeros((5, 3)), np.zeros((5, 2)), "shapes"),
        (np.full((5, 2), np.nan), np.zeros((5, 2)), "not finite"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(ours, theirs, message):
    with pytest.raises(UserError, match=message):
        fed(ours, theirs)
