"""Objectives, one file per paper. To add one: a file here, a line below, a recipe and a page of docs."""

from .base import Loss, Objective
from .controls import ConstantReward, RandomReward
from .mle import MLE
from .reinforce import Reinforce
from .seqgan import SeqGAN


__all__ = ["MLE", "ConstantReward", "Loss", "Objective", "RandomReward", "Reinforce", "SeqGAN"]
