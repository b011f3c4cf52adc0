"""What several processes do together: begin with the same weights, follow one gradient, decide as one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn

from ..errors import TrainingError


# Elements of a tensor that are fingerprinted together; it bounds memory.
BLOCK = 2**20
# What the messages of a lost connection have in common.
LOST = ("gloo", "nccl", "connection closed", "connection reset", "connection refused", "broken pipe")


def alone_by_mistake(accelerator: Accelerator) -> str | None:
    """A warning, where a launcher was asked for several processes and started one.

    `accelerate launch --cpu --num_processes 2` starts one process only. What it leaves behind is the address of a main
    process that has no partner left.
    """
    if accelerator.num_processes > 1:
        return None
    asked = os.environ.get("WORLD_SIZE")
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_PORT" in os.environ
    if asked in (None, "1") and not (asked is None and by_accelerate):
        return None
    return (
        f"Running as 1 process, although the launcher was asked for {asked or 'several'}. On CPUs start them with "
        "`torchrun --nproc_per_node 2 -m seqgan_hf train RECIPE`: `accelerate launch --cpu` starts one only"
    )


@torch.no_grad()
def share_weights(accelerator: Accelerator, models: Mapping[str, nn.Module]) -> None:
    """Give every process the weights and buffers of the main one."""
    if accelerator.num_processes == 1:
        return
    for model in models.values():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.copy_(broadcast(tensor.detach().clone()))


def fingerprint(tensor: Tensor) -> Tensor:
    """One number, shape (), that changes with any bit of a tensor and with the order of its elements."""
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    bits = tensor.detach().contiguous().reshape(-1).view(kind)
    total = torch.tensor(tensor.numel(), dtype=torch.int64, device=tensor.device)
    for part in bits.split(BLOCK):
        # integers wrap around, so the result does not depend on the order of the sum; 31 keeps the blocks' order
        places = torch.arange(1, len(part) + 1, device=part.device)
        total = total * 31 + (part.to(torch.int64) * (2 * places + 1)).sum()
    return total


def check_same_data(accelerator: Accelerator, fingerprint: int) -> None:
    """Raise a TrainingError on all processes if any trains on other sequences; each has its share of them."""
    if len(set(gather_object([fingerprint]))) > 1:
        raise TrainingError("the training data differ between processes", fix="copy the same files to every machine")


def check_same_weights(accelerator: Accelerator, models: Mapping[str, nn.Module]) -> None:
    """Raise a TrainingError on all processes, which names some parameters, if any holds other weights, bit for bit."""
    if accelerator.num_processes == 1:
        return
    named = {f"{name}.{key}": p for name, model in models.items() for key, p in model.named_parameters()}
    own = torch.stack([fingerprint(parameter) for parameter in named.values()])
    everyone = accelerator.gather(own).view(accelerator.num_processes, -1)
    equal = (everyone == everyone[0]).all(dim=0).tolist()
    if differ := [name for name, same in zip(named, equal, strict=True) if not same]:
        problem = f"model weights differ between processes ({some_of(differ)})"
        fix = "change no weights on one process only, and resume from the last checkpoint"
        raise TrainingError(problem, fix=fix)


def some_of(names: Sequence[str]) -> str:
    """The first three names, for a message."""
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])


def any_process(accelerator: Accelerator, *flags: bool) -> list[bool]:
    """For each flag, whether it is set on any process: processes that decide apart wait for each other without end."""
    if accelerator.num_processes == 1:
        return list(flags)
    sums = accelerator.reduce(torch.tensor(flags, dtype=torch.float32, device=accelerator.device), reduction="sum")
    return [bool(value) for value in sums.tolist()]


def average_gradients(accelerator: Accelerator, model: nn.Module, weights: Sequence[Tensor | float]) -> None:
    """Turn the gradients of each process into those of the mean over all batches of all processes, in one message.

    It is done here instead of by a wrapper around the model: losses may then take any path through a model (its
    trunk, its embeddings, its soft tokens), where a wrapper would silently leave gradients unsynchronized.

    Args:
        model: its gradients are sums over this process's batches of loss x weight / first weight.
        weights: of these batches, see `Loss`.
    """
    if accelerator.num_processes == 1:
        if len(weights) > 1:
            share = torch.as_tensor(weights[0] / sum(weights), device=accelerator.device)
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(share)
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    weight = torch.as_tensor(sum(weights), dtype=torch.float32, device=accelerator.device)
    flat = torch.cat([gradient.float().flatten() for gradient in gradients]) * weights[0]
    flat = accelerator.reduce(torch.cat([flat, weight.reshape(1)]), reduction="sum")
    flat = flat[:-1] / flat[-1]
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter).to(parameter.dtype)


@contextmanager
def agreed(accelerator: Accelerator) -> Iterator[None]:
    """All processes get through the block, or all end: none waits for one that has failed.

    Raises:
        TrainingError: on processes that did get through when another did not, which raises its own error.
    """
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    (failed,) = any_process(accelerator, failure is not None)
    if failure is not None:
        raise failure
    if failed:
        raise TrainingError("another process failed", fix="read its messages above")


@contextmanager
def together(accelerator: Accelerator) -> Iterator[None]:
    """Say by a TrainingError that another process was lost, in place of what the library for communication raises."""
    try:
        yield
    except RuntimeError as error:
        words = str(error).lower()
        if accelerator.num_processes == 1 or not any(mark in words for mark in LOST):
            raise
        fix = "read its messages above, and resume from the last checkpoint with resume_from_checkpoint=true"
        problem = f"another of the {accelerator.num_processes} processes does not answer"
        raise TrainingError(problem, fix=fix) from error
