"""One contract for every objective: every generator, every opponent, state, citation.

A new objective adds one row to `OBJECTIVES` in `tests/tools/objectives.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import product

import pytest
import torch

from seqgan_hf import objectives
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.objectives import Models, Objective
from seqgan_hf.samples import Samples
from tests.tools.objectives import (
    CLASSIFIERS,
    GENERATORS,
    LANGUAGE_MODELS,
    NONE,
    OBJECTIVES,
    build_objective,
    build_opponent,
)
from tests.tools.tiny import build_generator


def step(objective: Objective, models: Models, real: Samples, length: int = 4) -> torch.Tensor:
    """The loss of a generator step, as the trainer takes it."""
    fake = None
    if objective.draws:
        with torch.no_grad():
            fake = objective.credit(models, real, objective.sample(models, real, length)).samples
    return objective.generator_loss(models, real, fake).value


def test_every_objective_of_the_package_has_a_row():
    base = {"Copy", "Credit", "Loss", "Models", "Objective", "Turn"}
    assert set(objectives.__all__) - base == set(OBJECTIVES)


def plan() -> list[tuple[str, str, str]]:
    """Each objective with all its generators and all its opponents, in pairs that shift from one to the next."""
    cases, before = [], Counter()
    for name, row in OBJECTIVES.items():
        shift = before[frozenset(row.opponents)]
        before[frozenset(row.opponents)] += 1
        for i in range(max(len(row.generators), len(row.opponents))):
            opponent = row.opponents[(i + shift) % len(row.opponents)]
            cases.append((row.generators[i % len(row.generators)], name, opponent))
    return cases


def test_every_generator_meets_every_opponent():
    met = {(written_by, kind) for written_by, _, kind in plan()}
    assert met >= set(product(GENERATORS, (*NONE, *CLASSIFIERS, *LANGUAGE_MODELS)))


@pytest.mark.parametrize(("written_by", "name", "kind"), plan())
def test_every_objective_trains_every_generator_and_plays_every_opponent(written_by, name, kind):
    objective, generator = build_objective(name), build_generator(written_by)
    models = Models(generator, build_opponent(kind), objective.copies())
    assert (models.discriminator is None) == (objective.adversary is None)
    models.begin()
    torch.manual_seed(0)
    real = sample(generator, start_prompt(generator, 12), 4)  # of three, all verdicts may be equal
    loss = step(objective, models, real)
    loss.backward()
    assert loss.shape == () and loss.isfinite()
    assert all(parameter.grad is not None for parameter in generator.parameters() if parameter.requires_grad)
    assert sum(float(parameter.grad.abs().sum()) for parameter in generator.parameters()) > 0
    models.follow()
    objective.after_step("generator", models)
    if models.discriminator is None:
        return
    fake = objective.fakes(models, real, 4)
    loss = objective.discriminator_loss(models, real, fake).value
    loss.backward()
    assert loss.shape == () and loss.isfinite()
    moved = [p.grad for p in models.discriminator.parameters() if p.requires_grad and p.grad is not None]
    assert sum(float(gradient.abs().sum()) for gradient in moved) > 0
    objective.after_step("discriminator", models)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_takes_back_its_state(name):
    objective, other = build_objective(name), build_objective(name)
    generator = build_generator(OBJECTIVES[name].generators[0])
    models = Models(generator, build_opponent(OBJECTIVES[name].opponents[0]), objective.copies())
    models.begin()
    torch.manual_seed(0)
    real = sample(generator, start_prompt(generator, 3), 4)
    step(objective, models, real)
    objective.after_step("generator", models)
    other.load_state_dict(objective.state_dict())
    torch.manual_seed(1)
    first = step(objective, models, real)
    torch.manual_seed(1)
    assert torch.equal(first, step(other, models, real))


WITHOUT_A_PAPER = {"MLE", "FunctionReward"}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_cites_its_paper(name):
    """As BibTeX that any tool reads: one entry with balanced braces, whose every field has a value."""
    citation = getattr(objectives, name).citation
    if name in WITHOUT_A_PAPER:
        assert citation == ""
        return
    assert re.fullmatch(
        r"@(inproceedings|article)\{[a-z]+\d{4}[a-z]+,\n(  [a-z]+ = \{.+(\n {4,}.+)*\},?\n)+\}", citation
    )
    assert citation.count("{") == citation.count("}")
    assert {"title", "author", "year"} <= set(re.findall(r"^  ([a-z]+) = ", citation, re.MULTILINE))
