"""Text metrics at the evaluation rounds of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data import Corpus
from ..data.tokenization import decode
from ..samples import Samples
from .base import Evaluator
from .catalog import Measurement, Texts, TextSettings, get_metric
from .record import Estimate
from .suite import measure


DEFAULT_METRICS = ("bleu", "self_bleu", "distinct")


class TextEvaluator(Evaluator):
    """Measures samples as text: any metric by name.

    Args:
        tokenizer: writes samples as text.
        references: real texts on which nothing is trained.
        train: the training texts, for the metrics that ask for them (`copy_rate`, `lm_score`).
        metrics: names of metrics (see `catalog.METRICS`) or dotted paths of functions.
        settings: how texts are read.

    Raises:
        UserError: an unknown metric, or one that needs what is not given; raised here rather than hours later.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        references: Sequence[str] | None = None,
        train: Sequence[str] | None = None,
        metrics: Sequence[str] = DEFAULT_METRICS,
        settings: TextSettings | None = None,
    ):
        self.tokenizer, self.metrics = tokenizer, list(metrics)
        measurement = Measurement.of([], references, train, settings=settings or TextSettings())
        self.measurement = replace(measurement, drawn="temperature:1")
        for name in self.metrics:
            self.measurement.check(name)

    @classmethod
    def from_corpus(
        cls, corpus: Corpus, metrics: Sequence[str] = DEFAULT_METRICS, settings: TextSettings | None = None
    ) -> TextEvaluator:
        """Held-out rows as references, training rows as training texts, both written by the corpus's tokenizer."""
        needs_train = any("train" in get_metric(name).inputs for name in metrics)
        train = corpus.texts("train") if needs_train else None
        return cls(corpus.tokenizer, corpus.texts("eval"), train, metrics, settings)

    def evaluate(self, generator: PreTrainedModel, samples: Samples, seed: int) -> dict[str, Estimate]:
        """Decode the samples and measure them; the generator itself is not called."""
        texts = Texts(decode(samples, self.tokenizer), self.measurement.settings)
        measurement = replace(self.measurement, samples=texts)
        found: dict[str, Estimate] = {}
        for name in self.metrics:
            found |= measure(name, measurement, jackknifed=False)
        return found
