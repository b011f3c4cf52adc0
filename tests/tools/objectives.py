"""One row for every objective of the package, and what it can be trained against: the contract tests run over all."""

from __future__ import annotations

from typing import NamedTuple

from transformers import PreTrainedModel

from seqgan_hf import objectives
from seqgan_hf.objectives import Objective
from tests.tools.tiny import build_discriminator, build_generator


REINFORCE = (0.0685856, -0.0136128, -0.0549728)  # d loss / d logits of the first token, D of `TableJudge`
ZERO = (0.0, 0.0, 0.0)


class Row(NamedTuple):
    """An objective in the tests.

    Attributes:
        opponents: kinds of tiny models that it can be trained against.
        settings: of its constructor.
        gradient: by the logits of the first token, exactly, at the uniform generator with `TableJudge`; `None` where
            another test enumerates it.
        exact: settings under which that gradient holds.
    """

    opponents: tuple[str, ...]
    settings: dict = {}
    gradient: tuple[float, float, float] | None = None
    exact: dict = {}


NONE, CLASSIFIERS, LANGUAGE_MODELS = ("none",), ("cnn", "rnn", "per_token", "bert"), ("lstm", "gpt2")
OBJECTIVES: dict[str, Row] = {
    "MLE": Row(NONE),
    "Reinforce": Row(CLASSIFIERS, {"baseline": "leave_one_out"}, REINFORCE),
    "SeqGAN": Row(CLASSIFIERS, {"rollouts": 2, "rollout_lag": 0.5}),
    "ConstantReward": Row(NONE, {}, ZERO),
    "RandomReward": Row(NONE),
    "ScratchGAN": Row(("per_token",), {}, tuple(2 * g for g in REINFORCE), {"discount": 1.0, "baseline": "none"}),
    "CoT": Row(LANGUAGE_MODELS, {"credit": "full"}),
}


def build_objective(name: str) -> Objective:
    return getattr(objectives, name)(**OBJECTIVES[name].settings)


def build_opponent(kind: str) -> PreTrainedModel | None:
    if kind == "none":
        return None
    return build_generator(kind, seed=1) if kind in ("lstm", "gpt2") else build_discriminator(kind)
