"""Mixtures of a generator's temperatures, measured: likelihoods by their exact densities, texts by mixing samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedModel

from ..generation.likelihood import sequence_logprobs
from ..samples import Samples
from .catalog import Measurement, Texts
from .envelope import WEIGHTS, Component, Mixture, mixed_likelihoods
from .likelihood import Model, logprobs, unwritable
from .loading import tempered
from .record import Estimate


# Means over samples, so those of a mixture are means of those of its components: values by the start of their names.
LINEAR = ("bleu_", "grammar_acceptance", "judge_nll")
# What is measured of samples of both temperatures, half and half: metrics, and a value of each.
OF_SAMPLES = {"self_bleu": "self_bleu_4", "lm_score": "lm_score", "reverse_lm_score": "reverse_lm_score"}


class Drawn(NamedTuple):
    """Samples of a generator at one temperature, what has their density, and what was measured of them."""

    temperature: float
    density: Model
    samples: Samples
    measurement: Measurement
    results: Mapping[str, Estimate]


def measure_mixtures(
    drawn: Sequence[Drawn], generator: PreTrainedModel, held_out: Samples, oracle: PreTrainedModel | None, seed: int
) -> list[Mixture]:
    """Mixtures of every two temperatures of one generator; none of a single temperature.

    Args:
        drawn: of each temperature; `generator` is what the densities are of.
        held_out: sequences on which nothing was trained.
        oracle: the model that wrote them, if there is one.
        seed: of the choice of samples of either temperature.
    """
    if len(drawn) < 2:
        return []
    components = [_component(each, drawn, generator, held_out, oracle) for each in drawn]
    of_oracle = None if oracle is None else sequence_logprobs(oracle, held_out).cpu().numpy()
    found = []
    for first, second in combinations(range(len(drawn)), 2):
        one, other = drawn[first], drawn[second]
        for w in map(float, WEIGHTS):
            values = mixed_likelihoods(w, components, first, second, of_oracle)
            for name in filter(lambda name: name.startswith(LINEAR), one.results):
                values[name] = w * one.results[name].value + (1 - w) * other.results[name].value
            if w == 0.5 and oracle is None:
                values |= _of_samples(one, other, seed)
            found.append(Mixture(one.temperature, other.temperature, w, values))
    return found


def _component(
    one: Drawn, drawn: Sequence[Drawn], model: PreTrainedModel, held_out: Samples, oracle: PreTrainedModel | None
) -> Component:
    counted = held_out.mask & ~unwritable(one.density, held_out)
    with tempered(model, one.temperature):
        of_held_out = logprobs(one.density, held_out, counted).cpu().numpy()
        others = [] if oracle is None else [logprobs(one.density, each.samples).cpu().numpy() for each in drawn]
    component = Component(one.temperature, of_held_out, float(counted.sum(dim=1).double().mean()))
    if oracle is None:
        return component
    own = sequence_logprobs(oracle, one.samples).cpu().numpy()
    return component._replace(own=others, oracle=own, sample_tokens=float(one.samples.lengths.double().mean()))


def _of_samples(one: Drawn, other: Drawn, seed: int) -> dict[str, float]:
    """Values of as many samples as there are of one temperature, half of them of the other."""
    texts, more = one.measurement.samples, other.measurement.samples
    rows = np.random.default_rng(seed).permutation(len(texts))
    half = len(texts) // 2
    chosen = [texts.texts[row] for row in rows[:half]] + [more.texts[row] for row in rows[half:]]
    measurement = Measurement(Texts(chosen, texts.settings), one.measurement.references, one.measurement.train)
    found: dict[str, float] = {}
    for metric, name in OF_SAMPLES.items():
        if name in one.results:
            value = measurement.measure(metric)[name]
            found[name] = float(value.value if isinstance(value, Estimate) else value)
    return found
