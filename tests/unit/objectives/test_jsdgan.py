"""The divergence from 5 training sequences among 27, by enumeration; and what its weights come to on long ones."""

from __future__ import annotations

import math

import pytest
import torch

from seqgan_hf.errors import UserError
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.objectives import JSDGAN, Models
from seqgan_hf.samples import Samples
from tests.tools.tables import PREFIXES, SEQUENCES, TableGenerator, V, all_sequences
from tests.tools.tiny import build_generator


TRAINING = torch.tensor([2, 3, 11, 19, 26])


def test_the_gradient_is_that_of_the_divergence_from_the_training_set():
    """With the five as the batch, up to the sum of the weights, half of what the two laws have in common."""
    torch.manual_seed(0)
    generator = TableGenerator(torch.randn(len(PREFIXES), V).double())
    law = generator.probabilities(SEQUENCES)
    empirical = torch.zeros(27).double().index_fill(0, TRAINING, 1 / 5)
    mixture = (law + empirical) / 2
    of_training = (1 / 5 * (1 / 5 / mixture[TRAINING]).log()).sum()
    divergence = ((law * (law / mixture).log()).sum() + of_training) / 2
    expected = torch.autograd.grad(divergence, generator.table)[0]
    weights = (law * torch.log1p(1 / (5 * law)))[TRAINING].detach() / 2
    loss = JSDGAN(5).generator_loss(Models(generator), all_sequences().select(TRAINING), None)
    found = torch.autograd.grad(loss.value, generator.table)[0]
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(found * weights.sum(), expected, rtol=0, atol=1e-6)
    assert float(loss.metrics["largest_weight"]) == pytest.approx(float(weights.max() / weights.sum()), rel=1e-5)


def test_the_likeliest_of_long_sequences_takes_all():
    """Their probabilities are below the smallest float; the weights are not lost."""
    generator = build_generator("lstm", eos=None)
    torch.manual_seed(0)
    ids = torch.randint(3, 13, (4, 100))
    batch = Samples(torch.zeros(4, 1).long(), ids, torch.ones_like(ids).bool())
    logprobs = token_logprobs(generator, batch)
    assert logprobs.sum(dim=1).max() < math.log(torch.finfo(torch.float32).tiny)
    loss = JSDGAN(1000).generator_loss(Models(generator), batch, None)
    assert float(loss.metrics["largest_weight"]) > 0.9
    torch.testing.assert_close(loss.value, -logprobs.sum(dim=1).max(), rtol=0.02, atol=0)
    torch.testing.assert_close(loss.metrics["nll_train"], -logprobs.mean().detach())


def test_padding_changes_nothing():
    generator = build_generator("lstm").eval()
    ids, mask = torch.tensor([[3, 4, 5], [6, 1, 2]]), torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    narrow = Samples(torch.zeros(2, 1).long(), ids, mask)
    wider = Samples(narrow.prompt, *(torch.nn.functional.pad(field, (0, 3)) for field in (ids, mask)))
    values = [JSDGAN(2).generator_loss(Models(generator), batch, None).value for batch in (narrow, wider)]
    torch.testing.assert_close(*values)


def test_its_sequences_are_counted_unless_their_number_is_given():
    generator = build_generator("lstm", eos=None)
    ids = torch.tensor([[3, 4], [5, 6], [7, 8]])
    batch = Samples(torch.zeros(3, 1).long(), ids, torch.ones_like(ids).bool())
    counted, given = JSDGAN(), JSDGAN(1000)
    with pytest.raises(UserError, match="streamed text, which JSDGAN cannot count: expected num_sequences"):
        counted.check_sequences(Models(generator), None)
    counted.check_sequences(Models(generator), batch.select(slice(0, 2)))  # of another run before
    losses = []
    for objective in (counted, given, JSDGAN(3)):
        objective.check_sequences(Models(generator), batch)
        losses.append(objective.generator_loss(Models(generator), batch, None).value)
    given.check_sequences(Models(generator), None)
    assert torch.equal(losses[0], losses[2]) and not torch.equal(losses[0], losses[1])


def test_what_it_cannot_be_used_for_is_refused():
    with pytest.raises(UserError, match="num_sequences=0: expected the number of training sequences"):
        JSDGAN(0)
    JSDGAN(3).check(Models(build_generator("lstm")), 8, False)
    with pytest.raises(UserError, match="prompts with JSDGAN: expected whole sequences after the start token"):
        JSDGAN(3).check(Models(build_generator("lstm")), 8, True)
