"""RelGAN: gradients reach the generator through soft tokens, and real and generated sequences are judged in pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from ..errors import UserError
from ..functional import masked_mean
from ..generation.relaxation import relax
from ..generation.verdicts import verdicts
from ..generation.vocabulary import special_tokens, token_embeddings
from ..samples import BoolTensor, Samples
from .base import Loss, Models, Objective, penalty
from .gradient_penalty import gradient_penalty
from .statistics import shared_mean


LossName = Literal["RSGAN", "standard", "JS", "KL", "hinge", "tv", "LS", "wgan-gp"]
Schedule = Literal["exp", "lin", "log", "sigmoid", "quad", "sqrt", "no"]
Function = Callable[[Tensor], Tensor]


class Verdicts(NamedTuple):
    """What D says of B sequences.

    Attributes:
        scores: K log-odds of being real: one of the sequence, or one of each token or representation, shape (B, K).
        counted: which of them count, shape (B, K).
        samples: the sequences.
    """

    scores: Tensor
    counted: BoolTensor
    samples: Samples

    @property
    def of_sequences(self) -> Tensor:
        """The mean of those that count, shape (B,)."""
        return self.scores.masked_fill(~self.counted, 0.0).sum(dim=1) / self.counted.sum(dim=1).clamp(min=1)


def _cross_entropy(of_generator: Function) -> tuple[Function, Function, Function]:
    return lambda s: F.softplus(-s), F.softplus, of_generator


# What D minimises of real sequences' log-odds, and of generated ones'; what G minimises of the latter. Of pairs
# (`RSGAN`): see `_margins`.
LOSSES: dict[str, tuple[Function, Function, Function]] = {
    "standard": _cross_entropy(lambda s: F.softplus(-s)),
    "JS": _cross_entropy(lambda s: -F.softplus(s)),
    "KL": _cross_entropy(lambda s: -s),
    "hinge": (lambda s: F.relu(1 - s), lambda s: F.relu(1 + s), lambda s: -s),
    "tv": (lambda s: -s.tanh(), lambda s: s.tanh(), lambda s: -s.tanh()),
    "LS": (lambda s: (s - 1).square(), lambda s: s.square(), lambda s: (s - 1).square()),
    "wgan-gp": (lambda s: -s, lambda s: s, lambda s: -s),
}

# Which share of the way from 1 to the largest beta is gone, at step i of N; the way itself is exponential for `exp`.
SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "lin": lambda i, n: i / n,
    "log": lambda i, n: math.log(i + 1) / math.log(n + 1),
    "sigmoid": lambda i, n: 1 / (1 + math.exp(20 * (0.5 - i / n))),
    "quad": lambda i, n: (i / n) ** 2,
    "sqrt": lambda i, n: math.sqrt(i / n),
}


class RelGAN(Objective):
    """The generator follows the gradient of D's verdict through Gumbel-softmax samples, whose beta grows.

    Real and generated sequences are judged in pairs by default: D minimises softplus(-(s_real - s_fake)), G the
    same with the sign turned, a mean over pairs (and over the representations, or the tokens, that D judges).

    Args:
        loss: `RSGAN` (pairs), or `standard`, `JS`, `KL`, `hinge`, `tv`, `LS`, `wgan-gp`.
        beta_max: the inverse temperature at the end.
        adapt: how beta grows from 1: `exp`, `lin`, `log`, `sigmoid`, `quad`, `sqrt`; `no`: `beta_max` throughout.
        beta_steps: generator steps until then.
        straight_through: D sees hard tokens, and only the gradient is that of soft ones.
        gradient_penalty: weight of the penalty in `wgan-gp`.
        dropout_in_generator_steps: whether D keeps its dropout there, as in the paper's code.

    References:
        Nie, Narodytska and Patel, RelGAN: Relational Generative Adversarial Networks for Text Generation, ICLR 2019,
        https://openreview.net/forum?id=rJedV3R5tm.
    """

    citation = """@inproceedings{nie2019relgan,
  title = {{RelGAN}: Relational Generative Adversarial Networks for Text Generation},
  author = {Nie, Weili and Narodytska, Nina and Patel, Ankit},
  booktitle = {International Conference on Learning Representations},
  year = {2019}
}"""
    paired = True

    def __init__(
        self,
        loss: LossName = "RSGAN",
        beta_max: float = 100.0,
        adapt: Schedule = "exp",
        beta_steps: int = 5000,
        straight_through: bool = False,
        gradient_penalty: float = 10.0,
        dropout_in_generator_steps: bool = False,
    ):
        for name, value, allowed in (("loss", loss, get_args(LossName)), ("adapt", adapt, get_args(Schedule))):
            if value not in allowed:
                raise UserError(f"{name}={value!r}", f"one of {', '.join(allowed)}", "choose one")
        if beta_max <= 0 or beta_steps < 1:
            problem = f"beta_max={beta_max}, beta_steps={beta_steps}"
            raise UserError(problem, "a positive beta, and 1 or more steps", "100 and 5000 are the paper's")
        if gradient_penalty < 0:
            raise UserError(f"gradient_penalty={gradient_penalty}", "a number of at least 0", "10 is usual")
        self.loss, self.beta_max, self.adapt, self.beta_steps = loss, beta_max, adapt, beta_steps
        self.straight_through, self.gradient_penalty = straight_through, gradient_penalty
        self.dropout_in_generator_steps = dropout_in_generator_steps
        self.steps = 0  # of the generator

    @property
    def beta(self) -> float:
        """The inverse temperature, of generator and discriminator steps alike."""
        step, steps = min(self.steps, self.beta_steps), self.beta_steps
        if self.adapt == "no":
            return self.beta_max
        if self.adapt == "exp":
            return self.beta_max ** (step / steps)
        return 1 + (self.beta_max - 1) * SCHEDULES[self.adapt](step, steps)

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        """Refuse a discriminator that cannot read soft tokens, or not where sequences end at different places."""
        super().check(models, batch_size, conditional)
        token_embeddings(models.discriminator, padded=bool(special_tokens(models.generator)[0]))

    def relaxed(self, models: Models, fake: Samples) -> Samples:
        """Samples with soft tokens."""
        return relax(models.generator, fake, self.beta, self.straight_through)

    def generator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """What G minimises of the verdicts on its soft samples; real sequences count in pairs only."""
        if self.dropout_in_generator_steps:
            models.discriminator.train()  # the trainer takes dropout away before every step
        of_fake = _verdicts(models.discriminator, self.relaxed(models, fake))
        with torch.no_grad():
            of_real = _verdicts(models.discriminator, real.uncredited)
        loss = self.of_generator(models, of_real, of_fake)
        return Loss(loss, {"generator_loss": loss.detach(), "beta": self.beta})

    def discriminator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """What D minimises of the verdicts on real sequences and on soft samples."""
        with torch.no_grad():
            fake = self.relaxed(models, fake)
        of_real, of_fake = _verdicts(models.discriminator, real.uncredited), _verdicts(models.discriminator, fake)
        loss = self.of_discriminator(models, of_real, of_fake)
        margins, counted = _margins(of_real, of_fake)
        metrics = {
            "discriminator_accuracy": masked_mean((margins > 0).float(), counted),
            "discriminator_margin": masked_mean(margins.detach(), counted),
            "discriminator_loss": loss.detach(),
        }
        if self.loss == "wgan-gp":
            penalties = gradient_penalty(models.discriminator, real, fake)
            mean = shared_mean(penalties, torch.ones_like(penalties, dtype=torch.bool))
            metrics["gradient_penalty"] = mean.detach()
            loss = loss + self.gradient_penalty * mean
        return Loss(loss + penalty(models.discriminator), metrics)

    def of_discriminator(self, models: Models, real: Verdicts, fake: Verdicts) -> Tensor:
        """The loss of D without penalties, a scalar."""
        if self.loss == "RSGAN":
            margins, counted = _margins(real, fake)
            return shared_mean(F.softplus(-margins), counted)
        of_real, of_fake, _ = LOSSES[self.loss]
        return shared_mean(of_real(real.scores), real.counted) + shared_mean(of_fake(fake.scores), fake.counted)

    def of_generator(self, models: Models, real: Verdicts, fake: Verdicts) -> Tensor:
        """The loss of G, a scalar."""
        if self.loss == "RSGAN":
            margins, counted = _margins(real, fake)
            return shared_mean(F.softplus(margins), counted)
        return shared_mean(LOSSES[self.loss][2](fake.scores), fake.counted)

    def after_step(self, player: Literal["generator", "discriminator"], models: Models) -> None:
        """Count the steps that beta follows."""
        self.steps += player == "generator"

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def _margins(real: Verdicts, fake: Verdicts) -> tuple[Tensor, BoolTensor]:
    """s_real - s_fake of each pair, and which pairs count; of verdicts on tokens, as far as both sequences go."""
    width = min(real.scores.shape[1], fake.scores.shape[1])
    counted = real.counted[:, :width] & fake.counted[:, :width]
    return real.scores[:, :width] - fake.scores[:, :width], counted


def _verdicts(discriminator: PreTrainedModel, samples: Samples) -> Verdicts:
    scores, counted = verdicts(discriminator, samples)
    return Verdicts(scores.float(), counted, samples)
