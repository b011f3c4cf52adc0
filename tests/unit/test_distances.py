"""Distances between two sets of vectors: against loops, exact assignments and what must not change them."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from torch.nn import functional as F

from seqgan_hf.functional import squared_mmd, transport_plan


WIDTHS = (0.5, 1.0, 3.0)


def sets(ours: int = 5, theirs: int = 4, width: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(n, width, generator=rng, dtype=torch.float64) for n in (ours, theirs))
    return first.requires_grad_(), second + 0.5


def mmd_by_loops(ours: torch.Tensor, theirs: torch.Tensor, unbiased: bool) -> torch.Tensor:
    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return sum(torch.exp(-((x - y) ** 2).sum() / (2 * width**2)) for width in WIDTHS)

    def within(rows: torch.Tensor) -> torch.Tensor:
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j or not unbiased]
        return sum(kernel(rows[i], rows[j]) for i, j in pairs) / len(pairs)

    between = sum(kernel(x, y) for x in ours for y in theirs) / (len(ours) * len(theirs))
    return within(ours) + within(theirs) - 2 * between


@pytest.mark.parametrize("unbiased", [False, True])
def test_mmd_and_its_gradient_are_those_of_a_double_loop(unbiased):
    ours, theirs = sets()
    found, expected = squared_mmd(ours, theirs, WIDTHS, unbiased), mmd_by_loops(ours, theirs, unbiased)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(value, ours)[0] for value in (found, expected)]
    assert gradients[1].abs().max() > 0.01
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_mmd_of_equal_sets_is_zero_and_so_is_its_slope():
    ours, _ = sets()
    found = squared_mmd(ours, ours.detach().flip(0), WIDTHS)
    assert abs(float(found.detach())) < 1e-14
    assert torch.autograd.grad(found, ours)[0].abs().max() < 1e-14


@pytest.mark.parametrize("unbiased", [False, True])
def test_mmd_does_not_change_with_the_order_or_the_axes_or_the_origin_of_features(unbiased):
    ours, theirs = sets()
    expected = squared_mmd(ours, theirs, WIDTHS, unbiased)
    axes = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    moved = [rows.flip(0) @ axes + 7 for rows in (ours, theirs)]
    torch.testing.assert_close(squared_mmd(*moved, WIDTHS, unbiased), expected, rtol=1e-10, atol=1e-12)
    # in float32 differences are kept where features lie far from zero
    far = [rows.detach().float() + 1000 for rows in (ours, theirs)]
    torch.testing.assert_close(squared_mmd(*far, WIDTHS, unbiased).double(), expected.detach(), rtol=1e-3, atol=1e-4)


def test_mmd_is_no_coarser_under_autocast():
    """Differences of features are small beside the features."""
    ours, theirs = (rows.detach().float() * 0.1 for rows in sets())
    ours, theirs = (F.pad(rows, (0, 1), value=value) for rows, value in ((ours, 3.0), (theirs, -3.0)))
    expected = squared_mmd(ours, theirs, WIDTHS)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(squared_mmd(ours, theirs, WIDTHS), expected)


def test_unbiased_mmd_of_two_samples_of_one_law_is_zero_in_the_mean_and_the_biased_one_is_not():
    rng = torch.Generator().manual_seed(0)
    draws = [torch.randn(2, 8, 3, generator=rng, dtype=torch.float64) for _ in range(2000)]
    means = {}
    for unbiased in (False, True):
        values = torch.stack([squared_mmd(*pair, WIDTHS, unbiased) for pair in draws])
        means[unbiased] = float(values.mean() / (values.std() / math.sqrt(len(values))))
    assert abs(means[True]) < 4 and means[False] > 20


# --- Transport -------------------------------------------------------------------------------------------------------


def costs(rows: int, columns: int, seed: int, dtype=torch.float64) -> torch.Tensor:
    """1 - cos of random vectors, which is not symmetric."""
    rng = torch.Generator().manual_seed(seed)
    first, second = (F.normalize(torch.randn(n, 4, generator=rng, dtype=dtype), dim=1) for n in (rows, columns))
    return 1 - first @ second.T


@pytest.mark.parametrize("seed", range(5))
def test_the_plan_of_six_is_the_best_assignment(seed):
    table = costs(6, 6, seed)
    plan = transport_plan(table)
    assert (plan.sum(dim=0) - 1 / 6).abs().max() < 1e-12
    assert (plan.sum(dim=1) - 1 / 6).abs().max() < 2e-5
    best = min(sum(float(table[i, j]) for i, j in enumerate(order)) for order in permutations(range(6))) / 6
    assert float((plan * table).sum()) == pytest.approx(best, rel=0.01)


def test_rows_and_columns_are_not_taken_for_each_other():
    """One row is dear everywhere, one column cheap everywhere: each still gets its share, and no more."""
    table = costs(6, 6, 0)
    table[1] += 3
    table[:, 4] -= 2
    plan = transport_plan(table)
    for sums in (plan.sum(dim=0), plan.sum(dim=1)):
        assert (sums - 1 / 6).abs().max() < 2e-5
    torch.testing.assert_close(transport_plan(costs(6, 6, 0)), plan, rtol=0, atol=1e-6)  # it is the same plan
    assert (transport_plan(costs(6, 6, 0).T) - plan).abs().max() > 0.01


def test_sets_of_unequal_size():
    """3 weights for 6 places: the optimum is an assignment to doubled weights."""
    table = costs(3, 6, 3)
    plan = transport_plan(table, outer=200)
    assert (plan.sum(dim=0) - 1 / 6).abs().max() < 1e-12 and (plan.sum(dim=1) - 1 / 3).abs().max() < 1e-4
    doubled = table.repeat_interleave(2, dim=0)
    best = min(sum(float(doubled[i, j]) for i, j in enumerate(order)) for order in permutations(range(6))) / 6
    assert float((plan * table).sum()) == pytest.approx(best, rel=0.01)


def test_small_steps_lose_nothing_in_float32():
    """exp(-cost / beta) is below the smallest float32 for every pair."""
    table = costs(6, 6, 0, torch.float32) + 1
    plan = transport_plan(table, beta=0.005, inner=50)
    assert plan.isfinite().all() and (plan.sum(dim=1) - 1 / 6).abs().max() < 1e-4
    expected = float((transport_plan(table.double()) * table).sum())
    assert float((plan * table).sum()) == pytest.approx(expected, rel=0.01)


def test_the_gradient_of_the_cost_is_the_plan():
    table = costs(6, 6, 0).requires_grad_()
    plan = transport_plan(table)
    assert not plan.requires_grad
    torch.testing.assert_close(torch.autograd.grad((plan * table).sum(), table)[0], plan)
