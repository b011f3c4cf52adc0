"""Cooperative training on 27 sequences with the exact mixture: gradients against the Jensen-Shannon divergence's."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch

from seqgan_hf.errors import UserError
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.objectives import CoT, Models
from seqgan_hf.samples import Samples
from tests.tools.tables import PREFIXES, SEQUENCES, T, TableGenerator, V, all_sequences
from tests.tools.tiny import build_generator


P = torch.arange(1, 28) / 378  # of the 27 sequences


def table_of(law: torch.Tensor) -> torch.Tensor:
    """Logits of the conditionals of a law over the sequences."""
    rows = []
    for prefix in PREFIXES:
        fits = (SEQUENCES[:, : len(prefix)] == torch.tensor(prefix, dtype=torch.long)).all(dim=1)
        rows.append(torch.stack([law[fits & (SEQUENCES[:, len(prefix)] == token)].sum() for token in range(V)]).log())
    return torch.stack(rows)


def uneven_generator() -> tuple[TableGenerator, Samples]:
    """Every prefix has the probabilities 1/6, 2/6, 3/6 in some order; sequences stand 216 G(Y) times in the batch."""
    orders = list(permutations((1.0, 2.0, 3.0)))
    generator = TableGenerator(torch.tensor([orders[i % 6] for i in range(len(PREFIXES))]).log())
    times = (216 * generator.probabilities(SEQUENCES)).round().long()
    assert int(times.sum()) == 216
    return generator, all_sequences().select(torch.arange(27).repeat_interleave(times))


def gradient(objective: CoT, generator: TableGenerator, mediator: TableGenerator, batch: Samples) -> torch.Tensor:
    loss = objective.generator_loss(Models(generator, mediator), batch, batch).value
    return torch.autograd.grad(loss, generator.table)[0]


def jensen_shannon(generator: TableGenerator) -> torch.Tensor:
    law = generator.probabilities(SEQUENCES)
    mixture = (P + law) / 2
    return ((P * (P / mixture).log()).sum() + (law * (law / mixture).log()).sum()) / 2


def test_full_credit_is_the_gradient_of_the_divergence_and_the_papers_is_not():
    generator, batch = uneven_generator()
    mediator = TableGenerator(table_of((P + generator.probabilities(SEQUENCES).detach()) / 2))
    exact = 2 * torch.autograd.grad(jensen_shannon(generator), generator.table)[0]
    full = gradient(CoT("full", baseline="none"), generator, mediator, batch)
    torch.testing.assert_close(full, exact, rtol=0, atol=1e-6)
    myopic = gradient(CoT(), generator, mediator, batch)
    last = [index for index, prefix in enumerate(PREFIXES) if len(prefix) == T - 1]
    torch.testing.assert_close(myopic[last], exact[last], rtol=0, atol=1e-6)
    assert (myopic[0] - exact[0]).abs().max() > 1e-3


def test_what_is_logged_is_the_divergence_of_whole_sequences_from_the_mixture():
    """The sum over positions, in the mean over samples, is KL(G || M), which the exact mixture keeps below log 2."""
    generator, batch = uneven_generator()
    law = generator.probabilities(SEQUENCES).detach()
    mixture = (P + law) / 2
    loss = CoT().generator_loss(Models(generator, TableGenerator(table_of(mixture))), batch, batch)
    expected = (law * (law / mixture).log()).sum()
    torch.testing.assert_close(loss.metrics["kl_mediator"], expected)
    assert 0.01 < float(expected) < math.log(2)


def test_a_leave_one_out_baseline_scales_the_score_term_alone():
    """Each of the 216 sequences is compared with the 215 others: by 216 / 215, the paper's part as it is."""
    generator, batch = uneven_generator()
    mediator = TableGenerator(table_of((P + generator.probabilities(SEQUENCES).detach()) / 2))
    myopic, plain, compared = (
        gradient(objective, generator, mediator, batch)
        for objective in (CoT(), CoT("full", baseline="none"), CoT("full", baseline="leave_one_out"))
    )
    assert (plain - myopic).abs().max() > 1e-3
    torch.testing.assert_close(compared - myopic, (plain - myopic) * 216 / 215, rtol=0, atol=1e-6)


def test_the_papers_gradient_is_that_of_the_divergences_at_fixed_prefixes():
    generator, batch = uneven_generator()
    mediator = TableGenerator(table_of((P + generator.probabilities(SEQUENCES).detach()) / 2))
    reached = torch.stack(
        [
            generator.probabilities(SEQUENCES)[
                (SEQUENCES[:, : len(prefix)] == torch.tensor(prefix, dtype=torch.long)).all(dim=1)
            ].sum()
            for prefix in PREFIXES
        ]
    ).detach()
    ours, theirs = generator.table.log_softmax(-1), mediator.table.log_softmax(-1)
    by_hand = (reached * (ours.exp() * (ours - theirs.detach())).sum(-1)).sum()
    expected = torch.autograd.grad(by_hand, generator.table)[0]
    torch.testing.assert_close(gradient(CoT(), generator, mediator, batch), expected, rtol=0, atol=1e-6)


def test_nothing_moves_where_all_three_agree():
    generator = TableGenerator(table_of(P))
    batch = all_sequences().select(torch.arange(27).repeat_interleave(torch.arange(1, 28)))
    for credit in ("myopic", "full"):
        assert gradient(CoT(credit), generator, TableGenerator(table_of(P)), batch).abs().max() < 1e-6


def test_the_mediators_optimum_is_the_mixture():
    generator, fake = uneven_generator()
    mediator = TableGenerator(table_of((P + generator.probabilities(SEQUENCES).detach()) / 2))
    real = all_sequences().select(torch.arange(27).repeat_interleave(torch.arange(1, 28)))
    loss = CoT().discriminator_loss(Models(generator, mediator), real, fake).value
    assert torch.autograd.grad(loss, mediator.table)[0].abs().max() < 1e-6
    # not the data, and not the mean of the conditionals: a prefix that G hardly writes has the data's
    halves = (table_of(P).softmax(-1) + generator.table.detach().softmax(-1)) / 2
    for off in (TableGenerator(table_of(P)), TableGenerator(halves.log())):
        loss = CoT().discriminator_loss(Models(generator, off), real, fake).value
        assert torch.autograd.grad(loss, off.table)[0].abs().max() > 1e-3


@pytest.mark.parametrize("credit", ["myopic", "full"])
@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_padding_and_the_order_of_rows_change_nothing(kind, credit):
    generator, mediator = build_generator(kind), build_generator(kind, seed=1)
    models, objective = Models(generator.eval(), mediator.eval()), CoT(credit)
    torch.manual_seed(0)
    fake = objective.sample(models, Samples(torch.zeros(5, 1).long(), *[torch.zeros(5, 0).long()] * 2), 6)
    wider = Samples(fake.prompt, *(torch.nn.functional.pad(field, (0, 3)) for field in (fake.ids, fake.mask)))
    expected = objective.generator_loss(models, fake, fake).value
    for other in (wider, fake.select(torch.tensor([4, 2, 0, 1, 3]))):
        torch.testing.assert_close(objective.generator_loss(models, other, other).value, expected)
    both = objective.discriminator_loss(models, fake, fake.select(slice(0, 2))).value
    torch.testing.assert_close(objective.discriminator_loss(models, wider, fake.select(slice(0, 2))).value, both)


def test_dropout_of_the_mediator_is_off_while_it_teaches():
    generator, mediator = build_generator("gpt2"), build_generator("gpt2", seed=1).train()
    models = Models(generator.eval(), mediator)
    torch.manual_seed(0)
    fake = CoT().sample(models, Samples(torch.zeros(5, 1).long(), *[torch.zeros(5, 0).long()] * 2), 6)
    losses = [float(CoT().generator_loss(models, fake, fake).value.detach()) for _ in range(2)]
    assert losses[0] == losses[1] and mediator.training


def test_a_last_token_is_credited_with_nothing_but_its_own_divergence():
    """For sequences of one token the two gradients are equal in every batch, not in the mean only."""
    generator, mediator = build_generator("lstm").eval(), build_generator("lstm", seed=1).eval()
    models, drawn = Models(generator, mediator), []
    ids = torch.tensor([[3], [4], [4]])
    batch = Samples(torch.zeros_like(ids), ids, torch.ones_like(ids).bool())
    for objective in (CoT(), CoT("full", baseline="none")):
        loss = objective.generator_loss(models, batch, batch).value
        drawn.append(torch.autograd.grad(loss, list(generator.parameters())))
    torch.testing.assert_close(*drawn)


def test_what_is_logged_and_what_the_mediator_minimises():
    """Sequences of real and generated text count alike, whatever their number; token means are logged of each kind."""
    generator, mediator = build_generator("lstm").eval(), build_generator("lstm", seed=1).eval()
    models, objective = Models(generator, mediator), CoT()
    prompts = Samples(torch.zeros(7, 1).long(), *[torch.zeros(7, 0).long()] * 2)
    torch.manual_seed(0)
    real, fake = objective.sample(models, prompts, 6).select(slice(0, 2)), objective.sample(models, prompts, 6)
    sums = [-token_logprobs(mediator, part).sum().detach() for part in (real, fake)]
    loss = objective.discriminator_loss(models, real, fake)
    torch.testing.assert_close(loss.value, (sums[0] / 2 + sums[1] / 7) / 2)
    means = [total / part.mask.sum() for total, part in zip(sums, (real, fake), strict=True)]
    expected = {
        "nll_mediator_real": means[0],
        "nll_mediator_fake": means[1],
        "discriminator_loss": loss.value.detach(),
    }
    torch.testing.assert_close(dict(loss.metrics), expected)
    loss = objective.generator_loss(models, real, fake)
    torch.testing.assert_close(dict(loss.metrics), {"kl_mediator": loss.value.detach()})


def test_credit_is_one_of_two():
    with pytest.raises(ValueError, match="credit='all': expected myopic or full"):
        CoT("all")


def test_a_sequence_with_no_other_to_be_compared_with_is_refused_where_any_are_compared():
    models = Models(build_generator("lstm"), build_generator("lstm", seed=1))
    with pytest.raises(UserError, match="baseline=leave_one_out with batches of one sequence: expected others"):
        CoT("full").check(models, 1, False)
    for objective, size in ((CoT("full"), 2), (CoT("full", "none"), 1), (CoT(), 1)):
        objective.check(models, size, False)
