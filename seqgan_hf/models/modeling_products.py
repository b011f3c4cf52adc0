"""Matrix products by the library that is the faster one on the processor.

The file is copied beside the weights of a model that imports it.
"""

import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


def in_float32(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype == torch.float32 and not torch.is_autocast_enabled(a.device.type)


def multiply(a: Tensor, b: Tensor, bias: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
    """a b^T + bias for matrices (M, K) and (N, K) and a bias (N,), by the faster library; without gradient.

    The result may lie in the first rows of `memory` (M or more, N).
    """
    eager = ONEDNN_LINEAR is not None and not torch.compiler.is_compiling()
    if eager and a.device.type == "cpu" and in_float32(a, b) and a.numel() > 0:
        # oneDNN takes a transposed b as it is, but is a hundred times slower on strided matrices, such as filters cut
        # to a short sequence
        b = b if b.T.is_contiguous() else b.contiguous()
        return ONEDNN_LINEAR(a.contiguous(), b, bias, "none", [], "")
    if memory is not None and bias is None and in_float32(a, b):
        return torch.mm(a, b.T, out=memory[: len(a)])
    return F.linear(a, b, bias)


class Product(torch.autograd.Function):
    """`multiply`, differentiable any number of times."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return multiply(a, b)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        return (
            Product.apply(gradient, b.T) if ctx.needs_input_grad[0] else None,
            Product.apply(gradient.T, a.T) if ctx.needs_input_grad[1] else None,
        )


class Linear(nn.Linear):
    """`nn.Linear` for matrices, by `multiply`."""

    def forward(self, inputs: Tensor) -> Tensor:
        dtype = compute_dtype(inputs)
        return Product.apply(inputs.to(dtype), self.weight.to(dtype)).add_(self.bias)
