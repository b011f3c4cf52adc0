"""RLOO: a sample is compared with the mean of the others of the same prompt."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .grpo import GRPO
from .ratios import Level


class RLOO(GRPO):
    """Advantages r - mean of the group's other rewards: REINFORCE with an unbiased baseline, on whole sequences.

    Args:
        group_size, clip, clip_high, level, updates, likelihood_weight: see `GRPO`.
        kl: weight of KL(G || reference), in the reward.

    References:
        Ahmadian et al., Back to Basics: Revisiting REINFORCE-Style Optimization for Learning from Human Feedback in
        LLMs, ACL 2024, https://arxiv.org/abs/2402.14740.
    """

    citation = """@inproceedings{ahmadian2024rloo,
  title = {Back to Basics: Revisiting {REINFORCE}-Style Optimization for Learning from Human Feedback in {LLMs}},
  author = {Ahmadian, Arash and Cremer, Chris and Gall{\\'e}, Matthias and Fadaee, Marzieh and Kreutzer, Julia and Pietquin, Olivier and {\\"U}st{\\"u}n, Ahmet and Hooker, Sara},
  booktitle = {Proceedings of the 62nd Annual Meeting of the Association for Computational Linguistics},
  pages = {12248--12267},
  year = {2024}
}"""  # noqa: E501

    def __init__(
        self,
        group_size: int = 8,
        clip: float = 0.2,
        clip_high: float | None = None,
        kl: float = 0.05,
        level: Level = "sequence",
        updates: int = 1,
        likelihood_weight: float = 0.0,
    ):
        policy: dict[str, Any] = {"level": level, "updates": updates, "likelihood_weight": likelihood_weight}
        super().__init__(group_size, False, clip, clip_high, kl, **policy)

    def relative(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """r - mean of the others = n / (n - 1) (r - mean); shapes as in `GRPO`."""
        size = groups.shape[1]
        return super().relative(rewards, groups) * (size / max(1, size - 1))
