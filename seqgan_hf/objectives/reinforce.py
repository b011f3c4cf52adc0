"""Policy gradient: four hooks that most text GANs differ in, and the baselines that lower its variance."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..errors import UserError
from ..functional import discounted, masked_mean
from ..generation.likelihood import token_logprobs, weighted_nll
from ..generation.verdicts import rewards
from ..generation.vocabulary import start_prompt
from ..samples import BoolTensor, Samples
from .base import Copy, Credit, Loss, Models, Objective
from .statistics import count_processes, sum_over_processes


Baseline = Literal["none", "moving_average", "batch", "leave_one_out"]
BASELINES: tuple[str, ...] = get_args(Baseline)


class Reinforce(Objective):
    """REINFORCE: every token of a sequence is credited with D's verdict on the whole of it.

    Subclasses override one or two of four hooks, in the order in which a batch goes through them: `reward`,
    `action_values`, `advantages`, `token_weights`.

    Args:
        baseline: what is subtracted from the action values at each position, over the sequences that reach it:
            `none` (the paper's), `moving_average` of the past batches' means, the `batch` mean (which is slightly
            biased, as a sequence is part of its own mean), or the mean of the other sequences (`leave_one_out`);
            where no other reaches a position, the mean of what the others had at their ends.
        baseline_momentum: share of the past in the moving average.
        likelihood_weight: of -log G(real sequence), a sum over tokens and a mean over B, which is added to the loss.
        kl: beta, the price of leaving the generator that the objective began with, KL(G || reference) in nats a
            sequence. It is part of the reward: every token pays beta log G / reference of itself and of what follows,
            whose expected gradient is that of the divergence.

    References:
        Williams, Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning, 1992.
    """

    citation = """@article{williams1992simple,
  title = {Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning},
  author = {Williams, Ronald J.},
  journal = {Machine Learning},
  volume = {8},
  pages = {229--256},
  year = {1992}
}"""

    def __init__(
        self,
        baseline: Baseline = "none",
        baseline_momentum: float = 0.9,
        likelihood_weight: float = 0.0,
        kl: float = 0.0,
    ):
        if baseline not in BASELINES:
            raise UserError(f"baseline={baseline!r}", f"one of {', '.join(BASELINES)}", "choose one")
        if not 0 <= baseline_momentum < 1:
            raise UserError(f"baseline_momentum={baseline_momentum}", "a share in [0, 1)", "0 forgets the past")
        for name, value in {"likelihood_weight": likelihood_weight, "kl": kl}.items():
            if not 0 <= value < float("inf"):
                raise UserError(f"{name}={value}", "a number from 0 on", "0 leaves it out")
        self.baseline, self.baseline_momentum = baseline, baseline_momentum
        self.likelihood_weight, self.kl = likelihood_weight, kl
        self.moving_average: Tensor | None = None  # (T,)

    # --- The four hooks ----------------------------------------------------------------------------------------------

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """What whole sequences earn: here D(Y), the probability of being real, at the last token if D judges each.

        Row-wise: a reward depends on its own row of `samples` only, since rollouts are cut by memory.

        Args:
            samples: K sequences: those of the batch, or completions of their prefixes.
            real: the batch of training sequences, for rewards that compare with real text.

        Returns:
            Shape (K,); or (K, T) where every token earns something.
        """
        return last_of(rewards(models.discriminator, samples), samples)

    def action_values(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """Q(Y_1:t-1, y_t), the reward expected after token y_t, shape (B, T)."""
        values = self._earned(models, samples, real)
        return values if values.dim() == 2 else values[:, None].expand_as(samples.ids)

    def advantages(self, models: Models, values: Tensor, samples: Samples) -> Tensor:
        """Q - b_t, with a baseline over the batches of all processes; of and to shape (B, T)."""
        return values - self._baseline(values, samples)

    def token_weights(self, models: Models, advantages: Tensor, logprobs: Tensor, samples: Samples) -> Tensor:
        """The factor of -log G(y_t | Y_1:t-1) in the loss: ratios, clipping and penalties go here.

        Args:
            models: the players.
            advantages: shape (B, T).
            logprobs: of the tokens under the generator as it is now, without gradient, shape (B, T).
            samples: the batch; `samples.logprobs` are those under the policy that drew it.

        Returns:
            Constants, shape (B, T).
        """
        return advantages

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        """Refuse a batch in which no sequence has another to be compared with."""
        super().check(models, batch_size, conditional)
        self.check_baseline(batch_size)

    def check_baseline(self, batch_size: int) -> None:
        """Raise a UserError where no sequence has another to be compared with."""
        if self.baseline == "leave_one_out" and batch_size * count_processes() < 2:
            problem = "baseline=leave_one_out with batches of one sequence"
            raise UserError(problem, "others to compare it with", "set `training.per_device_train_batch_size`")

    def copies(self) -> dict[str, Copy]:
        return {"reference": Copy()} if self.kl else {}

    # --- One batch ---------------------------------------------------------------------------------------------------

    def credit(self, models: Models, real: Samples, fake: Samples) -> Credit:
        """Advantages for a batch; with several updates the log-probabilities that its ratios are taken to, too."""
        advantages, metrics = self._compared(models, real, fake)
        lacking = self.updates > 1 and fake.logprobs is None
        logprobs = token_logprobs(models.generator, fake) if self.kl or lacking else None
        if self.kl:
            price, metrics["kl_reference"] = self._price(models, fake, logprobs)
            advantages = advantages - price
        fake = fake._replace(advantages=advantages)
        return Credit(fake._replace(logprobs=logprobs) if lacking else fake, metrics)

    def _compared(self, models: Models, real: Samples, fake: Samples) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Advantages (B, T) without the price of leaving the reference, and what is logged of the values."""
        values = self.action_values(models, fake, real)
        last = values.gather(1, fake.lengths[:, None] - 1)
        metrics: dict[str, Tensor | float] = {
            "reward": last.mean(),
            "reward_std": self.spread(last.squeeze(1), fake),
            "action_value": masked_mean(values, fake.mask),
        }
        return self.advantages(models, values, fake), metrics

    def _price(self, models: Models, fake: Samples, logprobs: Tensor) -> tuple[Tensor, Tensor]:
        """What each token pays for leaving the reference, beside what others there pay, (B, T); and KL, in nats."""
        ratio = logprobs - token_logprobs(models["reference"], fake)
        price = discounted(ratio, fake.mask, 1.0)
        counts, sums = _sums(price, fake.mask)
        others = ((sums - price) / (counts - 1).clamp(min=1)).masked_fill(counts < 2, 0.0)
        return self.kl * (price - others), ratio.sum(dim=1).mean()

    def spread(self, rewards: Tensor, samples: Samples) -> Tensor:
        """The standard deviation of rewards (B,) that are compared with each other; at 0 they teach nothing."""
        return rewards.std(unbiased=False)

    def generator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """-sum_t E[log G(y_t | Y_1:t-1) (Q(Y_1:t-1, y_t) - b_t)] (SeqGAN, eq. 7): a sum over tokens, a mean over B."""
        weights = fake.advantages
        if type(self).token_weights is not Reinforce.token_weights:  # else a pass through the generator is spared
            with torch.no_grad():
                logprobs = token_logprobs(models.generator, fake)
            weights = self.token_weights(models, fake.advantages, logprobs, fake)
        return self._weighted(models, real, fake, weights)

    def _earned(self, models: Models, samples: Samples, real: Samples, of_tokens: bool = False) -> Tensor:
        """What `reward` gives, (K, T), or (K,) unless it is asked for `of_tokens`; a UserError for anything else."""
        found: Any = self.reward(models, samples, real)
        shapes = [tuple(samples.ids.shape)] if of_tokens else [(samples.batch_size,), tuple(samples.ids.shape)]
        if isinstance(found, Tensor) and found.is_floating_point() and tuple(found.shape) in shapes:
            return found
        given = f"{found.dtype} of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        expected = f"a tensor of floats of shape {' or '.join(map(str, shapes))}"
        fix = f"return a number for each token{'' if of_tokens else ', or for each sequence'}"
        raise UserError(f"{type(self).__name__}.reward gave {given}", expected, fix)

    def _weighted(self, models: Models, real: Samples, fake: Samples, weights: Tensor) -> Loss:
        """The mean over B of -sum_t w log G, and the likelihood of real text where it has a weight."""
        loss, logprobs = weighted_nll(models.generator, fake, weights / fake.batch_size)
        metrics = {"nll_policy": -masked_mean(logprobs, fake.mask)}
        if self.likelihood_weight:
            each = torch.full_like(real.ids, self.likelihood_weight / real.batch_size, dtype=torch.float32)
            nll, logprobs = weighted_nll(models.generator, real, each)
            loss, metrics["nll_train"] = loss + nll, -masked_mean(logprobs, real.mask)
        return Loss(loss, metrics)

    def _baseline(self, values: Tensor, samples: Samples) -> Tensor:
        """b_t, broadcastable to (B, T), from the sequences of all processes."""
        if self.baseline == "none":
            return torch.zeros_like(values)
        # a reward that is no number leaves its own step out; it must not stay in the average
        counts, sums = _sums(values, samples.mask & values.isfinite())
        if self.baseline == "leave_one_out":
            ends = values.gather(1, samples.lengths[:, None] - 1)
            rows, total = _sums(ends, ends.isfinite())
            ended = (total - ends) / (rows - 1).clamp(min=1)  # no more a function of this sequence than `others` is
            others = (sums - values) / (counts - 1).clamp(min=1)
            return torch.where(counts > 1, others, ended)
        mean = sums / counts.clamp(min=1)
        if self.baseline == "batch":
            return mean
        past = mean if self.moving_average is None else self.moving_average.to(mean)
        self.moving_average = torch.where(counts > 0, past.lerp(mean, 1 - self.baseline_momentum), past)
        return past

    def state_dict(self) -> dict[str, Any]:
        return {"moving_average": self.moving_average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.moving_average = state["moving_average"]


def _sums(values: Tensor, mask: BoolTensor) -> Tensor:
    """How many values are counted at each position, and their sum, over all processes, shape (2, T)."""
    return sum_over_processes(torch.stack([mask.sum(dim=0).to(values), values.masked_fill(~mask, 0.0).sum(dim=0)]))


def last_of(values: Tensor, samples: Samples) -> Tensor:
    """Values of whole sequences (B,) as they are; of values a token (B, T), those of the last tokens."""
    return values if values.dim() == 1 else values.gather(1, samples.lengths[:, None] - 1).squeeze(1)


def check_verdicts_on_tokens(objective: Objective, models: Models) -> None:
    """Refuse a discriminator that judges whole sequences, tried on one of two tokens."""
    start = start_prompt(models.generator, 1)
    tried = Samples(start, start.expand(1, 2), torch.ones(1, 2, dtype=torch.bool, device=start.device))
    if models.discriminator is not None and rewards(models.discriminator, tried).dim() == 1:
        problem = f"{type(objective).__name__} with a discriminator that judges whole sequences"
        fix = "use `rnn_discriminator` with `per_token: true` and `bidirectional: false`"
        raise UserError(problem, "one that judges every token", fix)
