"""The suite: how good samples are, in quality and in diversity, beside real text, with the settings in the result."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import UserError
from .catalog import METRICS, Measurement, Metric, Texts, TextSettings, get_metric
from .confidence import STUDENT_T, Z, jackknife
from .metrics.bleu import bleu, summarize
from .metrics.self_bleu import sentence_self_bleu


Interval = tuple[float, float | None, float | None]  # value, low, high

# Facts about the set at hand rather than estimates: no interval.
NO_INTERVAL = {"length_min", "length_max", "judge_p_value"}


@dataclass
class Result:
    """One value with all that is needed to believe it.

    Attributes:
        value: the metric's value.
        low, high: 95% confidence interval over samples, the real texts being given; `None` where there is none.
        better: `higher`, `lower`, or `real` (as near as can be to the value of real text).
        signature: the settings under which the value holds; only equal signatures may be compared.
        real: the value of real text in the samples' place.
        real_low, real_high: its interval.
    """

    value: float
    low: float | None
    high: float | None
    better: str
    signature: str
    real: float | None = None
    real_low: float | None = None
    real_high: float | None = None


@dataclass
class Evaluation:
    """What the suite found.

    Attributes:
        results: by name of the value, e.g. `bleu_2`.
        flags: what is wrong with the samples, in words.
        notes: what was read, left out, or could not be measured, and why.
        texts: the texts that were measured, for the report.
        real_texts: the real texts beside which they stand.
    """

    results: dict[str, Result]
    flags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    texts: Texts | None = None
    real_texts: Texts | None = None

    def to_json(self) -> dict:
        """Values by name, and beside them intervals, signatures, real text's values, flags and notes."""
        return {
            **{name: _finite(result.value) for name, result in self.results.items()},
            "intervals": {n: [r.low, r.high] for n, r in self.results.items() if r.low is not None},
            "real_text": {n: _finite(r.real) for n, r in self.results.items() if r.real is not None},
            "real_text_intervals": {
                n: [r.real_low, r.real_high] for n, r in self.results.items() if r.real_low is not None
            },
            "signatures": {name: result.signature for name, result in self.results.items()},
            "flags": self.flags,
            "notes": self.notes,
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


# --- Values and intervals ------------------------------------------------------------------------------------------


def measure_with_intervals(name: str, measurement: Measurement) -> dict[str, Interval]:
    """Values of one metric as (value, low, high).

    The interval is the metric's own where it gives one (`<name>_low` and `<name>_high`, or `<name>_se`); otherwise it
    comes from the jackknife over groups of samples.
    """
    values, metric = measurement.measure(name), get_metric(name)
    plain = {key: value for key, value in values.items() if not re.search(r"_(se|low|high)$", key)}
    missing = [key for key in plain if f"{key}_se" not in values and f"{key}_low" not in values]
    missing = [key for key in missing if key not in NO_INTERVAL]
    errors: dict[str, float] = {}
    if missing:

        def without(rows: np.ndarray) -> dict[str, float]:
            part = Measurement(
                measurement.samples.select(rows), measurement.references, measurement.train, measurement.settings
            )
            found = part.measure(name)
            return {key: found[key] for key in missing}

        errors = jackknife(without, len(measurement.samples), metric.groups, measurement.settings.seed)
    result = {}
    for key, value in plain.items():
        if f"{key}_low" in values:
            result[key] = value, values[f"{key}_low"], values[f"{key}_high"]
            continue
        width = Z * values.get(f"{key}_se", math.nan) if key not in errors else STUDENT_T[metric.groups] * errors[key]
        # a jackknife that moves nothing has not seen what would: it gives no interval rather than one of no width
        known = math.isfinite(width) and (width > 0 or key not in errors)
        least, most = metric.bounds
        result[key] = (value, max(least, value - width), min(most, value + width)) if known else (value, None, None)
    return result


def signature(key: str, metric: Metric, measurement: Measurement) -> str:
    """The settings of one value in one line, in the manner of sacreBLEU (Post, 2018, aclanthology.org/W18-6319)."""
    inputs, settings = metric.inputs, measurement.settings
    parts: dict[str, object] = {"samples": len(measurement.samples)}
    if any(name.startswith("reference") for name in inputs):
        parts["references"] = len(measurement.references)
    if "train" in inputs:
        parts["train"] = len(measurement.train)
    if {"samples", "references", "train"} & set(inputs):
        parts |= {"tokenization": settings.tokenization, "case": "lower" if settings.lowercase else "mixed"}
    if order := re.search(r"_(\d+)$", key):
        parts["n"] = order.group(1)
    parts |= metric.settings
    if "sample_features" in inputs:
        encoder = settings.encoder
        parts["encoder"] = encoder if isinstance(encoder, str) else getattr(encoder, "__name__", "function")
    if "accepts" in inputs:
        parts["accepts"] = settings.accepts if isinstance(settings.accepts, str) else settings.accepts.__qualname__
    parts |= {"seed": settings.seed, "version": metric.version}
    return "|".join(f"{name}:{value}" for name, value in parts.items())


# --- Real text -----------------------------------------------------------------------------------------------------


def real_text_row(name: str, measurement: Measurement) -> dict[str, Interval]:
    """The metric's values with real text in the place of the samples, as many texts as there are samples if possible.

    A metric that compares samples with references gets training texts in the samples' place (real text that is not
    among the references); any other gets the references. Without training texts, BLEU leaves each reference out of its
    own references, and other comparisons set one half of the references against the other.
    """
    metric, settings, size = get_metric(name), measurement.settings, len(measurement.samples)
    references, train = measurement.references, measurement.train
    compares = any(key.startswith("reference") for key in metric.inputs)
    if compares and train is None and metric.function is bleu:
        if len(references) < 2:
            return {}
        orders = (2, 3, 4, 5)
        values = summarize("bleu", sentence_self_bleu(references.tokens, orders), orders)
        keys = [f"bleu_{n}" for n in orders]
        return {
            key: (values[key], *(values[key] + sign * Z * values[f"{key}_se"] for sign in (-1, 1))) for key in keys
        }
    if compares and train is None:
        order = np.random.default_rng(settings.seed).permutation(len(references))
        half = min(len(references) // 2, size)
        real = Measurement(references.select(order[:half]), references.select(order[half:]), None, settings)
    else:
        stand_in = some(train if compares else references, size, settings.seed)
        real = Measurement(stand_in, references, train, settings)
    return {} if too_few(name, real) else measure_with_intervals(name, real)


def some(texts: Texts, size: int, seed: int) -> Texts:
    """At most `size` of the texts, drawn without repetition; all of them, in order, if there are no more."""
    if len(texts) <= size:
        return texts
    return texts.select(np.sort(np.random.default_rng(seed).permutation(len(texts))[:size]))


# --- What is wrong -------------------------------------------------------------------------------------------------

# Prefix of the name, +1 if a value above real text's is bad and -1 if one below is, and what that means.
SYMPTOMS = (
    ("bleu_", 1, "better than real text at its own game: mode seeking"),
    ("self_bleu_", 1, "samples repeat one another more than real text does: lack of diversity"),
    ("distinct_", -1, "samples repeat one another more than real text does: lack of diversity"),
    ("copy_rate", 1, "samples are training texts more often than held-out text is: copying"),
    ("longest_copy_share", 1, "longer runs of words are copied from training text than in held-out text: copying"),
    ("lm_score", -1, "likelier than real text under a language model: mode seeking or copying"),
    ("nll_oracle", -1, "likelier under the oracle than its own text is: mode seeking"),
    ("lm_score", 1, "less likely than real text under a language model: not fluent"),
    ("bleu_", -1, "fewer n-grams are real than in real text: not fluent"),
    ("reverse_lm_score", 1, "less can be learnt from the samples than from real text: something is missing"),
    ("judge_accuracy", 1, "a fresh judge tells samples from real text more often than real text from real text"),
)


def find_flags(results: dict[str, Result]) -> list[str]:
    """Values whose interval lies wholly on the bad side of real text's interval, one line for each symptom."""
    flags = []
    for prefix, sign, meaning in SYMPTOMS:
        named = []
        for name, result in results.items():
            comparable = re.fullmatch(rf"{prefix}\w*", name) and result.low is not None and result.real_low is not None
            if comparable and (result.low > result.real_high if sign > 0 else result.high < result.real_low):
                named.append(f"{name} {result.value:.3f} (real text {result.real:.3f})")
        if named:
            flags.append(f"{', '.join(named)}: {meaning}")
    return flags


# --- The suite -----------------------------------------------------------------------------------------------------


def evaluate_texts(
    samples: Sequence[str],
    references: Sequence[str] | None = None,
    train: Sequence[str] | None = None,
    metrics: Iterable[str] | None = None,
    settings: TextSettings | None = None,
) -> Evaluation:
    """Measure generated texts, and real text beside them.

    Args:
        samples: generated texts.
        references: real texts on which nothing was trained.
        train: the training texts.
        metrics: names or dotted paths; by default all that can be computed from what is given.
        settings: how texts are read.

    Raises:
        ValueError: no samples, an unknown metric, or one that needs what is not given.
    """
    if not len(samples):
        raise UserError("0 samples", "generated texts", "check the samples file or `num_samples`")
    settings = settings or TextSettings()
    real = [Texts(texts, settings) if texts is not None and len(texts) else None for texts in (references, train)]
    return evaluate_measurement(Measurement(Texts(samples, settings), *real, settings), metrics, {})


def evaluate_measurement(
    measurement: Measurement, metrics: Iterable[str] | None, real_rows: dict[str, dict[str, Interval]]
) -> Evaluation:
    """Measure sets of texts as `evaluate_texts` does.

    Args:
        measurement: the texts.
        metrics: names or dotted paths; by default all that can be computed.
        real_rows: rows of real text by metric, kept here from one set of samples to the next of the same size.
    """
    evaluation = Evaluation({})
    for name in chosen_metrics(metrics, measurement, evaluation.notes):
        if measurement.references is not None and name not in real_rows:
            real_rows[name] = real_text_row(name, measurement)
            if not real_rows[name]:
                evaluation.notes.append(f"no row of real text for {name}: too few real texts")
        real = real_rows.get(name, {})
        for key, values in measure_with_intervals(name, measurement).items():
            metric = get_metric(name)
            line = signature(key, metric, measurement)
            evaluation.results[key] = Result(*values, metric.better, line, *real.get(key, ()))
    if measurement.references is None:
        evaluation.notes.append("no row of real text: give `references` (real texts on which nothing was trained)")
    else:
        evaluation.notes += real_text_notes(measurement)
    evaluation.flags = find_flags(evaluation.results)
    evaluation.texts, evaluation.real_texts = measurement.samples, measurement.references
    return evaluation


def chosen_metrics(metrics: Iterable[str] | None, measurement: Measurement, notes: list[str]) -> list[str]:
    """The metrics asked for, or all that can be computed; what cannot goes to the notes with the reason."""
    if metrics is not None:
        return list(metrics)
    chosen = []
    for name, metric in METRICS.items():
        reasons = measurement.missing(metric)
        if not reasons and too_few(name, measurement):
            reasons.append(f"{FEWEST[name]} texts or more on each side")
        if name == "mauve" and not reasons and not _installed("mauve"):
            reasons.append('its authors\' library (pip install "seqgan-hf[mauve]")')
        if reasons:
            notes.append(f"not measured: {name}, which needs {reasons[0]}")
        else:
            chosen.append(name)
    return chosen


# Texts without which a metric has no value.
FEWEST = {"self_bleu": 2, "fed": 2, "mauve": 2, "judge": 4}


def too_few(name: str, measurement: Measurement) -> bool:
    """Whether there are fewer texts than the metric needs."""
    compares = any(key.startswith("reference") for key in get_metric(name).inputs)
    sets = [measurement.samples, measurement.references] if compares else [measurement.samples]
    return min(map(len, sets)) < FEWEST.get(name, 1)


def _installed(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


def real_text_notes(measurement: Measurement) -> list[str]:
    """What stands in the row of real text, and what is odd about the texts."""
    size, references, train = len(measurement.samples), measurement.references, measurement.train
    notes = []
    if train is None:
        notes.append(
            "real text: without training texts, each reference is scored against the other references (BLEU), and one "
            "half against the other (other comparisons); give `train` for an independent set"
        )
    else:
        notes.append(
            f"real text: {min(size, len(train))} training texts stand in the samples' place where texts are compared "
            f"with references, {min(size, len(references))} references elsewhere"
        )
        shared = len(set(map(tuple, references.tokens)) & set(map(tuple, train.tokens)))
        if shared:
            notes.append(f"{shared} different texts stand both in the references and in the training texts")
    for name, texts in (("samples", measurement.samples), ("references", references)):
        repeated = len(texts) - len(set(texts.texts))
        if repeated:
            notes.append(f"{repeated} of {len(texts)} {name} repeat an earlier one")
    if any(len(texts) < size for texts in (references, train) if texts is not None):
        notes.append("fewer real texts than samples: values that depend on the number of texts are not comparable")
    return notes


# --- Files ---------------------------------------------------------------------------------------------------------


def read_lines(path: str, what: str, blank: bool = False) -> tuple[list[str], list[str]]:
    """One text a line from a UTF-8 file; returns the texts and notes.

    Args:
        path: the file.
        what: what the texts are, for messages.
        blank: keep empty lines (an empty sample is a sample; an empty reference is a mistake in a file).

    Raises:
        ValueError: no such file, not UTF-8, or no text in it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{what}={path!r} ({error})", "a UTF-8 text file, one text a line", "check the path, or save it as UTF-8"
        ) from error
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []
    kept = lines if blank else [line for line in lines if line.strip()]
    if not kept:
        raise UserError(f"{what}={path!r} without a text", "one text a line", "check the file")
    dropped = len(lines) - len(kept)
    return kept, [f"{dropped} empty lines of {what} were left out"] if dropped else []
