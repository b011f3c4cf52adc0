"""The suite: how good samples are, in quality and in diversity, beside real text, with the settings in the result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

import numpy as np

from ..errors import UserError
from .catalog import METRICS, Measurement, Texts, TextSettings, get_metric
from .flags import find_flags
from .metrics.bleu import bleu, mean_bleu
from .metrics.self_bleu import sentence_self_bleu
from .ngrams import ORDERS
from .record import Estimate, Result, jackknife


@dataclass
class Evaluation:
    """What the suite found."""

    results: dict[str, Result]  # by name of the value, e.g. `bleu_2`
    flags: list[str] = field(default_factory=list)  # what is wrong with the samples, in words
    notes: list[str] = field(default_factory=list)  # what was read, left out, or could not be measured, and why
    texts: Texts | None = None  # those that were measured, for the report
    real_texts: Texts | None = None  # those beside them

    def to_dict(self) -> dict:
        """Ready for JSON: results by name (see `Result`), flags and notes."""
        results = {name: result.to_dict() for name, result in self.results.items()}
        return {"results": results, "flags": self.flags, "notes": self.notes}


def measure(name: str, measurement: Measurement, jackknifed: bool = True) -> dict[str, Estimate]:
    """Values of one metric, signed; if `jackknifed`, plain numbers get intervals by leaving out groups of samples."""
    values, metric = measurement.measure(name), get_metric(name)
    plain = [key for key, value in values.items() if not isinstance(value, Estimate)]
    half_widths: dict[str, float] = {}
    if plain and jackknifed:
        from scipy.stats import t

        def part(rows: np.ndarray) -> dict[str, float]:
            found = replace(measurement, samples=measurement.samples.select(rows)).measure(name)
            return {key: found[key] for key in plain}

        errors = jackknife(part, len(measurement.samples), metric.groups, measurement.settings.seed)
        half_widths = {key: float(t.ppf(0.975, metric.groups - 1)) * error for key, error in errors.items()}
    for key in plain:
        value, half = values[key], half_widths.get(key, 0.0)
        # an error of 0 has not seen what would move the value, and gives no interval
        known = (value - half, value + half) if 0 < half < math.inf else (None, None)
        values[key] = metric.bounded(key, Estimate(value, *known))
    return measurement.sign(values, metric)


def real_text_row(name: str, measurement: Measurement) -> dict[str, Estimate]:
    """The metric's values with real text in the place of the samples, as many texts as there are samples if possible.

    A metric that compares samples with references gets training texts in the samples' place (real text that is not
    among the references); any other gets the references. Without training texts, BLEU leaves each reference out of its
    own references, and other comparisons set one half of the references against the other.
    """
    metric, size = get_metric(name), len(measurement.samples)
    references, train, compares = measurement.references, measurement.train, metric.uses("reference")
    if compares and train is None and metric.function is bleu:
        if len(references) < 2:
            return {}
        values = mean_bleu(sentence_self_bleu(references.tokens), ORDERS)
        possible = {key: metric.bounded(key, value) for key, value in values.items()}
        return Measurement(references, references).sign(possible, metric)
    source = train if compares and train is not None else references
    order = np.random.default_rng(measurement.settings.seed).permutation(len(source))
    if compares and train is None:
        half = min(len(source) // 2, size)
        real = Measurement(source.select(order[:half]), source.select(order[half:]))
    else:
        real = Measurement(source if len(source) <= size else source.select(np.sort(order[:size])), references, train)
    return {} if too_few(name, real) else measure(name, real)


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
        references, train: real texts on which nothing was trained, and those on which the generator was.
        metrics: names or dotted paths; by default all that can be computed from what is given.
        settings: how texts are read.

    Raises:
        UserError: no samples, an unknown metric, or one that needs what is not given.
    """
    if not len(samples):
        raise UserError("0 samples", "generated texts", "check the samples file or `num_samples`")
    measurement = Measurement.of(samples, references, train, settings=settings or TextSettings())
    return evaluate_measurement(measurement, metrics, {})


def evaluate_measurement(
    measurement: Measurement, metrics: Iterable[str] | None, real_rows: dict[str, dict[str, Estimate]]
) -> Evaluation:
    """As `evaluate_texts`; `real_rows` keeps rows of real text from one set of samples to the next of its size."""
    evaluation = Evaluation({})
    for name in chosen_metrics(metrics, measurement, evaluation.notes):
        if measurement.references is not None and name not in real_rows:
            real_rows[name] = real_text_row(name, measurement)
            if not real_rows[name]:
                evaluation.notes.append(f"no row of real text for {name}: too few real texts")
        real, better = real_rows.get(name, {}), get_metric(name).better
        for key, found in measure(name, measurement).items():
            evaluation.results[key] = Result(**vars(found), better=better, real=real.get(key))
    evaluation.notes += real_text_notes(measurement)
    evaluation.texts, evaluation.real_texts = measurement.samples, measurement.references
    evaluation.flags = find_flags(evaluation.results, evaluation.texts, evaluation.real_texts)
    return evaluation


def chosen_metrics(metrics: Iterable[str] | None, measurement: Measurement, notes: list[str]) -> list[str]:
    """The metrics asked for, or all that can be computed; what cannot goes to the notes with the reason."""
    if metrics is not None:
        return list(metrics)
    chosen = []
    for name, metric in METRICS.items():
        if missing := measurement.missing(metric):
            notes.append(f"not measured: {name}, which needs {missing[0]}")
        elif too_few(name, measurement):
            notes.append(f"not measured: {name}, which needs {metric.fewest} texts or more on each side")
        elif name == "mauve" and find_spec("mauve") is None:
            notes.append('not measured: mauve, which needs its authors\' library (pip install "seqgan-hf[mauve]")')
        else:
            chosen.append(name)
    return chosen


def too_few(name: str, measurement: Measurement) -> bool:
    """Whether there are fewer texts than the metric needs."""
    metric = get_metric(name)
    sets = [measurement.samples, measurement.references] if metric.uses("reference") else [measurement.samples]
    return min(map(len, sets)) < metric.fewest


def real_text_notes(measurement: Measurement) -> list[str]:
    """What stands in the row of real text, and what is odd about the texts."""
    size, references, train = len(measurement.samples), measurement.references, measurement.train
    if references is None:
        return ["no row of real text: give `references` (real texts on which nothing was trained)"]
    notes = [
        "real text: without training texts, each reference is scored against the other references (BLEU), and one "
        "half against the other (other comparisons); give `train` for an independent set"
    ]
    if train is not None:
        given = f"real text: {min(size, len(train))} training texts stand in the samples' place where texts are"
        notes = [f"{given} compared with references, {min(size, len(references))} references elsewhere"]
        if shared := len(set(map(tuple, references.tokens)) & set(map(tuple, train.tokens))):
            notes.append(f"{shared} different texts stand both in the references and in the training texts")
    for name, texts in (("samples", measurement.samples), ("references", references)):
        if repeated := len(texts) - len(set(texts.texts)):
            notes.append(f"{repeated} of {len(texts)} {name} repeat an earlier one")
    if any(len(texts) < size for texts in (references, train) if texts is not None):
        notes.append("fewer real texts than samples: values that depend on the number of texts are not comparable")
    return notes
