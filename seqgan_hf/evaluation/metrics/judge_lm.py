"""Quality as a language model sees it that has learnt neither from the samples nor from the corpus."""

from __future__ import annotations

import numpy as np

from ...errors import UserError
from ..record import Estimate


def judge_lm(sample_nlls: np.ndarray) -> dict[str, Estimate]:
    """`judge_nll`: mean over texts of their NLL per token under a pretrained causal LM, in nats; low is fluent.

    Blind to diversity: one likely text repeated scores best, so it belongs beside a measure of coverage. The mean is
    over texts, not over tokens, and so that of a mixture of two sets is the mean of theirs.

    Args:
        sample_nlls: of each text, in nats per token of the judge, (N,).

    >>> judge_lm(np.array([1.0, 3.0]))["judge_nll"].value
    2.0
    """
    if not len(sample_nlls):
        raise UserError("0 samples", "at least 1 sample", "give more samples")
    return {"judge_nll": Estimate.of_mean(np.asarray(sample_nlls))}
