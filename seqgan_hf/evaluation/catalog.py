"""All text metrics by name, and how they are fed: a metric's parameters are named after what it measures.

A metric is a plain function that returns values by name. From its parameter names the suite and the training evaluator
know what to give it:

| parameter | what it gets |
|---|---|
| `samples`, `references`, `train` | tokenized texts, a list of lists of tokens |
| `sample_texts`, `reference_texts` | the texts themselves |
| `sample_features`, `reference_features` | sentence embeddings, (N, D) |
| `accepts` | a function that says whether a text is valid |
| `seed` | the seed of the evaluation |

So a metric of one's own is a function in one's own module, named by its dotted path, e.g.
`def rhyme(sample_texts): return {"rhyme": ...}` as `my_package.my_module.rhyme`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from ..errors import UserError
from .encoders import TextEncoder, load_encoder
from .metrics.bleu import bleu
from .metrics.copy_rate import copy_rate
from .metrics.distinct import distinct
from .metrics.frechet import frechet_embedding_distance
from .metrics.grammar_acceptance import grammar_acceptance
from .metrics.judge import judge
from .metrics.language_model import lm_score, reverse_lm_score
from .metrics.length import length_statistics
from .metrics.mauve import mauve
from .metrics.ms_jaccard import ms_jaccard
from .metrics.self_bleu import self_bleu
from .tokenization import import_by_path, tokenize


@dataclass(frozen=True)
class Metric:
    """A metric and what is known about it.

    Attributes:
        function: from inputs (by parameter name, see above) to values by name.
        better: `higher`, `lower`, or `real`: as near as can be to the value of real text.
        settings: fixed settings that belong into the signature.
        groups: groups of the jackknife for values without an error of their own.
        bounds: values can lie between these, and so do their intervals.
        version: raised whenever a change moves the numbers.
    """

    function: Callable[..., dict[str, float]]
    better: str
    settings: Mapping[str, str] = field(default_factory=dict)
    groups: int = 20
    bounds: tuple[float, float] = (-math.inf, math.inf)
    version: str = "1"

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs it cannot do without and of those it takes if there."""
        return [name for name in inspect.signature(self.function).parameters if name in INPUTS]


_BLEU = {"smoothing": "method1", "brevity": "closest"}
METRICS: dict[str, Metric] = {
    "bleu": Metric(bleu, "real", _BLEU),
    "self_bleu": Metric(self_bleu, "real", _BLEU),
    "distinct": Metric(distinct, "real"),
    "ms_jaccard": Metric(ms_jaccard, "higher", bounds=(0.0, 1.0)),
    "copy_rate": Metric(copy_rate, "real"),
    "length": Metric(length_statistics, "real"),
    "lm_score": Metric(lm_score, "real", {"lm": "kneser-ney", "order": "5"}),
    "reverse_lm_score": Metric(reverse_lm_score, "lower", {"lm": "kneser-ney", "order": "5"}),
    "fed": Metric(frechet_embedding_distance, "lower"),
    "mauve": Metric(mauve, "higher", {"clusters": "texts/10", "scaling": "5"}, groups=5, bounds=(0.0, 1.0)),
    "judge": Metric(judge, "lower", {"classifier": "logistic-regression", "ngrams": "1-3"}),
    "grammar": Metric(grammar_acceptance, "higher"),
}
INPUTS = {
    "samples": "generated texts",
    "references": "real held-out texts (`references`)",
    "train": "the training texts (`train`)",
    "sample_texts": "generated texts",
    "reference_texts": "real held-out texts (`references`)",
    "sample_features": "a sentence encoder (`encoder`)",
    "reference_features": "a sentence encoder (`encoder`) and real held-out texts (`references`)",
    "accepts": "a function that says whether a text is valid (`accepts`)",
    "seed": "a seed",
}


def get_metric(name: str) -> Metric:
    """A metric by name, or a function by its dotted path.

    Raises:
        ValueError: neither is there, or the function asks for something unknown.
    """
    if name in METRICS:
        return METRICS[name]
    if "." not in name:
        raise UserError(
            f"metric {name!r}", f"one of {', '.join(METRICS)}, or the dotted path of a function", "name one of these"
        )
    function = import_by_path(name, "metric")
    unknown = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.name not in INPUTS and p.default is inspect.Parameter.empty
    ]
    if unknown:
        raise UserError(
            f"metric {name!r} with the parameters {', '.join(unknown)}",
            f"names out of {', '.join(INPUTS)}",
            "rename them",
        )
    return Metric(function, "real", {"function": name})


@dataclass
class TextSettings:
    """How texts are read by metrics.

    Attributes:
        tokenization: `white_space`, `treebank`, `character`, or the dotted path of a function.
        lowercase: fold case before tokenization.
        encoder: sentence encoder for embeddings: an id or path (see `load_encoder`), or a function from texts to (N,
            D).
        accepts: says whether a text is valid; a function or its dotted path.
        seed: of everything drawn at random.
        device: where the encoder runs.
    """

    tokenization: str = "white_space"
    lowercase: bool = False
    encoder: str | TextEncoder | None = None
    accepts: str | Callable[[str], bool] | None = None
    seed: int = 0
    device: str | torch.device = "cpu"

    @cached_property
    def encode(self) -> TextEncoder:
        return load_encoder(self.encoder, device=self.device) if isinstance(self.encoder, str) else self.encoder

    @cached_property
    def is_valid(self) -> Callable[[str], bool]:
        return import_by_path(self.accepts, "accepts") if isinstance(self.accepts, str) else self.accepts


class Texts:
    """A set of texts in the forms in which metrics ask for them; each form is made once, when first asked for."""

    def __init__(self, texts: Sequence[str], settings: TextSettings):
        if isinstance(texts, str):
            raise UserError(f"the text {texts[:40]!r}", "a list of texts", "put it into a list")
        self.texts, self.settings = list(texts), settings

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def tokens(self) -> list[list[str]]:
        return tokenize(self.texts, self.settings.tokenization, self.settings.lowercase)

    @cached_property
    def features(self) -> np.ndarray:
        return self.settings.encode(self.texts)

    def select(self, rows: Sequence[int]) -> Texts:
        """Some of the texts, with the forms that were made already."""
        part = Texts([self.texts[row] for row in rows], self.settings)
        if "tokens" in vars(self):
            part.tokens = [self.tokens[row] for row in rows]
        if "features" in vars(self):
            part.features = self.features[rows]
        return part


@dataclass
class Measurement:
    """The sets of texts that metrics compare.

    Attributes:
        samples: generated texts.
        references: real texts on which nothing was trained.
        train: real texts on which the generator was trained.
        settings: how they are read.
    """

    samples: Texts
    references: Texts | None
    train: Texts | None
    settings: TextSettings

    def missing(self, metric: Metric) -> list[str]:
        """What the metric needs and is not there, in words."""
        there = {
            "references": self.references is not None,
            "reference_texts": self.references is not None,
            "reference_features": self.references is not None and self.settings.encoder is not None,
            "sample_features": self.settings.encoder is not None,
            "train": self.train is not None,
            "accepts": self.settings.accepts is not None,
        }
        return [INPUTS[name] for name in metric.inputs if not there.get(name, True)]

    def measure(self, name: str) -> dict[str, float]:
        """Values of one metric.

        Raises:
            ValueError: unknown metric, or something that it needs is missing.
        """
        metric = get_metric(name)
        if missing := self.missing(metric):
            raise UserError(f"metric {name!r} without {missing[0]}", "it", "give it, or drop the metric")
        return metric.function(**{name: self._input(name) for name in metric.inputs})

    def _input(self, name: str):
        if name == "seed":
            return self.settings.seed
        if name == "accepts":
            return self.settings.is_valid
        if name == "train":
            return self.train.tokens
        texts = self.samples if name.startswith("sample") else self.references
        if name.endswith("_texts"):
            return texts.texts
        return texts.features if name.endswith("_features") else texts.tokens
