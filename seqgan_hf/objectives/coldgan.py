"""ColdGAN: learn from samples of a colder policy, corrected by importance weights, and keep a memory of them."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import UserError
from ..generation.likelihood import token_logprobs
from ..generation.sampling import check_sampling, sample
from ..samples import Samples
from .base import Models
from .reinforce import Baseline, Reinforce


class ColdGAN(Reinforce):
    """REINFORCE off policy: sequences come from a mixture q of low-temperature and nucleus sampling.

    The gradient is E_q[w grad log G D(Y)] with w = min(G / q, c), which is the generator's own where c cuts nothing
    off. The low temperature gives every sequence a probability, so that q is positive wherever G is.

    Args:
        temperature: of the first component of q.
        top_p: nucleus of the second, at temperature 1.
        mixture: share of sequences from the second.
        max_weight: c.
        level: of the weights: the whole `sequence`, or each `token` by its own ratio.
        memory: generated sequences that are kept; half of what the discriminator is shown comes from there. 0: none.
        baseline, shared: see `Reinforce`.

    References:
        Scialom et al., ColdGANs: Taming Language GANs with Cautious Sampling Strategies, NeurIPS 2020,
        https://arxiv.org/abs/2006.04643.
    """

    citation = """@inproceedings{scialom2020coldgans,
  title = {{ColdGANs}: Taming Language {GANs} with Cautious Sampling Strategies},
  author = {Scialom, Thomas and Dray, Paul-Alexis and Lamprier, Sylvain and Piwowarski, Benjamin and Staiano, Jacopo},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {33},
  year = {2020}
}"""

    def __init__(
        self,
        temperature: float = 0.2,
        top_p: float = 0.9,
        mixture: float = 0.1,
        max_weight: float = 5.0,
        level: Literal["sequence", "token"] = "sequence",
        memory: int = 10_000,
        baseline: Baseline = "leave_one_out",
        **shared: Any,
    ):
        super().__init__(baseline, **shared)
        check_sampling(1, temperature, 0, top_p)
        if not 0 <= mixture < 1:
            raise UserError(f"mixture={mixture}", "a share in [0, 1)", "a nucleus alone cannot write every sequence")
        if not max_weight > 0 or memory < 0:
            raise UserError(f"max_weight={max_weight}, memory={memory}", "a positive weight, and 0 or more sequences")
        if level not in ("sequence", "token"):
            raise UserError(f"level={level!r}", "sequence or token", "choose one")
        self.temperature, self.top_p, self.mixture = temperature, top_p, mixture
        self.max_weight, self.level, self.memory = max_weight, level, memory
        self.remembered: Samples | None = None

    def sample(self, models: Models, real: Samples, max_new_tokens: int) -> Samples:
        """Continuations drawn from q, with its log-probabilities."""
        second = torch.rand(real.batch_size, device=real.ids.device) < self.mixture
        policies: list[tuple[Tensor, dict[str, Any]]] = [
            (~second, {"temperature": self.temperature}),
            (second, {"top_p": self.top_p}),
        ]
        parts = []
        for rows, policy in policies:
            if rows.any():
                chosen = real.select(rows)
                prompt = models.generator, chosen.prompt, max_new_tokens
                parts.append(sample(*prompt, prompt_mask=chosen.prompt_mask, **policy))
        order = torch.cat([rows.nonzero().squeeze(1) for rows, _ in policies]).argsort()
        samples = Samples.concatenate(parts).select(order)
        return samples._replace(logprobs=self.behaviour(models, samples))

    def behaviour(self, models: Models, samples: Samples) -> Tensor:
        """log q(y_t | Y_1:t-1) of the mixture of sequences, shape (B, T), zero at padding.

        A prefix's probability is the mixture of the components' own; a token's is the quotient of two prefixes.
        """
        cold = token_logprobs(models.generator, samples, self.temperature).cumsum(dim=1)
        prefixes = cold
        if self.mixture:
            nucleus = token_logprobs(models.generator, samples, top_p=self.top_p).cumsum(dim=1)
            prefixes = torch.logaddexp(math.log1p(-self.mixture) + cold, math.log(self.mixture) + nucleus)
        return prefixes.diff(dim=1, prepend=torch.zeros_like(prefixes[:, :1])).masked_fill(~samples.mask, 0.0)

    def token_weights(self, models: Models, advantages: Tensor, logprobs: Tensor, samples: Samples) -> Tensor:
        """min(G / q, c) times the advantages."""
        ratios = logprobs - samples.logprobs
        if self.level == "sequence":
            ratios = ratios.sum(dim=1, keepdim=True)
        return ratios.exp().clamp(max=self.max_weight) * advantages

    def fakes(self, models: Models, prompts: Samples, max_new_tokens: int) -> Samples:
        """Fresh samples, half of them put aside for remembered ones; all fresh ones are remembered."""
        fresh = self.sample(models, prompts, max_new_tokens).uncredited
        shown, past = fresh, self.remembered
        if past is not None:
            rows = torch.randint(past.batch_size, (fresh.batch_size // 2,))
            old = past.select(rows).to(fresh.ids.device)
            shown = Samples.concatenate([fresh.select(slice(len(rows), None)), old])
        if self.memory:
            kept = fresh.to("cpu") if past is None else Samples.concatenate([past, fresh.to("cpu")])
            self.remembered = kept.select(slice(-self.memory, None))
        return shown

    def state_dict(self) -> dict[str, Any]:
        remembered = None if self.remembered is None else self.remembered._asdict()
        return super().state_dict() | {"remembered": remembered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.remembered = None if state["remembered"] is None else Samples(**state["remembered"])
