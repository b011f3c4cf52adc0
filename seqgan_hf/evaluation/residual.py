"""The residual model of a generator and a discriminator: samples of it, and its density but for an estimate of log Z.

log P(Y) = log G(Y) + a s(Y) - log Z, with s the log-odds of being real, a the exponent and Z = E_G exp(a s), which the
proposals of the samples estimate (Deng et al. 2020, https://arxiv.org/abs/2004.11714).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.tokenization import decode
from ..generation.likelihood import sequence_logprobs
from ..generation.resampling import effective_sample_size, log_normalizer, resample
from ..generation.verdicts import judge
from ..samples import BoolTensor, Samples
from .loading import LoadedGenerator, in_turn
from .record import Estimate, Result, Z
from .verdicts import auc, writable


@dataclass
class Residual:
    """P(Y) = G(Y) exp(a s(Y)) / Z: what resampling draws from, but for an error of O(1 / proposals)."""

    generator: PreTrainedModel  # G
    discriminator: PreTrainedModel  # whose log-odds are s
    exponent: float  # a
    log_weights: Tensor  # a s of the proposals, (N, K); row i continues prompt i modulo R
    prompts: int = 1  # R, the number of prompts; 1 where there is none but the start token
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
        return f"|proposals:{self.log_weights.shape[1]}|exponent:{self.exponent:g}"

    def logprobs(self, samples: Samples, counted: BoolTensor | None = None) -> Tensor:
        """log P(Y), in nats, float64, shape (N,); row i continues prompt i modulo R. As `sequence_logprobs`."""
        own = sequence_logprobs(self.generator, samples, counted)
        turn = torch.arange(len(own), device=self.log_z.device) % self.prompts
        return own + self.exponent * self.log_odds(samples).to(own) - self.log_z[turn].to(own)

    def log_odds(self, samples: Samples) -> Tensor:
        """s, shape (N,)."""
        return judge(self.discriminator, samples.to(self.discriminator.device))

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
        a sample, between 1 and K.
        """
        held_out = writable(self.generator, held_out)
        real, proposed = self.exponent * self.log_odds(held_out).double(), self.log_weights.flatten()
        found = {
            "discriminator_auc_test": auc(real, proposed.to(real)),
            "effective_sample_size": Estimate.of_mean(effective_sample_size(self.log_weights).cpu().numpy()),
        }
        return {key: Result(e.value, e.low, e.high, signature, "higher") for key, e in found.items()}

    @property
    def note(self) -> str:
        """Both estimates of log Z, in words."""
        where = f", means over {self.prompts} prompts" if self.prompts > 1 else f", standard error {self.error:.2g}"
        low, high = self.bounds
        told = f"log Z of the residual model (exponent {self.exponent:g}): {low:.4f} by the mean weight, {high:.4f} by"
        return f"{told} the second-order jackknife (nats a sequence{where}); likelihoods take the middle"


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
) -> tuple[Samples, list[str], Residual]:
    """As `loading.draw_samples`, but by resampling `proposals` (2 or more) for each sample; and their density.

    There is one log Z for each prompt of the held-out sequences, the first `count` of them at most.
    """
    model, given = generator.model, in_turn(held_out, count)
    rng = torch.Generator(device=model.device).manual_seed(seed)
    asked = (given.prompt, max_new_tokens, proposals, exponent, temperature)
    drawn = resample(model, discriminator, *asked, rng=rng, prompt_mask=given.prompt_mask)
    prompts = min(held_out.batch_size, count) if held_out.prompt.shape[1] > 1 else 1
    density = Residual(model, discriminator, exponent, drawn.log_weights, prompts)
    return drawn.samples, decode(drawn.samples, generator.tokenizer), density
