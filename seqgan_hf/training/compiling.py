"""`torch.compile` for what a training step computes of a model; all else is left as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed
from transformers import PreTrainedModel

from ..errors import UserError
from ..generation.decoder import has_plain_head
from ..models.activations import fused_activations
from ..models.modeling_threads import unsplit
from .arguments import AdversarialTrainingArguments


@contextmanager
def sharing(args: AdversarialTrainingArguments, models: Sequence[PreTrainedModel]) -> Iterator[None]:
    """How a step of these models is computed: `unsplit`, with `fused_activations`, or as a compiler has it."""
    if args.torch_compile:
        yield
        return
    with unsplit(*models), fused_activations(*models):
        yield


class Compiled:
    """The forward pass of a player's model, compiled while its loss is computed.

    Samples, rollouts and rewards change their shapes with every token, so they are not. Of a generator with a plain
    head it is the part below, which is all that losses call.
    """

    def __init__(self, model: PreTrainedModel, args: AdversarialTrainingArguments):
        self.module: nn.Module = model
        self.forward: Any = None
        if args.torch_compile:
            if model.can_generate() and has_plain_head(model):
                self.module = model.base_model
            backend, mode = args.torch_compile_backend or "inductor", args.torch_compile_mode
            try:
                self.forward = torch.compile(self.module.forward, backend=backend, mode=mode)
            except RuntimeError as error:  # no such backend or mode
                problem = f"torch_compile_backend={backend!r}, torch_compile_mode={mode!r}"
                problem += f": {str(error).strip().splitlines()[0]}"
                raise UserError(problem, None, "choose others, or leave them out") from error

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """A UserError where the compiler fails."""
        if self.forward is None:
            yield
            return
        self.module.forward = self.forward
        try:
            yield
        except BackendCompilerFailed as error:
            problem = f"torch_compile=True: the compiler failed ({str(error).strip().splitlines()[0]})"
            fix = "install a C++ compiler, choose another `training.torch_compile_backend`, or leave it out"
            raise UserError(problem, None, fix) from error
        finally:
            del self.module.forward
