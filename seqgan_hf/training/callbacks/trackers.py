"""Samples for experiment trackers. Their curves come from the callbacks of transformers, which know numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback

from ..session import Session


class TrackSamples(TrainerCallback):
    """Shows samples in every tracker that `report_to` names and that can show text."""

    def __init__(self, session: Session):
        self.session = session

    def on_evaluate(self, args: Any, state: Any, control: Any, texts: Sequence[str] = (), **kwargs: Any) -> None:
        for tracker in self.session.callbacks:
            if state.is_world_process_zero and (log := LOGS.get(type(tracker).__name__)) is not None:
                log(tracker, texts, state.global_step)


def _tensorboard(callback: Any, texts: Sequence[str], step: int) -> None:
    if callback.tb_writer is not None:
        # Markdown: a block of code shows every space and no markup
        callback.tb_writer.add_text("samples", "\n".join(f"    {text}" for text in texts), step)


def _wandb(callback: Any, texts: Sequence[str], step: int) -> None:
    import wandb

    table = wandb.Table(columns=["sample"], data=[[text] for text in texts])
    wandb.log({"samples": table, "train/global_step": step})


def _trackio(callback: Any, texts: Sequence[str], step: int) -> None:
    import pandas
    import trackio

    table = trackio.Table(dataframe=pandas.DataFrame({"sample": list(texts)}))
    trackio.log({"samples": table, "train/global_step": step})


LOGS = {"TensorBoardCallback": _tensorboard, "WandbCallback": _wandb, "TrackioCallback": _trackio}
