"""Likelihood: of held-out text under the generator, of samples under the oracle, and the divergence between both.

All values are in nats. `nll_*` is per token, the mean over all counted tokens; `nll_*_sequence` is per sequence.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..generation.likelihood import sequence_logprobs
from ..samples import Samples
from .base import Evaluator


def nll(model: PreTrainedModel, samples: Samples, name: str) -> dict[str, float]:
    """-log p per token and per sequence, with standard errors over sequences; padding does not count.

    The per-token value is a ratio of two sums over sequences (nats by tokens), and its standard error is that of a
    ratio (linearised, Cochran, Sampling Techniques, section 6.4).

    Returns:
        `nll_<name>`, `nll_<name>_se`, `nll_<name>_sequence`, `nll_<name>_sequence_se`.
    """
    nats = -sequence_logprobs(model, samples)
    tokens = samples.lengths.to(nats)
    ratio = nats.sum() / tokens.sum()
    residual = (nats - ratio * tokens) / tokens.mean()
    return {
        f"nll_{name}": float(ratio),
        f"nll_{name}_se": _standard_error(residual),
        f"nll_{name}_sequence": float(nats.mean()),
        f"nll_{name}_sequence_se": _standard_error(nats),
    }


def signature(name: str, num_samples: int, num_held_out: int, temperature: float, seed: int, vocab_size: int) -> str:
    """The settings behind a likelihood or a divergence in one line, and whether it is per token or per sequence.

    The size of the vocabulary stands for the tokenizer: nats per word and per character are different things.
    """
    per = "token" if name.startswith("nll_") and not name.endswith("_sequence") else "sequence"
    drawn = f"samples:{num_samples}|held_out:{num_held_out}|temperature:{temperature:g}|seed:{seed}"
    return f"per:{per}|vocabulary:{vocab_size}|{drawn}|version:1"


def _standard_error(values: Tensor) -> float:
    return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan


def divergences(generator: PreTrainedModel, oracle: PreTrainedModel, fake: Samples, real: Samples) -> dict[str, float]:
    """How far the generator's distribution G of whole sequences is from the oracle's O; both densities are exact.

    With Y ~ G from `fake`, Y ~ O from `real`, and M = (G + O) / 2:
    KL(G||O) = E_G[log G - log O], KL(O||G) = E_O[log O - log G],
    JSD = (E_G[log G - log M] + E_O[log O - log M]) / 2, between 0 and log 2.

    Returns:
        `kl_generator_oracle`, `kl_oracle_generator`, `jsd_oracle`, in nats per sequence, each with its `_se`.
    """
    g_of_fake, o_of_fake = sequence_logprobs(generator, fake), sequence_logprobs(oracle, fake)
    g_of_real, o_of_real = sequence_logprobs(generator, real), sequence_logprobs(oracle, real)
    forward, backward = g_of_fake - o_of_fake, o_of_real - g_of_real
    # log p - log((p + q) / 2) = log 2 - log(1 + q / p)
    from_fake = math.log(2) - torch.nn.functional.softplus(-forward)
    from_real = math.log(2) - torch.nn.functional.softplus(-backward)
    return {
        "kl_generator_oracle": float(forward.mean()),
        "kl_generator_oracle_se": _standard_error(forward),
        "kl_oracle_generator": float(backward.mean()),
        "kl_oracle_generator_se": _standard_error(backward),
        "jsd_oracle": float(from_fake.mean() + from_real.mean()) / 2,
        "jsd_oracle_se": math.hypot(_standard_error(from_fake), _standard_error(from_real)) / 2,
    }


class HeldOutNLL(Evaluator):
    """NLL_test: -log G of held-out sequences, which no training step has seen; and NLL_div, -log G of G's own samples.

    `nll_test` rises when the generator loses modes of the data; `nll_div` falls when it narrows.

    Args:
        held_out: the sequences.
    """

    def __init__(self, held_out: Samples):
        self.held_out = held_out
        self.vocab_size = 0  # of the generator measured last

    def evaluate(self, generator: PreTrainedModel, samples: Samples) -> dict[str, float]:
        self.vocab_size = generator.config.vocab_size
        return nll(generator, self.held_out, "test") | nll(generator, samples, "div")

    def signature(self, name: str, num_samples: int, seed: int) -> str:
        return signature(name, num_samples, self.held_out.batch_size, 1.0, seed, self.vocab_size)


class OracleNLL(Evaluator):
    """NLL_oracle (SeqGAN, equation 9) and, since the oracle's density is known, KL and Jensen-Shannon divergences.

    `nll_oracle` alone rewards mode seeking: read it beside `nll_test`, or read `jsd_oracle`.

    Args:
        oracle: the model that wrote the data.
        held_out: sequences drawn from it that no training step has seen.
    """

    def __init__(self, oracle: PreTrainedModel, held_out: Samples):
        self.oracle, self.held_out = oracle, held_out

    def evaluate(self, generator: PreTrainedModel, samples: Samples) -> dict[str, float]:
        oracle = self.oracle.to(samples.ids.device)
        return nll(oracle, samples, "oracle") | divergences(generator, oracle, samples, self.held_out)

    def signature(self, name: str, num_samples: int, seed: int) -> str:
        return signature(name, num_samples, self.held_out.batch_size, 1.0, seed, self.oracle.config.vocab_size)
