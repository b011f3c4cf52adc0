"""Means and sums over the batches of all processes."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_reduce

from ..samples import BoolTensor


def sum_over_processes(values: Tensor, differentiable: bool = False) -> Tensor:
    """The sum of a tensor over all processes, on each of them; of one process, the tensor itself.

    Args:
        differentiable: whether gradient goes back to all processes; all of them must then ask for it.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    if differentiable:
        return all_reduce(values)
    total = values.detach().clone()
    distributed.all_reduce(total)
    return total


def rows_of_processes(values: Tensor) -> Tensor:
    """The rows of all processes, one after another, on each of them; equally many on each. No gradient."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    parts = [torch.empty_like(values) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, values.detach().contiguous())
    return torch.cat(parts)


def shared_softmax(scores: Tensor) -> Tensor:
    """This process's share (B,) of the softmax over the batches of all processes: the mean of the shares sums to 1."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return scores.softmax(dim=0)
    largest = scores.max()
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    weights = (scores - largest).exp()
    return weights * (distributed.get_world_size() / sum_over_processes(weights.sum()))


def shared_mean(values: Tensor, mask: BoolTensor) -> Tensor:
    """This process's share of the masked mean over the batches of all processes: the mean of the shares is that mean.

    Args:
        values: shape (B, T) or (B,).
        mask: what counts, of the same shape.
    """
    processes = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
    counted = sum_over_processes(mask.sum()).clamp(min=1) / processes
    return values.masked_fill(~mask, 0.0).sum() / counted
