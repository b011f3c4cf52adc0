"""The residual model of a generator and a discriminator: samples of it, and its density but for an estimate of log Z.

log P(Y) = log G(Y) + a s(Y) - log Z, with s the log-odds of being real, a the exponent and Z = E_G exp(a s), which
proposals of the generator estimate (Deng et al. 2020, https://arxiv.org/abs/2004.11714). Rejection draws from the same
model with min(s, bound) in place of s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.tokenization import decode
from ..generation.likelihood import sequence_logprobs
from ..generation.resampling import Accepted, effective_sample_size, log_normalizer, reject, resample
from ..generation.verdicts import judge
from ..samples import BoolTensor, Samples
from .loading import LoadedGenerator, in_turn
from .record import Estimate, Result, Z
from .verdicts import auc, writable


@dataclass
class Residual:
    """P(Y) = G(Y) exp(a min(s(Y), bound)) / Z.

    It is what rejection draws from, and, without a bound, resampling but for an error of O(1 / proposals).
    """

    generator: PreTrainedModel  # G
    discriminator: PreTrainedModel  # whose log-odds are s
    exponent: float  # a
    log_weights: Tensor  # a min(s, bound) of the proposals, (N, K); row i continues prompt i modulo R
    prompts: int = 1  # R, the number of prompts; 1 where there is none but the start token
    accepted: Accepted | None = None  # what rejection drew; without it samples were resampled
    percentile: float = 100.0  # of log-odds, by which rejection chose its bound
    log_z: Tensor = field(init=False)  # of each prompt, the middle of both estimates, (R,)
    bounds: tuple[float, float] = field(init=False)  # both, means over prompts
    error: float = field(init=False)  # standard error; of several prompts it shows in their spread

    def __post_init__(self):
        turns = len(self.log_weights) // self.prompts
        rows = self.log_weights[: turns * self.prompts].view(turns, self.prompts, -1).transpose(0, 1).flatten(1)
        low, high = log_normalizer(rows)
        self.log_z, self.bounds = (low + high) / 2, (float(low.mean()), float(high.mean()))
        # of a mean of n weights, by the delta method: sqrt(variance / n) / mean
        excess = max(0.0, float(rows.shape[1] / effective_sample_size(rows[0]) - 1))
        self.error = math.sqrt(excess / rows.shape[1]) if self.prompts == 1 else 0.0

    @property
    def setting(self) -> str:
        """Its part of a signature."""
        method = "" if self.accepted is None else f"|method:reject|percentile:{self.percentile:g}"
        return f"|proposals:{self.log_weights.shape[1]}|exponent:{self.exponent:g}{method}"

    def logprobs(self, samples: Samples, counted: BoolTensor | None = None) -> Tensor:
        """log P(Y), in nats, float64, shape (N,); row i continues prompt i modulo R. As `sequence_logprobs`."""
        own = sequence_logprobs(self.generator, samples, counted)
        turn = torch.arange(len(own), device=self.log_z.device) % self.prompts
        return own + self.log_weight(samples).to(own) - self.log_z[turn].to(own)

    def log_weight(self, samples: Samples) -> Tensor:
        """a min(s, bound), in nats, float64, shape (N,)."""
        log_odds = judge(self.discriminator, samples.to(self.discriminator.device)).double()
        return self.exponent * (log_odds if self.accepted is None else log_odds.clamp(max=self.accepted.bound))

    def widened(self, found: dict[str, Estimate]) -> dict[str, Estimate]:
        """Likelihoods whose intervals hold what is not known of log Z: its standard error, and both estimates of it.

        They move with log Z one to one, per token by the mean number of tokens less, and the JSD at most half as much.
        """
        half = (self.bounds[1] - self.bounds[0]) / 2
        wide = dict(found)
        for key, estimate in found.items():
            share = 0.5 if key.startswith("jsd") else 1.0
            if (whole := found.get(f"{key}_sequence")) is not None:
                share = estimate.value / whole.value
            if estimate.low is not None:
                error = math.hypot((estimate.high - estimate.low) / 2, Z * share * self.error) + share * half
                wide[key] = Estimate(estimate.value, estimate.value - error, estimate.value + error)
        return wide

    def results(self, held_out: Samples, signature: str) -> dict[str, Result]:
        """How much there is to win, and how far the proposals reach.

        `discriminator_auc_test` is the chance that a held-out sequence (which the generator could write) looks more
        real to the discriminator than one of the generator does. `effective_sample_size` is that of the K proposals of
        a sample, between 1 and K; with rejection, of K proposals with the weights of what it draws.
        """
        held_out = writable(self.generator, held_out)
        real, proposed = self.log_weight(held_out), self.log_weights.flatten()
        found = {
            "discriminator_auc_test": auc(real, proposed.to(real)),
            "effective_sample_size": Estimate.of_mean(effective_sample_size(self.log_weights).cpu().numpy()),
        }
        return {key: Result(e.value, e.low, e.high, signature, "higher") for key, e in found.items()}

    @property
    def note(self) -> str:
        """Both estimates of log Z, and what rejection took, in words."""
        where = f", means over {self.prompts} prompts" if self.prompts > 1 else f", standard error {self.error:.2g}"
        low, high = self.bounds
        told = f"log Z of the residual model (exponent {self.exponent:g}): {low:.4f} by the mean weight, {high:.4f} by"
        told += f" the second-order jackknife (nats a sequence{where}); likelihoods take the middle"
        if (taken := self.accepted) is None:
            return told
        above = f"{taken.above:.2%} of them were above the bound {taken.bound:.3g} on the log-odds"
        return f"{told}; rejection accepted {taken.rate:.2%} of its proposals, {above}"


def draw_residual(
    generator: LoadedGenerator,
    discriminator: PreTrainedModel,
    held_out: Samples,
    count: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    exponent: float,
    proposals: int,
    percentile: float | None = None,
) -> tuple[Samples, list[str], Residual]:
    """As `loading.draw_samples`, but by resampling or rejection; and their density.

    There is one log Z for each prompt of the held-out sequences, the first `count` of them at most.

    Args:
        proposals: 2 or more for each sample, of which resampling keeps one, and which estimate log Z.
        percentile: of log-odds, the bound of rejection, which draws proposals of its own; `None` resamples.
    """
    model, given = generator.model, in_turn(held_out, count)
    rng = torch.Generator(device=model.device).manual_seed(seed)
    options: dict[str, Any] = {"exponent": exponent, "temperature": temperature, "rng": rng}
    options |= {"prompt_mask": given.prompt_mask}
    drawn = resample(model, discriminator, given.prompt, max_new_tokens, proposals, **options)
    prompts = min(held_out.batch_size, count) if held_out.prompt.shape[1] > 1 else 1
    if percentile is None:
        density = Residual(model, discriminator, exponent, drawn.log_weights, prompts)
        return drawn.samples, decode(drawn.samples, generator.tokenizer), density
    taken = reject(model, discriminator, given.prompt, max_new_tokens, percentile=percentile, **options)
    log_weights = drawn.log_weights.clamp(max=exponent * taken.bound)
    density = Residual(model, discriminator, exponent, log_weights, prompts, taken, percentile)
    return taken.samples, decode(taken.samples, generator.tokenizer), density
