"""Grammar acceptance: the share of samples that are right, where right can be decided.

Kusner and Hernandez-Lobato (2016), https://arxiv.org/abs/1611.04051, measure text GANs on a context-free grammar in
this way; Texygen (Zhu et al., 2018) has such a task too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...errors import UserError
from ..record import Estimate


def grammar_acceptance(sample_texts: Sequence[str], accepts: Callable[[str], bool]) -> dict[str, Estimate]:
    """Share of samples that a grammar, a parser or any other check accepts.

    Exact about validity, blind to diversity: one valid text repeated scores 1.

    Args:
        sample_texts: generated texts.
        accepts: says whether a text is valid.

    Returns:
        `grammar_acceptance`.

    Raises:
        UserError: no samples.

    >>> grammar_acceptance(["1+1", "1+"], lambda text: text[-1:].isdigit())["grammar_acceptance"].value
    0.5
    """
    if not len(sample_texts):
        raise UserError("0 samples", "at least 1 sample", "give more samples")
    accepted = sum(bool(accepts(text)) for text in sample_texts)
    return {"grammar_acceptance": Estimate.of_share(accepted, len(sample_texts))}
