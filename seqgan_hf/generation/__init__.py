"""Samples, rollouts and likelihoods of generators; verdicts of discriminators, and samples drawn by them."""

from .likelihood import full_kl, sequence_logprobs, token_logprobs, weighted_nll
from .relaxation import relax, sample_soft
from .resampling import effective_sample_size, log_normalizer, reject, resample
from .rollouts import complete
from .sampling import mix_in_own_tokens, sample
from .verdicts import realness, rewards
from .vocabulary import special_tokens, start_prompt, vocabulary_size


__all__ = ["complete", "effective_sample_size", "full_kl", "log_normalizer", "mix_in_own_tokens", "realness", "reject"]
__all__ += ["relax", "resample", "rewards", "sample", "sample_soft", "sequence_logprobs", "special_tokens"]
__all__ += ["start_prompt", "token_logprobs", "vocabulary_size", "weighted_nll"]
