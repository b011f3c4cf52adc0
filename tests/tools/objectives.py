"""One row for every objective of the package, and what it can be trained against: the contract tests run over all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from seqgan_hf import objectives
from seqgan_hf.objectives import Objective
from seqgan_hf.samples import Samples
from tests.tools.small_runs import text
from tests.tools.tables import FeatureJudge, PrefixJudge, TableJudge, language_model
from tests.tools.tiny import BOS, PAD, build_discriminator, build_generator


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
        gradient: by the logits of the first token, exactly, at the uniform generator; `None` where another test
            enumerates it. Those without a name are -(E[A | y_1 = v] - E[A]) / 3 of the formula's A, in plain Python.
        exact: settings under which that gradient holds.
        generators: kinds of tiny models that it can train.
        judge: makes the opponent of which the gradient is.
        data: makes as many sequences as are asked for, from a seed; with prompts if it is not `text`.
    """

    opponents: tuple[str, ...]
    settings: dict = {}
    gradient: tuple[float, float, float] | None = None
    exact: dict = {}
    generators: tuple[str, ...] = GENERATORS
    judge: Callable[[], torch.nn.Module] = TableJudge
    data: Callable[..., Samples] = text

    @property
    def conditional(self) -> bool:
        return self.data is not text


def with_prompts(rows: Samples, prompts: list[list[int]]) -> Samples:
    width = max(map(len, prompts))
    prompt = torch.tensor([[PAD] * (width - len(row)) + row for row in prompts])
    return rows._replace(prompt=prompt, prompt_mask=prompt != PAD)


def answers(count: int, seed: int = 0) -> Samples:
    """Four in a row answer one prompt, which begins with the token of a class: 3 or, three times as often, 4."""
    prompts = [[BOS, 4 if block % 4 else 3, *[5 + block % 8] * (block % 2)] for block in range(-(-count // 4))]
    return with_prompts(text(count, seed), [prompts[row // 4] for row in range(count)])


def questions(count: int, seed: int = 0) -> Samples:
    """Prompts of one length; a goal of LeakGAN that begins in them goes on behind them."""
    return with_prompts(text(count, seed), [[BOS, 3 + row % 8] for row in range(count)])


def blanks(count: int, seed: int = 0) -> Samples:
    """A line with a blank (3) for each of the words that are missing, and at its end what asks for them (4)."""
    rows = text(count, seed)
    missing = (rows.lengths - 1).clamp(min=1).tolist()  # and the end token
    return with_prompts(rows, [[BOS, 5 + row % 8, *[3] * blank, 6, 4] for row, blank in enumerate(missing)])


TEACHER = TemporaryDirectory()  # a saved generator
build_generator("lstm", seed=7).save_pretrained(TEACHER.name)
LAST_ID, PLACE = "tests.tools.tables.last_ids", "tests.tools.tables.places"
EVERY = {"rollouts": 9, "baseline": "none"}  # see `every_completion`
PER_TOKEN = partial(TableJudge, per_token=True)
NONE, CLASSIFIERS, LANGUAGE_MODELS = ("none",), ("cnn", "rnn", "per_token", "bert", "relgan"), ("lstm", "gpt2")
OBJECTIVES: dict[str, Row] = {
    "MLE": Row(NONE),
    "Reinforce": Row(CLASSIFIERS, {"baseline": "leave_one_out"}, REINFORCE),
    "SeqGAN": Row(CLASSIFIERS, {"rollouts": 2, "rollout_lag": 0.5}, REINFORCE, EVERY),
    "ConstantReward": Row(NONE, {}, ZERO),
    "RandomReward": Row(NONE),
    "ScratchGAN": Row(
        ("per_token",),
        {},
        tuple(2 * g for g in REINFORCE),
        {"discount": 1.0, "baseline": "none"},
        judge=PER_TOKEN,
    ),
    "CoT": Row(LANGUAGE_MODELS, {"credit": "full"}),
    "Distillation": Row(NONE, {"teacher": TEACHER.name}),
    "DGSAN": Row(NONE, {"snapshot_every": 1}),
    "JSDGAN": Row(NONE, {"num_sequences": 48}),
    "TextGAN": Row(CLASSIFIERS, {"beta": 2.0, "weight_mmd": 0.1}),
    "FMGAN": Row(CLASSIFIERS, {"beta": 2.0}),
    "MaliGAN": Row(CLASSIFIERS, {"likelihood_prefix": 2, "completions": 2}, (3 / 14, 0.0, -3 / 14)),
    "DPG": Row(CLASSIFIERS, {"exponent": 0.7}),
    "RankGAN": Row(
        CLASSIFIERS,
        {"references": 1, "rollouts": 2},
        (0.5400355, -0.0547512, -0.4852843),  # R as in its page, of real sequences in reverse
        {"references": 4, "gamma": 2.0} | EVERY,
        judge=FeatureJudge,
    ),
    "LeakGAN": Row(("cnn",), {"rollouts": 2, "pretrain_cycles": 1, "likelihood_weight": 0.5}, generators=("leak",)),
    "LeakPretraining": Row(NONE, generators=("leak",)),
    "PGBLEU": Row(
        NONE,
        {"references": 2},
        (0.0672558, -0.000583, -0.0666728),  # NLTK's BLEU-2 against the last five sequences
        {"references": 5, "max_n": 2, "baseline": "none"},
    ),
    "FunctionReward": Row(
        NONE,
        {"functions": LAST_ID, "reads": "ids", "baseline": "none"},
        (2 / 9, 0.0, -2 / 9),
        {"functions": {PLACE: 2.0, LAST_ID: 5.0}, "reads": "ids"} | EVERY,
    ),
    "ORGAN": Row(
        CLASSIFIERS,
        {"functions": LAST_ID, "reads": "ids", "rollouts": 2},
        tuple(0.25 * d + 0.75 * f for d, f in zip(REINFORCE, (1 / 9, 0.0, -1 / 9), strict=True)),
        {"functions": PLACE, "discriminator_weight": 0.25, "reads": "ids"} | EVERY,
    ),
    "StepGAN": Row(
        ("per_token",),
        {"decreasing": True},
        (5 / 36, -1 / 36, -4 / 36),  # A_1 = 3 D_1, D_1 = 1/2, 2/3, 3/4
        {"decreasing": True, "baseline": "none"},
        judge=PrefixJudge,
    ),
    "MaskGAN": Row(("per_token",), {}, LOG_VERDICT, {"discount": 1.0, "baseline": "none"}, judge=PER_TOKEN),
    "SentiGAN": Row(CLASSIFIERS, {"rollouts": 2}, tuple(g / 3 for g in REINFORCE), {"rollouts": 9}),
    "DPGAN": Row(
        LANGUAGE_MODELS,
        {"discount": 0.9},
        (-0.3933014, 0.0822949, 0.3110066),
        {"discount": 0.5, "likelihood_weight": 0.0, "baseline": "none"},
        judge=language_model,
    ),
    "ColdGAN": Row(CLASSIFIERS, {"memory": 4, "mixture": 0.5}, REINFORCE, {"baseline": "none"}),
    "TextGAIL": Row(
        CLASSIFIERS,
        {"demonstrations": 0.4},
        (0.3641423, 0.0, -0.3641423),  # sigma(s_i - s_(26 - i)) by the moments that a first batch leaves
        {"demonstrations": 0.0},
    ),
    "GRPO": Row(CLASSIFIERS, {"updates": 2, "kl": 0.1, "kl_in": "loss"}, REINFORCE, {"scale": False}),
    "RLOO": Row(CLASSIFIERS, {"updates": 2}, tuple(g * 27 / 26 for g in REINFORCE), {"kl": 0.0}),
    "GAD": Row(CLASSIFIERS, {}, LOG_ODDS, {"scale": False, "kl": 0.0}),
    "FGAN": Row(CLASSIFIERS, {"divergence": "squared_hellinger", "rollouts": 2}, LOG_ODDS, EVERY),
    "RelGAN": Row(CLASSIFIERS[::-1], {"loss": "wgan-gp", "beta_steps": 4}),
    "GSGAN": Row(CLASSIFIERS[::-1], {"tau_steps": 4}),
    "CatGAN": Row(CLASSIFIERS[::-1], {"pooled": True, "straight_through": True}),
}

# The same objectives where the generator continues prompts, by the name of the objective and what is else about it.
TWO = ("lstm", "gpt2")
CONDITIONAL: dict[str, Row] = {
    "SentiGAN, two classes": Row(
        ("cnn", "rnn", "bert"), {"classes": [3, 4], "rollouts": 2}, generators=TWO, data=answers
    ),
    "MaskGAN, blanks": Row(("per_token",), generators=TWO, data=blanks),
    "GRPO, prompts": Row(CLASSIFIERS, {"group_size": 4, "updates": 2, "kl": 0.1}, generators=TWO, data=answers),
    "RLOO, prompts": Row(CLASSIFIERS, {"group_size": 4}, generators=TWO, data=answers),
    "DPG, prompts": Row(CLASSIFIERS, {"group_size": 4}, generators=TWO, data=answers),
    "GAD, prompts": Row(CLASSIFIERS, {"group_size": 4}, generators=TWO, data=answers),
    "CoT, prompts": Row(LANGUAGE_MODELS, {"credit": "full"}, generators=TWO, data=answers),
    "DGSAN, prompts": Row(NONE, {"snapshot_every": 1}, generators=TWO, data=answers),
    "TextGAN, prompts": Row(CLASSIFIERS, {"weight_mmd": 0.1}, generators=TWO, data=answers),
    "FMGAN, prompts": Row(CLASSIFIERS, generators=TWO, data=answers),
    "LeakGAN, prompts": Row(("cnn",), {"rollouts": 2, "pretrain_cycles": 1}, generators=("leak",), data=questions),
    "RelGAN, prompts": Row(CLASSIFIERS[::-1], {"beta_steps": 4}, generators=TWO, data=answers),
    "RelGAN, prompts and penalty": Row(CLASSIFIERS[::-1], {"loss": "wgan-gp"}, generators=("lstm",), data=answers),
    "GSGAN, prompts": Row(CLASSIFIERS[::-1], {"tau_steps": 4}, generators=TWO, data=answers),
    "CatGAN, two classes": Row(CLASSIFIERS[::-1], {"classes": [3, 4], "pooled": True}, generators=TWO, data=answers),
}
ROWS = OBJECTIVES | CONDITIONAL


def build_objective(name: str) -> Objective:
    return getattr(objectives, name.split(",")[0])(**ROWS[name].settings)


def build_opponent(kind: str, labels: Sequence[str] = ()) -> PreTrainedModel | None:
    """None, a language model, or a classifier of as many labels, if they are more than the usual two."""
    if kind == "none":
        return None
    return build_generator(kind, seed=1) if kind in LANGUAGE_MODELS else build_discriminator(kind, labels=labels)
