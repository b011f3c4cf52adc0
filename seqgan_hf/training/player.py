"""A model with its optimizer: accumulate, average over batches and processes, clip, then step or skip."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer

from ..errors import TrainingError, UserError
from ..objectives import Loss
from .arguments import Scheduler
from .checkpoint import way_back
from .compiling import Compiled
from .processes import average_gradients
from .progress import Progress
from .session import Session


# Steps of a model in a row that may be skipped, for bad losses or gradients, before the run gives up.
MAX_BAD_STEPS = 5


class Player:
    """A model with its optimizer, Adam unless `args.optim` names another.

    Args:
        name: `generator` or `discriminator`, for logs.
        max_norm: the total norm that gradients are clipped to; 0 does not clip.
        progress: where metrics go.
        trunk_learning_rate: of all parameters below the model's head, where it is another than the head's.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        learning_rate: float,
        max_norm: float,
        session: Session,
        progress: Progress,
        trunk_learning_rate: float | None = None,
    ):
        self.name, self.model, self.max_norm = name, model, max_norm
        self.session, self.progress = session, progress
        kind, options = Trainer.get_optimizer_cls_and_kwargs(session.args, model)
        options["lr"] = learning_rate
        parameters: list[Any] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if trunk_learning_rate is not None:
            if model.base_model is model:
                problem = f"discriminator_trunk_learning_rate={trunk_learning_rate} for a {type(model).__name__}"
                problem += ", whose head stands on no model of its own"
                raise UserError(problem, "null, so that all of it learns at discriminator_learning_rate", "set it so")
            trunk = {id(parameter) for parameter in model.base_model.parameters()}
            below = [parameter for parameter in parameters if id(parameter) in trunk]
            head = [parameter for parameter in parameters if id(parameter) not in trunk]
            parameters = [{"params": head}, {"params": below, "lr": trunk_learning_rate}]
        optimizer = kind(parameters, weight_decay=session.args.weight_decay, **options)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.optimizer = session.accelerator.prepare_optimizer(optimizer, device_placement=False)
        self.compiled = Compiled(model, session.args)
        self.bad_steps = 0  # in a row
        self._weights: list[Tensor | float] = []  # of the batches of a step

    def anneal(self, scheduler: Scheduler, done: float) -> None:
        """Set the learning rates for what comes when this share of the player's units is done.

        `linear` falls to 0, `cosine` too, along a half wave.
        """
        factor = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[scheduler]
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def backward(self, loss: Loss) -> None:
        """Add a batch to the gradient of the step; batches count by their weights, relative to the first one's."""
        self._weights.append(loss.weight)
        # 1, or NaN where the loss is not finite: the gradient then says so, on all processes, without another wait
        finite = 1 + 0 * loss.value.detach()
        self.session.accelerator.backward(loss.value * (finite * loss.weight / self._weights[0]))
        self.progress.add(loss.metrics)

    def step(self) -> bool:
        """Average gradients over processes, clip them, and update; a step of bad numbers is skipped: returns false.

        A TrainingError for too many of these in a row.
        """
        session, optimizer = self.session, self.optimizer
        average_gradients(session.accelerator, self.model, self._weights)
        self._weights.clear()
        session.accelerator.unscale_gradients(optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        finite = bool(norm.isfinite())
        if finite:
            if self.max_norm:
                nn.utils.clip_grads_with_norm_(self.model.parameters(), self.max_norm, norm)
            self.progress.add({f"{self.name}_grad_norm": norm})
            self.bad_steps = 0
        session.call("on_pre_optimizer_step")
        if finite or session.accelerator.scaler is not None:  # a gradient scaler skips bad steps by itself
            optimizer.step()
        session.call("on_optimizer_step")
        optimizer.zero_grad()
        session.state.global_step += 1
        session.call("on_step_end")
        if not finite:
            self._count_bad_step()
        return finite

    def _count_bad_step(self) -> None:
        self.bad_steps += 1
        self.progress.add({"bad_steps": 1.0})
        where = f"{self.name} at step {self.session.state.global_step} ({self.progress.position})"
        self.session.say("The loss or gradient of the %s is not finite; skipping this step", where)
        if self.bad_steps >= MAX_BAD_STEPS:
            problem = f"the loss or gradient of the {where} was not finite, {self.bad_steps} times in a row"
            back = way_back(self.session.folder.checkpoints)
            raise TrainingError(problem, fix=f"lower the learning rate or clip the gradient, and {back}")

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "bad_steps": self.bad_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.bad_steps = state["bad_steps"]
