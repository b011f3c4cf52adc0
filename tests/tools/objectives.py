"""One row for every objective of the package, and what it can be trained against: the contract tests run over all."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import NamedTuple

from transformers import PreTrainedModel

from seqgan_hf import objectives
from seqgan_hf.objectives import Objective
from tests.tools.tiny import build_discriminator, build_generator


REINFORCE = (0.0685856, -0.0136128, -0.0549728)  # d loss / d logits of the first token, D of `TableJudge`
LOG_VERDICT = (0.204388, -0.064351, -0.140037)  # of the reward log D
LOG_ODDS = (0.322865, -0.076831, -0.246034)  # of the reward log D / (1 - D)
ZERO = (0.0, 0.0, 0.0)


GENERATORS = ("lstm", "gru", "memory", "gpt2", "llama")


class Row(NamedTuple):
    """An objective in the tests.

    Attributes:
        opponents: kinds of tiny models that it can be trained against.
        settings: of its constructor.
        gradient: by the logits of the first token, exactly, at the uniform generator with `TableJudge`; `None` where
            another test enumerates it.
        exact: settings under which that gradient holds.
        generators: kinds of tiny models that it can train.
    """

    opponents: tuple[str, ...]
    settings: dict = {}
    gradient: tuple[float, float, float] | None = None
    exact: dict = {}
    generators: tuple[str, ...] = GENERATORS


TEACHER = TemporaryDirectory()  # a saved generator
build_generator("lstm", seed=7).save_pretrained(TEACHER.name)
LAST_ID = "tests.tools.tables.last_ids"
NONE, CLASSIFIERS, LANGUAGE_MODELS = ("none",), ("cnn", "rnn", "per_token", "bert"), ("lstm", "gpt2")
OBJECTIVES: dict[str, Row] = {
    "MLE": Row(NONE),
    "Reinforce": Row(CLASSIFIERS, {"baseline": "leave_one_out"}, REINFORCE),
    "SeqGAN": Row(CLASSIFIERS, {"rollouts": 2, "rollout_lag": 0.5}),
    "ConstantReward": Row(NONE, {}, ZERO),
    "RandomReward": Row(NONE),
    "ScratchGAN": Row(("per_token",), {}, tuple(2 * g for g in REINFORCE), {"discount": 1.0, "baseline": "none"}),
    "CoT": Row(LANGUAGE_MODELS, {"credit": "full"}),
    "Distillation": Row(NONE, {"teacher": TEACHER.name}),
    "DGSAN": Row(NONE, {"snapshot_every": 1}),
    "JSDGAN": Row(NONE, {"num_sequences": 48}),
    "TextGAN": Row(CLASSIFIERS, {"beta": 2.0, "weight_mmd": 0.1}),
    "FMGAN": Row(CLASSIFIERS, {"beta": 2.0}),
    "MaliGAN": Row(CLASSIFIERS, {"likelihood_prefix": 2, "completions": 2}, (3 / 14, 0.0, -3 / 14)),
    "RankGAN": Row(CLASSIFIERS, {"references": 1, "rollouts": 2}),
    "LeakGAN": Row(("cnn",), {"rollouts": 2, "pretrain_cycles": 1, "likelihood_weight": 0.5}, generators=("leak",)),
    "LeakPretraining": Row(NONE, generators=("leak",)),
    "PGBLEU": Row(NONE, {"references": 2}),
    "FunctionReward": Row(NONE, {"functions": LAST_ID, "reads": "ids", "baseline": "none"}),
    "ORGAN": Row(CLASSIFIERS, {"functions": LAST_ID, "reads": "ids", "rollouts": 2}),
    "StepGAN": Row(("per_token",), {"decreasing": True}, ZERO, {"baseline": "none"}),
    "MaskGAN": Row(("per_token",), {}, LOG_VERDICT, {"discount": 1.0, "baseline": "none"}),
    "SentiGAN": Row(CLASSIFIERS, {"rollouts": 2}, tuple(g / 3 for g in REINFORCE), {"rollouts": 0}),
    "DPGAN": Row(LANGUAGE_MODELS, {"discount": 0.9}),
    "ColdGAN": Row(CLASSIFIERS, {"memory": 4, "mixture": 0.5}, REINFORCE, {"baseline": "none"}),
    "TextGAIL": Row(CLASSIFIERS, {"demonstrations": 0.4}),
    "GRPO": Row(CLASSIFIERS, {"updates": 2, "kl": 0.1, "kl_in": "loss"}, REINFORCE, {"scale": False}),
    "RLOO": Row(CLASSIFIERS, {"updates": 2}, tuple(g * 27 / 26 for g in REINFORCE), {"kl": 0.0}),
    "GAD": Row(CLASSIFIERS, {}, LOG_ODDS, {"scale": False, "kl": 0.0}),
    "FGAN": Row(CLASSIFIERS, {"divergence": "squared_hellinger", "rollouts": 2}, LOG_ODDS, {"baseline": "none"}),
    "RelGAN": Row(CLASSIFIERS, {"loss": "wgan-gp", "beta_steps": 4}),
    "GSGAN": Row(CLASSIFIERS, {"tau_steps": 4}),
    "CatGAN": Row(CLASSIFIERS, {"pooled": True, "straight_through": True}),
}


def build_objective(name: str) -> Objective:
    return getattr(objectives, name)(**OBJECTIVES[name].settings)


def build_opponent(kind: str) -> PreTrainedModel | None:
    if kind == "none":
        return None
    return build_generator(kind, seed=1) if kind in ("lstm", "gpt2") else build_discriminator(kind)
