"""The interface between training and its measurements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from transformers import PreTrainedModel

from ..samples import Samples
from .record import Estimate


class Evaluator(ABC):
    """Measures a generator; the arguments of `__init__` are its configuration and its references.

    Attributes:
        flags: why its values say little, in words, for the card.
    """

    flags: Sequence[str] = ()

    @abstractmethod
    def evaluate(self, generator: PreTrainedModel, samples: Samples, seed: int) -> dict[str, Estimate]:
        """Values by name (`nll_oracle`, `bleu_2`, ...), each with its signature.

        Args:
            generator: in eval mode; called without autograd.
            samples: N sequences drawn from it at temperature 1, on its device; the same ones for every evaluator.
            seed: with which they were drawn; part of the signature.
        """
