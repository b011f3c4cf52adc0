"""Objectives, one paper a file; docs/contributing.md says what belongs to a new one."""

from .base import Copy, Credit, Loss, Models, Objective, Turn
from .controls import ConstantReward, RandomReward
from .mle import MLE
from .reinforce import Reinforce
from .seqgan import SeqGAN


__all__ = [
    "MLE",
    "ConstantReward",
    "Copy",
    "Credit",
    "Loss",
    "Models",
    "Objective",
    "RandomReward",
    "Reinforce",
    "SeqGAN",
    "Turn",
]
