"""Text metrics at the evaluation rounds of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..data import decode_batch
from ..errors import UserError
from .base import Evaluator
from .catalog import Measurement, Texts, TextSettings, get_metric
from .suite import signature


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..data import Corpus
    from ..samples import Samples


def decode(tokenizer: PreTrainedTokenizerBase, samples: Samples) -> list[str]:
    """The generated text of every row, without special tokens and padding, as a list of N strings."""
    rows, lengths = samples.ids.tolist(), samples.lengths.tolist()
    return decode_ids(tokenizer, [row[:length] for row, length in zip(rows, lengths, strict=True)])


def decode_ids(tokenizer: PreTrainedTokenizerBase, ids: list[list[int]]) -> list[str]:
    """Token ids of N texts as text, without special tokens but for the unknown one."""
    # words carry the space before them, so that a continuation is apart from its prompt; lines of text begin without
    return [text.removeprefix(" ") for text in decode_batch(tokenizer, ids)]


class TextEvaluator(Evaluator):
    """Measures samples as text: any metric by name.

    Args:
        tokenizer: writes samples as text.
        references: real texts on which nothing is trained.
        train: the training texts, for the metrics that ask for them (`copy_rate`, `lm_score`).
        metrics: names of metrics (see `catalog.METRICS`) or dotted paths of functions.
        settings: how texts are read; white space, no encoder, seed 0 by default.

    Raises:
        ValueError: an unknown metric, or one that needs what is not given; said here, not hours later.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        references: Sequence[str] | None = None,
        train: Sequence[str] | None = None,
        metrics: Sequence[str] = ("bleu", "self_bleu", "distinct"),
        settings: TextSettings | None = None,
    ):
        self.tokenizer, self.metrics, self.settings = tokenizer, list(metrics), settings or TextSettings()
        self.metric_of: dict[str, str] = {}  # the metric that gave a value, by the value's name
        self.references = None if references is None else Texts(references, self.settings)
        self.train = None if train is None else Texts(train, self.settings)
        empty = Measurement(Texts([], self.settings), self.references, self.train, self.settings)
        for name in self.metrics:
            if missing := empty.missing(get_metric(name)):
                raise UserError(f"metric {name!r} without {missing[0]}", "it", "give it, or drop the metric")

    @classmethod
    def from_corpus(
        cls,
        corpus: Corpus,
        metrics: Sequence[str] = ("bleu", "self_bleu", "distinct"),
        settings: TextSettings | None = None,
    ) -> TextEvaluator:
        """Held-out rows as references, training rows as training texts, both written by the corpus's tokenizer."""

        def texts(rows) -> list[str]:
            return decode_ids(corpus.tokenizer, list(rows["input_ids"]))

        needs_train = any("train" in get_metric(name).inputs for name in metrics)
        return cls(
            corpus.tokenizer, texts(corpus.eval), texts(corpus.train) if needs_train else None, metrics, settings
        )

    def evaluate(self, generator: PreTrainedModel, samples: Samples) -> dict[str, float]:
        """Decode the samples and measure them; the generator itself is not called."""
        texts = Texts(decode(self.tokenizer, samples), self.settings)
        measurement = Measurement(texts, self.references, self.train, self.settings)
        result: dict[str, float] = {}
        for name in self.metrics:
            values = measurement.measure(name)
            self.metric_of |= dict.fromkeys(values, name)
            result |= values
        return result

    def signature(self, name: str, num_samples: int, seed: int) -> str:
        samples = Texts([""] * num_samples, self.settings)
        measurement = Measurement(samples, self.references, self.train, self.settings)
        return f"{signature(name, get_metric(self.metric_of[name]), measurement)}|temperature:1"
