"""Text metrics at the evaluation rounds of training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, TypeAlias

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data import Corpus
from ..data.tokenization import decode, decode_ids, encode_batch
from ..samples import Samples
from .base import Evaluator
from .catalog import Measurement, Texts, TextSettings, get_metric
from .flags import short_sighted
from .record import Estimate
from .suite import measure
from .tokenization import written_setting


logger = logging.getLogger(__name__)

OPTION = "evaluation.tokenization"  # in a training recipe
DEFAULT_METRICS = ("bleu", "self_bleu", "distinct")

# Texts, or the ids of their tokens.
RealTexts: TypeAlias = Sequence[str] | Sequence[list[int]] | None


def as_written(
    tokenizer: PreTrainedTokenizerBase,
    references: RealTexts,
    train: RealTexts,
    settings: TextSettings,
    max_length: int | None = None,
) -> Measurement:
    """Real texts as a generator's tokenizer writes them, ready to be compared with its samples, which are to be set.

    Args:
        tokenizer: of the generator.
        references, train: real texts on which nothing was trained, and those on which the generator was.
        settings: how texts are read by metrics.
        max_length: T, where texts are cut.
    """
    settings = settings.for_texts_of(tokenizer)
    rows: list[list[list[int]] | None] = []
    for texts in (references, train):
        given: list[Any] = [] if texts is None else list(texts)
        ids = encode_batch(tokenizer, given) if given and isinstance(given[0], str) else given
        rows.append([row[:max_length] for row in ids] or None)
    real = (None if ids is None else decode_ids(tokenizer, ids) for ids in rows)
    known = torch.tensor(list(chain.from_iterable(rows[0] or [])), dtype=torch.long)
    return Measurement.of([], *real, settings=settings, written=written_setting(tokenizer, known))


class TextEvaluator(Evaluator):
    """Measures samples as text: any metric by name.

    Args:
        tokenizer: writes samples as text, and real texts before they are compared with these.
        references: real texts on which nothing is trained, or the ids of their tokens.
        train: the training texts, likewise, for the metrics that ask for them (`copy_rate`, `lm_score`).
        metrics: names of metrics (see `catalog.METRICS`) or dotted paths of functions.
        settings: how texts are read.

    Raises:
        UserError: an unknown metric, or one that needs what is not given; raised here rather than hours later.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        references: RealTexts = None,
        train: RealTexts = None,
        metrics: Sequence[str] = DEFAULT_METRICS,
        settings: TextSettings | None = None,
    ):
        self.tokenizer, self.metrics = tokenizer, list(metrics)
        measurement = as_written(tokenizer, references, train, settings or TextSettings())
        self.measurement = replace(measurement, drawn="temperature:1")
        counts = [name for name in self.metrics if "samples" in self.measurement.check(name).inputs]
        if counts and self.measurement.references and (why := short_sighted(self.measurement.references, OPTION)):
            self.flags = [f"{', '.join(counts)} cannot judge: {why}"]
            logger.warning("%s.", self.flags[0])

    @classmethod
    def from_corpus(
        cls, corpus: Corpus, metrics: Sequence[str] = DEFAULT_METRICS, settings: TextSettings | None = None
    ) -> TextEvaluator:
        """Held-out rows as references, training rows as training texts."""
        needs_train = any("train" in get_metric(name).inputs for name in metrics)
        train = corpus.rows("train") if needs_train else None
        return cls(corpus.tokenizer, corpus.rows("eval"), train, metrics, settings)

    def evaluate(self, generator: PreTrainedModel, samples: Samples, seed: int) -> dict[str, Estimate]:
        """Decode the samples and measure them; the generator itself is not called."""
        written = self.measurement.samples.written
        texts = Texts(decode(samples, self.tokenizer), self.measurement.settings, written)
        measurement = replace(self.measurement, samples=texts)
        found = (measure(name, measurement, jackknifed=False) for name in self.metrics)
        return {key: value for values in found for key, value in values.items()}
