"""A ratio of densities as discriminator, on 27 sequences: gradients and optima of every divergence by enumeration."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.objectives import DGSAN, MLE, Models
from seqgan_hf.objectives.dgsan import DIVERGENCES
from seqgan_hf.samples import Samples
from tests.tools.tables import PREFIXES, SEQUENCES, T, TableGenerator, V, all_sequences
from tests.tools.tiny import build_generator


P = torch.arange(1, 28) / 378  # of the 27 sequences
REAL = all_sequences().select(torch.arange(27).repeat_interleave(torch.arange(1, 28)))
UNIFORM = all_sequences()  # as the uniform snapshot draws them

# D_f(P || Q), Q uniform, by their definitions; and f''(1), the gradient at G = Q in that of maximum likelihood.
Q = torch.full((27,), 1 / 27)
M = (P + Q) / 2
EXACT = {
    "jensen_shannon": (float((P * (P / M).log() + Q * (Q / M).log()).sum()), 0.5),
    "forward_kl": (float((P * (P / Q).log()).sum()), 1.0),
    "reverse_kl": (float((Q * (Q / P).log()).sum()), 1.0),
    "chi_square": (float(((P - Q) ** 2 / Q).sum()), 2.0),
    "squared_hellinger": (float(((P.sqrt() - Q.sqrt()) ** 2).sum()), 0.5),
    "jeffreys": (float(((P - Q) * (P / Q).log()).sum()), 2.0),
}


def started(generator: nn.Module, **settings) -> tuple[DGSAN, Models]:
    """With a snapshot that is the generator as it is."""
    objective = DGSAN(**settings)
    models = Models(generator, copies=objective.copies())
    models.begin()
    return objective, models


def test_every_divergence_is_tested():
    assert set(EXACT) == set(DIVERGENCES)


@pytest.mark.parametrize(("divergence", "share"), [(name, share) for name, (_, share) in EXACT.items()])
def test_at_the_snapshot_the_gradient_is_a_share_of_maximum_likelihoods(divergence, share):
    """Half of it for the Jensen-Shannon divergence: f''(1)."""
    objective, models = started(TableGenerator(), divergence=divergence)
    loss = objective.generator_loss(models, REAL, UNIFORM)
    found = torch.autograd.grad(loss.value, models.generator.table)[0]
    likely = MLE().generator_loss(models, REAL, None).value * T  # a sum over tokens
    expected = torch.autograd.grad(likely, models.generator.table)[0]
    assert expected.abs().max() > 0.05
    torch.testing.assert_close(found, share * expected, rtol=0, atol=1e-6)
    zero = torch.tensor(0.0)
    expected = {"divergence": zero, "log_ratio_real": zero, "log_ratio_snapshot": zero}
    torch.testing.assert_close(dict(loss.metrics), expected, rtol=0, atol=1e-6)


def test_a_real_sequence_then_counts_by_the_doubt_of_the_discriminator():
    """-E_P[sigmoid(-u) grad log G] + E_G_old[sigmoid(u) grad log G], away from the snapshot."""
    objective, models = started(TableGenerator())
    torch.manual_seed(0)
    with torch.no_grad():
        models.generator.table += torch.randn(len(PREFIXES), V)
    loss = objective.generator_loss(models, REAL, UNIFORM).value
    likelihood = token_logprobs(models.generator, UNIFORM).sum(dim=1)
    ratio = likelihood.detach() + 3 * math.log(3)
    by_hand = (Q * ratio.sigmoid() * likelihood).sum() - (P * (-ratio).sigmoid() * likelihood).sum()
    found, expected = (torch.autograd.grad(one, models.generator.table)[0] for one in (loss, by_hand))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("divergence", EXACT)
def test_the_free_optimum_is_the_data_and_the_loss_there_the_divergence_from_the_snapshot(divergence):
    objective, models = started(TableGenerator().double(), divergence=divergence)
    table = models.generator.table
    optimizer = torch.optim.LBFGS([table], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        table.grad = None
        value = objective.generator_loss(models, REAL, UNIFORM).value
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        torch.testing.assert_close(models.generator.probabilities(SEQUENCES), P.double(), rtol=0, atol=2e-4)
    bound = objective.generator_loss(models, REAL, UNIFORM).metrics["divergence"]
    assert float(bound) == pytest.approx(EXACT[divergence][0], abs=1e-5)


@pytest.mark.parametrize("divergence", EXACT)
def test_a_constant_in_both_log_probabilities_changes_nothing(divergence):
    """A third token that both find equally likely, whatever stands before it: -log 3 for every sequence."""
    objective, models = started(TableGenerator(), divergence=divergence)
    torch.manual_seed(0)
    with torch.no_grad():
        models.generator.table[: 1 + V] += torch.randn(1 + V, V)
    values = []
    for length in (2, 3):
        shown = [part._replace(ids=part.ids[:, :length], mask=part.mask[:, :length]) for part in (REAL, UNIFORM)]
        values.append(objective.generator_loss(models, *shown).value)
    torch.testing.assert_close(values[0], values[1])
    assert abs(float(values[0].detach())) > 0.05


def test_samples_are_the_snapshots_which_is_taken_anew_when_it_is_due():
    generator = build_generator("lstm").eval()
    objective, models = started(generator, snapshot_every=2)
    real = Samples(torch.zeros(64, 1).long(), *[torch.zeros(64, 0).long()] * 2)

    def drawn() -> torch.Tensor:
        torch.manual_seed(0)
        return objective.sample(models, real, 4).ids

    first = drawn()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(2.0)
    objective.after_step("generator", models)
    assert torch.equal(drawn(), first), "one step later it is still the same"
    objective.after_step("generator", models)
    assert not torch.equal(drawn(), first)
    samples = objective.sample(models, real, 4)
    now = [token_logprobs(model, samples) for model in (generator, models["snapshot"])]
    assert torch.equal(*now)


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_padding_and_the_order_of_rows_change_nothing(kind):
    objective, models = started(build_generator(kind).eval())
    with torch.no_grad():
        for parameter in models.generator.parameters():
            parameter.mul_(1.1)
    torch.manual_seed(0)
    prompts = Samples(torch.zeros(5, 1).long(), *[torch.zeros(5, 0).long()] * 2)
    real, fake = objective.sample(models, prompts, 6), objective.sample(models, prompts, 6)
    expected = objective.generator_loss(models, real, fake).value
    wider = [
        Samples(part.prompt, *(nn.functional.pad(field, (0, 3)) for field in (part.ids, part.mask)))
        for part in (real, fake)
    ]
    torch.testing.assert_close(objective.generator_loss(models, *wider).value, expected)
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(objective.generator_loss(models, real.select(order), fake).value, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"divergence": "kl"}, "divergence='kl': expected one of jensen_shannon, forward_kl"),
        ({"snapshot_every": 0}, "snapshot_every=0: expected at least 1 generator step"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        DGSAN(**settings)
    assert len(str(error.value).splitlines()) == 1
