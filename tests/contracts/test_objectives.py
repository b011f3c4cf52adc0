"""One contract for every objective: every generator against every opponent, and expected gradients by enumeration.

A new objective adds one row to `OBJECTIVES` in `tests/tools/objectives.py`.
"""

from __future__ import annotations

import math
import re

import pytest
import torch

from seqgan_hf import objectives
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.objectives import Models, Objective
from seqgan_hf.samples import Samples
from tests.tools.objectives import OBJECTIVES, REINFORCE, build_objective, build_opponent
from tests.tools.tables import SEQUENCES, T, TableGenerator, TableJudge, V, all_sequences, every_completion
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


@pytest.mark.parametrize(
    ("written_by", "name", "kind"),
    [(one, name, kind) for name, row in OBJECTIVES.items() for one in row.generators for kind in row.opponents],
)
def test_every_objective_trains_every_generator_against_every_opponent(written_by, name, kind):
    objective, generator = build_objective(name), build_generator(written_by)
    models = Models(generator, build_opponent(kind), objective.copies())
    assert (models.discriminator is None) == (objective.adversary is None)
    models.begin()
    torch.manual_seed(0)
    real = sample(generator, start_prompt(generator, 3), 4)
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


# --- Expected gradients, exactly ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, row in OBJECTIVES.items() if row.gradient is not None])
def test_the_expected_gradient_is_the_papers(name, monkeypatch):
    """Of all sequences, each beside the real one of the other end, with all completions in place of some drawn."""
    monkeypatch.setattr("seqgan_hf.objectives.seqgan.complete", every_completion)
    row, batch, generator = OBJECTIVES[name], all_sequences(), TableGenerator()
    real = batch.select(torch.arange(26, -1, -1))
    batch = batch._replace(logprobs=torch.full((27, T), -math.log(V)))  # as drawn from the uniform generator
    objective = getattr(objectives, name)(**row.exact)
    models = Models(generator, None if objective.adversary is None else row.judge())
    with torch.no_grad():
        fake = objective.credit(models, real, batch).samples
    objective.generator_loss(models, real, fake).value.backward()
    torch.testing.assert_close(generator.table.grad[0], torch.tensor(row.gradient), rtol=0, atol=1e-6)


def test_a_leave_one_out_baseline_only_scales_the_expected_gradient():
    """A sequence is compared with the 26 others, each standing once in the batch: by 27 / 26."""
    objective, batch, generator = objectives.Reinforce("leave_one_out"), all_sequences(), TableGenerator()
    models = Models(generator, TableJudge())
    fake = objective.credit(models, batch, batch).samples
    objective.generator_loss(models, batch, fake).value.backward()
    expected = torch.tensor(REINFORCE) * 27 / 26
    torch.testing.assert_close(generator.table.grad[0], expected, rtol=0, atol=1e-6)


def test_exact_action_values_have_the_gradient_of_whole_rewards(monkeypatch):
    """Q as the mean of D over all completions, which rollouts estimate, in place of D(Y): the same expectation."""
    judge, batch, generator = TableJudge(), all_sequences(), TableGenerator()

    def mean_over_completions(row: torch.Tensor, t: int) -> torch.Tensor:
        return judge(SEQUENCES[(SEQUENCES[:, :t] == row[:t]).all(dim=1)], None).logits.sigmoid().mean()

    values = torch.stack([torch.stack([mean_over_completions(row, t) for t in (1, 2, 3)]) for row in SEQUENCES])
    objective, models = objectives.SeqGAN(rollouts=1), Models(generator, judge)
    monkeypatch.setattr(objective, "action_values", lambda models, samples, real: values)
    objective.generator_loss(models, batch, objective.credit(models, batch, batch).samples).value.backward()
    torch.testing.assert_close(generator.table.grad[0], torch.tensor(REINFORCE), rtol=0, atol=1e-6)


def test_maximum_likelihood_at_the_uniform_generator():
    """d NLL / d logits of the first token = G - p, whose marginal is that of p_i = (i + 1) / 378."""
    generator, batch = TableGenerator(), all_sequences()
    rows = torch.arange(27).repeat_interleave(torch.arange(1, 28))
    objectives.MLE().generator_loss(Models(generator), batch.select(rows), None).value.backward()
    marginal = torch.stack([(SEQUENCES[rows, 0] == token).float().mean() for token in range(V)])
    torch.testing.assert_close(generator.table.grad[0] * T, 1 / 3 - marginal)
    assert math.isclose(float(marginal.sum()), 1.0, rel_tol=1e-6)
