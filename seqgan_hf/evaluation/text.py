"""Text metrics at the evaluation rounds of training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data import Corpus
from ..data.tokenization import decode
from ..samples import Samples
from .base import Evaluator
from .catalog import Measurement, Texts, TextSettings, get_metric
from .flags import short_sighted
from .record import Estimate
from .suite import measure


logger = logging.getLogger(__name__)

OPTION = "evaluation.tokenization"  # in a training recipe
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
        settings = (settings or TextSettings()).for_texts_of(tokenizer)
        measurement = Measurement.of([], references, train, settings=settings)
        self.measurement = replace(measurement, drawn="temperature:1")
        counts = [name for name in self.metrics if "samples" in self.measurement.check(name).inputs]
        if counts and self.measurement.references and (why := short_sighted(self.measurement.references, OPTION)):
            self.flags = [f"{', '.join(counts)} cannot judge: {why}"]
            logger.warning("%s.", self.flags[0])

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
