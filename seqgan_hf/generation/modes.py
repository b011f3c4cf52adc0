"""Models without dropout: to sample and score, and to train as the policy that wrote the samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..models.activations import fused_activations


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put models into eval mode (dropout off) and put every submodule's training flag back afterwards.

    Where no gradient is wanted, with `fused_activations`.
    """
    flags = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        with fused_activations(*() if torch.is_grad_enabled() else models):
            yield
    finally:
        for module, training in flags:
            module.training = training


def train_without_dropout(model: nn.Module) -> None:
    """Put a model into training, but leave dropout off.

    What reads its own flag for other ends stays in train mode, unless it drops something itself: recurrent layers,
    whose backward pass cuDNN refuses in eval mode (so that one with `dropout` between its layers cannot be trained
    there), and layers with gradient checkpointing.
    """
    model.eval()
    for module in model.modules():
        needs_flag = isinstance(module, nn.RNNBase) or getattr(module, "gradient_checkpointing", False)
        drops = any("drop" in name and isinstance(value, float) and value > 0 for name, value in vars(module).items())
        if needs_flag and not drops:
            module.training = True
