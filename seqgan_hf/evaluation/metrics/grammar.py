"""Grammar acceptance of Kusner and Hernandez-Lobato (2016), https://arxiv.org/abs/1611.04051, and of Texygen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...errors import UserError
from ..record import Estimate


def grammar_acceptance(sample_texts: Sequence[str], accepts: Callable[[str], bool]) -> dict[str, Estimate]:
    """Share of samples that a grammar, a parser or any other check accepts: `grammar_acceptance`.

    Exact about validity, blind to diversity: one valid text repeated scores 1.

    >>> grammar_acceptance(["1+1", "1+"], lambda text: text[-1:].isdigit())["grammar_acceptance"].value
    0.5
    """
    if not len(sample_texts):
        raise UserError("0 samples", "at least 1 sample", "give more samples")
    accepted = sum(bool(accepts(text)) for text in sample_texts)
    return {"grammar_acceptance": Estimate.of_share(accepted, len(sample_texts))}
