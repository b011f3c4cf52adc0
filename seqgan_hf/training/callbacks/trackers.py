"""Samples for experiment trackers. Their curves come from the callbacks of transformers, which know numbers only."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import TrainerCallback


def log_samples(callbacks: Sequence[TrainerCallback], texts: Sequence[str], step: int) -> None:
    """Show samples in every tracker that `report_to` names and that can show text.

    Args:
        callbacks: of the trainer; those of other trackers are passed over.
        texts: the samples.
        step: when they were drawn.
    """
    for callback in callbacks:
        log = {"TensorBoardCallback": _tensorboard, "WandbCallback": _wandb, "TrackioCallback": _trackio}.get(
            type(callback).__name__
        )
        if log is not None:
            log(callback, texts, step)


def _tensorboard(callback: TrainerCallback, texts: Sequence[str], step: int) -> None:
    if callback.tb_writer is not None:
        # Markdown: a block of code shows every space and no markup
        callback.tb_writer.add_text("samples", "\n".join(f"    {text}" for text in texts), step)


def _wandb(callback: TrainerCallback, texts: Sequence[str], step: int) -> None:
    table = callback._wandb.Table(columns=["sample"], data=[[text] for text in texts])
    callback._wandb.log({"samples": table, "train/global_step": step})


def _trackio(callback: TrainerCallback, texts: Sequence[str], step: int) -> None:
    import pandas

    table = callback._trackio.Table(dataframe=pandas.DataFrame({"sample": list(texts)}))
    callback._trackio.log({"samples": table, "train/global_step": step})
