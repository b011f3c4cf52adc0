"""Means and sums over the batches of all processes."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather, all_reduce
from torch.nn import functional as F

from ..samples import BoolTensor, Samples


def count_processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def sum_over_processes(values: Tensor, differentiable: bool = False) -> Tensor:
    """The sum of a tensor over all processes, on each of them; of one process, the tensor itself.

    If `differentiable`, gradient goes back to all processes; all of them must then ask for it.
    """
    if count_processes() == 1:
        return values
    if differentiable:
        return all_reduce(values)
    total = values.detach().clone()
    distributed.all_reduce(total)
    return total


def rows_of_processes(values: Tensor, differentiable: bool = False) -> Tensor:
    """The rows of all processes, one after another, on each of them; of one process, the tensor itself.

    Args:
        values: of any shape (B, ...); B may be another one on each process, what follows may not.
        differentiable: whether gradient goes back to all processes; all of them must then ask for it. Where each has
            the same loss of all rows, the mean of their gradients is that loss's own.
    """
    if count_processes() == 1:
        return values
    count = torch.tensor([len(values)], device=values.device)
    counts = [torch.empty_like(count) for _ in range(count_processes())]
    distributed.all_gather(counts, count)
    sizes = torch.cat(counts).tolist()
    filled = torch.cat([values, values.new_zeros(max(sizes) - len(values), *values.shape[1:])])
    if differentiable:
        parts = all_gather(filled)
    else:
        parts = [torch.empty_like(filled) for _ in range(count_processes())]
        distributed.all_gather(parts, filled.detach().contiguous())
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def place_of_rows(count: int, device: torch.device) -> tuple[int, int]:
    """The rows of the processes before this one, and those of all, where each has a `count` of its own."""
    if count_processes() == 1:
        return 0, count
    counts = rows_of_processes(torch.tensor([count], device=device)).tolist()
    return sum(counts[: distributed.get_rank()]), sum(counts)


def samples_of_processes(samples: Samples) -> Samples:
    """The sequences of all processes, one after another, on each of them; prompts padded on the left to one width."""
    if count_processes() == 1:
        return samples
    width = samples.prompt.shape[1]
    widest = torch.tensor(width, device=samples.ids.device)
    distributed.all_reduce(widest, distributed.ReduceOp.MAX)
    more = (int(widest) - width, 0)
    prompt, mask = F.pad(samples.prompt, more), F.pad(samples.attention_mask[:, :width], more)
    return samples._replace(prompt=prompt, prompt_mask=mask).map(rows_of_processes)


def shared_softmax(scores: Tensor) -> Tensor:
    """This process's share (B,) of the softmax over the batches of all processes: the mean of the shares sums to 1."""
    if count_processes() == 1:
        return scores.softmax(dim=0)
    largest = scores.max()
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    weights = (scores - largest).exp()
    return weights * (count_processes() / sum_over_processes(weights.sum()))


def shared_mean(values: Tensor, mask: BoolTensor) -> Tensor:
    """This process's share of the masked mean over the batches of all processes: the mean of the shares is that mean.

    Args:
        values: shape (B, T) or (B,).
        mask: what counts, of the same shape.
    """
    counted = sum_over_processes(mask.sum()).clamp(min=1) / count_processes()
    return values.masked_fill(~mask, 0.0).sum() / counted
