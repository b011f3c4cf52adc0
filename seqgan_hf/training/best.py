"""Which evaluation of a run was the best, and the checkpoint of its weights."""

from __future__ import annotations

import math
from typing import Any

from ..errors import UserError
from ..evaluation.record import Estimate
from .session import Session


class Best:
    """The best evaluation so far by `metric_for_best_model`, and the checkpoint of its weights."""

    def __init__(self, session: Session):
        self.session = session
        self.value: float | None = None
        self.checkpoint: str | None = None
        self.evaluation: dict[str, Any] = {}

    def consider(self, evaluation: dict[str, Any], results: dict[str, Estimate]) -> None:
        """Remember an evaluation that is better; its checkpoint is saved at the end of the unit of work, and kept.

        A UserError if nothing of that name was measured.
        """
        args, name = self.session.args, self.session.args.metric_for_best_model
        if name is None or not results:
            return
        if name not in results:
            raise UserError(f"metric_for_best_model={name!r}", f"one of {', '.join(sorted(results))}", "choose one")
        value = results[name].value
        better = self.value is None or (value > self.value if args.greater_is_better else value < self.value)
        if better and not math.isnan(value):
            self.value, self.checkpoint, self.evaluation = value, None, evaluation
            self.session.state.best_metric = value
            self.session.control.should_save = True

    def name_checkpoint(self, name: str) -> None:
        """A checkpoint of this name is about to be saved."""
        if self.value is not None and self.checkpoint is None:
            self.checkpoint = name

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "checkpoint": self.checkpoint, "evaluation": self.evaluation}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["checkpoint"] and not (self.session.folder.checkpoints / state["checkpoint"]).exists():
            lost = "The best checkpoint so far, %s, is not in this run's folder; looking for a new best one from here"
            self.session.say(lost, state["checkpoint"])
            state = {"value": None, "checkpoint": None, "evaluation": {}}
        self.value, self.checkpoint, self.evaluation = state["value"], state["checkpoint"], state["evaluation"]
        self.session.state.best_metric = self.value
