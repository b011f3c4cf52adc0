"""Likelihood: of held-out text under the generator, of samples under the oracle, and the divergence between both.

All values are in nats. `nll_*` is per token, the mean over all counted tokens; `nll_*_sequence` is per sequence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..generation.likelihood import sequence_logprobs, tempered_logprobs
from ..generation.vocabulary import suppressed_tokens
from ..samples import BoolTensor, Samples
from .base import Evaluator
from .catalog import Metric
from .record import Estimate, Result
from .residual import Residual
from .tokenization import unknown_setting, unknown_share


# What has a density: a causal LM, or one with a discriminator.
Model: TypeAlias = PreTrainedModel | Residual

# Held-out sequences on which the temperature is calibrated: one number needs no more.
CALIBRATED = 5_000
# Passes over them that are enough for any; three or four are usual.
CALIBRATION_PASSES = 20


def logprobs(model: Model, samples: Samples, counted: BoolTensor | None = None) -> Tensor:
    """log p(Y) of whole sequences in float64, in nats, shape (N,); `counted` (N, T) leaves tokens of G out."""
    if isinstance(model, Residual):
        return model.logprobs(samples, counted)
    return sequence_logprobs(model, samples, counted)


def nll(model: Model, samples: Samples, name: str) -> dict[str, Estimate]:
    """-log p per token, `nll_<name>`, and per sequence, `nll_<name>_sequence`.

    Padding does not count, and neither do tokens that the model never writes (see `unwritable`), as a perplexity
    leaves out words that its vocabulary lacks. Intervals are over sequences.
    """
    counted = samples.mask & ~unwritable(model, samples)
    nats = -logprobs(model, samples, counted)
    return {f"nll_{name}": _per_token(nats, counted.sum(dim=1).to(nats)), f"nll_{name}_sequence": _estimate(nats)}


def unwritable(model: Model, samples: Samples) -> BoolTensor:
    """Where sequences hold a token that the model never writes, such as a word that training did not show, (N, T)."""
    model = model.generator if isinstance(model, Residual) else model
    suppressed = torch.tensor(suppressed_tokens(model), dtype=torch.long, device=samples.ids.device)
    return samples.mask & torch.isin(samples.ids, suppressed)


def _standard_error(values: Tensor) -> float:
    return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _estimate(values: Tensor) -> Estimate:
    return Estimate.from_error(float(values.mean()), _standard_error(values))


def _per_token(nats: Tensor, tokens: Tensor) -> Estimate:
    """Two sums over sequences, one by the other; its error is that of a ratio (Cochran, Sampling Techniques, 6.4)."""
    ratio = nats.sum() / tokens.sum()
    return Estimate.from_error(float(ratio), _standard_error((nats - ratio * tokens) / tokens.mean()))


def nll_div(generator: Model, samples: Samples) -> dict[str, Estimate]:
    """NLL_div: -log G of G's own samples; it falls when the generator narrows. Named after TextGAN-PyTorch's."""
    return nll(generator, samples, "div")


def nll_test(generator: Model, held_out: Samples) -> dict[str, Estimate]:
    """NLL_test: -log G of held-out sequences, which no training step has seen; it rises when modes are lost."""
    return nll(generator, held_out, "test")


def nll_gen(generator: Model, train: Samples) -> dict[str, Estimate]:
    """NLL_gen: -log G of the training sequences; far below NLL_test it is overfitting."""
    return nll(generator, train, "gen")


def nll_oracle(oracle: PreTrainedModel, samples: Samples) -> dict[str, Estimate]:
    """NLL_oracle: -log of the oracle's density of generated sequences (SeqGAN, equation 9); rewards mode seeking."""
    return nll(oracle, samples, "oracle")


def divergences(generator: Model, oracle: PreTrainedModel, samples: Samples, held_out: Samples) -> dict[str, Estimate]:
    """How far the generator's distribution G of whole sequences is from the oracle's O; both densities are exact.

    With Y ~ G from `samples`, Y ~ O from `held_out`, and M = (G + O) / 2, in nats per sequence:
    `kl_generator_oracle` = E_G[log G - log O], `kl_oracle_generator` = E_O[log O - log G], and
    `jsd_oracle` = (E_G[log G - log M] + E_O[log O - log M]) / 2, between 0 and log 2. Lin (1991),
    https://doi.org/10.1109/18.61115.
    """
    g_of_fake, o_of_fake = logprobs(generator, samples), sequence_logprobs(oracle, samples)
    g_of_real, o_of_real = logprobs(generator, held_out), sequence_logprobs(oracle, held_out)
    forward, backward = g_of_fake - o_of_fake, o_of_real - g_of_real
    # log p - log((p + q) / 2) = log 2 - log(1 + q / p)
    from_fake = math.log(2) - torch.nn.functional.softplus(-forward)
    from_real = math.log(2) - torch.nn.functional.softplus(-backward)
    jsd = float(from_fake.mean() + from_real.mean()) / 2
    error = math.hypot(_standard_error(from_fake), _standard_error(from_real)) / 2
    return {
        "kl_generator_oracle": _estimate(forward),
        "kl_oracle_generator": _estimate(backward),
        "jsd_oracle": Estimate.from_error(jsd, error),
    }


def calibration(generator: Model, held_out: Samples) -> dict[str, Estimate]:
    """The temperature at which held-out text is likeliest, `calibration_temperature`, and what it wins there.

    `calibration_gain` is by how much the NLL falls, in nats per token, against the generator as it is: what part of a
    better NLL_test a temperature gives for nothing. The first `CALIBRATED` sequences are measured, at temperatures
    from 1/4 to 4. There is none of a `Residual`.
    """
    if isinstance(generator, Residual):
        return {}
    rows = held_out.select(slice(0, CALIBRATED))
    counted = rows.mask & ~unwritable(generator, rows)
    tokens = counted.sum(dim=1).double()

    plain = found = tempered_logprobs(generator, rows, 1.0, counted)
    inverse = 1.0
    for _ in range(CALIBRATION_PASSES):  # Newton's method: the likelihood is concave in 1 / T
        _, slope, curvature = found.sum(dim=0).tolist()
        step = slope / -curvature if curvature < 0 else 0.0
        better = min(max(inverse + step, inverse / 2, 0.25), inverse * 2, 4.0)
        if abs(math.log(better / inverse)) < 1e-3:
            break
        inverse = better
        found = tempered_logprobs(generator, rows, 1 / inverse, counted)
    gain = _per_token(found[:, 0] - plain[:, 0], tokens)
    return {"calibration_temperature": Estimate(1 / inverse), "calibration_gain": gain}


# All likelihoods: a row is computed from what its function's parameters name, wherever all of that is there.
LIKELIHOODS: dict[str, Metric] = {
    "nll_div": Metric(nll_div, "real"),
    "nll_test": Metric(nll_test, "lower"),
    "nll_gen": Metric(nll_gen, "lower"),
    "calibration": Metric(calibration, "real"),
    "nll_oracle": Metric(nll_oracle, "real"),
    "oracle_divergence": Metric(divergences, "lower", most={"jsd_oracle": math.log(2)}),
}


def measure_likelihoods(
    names: Iterable[str],
    seed: int,
    temperature: float = 1.0,
    max_new_tokens: int | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    **given: Any,
) -> dict[str, Result]:
    """Those of the named `LIKELIHOODS` that can be computed from what is given, signatures included.

    The size of the vocabulary in the signature stands for the tokenizer: nats per word and per character are different
    things. Told where there are any: the share of held-out tokens that are unknown, as many of these are easily
    predicted; how many tokens the generator never writes, and how often held-out sequences hold one (left out).

    Args:
        names: out of `LIKELIHOODS`.
        seed, temperature, max_new_tokens: how the samples were drawn, for the signature.
        tokenizer: that of the generator, which tells what is unknown.
        given: `generator` (any causal LM, or a `Residual`), `samples` of it, `held_out` sequences on which nothing was
            trained, and perhaps `train`, those on which it was trained, and `oracle`, the model that wrote the data.
    """
    density, samples, held_out = (given[name] for name in ("generator", "samples", "held_out"))
    residual = density if isinstance(density, Residual) else None
    generator = density if residual is None else residual.generator
    drawn = f"vocabulary:{generator.config.vocab_size}|samples:{samples.batch_size}|held_out:{held_out.batch_size}"
    drawn += unknown_setting(unknown_share(tokenizer, held_out.ids[held_out.mask])) + prompts_setting(held_out)
    drawn += f"|temperature:{temperature:g}{'' if residual is None else residual.setting}|seed:{seed}"
    if suppressed := len(suppressed_tokens(generator)):
        drawn += f"|suppressed:{suppressed}|left_out:{int(unwritable(generator, held_out).sum())}"
    longest = "" if max_new_tokens is None else f"|max_new_tokens:{max_new_tokens}"
    results = {}
    for name in names:
        metric = LIKELIHOODS[name]
        inputs = {each: given.get(each) for each in metric.inputs}
        if None in inputs.values() or (name == "calibration" and temperature != 1.0):
            continue
        values = metric(**inputs)
        if residual is not None and "generator" in metric.inputs:
            values = residual.widened(values)
        for key, found in values.items():
            per = "token" if key.startswith(("nll_", "calibration_")) and not key.endswith("_sequence") else "sequence"
            signature = f"per:{per}|{drawn}|version:{metric.version}{longest}"
            results[key] = Result(found.value, found.low, found.high, signature, metric.better)
    return results


def prompts_setting(held_out: Samples) -> str:
    """The number of prompts as a part of a signature; nothing where there is no prompt but the start token."""
    return f"|prompts:{held_out.batch_size}" if held_out.prompt.shape[1] > 1 else ""


class HeldOutNLL(Evaluator):
    """NLL_test of held-out sequences and NLL_div of the generator's own samples."""

    def __init__(self, held_out: Samples, tokenizer: PreTrainedTokenizerBase | None = None):
        self.held_out, self.tokenizer = held_out, tokenizer

    def evaluate(self, generator: PreTrainedModel, samples: Samples, seed: int) -> dict[str, Estimate]:
        given: dict[str, Any] = {"generator": generator, "samples": samples, "held_out": self.held_out}
        return dict(measure_likelihoods(("nll_test", "nll_div"), seed, tokenizer=self.tokenizer, **given))


class OracleNLL(Evaluator):
    """NLL_oracle (SeqGAN, equation 9) and, since the oracle's density is known, KL and Jensen-Shannon divergences.

    `nll_oracle` alone rewards mode seeking: read it beside `nll_test`, or read `jsd_oracle`. The oracle is the model
    that wrote the data; `held_out` are sequences drawn from it that no training step has seen.
    """

    def __init__(self, oracle: PreTrainedModel, held_out: Samples):
        self.oracle, self.held_out = oracle, held_out

    def evaluate(self, generator: PreTrainedModel, samples: Samples, seed: int) -> dict[str, Estimate]:
        oracle = cast(Any, self.oracle).to(samples.ids.device)
        given = {"generator": generator, "samples": samples, "held_out": self.held_out, "oracle": oracle}
        return dict(measure_likelihoods(("nll_oracle", "oracle_divergence"), seed, **given))
