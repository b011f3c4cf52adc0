"""What the trainer and the evaluation suite ask of a metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..samples import Samples


class Evaluator(ABC):
    """Measures a generator. The arguments of `__init__` are its configuration and its references.

    The trainer draws one set of samples an evaluation and hands it to every evaluator, so that all numbers of a round
    speak of the same text.
    """

    @abstractmethod
    def evaluate(self, generator: PreTrainedModel, samples: Samples) -> dict[str, float]:
        """Measure.

        Args:
            generator: in eval mode; called without autograd.
            samples: N sequences drawn from it, on its device.

        Returns:
            Values by name (`nll_oracle`, `bleu_2`, ...); a standard error is named `<metric>_se`.
        """

    def signature(self, name: str, num_samples: int, seed: int) -> str:
        """The settings behind one value in one line: only values with equal signatures can be compared.

        Args:
            name: of a value that `evaluate` gave.
            num_samples: N, how many samples it was given.
            seed: with which they were drawn, at temperature 1.
        """
        return f"samples:{num_samples}|temperature:1|seed:{seed}"
