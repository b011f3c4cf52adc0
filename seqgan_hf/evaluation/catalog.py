"""All text metrics by name, and what they are given.

A metric is a plain function that returns values by name: an `Estimate` where it knows the interval itself, a plain
number where the suite should find one by leaving out samples. Its parameter names say what it is given:

| parameter | what it gets |
|---|---|
| `samples`, `references`, `train` | tokenized texts, a list of lists of tokens |
| `sample_texts`, `reference_texts` | the texts themselves |
| `sample_features`, `reference_features` | sentence embeddings, (N, D) |
| `sample_nlls` | NLL per token of each text under an independent language model, (N,) |
| `accepts` | a function that says whether a text is valid |
| `seed` | the seed of the evaluation |

Your own metric is a function in your own module, named by its dotted path, for example
`def rhyme(sample_texts): return {"rhyme": ...}` as `my_package.my_module.rhyme`.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..errors import UserError, import_by_path
from .encoders import TextEncoder, load_encoder
from .metrics.bleu import bleu
from .metrics.copy_rate import copy_rate
from .metrics.distinct import distinct
from .metrics.emb_sim import LEAST, emb_sim
from .metrics.fed import frechet_embedding_distance
from .metrics.grammar import grammar_acceptance
from .metrics.judge import judge
from .metrics.judge_lm import judge_lm
from .metrics.length import length_statistics
from .metrics.lm_score import lm_score, reverse_lm_score
from .metrics.mauve import mauve
from .metrics.ms_jaccard import ms_jaccard
from .metrics.self_bleu import self_bleu
from .record import Estimate
from .text_judge import TextJudge, load_text_judge
from .tokenization import default_tokenization, tokenize


@dataclass(frozen=True)
class Metric:
    """A metric and what is known about it."""

    function: Callable[..., Mapping[str, Any]]  # from inputs (by parameter name, see above) to values by name
    better: str  # `higher`, `lower`, or `real`: as close as possible to the value of real text
    settings: Mapping[str, str] = field(default_factory=dict)  # fixed ones that belong into the signature
    groups: int = 20  # of the jackknife, for values without an interval of their own
    least: float = 0.0  # no value is smaller, so no interval reaches below
    most: Mapping[str, float] = field(default_factory=dict)  # the largest possible value, by pattern of its name
    fewest: int = 1  # texts on each side without which there is no value
    version: str = "1"  # raised whenever a change moves the numbers

    @property
    def inputs(self) -> list[str]:
        """What the function is given."""
        return [name for name in inspect.signature(self.function).parameters if name in ALL_INPUTS]

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        """Values by name; the intervals that some bring along hold possible values only."""
        found = self.function(**inputs).items()
        return {key: self.bounded(key, value) if isinstance(value, Estimate) else value for key, value in found}

    def bounded(self, key: str, estimate: Estimate) -> Estimate:
        """The estimate of that name with an interval of possible values only."""
        most = [value for pattern, value in self.most.items() if re.fullmatch(pattern, key)]
        return estimate.within(self.least, min(most, default=math.inf))

    def uses(self, prefix: str) -> bool:
        """Whether an input begins with `sample` or `reference`."""
        return any(name.startswith(prefix) for name in self.inputs)


_BLEU, _LM = {"smoothing": "method1", "brevity": "closest"}, {"lm": "kneser-ney", "order": "5"}
_SHARES = {".*": 1.0}
METRICS: dict[str, Metric] = {
    "bleu": Metric(bleu, "real", _BLEU, most=_SHARES),
    "self_bleu": Metric(self_bleu, "real", _BLEU, most=_SHARES, fewest=2),
    "distinct": Metric(distinct, "real", most={"distinct_.*": 1.0}),
    "ms_jaccard": Metric(ms_jaccard, "higher", most=_SHARES),
    "copy_rate": Metric(copy_rate, "real", most={".*_share": 1.0}),
    "length": Metric(length_statistics, "real"),
    "lm_score": Metric(lm_score, "real", _LM),
    "reverse_lm_score": Metric(reverse_lm_score, "lower", _LM),
    "fed": Metric(frechet_embedding_distance, "lower", fewest=2),
    "mauve": Metric(mauve, "higher", {"clusters": "texts/10", "scaling": "5"}, 5, most=_SHARES, fewest=2),
    "judge": Metric(judge, "lower", {"classifier": "logistic-regression", "ngrams": "1-3"}, fewest=4, version="2"),
    "grammar": Metric(grammar_acceptance, "higher"),
    "emb_sim": Metric(
        emb_sim, "real", {"embeddings": "ppmi-svd-32", "words": "2000"}, 5, math.log10(LEAST), {"emb_sim": 0.0}
    ),
    "judge_lm": Metric(judge_lm, "real"),
}
_REFERENCES = "real held-out texts (`references`)"
INPUTS = {
    "samples": "generated texts (`predictions`)",
    "references": _REFERENCES,
    "train": "the training texts (`train`)",
    "sample_texts": "generated texts (`predictions`)",
    "reference_texts": _REFERENCES,
    "sample_features": "a sentence encoder (`encoder`)",
    "reference_features": f"a sentence encoder (`encoder`) and {_REFERENCES}",
    "sample_nlls": "an independent language model (`judge_lm`)",
    "accepts": "a function that says whether a text is valid (`accepts`)",
    "seed": "a seed (`seed`)",
}
# With what only likelihoods are given; their `samples` and `train` are sequences of token ids.
ALL_INPUTS = INPUTS | {
    "generator": "the generator (`model`)",
    "oracle": "the oracle that wrote the data (`oracle`)",
    "held_out": _REFERENCES,
}


def get_metric(name: str, table: Mapping[str, Metric] = METRICS) -> Metric:
    """A metric by name, or a function by its dotted path; raises a `UserError` for what cannot be measured."""
    if name in table:
        return table[name]
    if "." not in name:
        expected = f"one of {', '.join(table)}, or the dotted path of a function"
        raise UserError(f"metric {name!r}", expected, "check the spelling")
    function = import_by_path(name, "metric")
    parameters = inspect.signature(function).parameters.values()
    unknown = [p.name for p in parameters if p.name not in INPUTS and p.default is inspect.Parameter.empty]
    if unknown:
        problem = f"metric {name!r} has the parameters {', '.join(unknown)}"
        raise UserError(problem, f"only {', '.join(INPUTS)}", "rename them")
    return Metric(function, "real", {"function": name}, least=-math.inf)


Settings = TypeVar("Settings", bound="TextSettings")


@dataclass
class TextSettings:
    """How texts are read by metrics.

    Attributes:
        tokenization: `white_space`, `treebank`, `character`, or the dotted path of a function; by default `character`
            for a generator whose tokens are characters, else `white_space`.
        lowercase: fold case before tokenization.
        encoder: sentence encoder for `fed` and `mauve`: an id or path (see `load_encoder`), or a function from texts
            to embeddings (N, D).
        judge_lm: language model for `judge_lm` that has learnt neither from the samples nor from the corpus: an id or
            path of a causal LM, or a function from texts to their NLL per token (N,).
        accepts: says whether a text is valid, for `grammar`: a function or its dotted path.
        seed: of everything drawn at random.
        device: where the encoder runs.
    """

    tokenization: str | None = None
    lowercase: bool = False
    encoder: str | TextEncoder | None = None
    judge_lm: str | TextJudge | None = None
    accepts: str | Callable[[str], bool] | None = None
    seed: int = 0
    device: str | torch.device = "cpu"

    def for_texts_of(self: Settings, tokenizer: PreTrainedTokenizerBase | None) -> Settings:
        """With the default tokenization where none is named."""
        return self if self.tokenization else replace(self, tokenization=default_tokenization(tokenizer))

    @cached_property
    def encode(self) -> TextEncoder:
        return load_encoder(self.encoder, device=self.device) if isinstance(self.encoder, str) else self.encoder

    @cached_property
    def judge(self) -> TextJudge:
        return load_text_judge(self.judge_lm, str(self.device)) if isinstance(self.judge_lm, str) else self.judge_lm

    @cached_property
    def is_valid(self) -> Callable[[str], bool]:
        return import_by_path(self.accepts, "accepts") if isinstance(self.accepts, str) else self.accepts


class Texts:
    """A set of texts in the forms in which metrics ask for them; each form is made once, when first asked for."""

    def __init__(self, texts: Sequence[str], settings: TextSettings, written: str = ""):
        if isinstance(texts, str):
            raise UserError(f"the text {texts[:60]!r}", "a list of texts", "put it into a list")
        self.texts, self.settings = list(texts), settings
        self.written = written  # by what: `vocabulary:4839|unknown:2.31%`; nothing for texts as they are in a file

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def tokens(self) -> list[list[str]]:
        return tokenize(self.texts, self.settings.tokenization, self.settings.lowercase)

    @cached_property
    def features(self) -> np.ndarray:
        return self.settings.encode(self.texts)

    @cached_property
    def nlls(self) -> np.ndarray:
        return self.settings.judge(self.texts)

    def select(self, rows: Sequence[int] | np.ndarray) -> Texts:
        """Some of the texts, with the forms that were made already."""
        part = Texts([self.texts[row] for row in rows], self.settings, self.written)
        for form in {"tokens", "features", "nlls"} & vars(self).keys():
            made = vars(self)[form]
            setattr(part, form, [made[row] for row in rows] if form == "tokens" else made[rows])
        return part


@dataclass
class Measurement:
    """The sets of texts that metrics compare."""

    samples: Texts  # generated
    references: Texts | None = None  # real texts on which nothing was trained
    train: Texts | None = None  # real texts on which the generator was trained
    drawn: str = field(default="", kw_only=True)  # how samples were drawn: `temperature:1|max_new_tokens:20`

    @classmethod
    def of(
        cls, samples: Sequence[str], *real: Sequence[str] | None, settings: TextSettings, written: str = ""
    ) -> Measurement:
        """Of plain texts; `real` are references and training texts, of which an empty set counts as none."""
        settings = settings.for_texts_of(None)
        sets = (None if texts is None or not len(texts) else Texts(texts, settings, written) for texts in real)
        return cls(Texts(samples, settings, written), *sets)

    @property
    def settings(self) -> TextSettings:
        return self.samples.settings

    def missing(self, metric: Metric) -> list[str]:
        """What the metric needs and does not have, in words."""
        absent = {name for name in ("train", "references") if getattr(self, name) is None}
        absent |= {"reference_texts", "reference_features"} if self.references is None else set()
        absent |= {"sample_features", "reference_features"} if self.settings.encoder is None else set()
        absent |= {"sample_nlls"} if self.settings.judge_lm is None else set()
        absent |= {"accepts"} if self.settings.accepts is None else set()
        return [INPUTS[name] for name in metric.inputs if name in absent]

    def check(self, name: str) -> Metric:
        """The metric of that name; raises `UserError` if it is unknown, or if something that it needs is missing."""
        metric = get_metric(name)
        if missing := self.missing(metric):
            raise UserError(f"metric {name!r} needs {missing[0]}", None, "give it, or drop the metric")
        return metric

    def measure(self, name: str) -> dict[str, Any]:
        """Values of one metric, numbers or estimates; raises as `check` does."""
        metric = self.check(name)
        return metric(**{name: self._input(name) for name in metric.inputs})

    def _input(self, name: str) -> Any:
        if name in ("seed", "accepts"):
            return self.settings.seed if name == "seed" else self.settings.is_valid
        side, _, form = name.partition("_")
        texts = {"sample": self.samples, "reference": self.references, "train": self.train}[side.removesuffix("s")]
        return getattr(texts, form or "tokens")

    def sign(self, values: Mapping[str, Estimate], metric: Metric) -> dict[str, Estimate]:
        """The values with their signatures."""
        return {key: replace(value, signature=self._signature(key, metric)) for key, value in values.items()}

    def _signature(self, key: str, metric: Metric) -> str:
        """The settings of one value in one line, as sacreBLEU has it (Post, 2018, aclanthology.org/W18-6319)."""
        inputs, settings = metric.inputs, self.settings
        parts: dict[str, object] = {"samples": len(self.samples)}
        if metric.uses("reference"):
            parts["references"] = len(self.references)
        if "train" in inputs:
            parts["train"] = len(self.train)
        if {"samples", "references", "train"} & set(inputs):
            parts |= {"tokenization": settings.tokenization, "case": "lower" if settings.lowercase else "mixed"}
        if order := re.search(r"_(\d+)$", key):
            parts["n"] = order.group(1)
        parts |= metric.settings
        for name, needed_for in (("encoder", "sample_features"), ("judge_lm", "sample_nlls"), ("accepts", "accepts")):
            if needed_for in inputs:
                given = getattr(settings, name)
                parts[name] = given if isinstance(given, str) else getattr(given, "__qualname__", "function")
        parts |= {"seed": settings.seed, "version": metric.version}
        named = [f"{name}:{value}" for name, value in parts.items()]
        return "|".join(filter(None, [*named, self.samples.written, self.drawn]))
