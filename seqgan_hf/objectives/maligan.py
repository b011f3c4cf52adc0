"""MaliGAN: rewards that make the policy gradient an estimate of maximum likelihood's, normalised over the batch."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import UserError
from ..generation.sampling import sample
from ..generation.verdicts import judge
from ..samples import Samples
from .base import Models
from .groups import check_groups, in_groups, repeat_prompts
from .reinforce import Reinforce, last_of
from .statistics import count_processes, shared_softmax, sum_over_processes


class MaliGAN(Reinforce):
    """Importance weights r = D / (1 - D), normalised to mean 1 over the batch, less a constant.

    For the optimal D, r is p / G, and the expected gradient that of maximum likelihood. With `likelihood_prefix` the
    first N tokens are those of a real sequence and learn by maximum likelihood; the rest is drawn `completions` times,
    and r is normalised over these.

    Args:
        baseline_weight: b, subtracted from the normalised weights; the paper lets it grow from 0 to 1.
        max_log_odds: where log r is cut off.
        likelihood_prefix: N at the beginning; none by default.
        likelihood_prefix_decay: tokens by which N falls with every generator step.
        completions: of each real prefix.
        likelihood_weight, kl: see `Reinforce`.

    References:
        Che et al., Maximum-Likelihood Augmented Discrete Generative Adversarial Networks, 2017,
        https://arxiv.org/abs/1702.07983.
    """

    citation = """@article{che2017maligan,
  title = {Maximum-Likelihood Augmented Discrete Generative Adversarial Networks},
  author = {Che, Tong and Li, Yanran and Zhang, Ruixiang and Hjelm, R Devon and Li, Wenjie and Song, Yangqiu and Bengio, Yoshua},
  journal = {arXiv preprint arXiv:1702.07983},
  year = {2017}
}"""  # noqa: E501

    def __init__(
        self,
        baseline_weight: float = 1.0,
        max_log_odds: float = 10.0,
        likelihood_prefix: int | None = None,
        likelihood_prefix_decay: float = 0.0,
        completions: int = 4,
        likelihood_weight: float = 0.0,
        kl: float = 0.0,
    ):
        super().__init__(likelihood_weight=likelihood_weight, kl=kl)
        if not 0 <= baseline_weight <= 1:
            raise UserError(f"baseline_weight={baseline_weight}", "a number in [0, 1]", "1 is the mean of the weights")
        if not 0 < max_log_odds <= 80:
            raise UserError(f"max_log_odds={max_log_odds}", "a number in (0, 80]", "10 is a good start")
        if (likelihood_prefix or 0) < 0 or not 0 <= likelihood_prefix_decay < float("inf"):
            problem = f"likelihood_prefix={likelihood_prefix}, likelihood_prefix_decay={likelihood_prefix_decay}"
            raise UserError(problem, "numbers of tokens", "leave both out for samples of the generator alone")
        if likelihood_prefix and self.kl:
            problem = f"kl={self.kl} with likelihood_prefix={likelihood_prefix}"
            raise UserError(problem, "one of them: real tokens pay no price", "leave one of them out")
        if completions < 2:
            raise UserError(f"completions={completions}", "at least 2, which are weighed against each other")
        self.baseline_weight, self.max_log_odds = baseline_weight, max_log_odds
        self.likelihood_prefix, self.likelihood_prefix_decay = likelihood_prefix, likelihood_prefix_decay
        self.completions = completions
        self.steps = 0

    @property
    def prefix(self) -> int:
        """N, as it is now."""
        return max(0, round((self.likelihood_prefix or 0) - self.likelihood_prefix_decay * self.steps))

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        super().check(models, batch_size, conditional)
        if self.likelihood_prefix is not None:
            check_groups("completions", self.completions, batch_size)

    def sample(self, models: Models, real: Samples, max_new_tokens: int) -> Samples:
        """Continuations of the prompts, or of real prefixes, in groups of `completions` rows."""
        if self.likelihood_prefix is None:
            return super().sample(models, real, max_new_tokens)
        real = repeat_prompts(real, self.completions).uncredited
        given, rest = min(self.prefix, real.ids.shape[1]), max_new_tokens - self.prefix
        open_ = real.lengths > given  # the others end within the prefix
        if rest < 1 or not open_.any():
            return real
        begun = real.select(open_)
        prompt = torch.cat([begun.prompt, begun.ids[:, :given]], dim=1)
        prompt_mask = torch.cat([begun.attention_mask[:, : begun.prompt.shape[1]], begun.mask[:, :given]], dim=1)
        drawn = sample(models.generator, prompt, rest, prompt_mask=None if real.prompt_mask is None else prompt_mask)
        whole = begun._replace(
            ids=torch.cat([begun.ids[:, :given], drawn.ids], dim=1),
            mask=torch.cat([begun.mask[:, :given], drawn.mask], dim=1),
        )
        order = torch.cat([open_.nonzero(), (~open_).nonzero()]).squeeze(1).argsort()
        return Samples.concatenate([whole, real.select(~open_)]).select(order)

    def fakes(self, models: Models, prompts: Samples, max_new_tokens: int) -> Samples:
        """The generator's own: real prefixes would give the discriminator away what it has to learn."""
        return super().sample(models, prompts, max_new_tokens)

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """log r = log D / (1 - D), shape (K,): r itself may be too small for a float."""
        return last_of(judge(models.discriminator, samples), samples).clamp(max=self.max_log_odds)

    def advantages(self, models: Models, values: Tensor, samples: Samples) -> Tensor:
        """B softmax(log r) - b over the batches of all processes, or over each group; 1 for given tokens."""
        if self.likelihood_prefix is None:
            rows = sum_over_processes(values.new_tensor(len(values))) / count_processes()
            weights = shared_softmax(values[:, 0].double()) * rows - self.baseline_weight  # of nearly equal numbers
            return weights[:, None].expand_as(values).to(values.dtype)
        groups = in_groups(values[:, 0], self.completions)
        weights = (groups.softmax(dim=1) * groups.shape[1]).flatten()[:, None] - self.baseline_weight
        given = torch.arange(values.shape[1], device=values.device) < self.prefix
        return torch.where(given, 1.0, weights)

    def after_step(self, player: Literal["generator", "discriminator"], models: Models) -> None:
        self.steps += player == "generator"

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.steps = state["steps"]
