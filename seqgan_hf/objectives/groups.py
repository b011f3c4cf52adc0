"""Several samples of one prompt, in consecutive rows, which are compared with each other."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError
from ..samples import Samples


def check_groups(name: str, size: int, batch_size: int) -> None:
    """Raise a UserError where a batch does not consist of whole groups."""
    if batch_size % size:
        problem = f"{name}={size} with batches of {batch_size}"
        raise UserError(problem, "a size that divides the batch", "set `training.per_device_train_batch_size`")


def repeat_prompts(real: Samples, size: int) -> Samples:
    """Rows of B // size training sequences, each `size` times in a row; fewer times each in a batch that is smaller.

    A last batch of an epoch that `size` does not divide gives up the remainder.
    """
    groups = max(1, real.batch_size // size)
    rows = torch.arange(groups, device=real.ids.device).repeat_interleave(min(size, real.batch_size))
    return real.select(rows)


def in_groups(values: Tensor, size: int) -> Tensor:
    """Values (B,) as groups (B // size, size); of a batch that is smaller than a group, one."""
    return values.view(-1, min(size, len(values)))
