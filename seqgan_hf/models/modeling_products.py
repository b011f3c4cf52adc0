"""Matrix products by the library that is the faster one on the processor.

The file is copied beside the weights of a model that imports it, with `modeling_threads.py`.
"""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .modeling_threads import side_by_side, threads_worth


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The type to multiply in: the tensor's own, or that of `torch.autocast` around the call."""
    device = tensor.device.type
    if tensor.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return tensor.dtype
    return torch.get_autocast_dtype(device)


def _onednn_linear() -> Any:
    """oneDNN's product, which is up to twice as fast as that of MKL (`torch.mm`) on processors that are not Intel's.

    On Intel's MKL is the faster one, by up to three times for narrow matrices. Eager models are offered oneDNN in
    lower precisions only; the compiler chooses for itself, and cannot take this operation where it knows that a matrix
    is a view of another.
    """
    processors = Path("/proc/cpuinfo")
    described = processors.read_text() if processors.exists() else platform.processor()
    if "GenuineIntel" in described or not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


ONEDNN_LINEAR = _onednn_linear()


# The most columns of matrices that `torch.mm` multiplies as fast as oneDNN does.
NARROW = 128


def in_float32(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype == torch.float32 and not torch.is_autocast_enabled(a.device.type)


def multiply(a: Tensor, b: Tensor, bias: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
    """a b^T + bias for matrices (M, K) and (N, K) and a bias (N,), by the faster library; without gradient.

    The result may lie in the first rows of `memory` (M or more, N), which spares a copy of what costs little to make.
    """
    in_place = memory is not None and bias is None and in_float32(a, b)
    if in_place and (ONEDNN_LINEAR is None or a.shape[1] <= NARROW):
        return torch.mm(a, b.T, out=memory[: len(a)])
    eager = ONEDNN_LINEAR is not None and not torch.compiler.is_compiling()
    if eager and a.device.type == "cpu" and in_float32(a, b) and a.numel() > 0:
        # oneDNN takes a transposed b as it is, but is a hundred times slower on strided matrices, such as filters cut
        # to a short sequence
        b = b if b.T.is_contiguous() else b.contiguous()
        return ONEDNN_LINEAR(a.contiguous(), b, bias, "none", [], "")
    return F.linear(a, b, bias)


def multiply_side_by_side(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """`multiply` for pairs of matrices, in pieces that threads share on a CPU where that is worth their while.

    There is about one for each thread, since every piece of a product reads the whole other matrix: the smaller one,
    where the larger can be cut.
    """
    operations = [2 * a.numel() * len(b) for a, b in pairs]
    threads = threads_worth(sum(operations), pairs[0][0].device) if pairs else 1
    if threads == 1:
        return [multiply(a, b) for a, b in pairs]
    results: dict[int, Tensor] = {}
    pieces: list[tuple[int, slice | None, slice]] = []
    whole = slice(None)
    for index, (a, b) in enumerate(pairs):
        of_b = len(b) > len(a) and b.is_contiguous()
        rows = len(b) if of_b else len(a)
        number = min(round(threads * operations[index] / sum(operations)), rows)
        if number < 2:
            pieces.append((index, None, whole))
            continue
        results[index] = a.new_empty(len(a), len(b), dtype=compute_dtype(a))
        size = -(-rows // number)
        parts = [slice(first, first + size) for first in range(0, rows, size)]
        pieces += [(index, whole, part) if of_b else (index, part, whole) for part in parts]

    def work(piece: tuple[int, slice | None, slice]) -> None:
        index, rows, columns = piece
        a, b = pairs[index]
        if rows is None:
            results[index] = multiply(a, b)
            return
        place = results[index][rows, columns]
        found = multiply(a[rows], b[columns], memory=place)
        if found.data_ptr() != place.data_ptr():
            place.copy_(found)

    side_by_side(work, pieces, threads)
    return [results[index] for index in range(len(pairs))]


class Products(torch.autograd.Function):
    """`multiply` for pairs of matrices that follow each other, differentiable any number of times."""

    @staticmethod
    def forward(ctx, *matrices: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*matrices)
        return tuple(multiply_side_by_side(list(zip(matrices[::2], matrices[1::2], strict=True))))

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        matrices, wanted = ctx.saved_tensors, list[Tensor]()
        for index, needed in enumerate(ctx.needs_input_grad):
            gradient, other = gradients[index // 2], matrices[index ^ 1]
            if needed:
                wanted += (gradient.T if index % 2 else gradient, other.T)
        found = iter(Products.apply(*wanted) if wanted else ())
        return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b^T for matrices (M, K) and (N, K), differentiable any number of times; see `multiply`."""
    return Products.apply(a, b)[0]


class Linear(nn.Linear):
    """`nn.Linear` for matrices, by `multiply`."""

    def forward(self, inputs: Tensor) -> Tensor:
        dtype = compute_dtype(inputs)
        return product(inputs.to(dtype), self.weight.to(dtype)).add_(self.bias)
