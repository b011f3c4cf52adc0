"""Samples, rollouts and likelihoods of generators; verdicts of discriminators."""

from .likelihood import full_kl, sequence_logprobs, token_logprobs, weighted_nll
from .relaxation import relax, sample_soft
from .rollouts import complete
from .sampling import mix_in_own_tokens, sample
from .verdicts import realness, rewards
from .vocabulary import special_tokens, start_prompt, vocabulary_size


__all__ = [
    "complete",
    "full_kl",
    "mix_in_own_tokens",
    "realness",
    "relax",
    "rewards",
    "sample",
    "sample_soft",
    "sequence_logprobs",
    "special_tokens",
    "start_prompt",
    "token_logprobs",
    "vocabulary_size",
    "weighted_nll",
]
