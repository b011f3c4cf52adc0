"""Products of matrices, whole and in pieces that threads share: their values, and gradients of both orders."""

from __future__ import annotations

import pytest
import torch

from seqgan_hf.models import modeling_products
from seqgan_hf.models.modeling_products import Products, product


@pytest.fixture(params=[1, 3], ids=["whole", "in pieces"])
def cut(request, monkeypatch):
    """As if the smallest product were worth so many threads."""
    monkeypatch.setattr(modeling_products, "threads_worth", lambda operations, device: request.param)
    return request.param


def pairs(*shapes: tuple[int, int, int], dtype=torch.float64) -> list[torch.Tensor]:
    torch.manual_seed(0)
    both = ((torch.randn(m, k, dtype=dtype), torch.randn(n, k, dtype=dtype)) for m, n, k in shapes)
    return [matrix.requires_grad_() for pair in both for matrix in pair]


SHAPES = [(1, 4, 3), (7, 2, 5), (13, 3, 1), (2, 20, 6)]  # tall ones, and a wide one


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_products_are_those_of_each_pair(cut, dtype):
    matrices = pairs(*SHAPES, dtype=dtype)
    found = Products.apply(*matrices)
    for result, a, b in zip(found, matrices[::2], matrices[1::2], strict=True):
        torch.testing.assert_close(result, a @ b.T)
        assert result.dtype == dtype


def test_gradients_of_both_orders(cut):
    matrices = pairs((5, 4, 3), (2, 3, 4))
    assert torch.autograd.gradcheck(Products.apply, matrices)
    assert torch.autograd.gradgradcheck(Products.apply, matrices)


@pytest.mark.parametrize("frozen", range(4))
def test_nothing_is_multiplied_for_a_matrix_without_gradient(cut, frozen, monkeypatch):
    matrices, multiplied = pairs((5, 4, 3), (6, 3, 4)), []
    matrices[frozen].requires_grad_(False)
    losses = sum(result.square().sum() for result in Products.apply(*matrices))
    real = modeling_products.multiply_side_by_side
    monkeypatch.setattr(
        modeling_products, "multiply_side_by_side", lambda given: multiplied.extend(given) or real(given)
    )
    losses.backward()
    assert len(multiplied) == 3
    for index, matrix in enumerate(matrices):
        a, b = matrices[index], matrices[index ^ 1]
        expected = None if index == frozen else 2 * (a @ b.T) @ b  # of the sum of squares, for either factor
        assert (matrix.grad is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(matrix.grad, expected)


def test_autocast_decides_the_type_of_a_result(cut):
    with torch.autocast("cpu", torch.bfloat16):
        assert product(*pairs((6, 3, 4), dtype=torch.float32)).dtype == torch.bfloat16
