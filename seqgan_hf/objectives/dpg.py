"""DPG: the generator learns the law of what is drawn with a discriminator."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError
from ..generation.sampling import sample
from ..generation.verdicts import judge
from ..samples import Samples
from .base import Copy, Credit, Models
from .groups import check_groups, in_groups, repeat_prompts
from .reinforce import Reinforce, last_of
from .statistics import count_processes, shared_softmax, sum_over_processes


class DPG(Reinforce):
    """Distributional policy gradient: minimise KL(P || G) for P(Y) = G_0(Y) exp(a s(Y)) / Z.

    G_0 is the generator as the objective began, s the log-odds that D gives a sequence of being real: P is what
    `resample` draws from, but for the cut. Sequences of G_0 are learnt as real text is, dropout included, each by its
    weight P / G_0, normalised to mean 1 over the batch (or the group) of each backward pass, which needs no Z and has
    a bias of the order of 1 / the number of its rows that count. D is shown sequences of G_0 whenever it learns.

    Args:
        exponent: a, how far D is believed; above 0.
        max_log_odds: where s is cut off.
        group_size: samples of one prompt, over which the weights are normalised; needed where there are prompts.
        likelihood_weight: see `Reinforce`.

    References:
        Parshakova, Andreoli and Dymetman, Distributional Reinforcement Learning for Energy-Based Sequential Models,
        2019, https://arxiv.org/abs/1912.08517; Khalifa, Elsahar and Dymetman, A Distributional Approach to Controlled
        Text Generation, ICLR 2021, https://arxiv.org/abs/2012.11635.
    """

    off_policy = True
    citation = """@inproceedings{khalifa2021distributional,
  title = {A Distributional Approach to Controlled Text Generation},
  author = {Khalifa, Muhammad and Elsahar, Hady and Dymetman, Marc},
  booktitle = {International Conference on Learning Representations},
  year = {2021}
}"""

    def __init__(
        self,
        exponent: float = 0.5,
        max_log_odds: float = 10.0,
        group_size: int | None = None,
        likelihood_weight: float = 0.0,
    ):
        super().__init__(likelihood_weight=likelihood_weight)
        if not 0 < exponent < float("inf"):
            raise UserError(f"exponent={exponent}", "a number above 0", "1 believes the discriminator, 0.5 by half")
        if not 0 < max_log_odds <= 80:
            raise UserError(f"max_log_odds={max_log_odds}", "a number in (0, 80]", "10 is a good start")
        if group_size is not None and group_size < 2:
            raise UserError(f"group_size={group_size}", "at least 2, which are weighed against each other")
        self.exponent, self.max_log_odds, self.group_size = exponent, max_log_odds, group_size

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        super().check(models, batch_size, conditional)
        if self.group_size is not None:
            check_groups("group_size", self.group_size, batch_size)
        elif conditional:
            expected = "several samples of each prompt, which are weighed against each other"
            raise UserError("DPG with prompts and without groups", expected, "set `objective.group_size`")

    def copies(self) -> dict[str, Copy]:
        return {"reference": Copy()}

    def sample(self, models: Models, real: Samples, max_new_tokens: int) -> Samples:
        """What G_0 writes to the prompts of a real batch, `group_size` times to each."""
        asked = real if self.group_size is None else repeat_prompts(real, self.group_size)
        return self.fakes(models, asked, max_new_tokens)

    def fakes(self, models: Models, prompts: Samples, max_new_tokens: int) -> Samples:
        """What G_0 writes, once to every prompt."""
        return sample(models["reference"], prompts.prompt, max_new_tokens, prompt_mask=prompts.prompt_mask)

    def reward(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """s, the log-odds of being real, shape (K,)."""
        return last_of(judge(models.discriminator, samples), samples).clamp(max=self.max_log_odds)

    def advantages(self, models: Models, values: Tensor, samples: Samples) -> Tensor:
        """B softmax(a s), over the batches of all processes or over each group, (B, T)."""
        scores = self.exponent * values[:, 0].double()
        if self.group_size is None:
            weights = shared_softmax(scores) * sum_over_processes(torch.ones_like(scores).sum()) / count_processes()
        else:
            groups = in_groups(scores, self.group_size)
            weights = (groups.softmax(dim=1) * groups.shape[1]).flatten()
        return weights[:, None].expand_as(values).to(values.dtype)

    def credit(self, models: Models, real: Samples, fake: Samples) -> Credit:
        """The weights, and the share of all processes' batches that counts: 1 / the mean of their squares."""
        credit = super().credit(models, real, fake)
        weights = credit.samples.advantages[:, 0]
        count, squares = sum_over_processes(torch.stack([torch.ones_like(weights).sum(), weights.square().sum()]))
        return Credit(credit.samples, {**credit.metrics, "effective_share": count / squares})
