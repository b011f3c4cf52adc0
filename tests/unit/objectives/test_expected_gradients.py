"""Expected gradients, exactly: enumerated over all 27 sequences, against the papers' formulas, to 1e-6.

The table holds one row for each policy gradient (`gradient` in `tests/tools/objectives.py`); below it stand whole
gradients that are another loss's or a divergence's. `tests/tools/mutations.py` breaks each formula.
"""

from __future__ import annotations

import math

import pytest
import torch

from seqgan_hf import objectives
from seqgan_hf.objectives import (
    DPG,
    DPGAN,
    FGAN,
    GAD,
    GRPO,
    MLE,
    RLOO,
    ColdGAN,
    MaliGAN,
    Models,
    Reinforce,
    SentiGAN,
    SeqGAN,
    TextGAIL,
)
from seqgan_hf.objectives.fgan import REWARDS
from seqgan_hf.samples import Samples
from tests.tools.objectives import OBJECTIVES, REINFORCE
from tests.tools.tables import (
    PREFIXES,
    SEQUENCES,
    Judge,
    T,
    TableGenerator,
    TableJudge,
    V,
    all_sequences,
    assert_close,
    credited,
    every_completion,
    exact,
    gradient,
    random_table,
)


DATA = torch.arange(1, 28) / 378  # p, for which `TableJudge` is optimal against the uniform generator


def sixths() -> tuple[TableGenerator, Samples]:
    """A generator whose every row is a permutation of (1, 2, 3) / 6, and each sequence 216 G(Y) times."""
    torch.manual_seed(0)
    generator = TableGenerator(torch.stack([(torch.randperm(3) + 1.0).log() for _ in PREFIXES]))
    times = (216 * generator.probabilities(SEQUENCES).detach()).round().long()
    return generator, all_sequences().select(torch.arange(27).repeat_interleave(times))


# --- The table of all ------------------------------------------------------------------------------------------------


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


# --- What all of them share ------------------------------------------------------------------------------------------


def test_real_text_is_added_with_its_weight():
    generator, batch = random_table(), all_sequences()
    models = Models(generator, TableJudge())
    fake = credited(Reinforce(), models)
    plain = gradient(Reinforce(), models, fake)
    likely = gradient(MLE(), models, batch) * T  # the mean over tokens of MLE is a sum over tokens here
    found = gradient(Reinforce(likelihood_weight=0.3), models, fake)
    assert_close(found, plain + 0.3 * likely)


def test_the_kl_in_the_reward_has_the_gradient_of_the_divergence_from_the_reference():
    generator, reference = TableGenerator(), random_table()
    models = Models(generator, TableJudge(), Reinforce(kl=1.0).copies())
    models.begin()
    models["reference"].load_state_dict(reference.state_dict())
    free = gradient(Reinforce(), models, credited(Reinforce(), models))
    priced = gradient(Reinforce(kl=0.5), models, credited(Reinforce(kl=0.5), models))
    target = reference.probabilities(SEQUENCES).detach()
    kl = exact(generator, lambda p: (p * (p / target).log()).sum())
    # compared with the 26 others, where each of the 27 stands once
    assert_close(priced - free, 0.5 * kl * 27 / 26)


# --- MaliGAN ---------------------------------------------------------------------------------------------------------


def test_maligan_with_everything_given_is_maximum_likelihood():
    generator, objective = random_table(), MaliGAN(likelihood_prefix=T, completions=3)
    models, real = Models(generator, TableJudge()), all_sequences().select(slice(0, 9))
    fake = objective.sample(models, real, T)
    assert torch.equal(fake.ids, SEQUENCES[[0, 0, 0, 1, 1, 1, 2, 2, 2]])
    found = gradient(objective, models, credited(objective, models, fake))
    assert_close(found, gradient(MLE(), models, fake) * T)


# --- DPG -------------------------------------------------------------------------------------------------------------


def begun(objective, start, generator, judge=None) -> Models:
    """The generator, which has been another one as the objective began."""
    models = Models(start, judge or TableJudge(), objective.copies())
    models.begin()
    models.generator = generator
    return models


def drawn_law(start, judge, exponent: float) -> torch.Tensor:
    """P(Y) of all sequences."""
    weighted = start.probabilities(SEQUENCES).detach() * (exponent * judge.log_odds).exp()
    return weighted / weighted.sum()


def test_dpg_has_the_gradient_of_the_divergence_from_what_is_drawn():
    (start, batch), generator, objective = sixths(), random_table(), DPG(exponent=0.7)
    models = begun(objective, start, generator)
    found = gradient(objective, models, credited(objective, models, batch))
    law = drawn_law(start, models.discriminator, 0.7)
    assert_close(found, exact(generator, lambda p: (law * (law / p).log()).sum()))


def test_dpg_has_nothing_left_to_learn_where_the_generator_writes_what_is_drawn():
    (start, batch), objective = sixths(), DPG(exponent=0.7)
    law = drawn_law(start, TableJudge(), 0.7).view(V, V, V)
    conditional = [law.sum(dim=(1, 2))[None], law.sum(dim=2), law.flatten(0, 1)]
    models = begun(objective, start, TableGenerator(torch.cat(conditional).log()))
    found = gradient(objective, models, credited(objective, models, batch))
    assert_close(found, torch.zeros_like(found))


def test_dpg_tells_how_many_of_a_batch_count():
    objective, log_odds = DPG(exponent=0.5), torch.zeros(27)
    log_odds[:3] = 2 * math.log(5)  # weights 5, 5, 5 and 24 times 1
    models = Models(TableGenerator(), Judge(log_odds))
    with torch.no_grad():
        credit = objective.credit(models, all_sequences(), all_sequences())
    assert_close(credit.samples.advantages[:, 0], 27 / 39 * torch.tensor([5.0] * 3 + [1.0] * 24))
    assert math.isclose(float(credit.metrics["effective_share"]), 39**2 / 99 / 27, rel_tol=1e-5)


def test_dpg_cuts_off_large_log_odds():
    models = Models(TableGenerator(), Judge(torch.arange(27.0)))
    values = DPG(max_log_odds=2.0).action_values(models, all_sequences(), all_sequences())
    assert_close(values[:, 0], torch.arange(27.0).clamp(max=2.0))


def test_dpg_weighs_the_samples_of_one_prompt_against_each_other():
    (start, batch), whole = sixths(), DPG()
    models = begun(whole, start, random_table())
    parts = [credited(whole, models, batch.select(slice(first, first + 72))) for first in (0, 72, 144)]
    expected = torch.cat([part.advantages for part in parts])
    assert_close(credited(DPG(group_size=72), models, batch).advantages, expected)


# --- SentiGAN --------------------------------------------------------------------------------------------------------


def test_sentigan_penalises_the_probability_even_by_a_constant():
    table = torch.zeros(len(PREFIXES), V)
    table[0] = torch.tensor([0.5, 0.3, 0.2]).log()
    generator = TableGenerator(table)
    rows = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)[:, None]  # as often as they are drawn
    batch = Samples(torch.zeros_like(rows), rows, torch.ones_like(rows, dtype=torch.bool))
    objective, models = SentiGAN(rollouts=0), Models(generator, None)
    fake = batch._replace(advantages=objective.advantages(models, torch.full((10, 1), -1.0), batch).detach())
    found = gradient(objective, models, fake)[0]
    assert_close(found, torch.tensor([0.06, -0.024, -0.036]))


def test_sentigan_without_the_probability_is_seqgan(monkeypatch):
    models, objective = Models(random_table(), TableJudge()), SentiGAN(rollouts=0)
    monkeypatch.setattr(objective, "advantages", lambda models, values, samples: values + 1)
    found = gradient(objective, models, credited(objective, models))
    assert_close(found, gradient(SeqGAN(0), models, credited(SeqGAN(0), models)))


# --- DPGAN -----------------------------------------------------------------------------------------------------------


def test_dpgan_with_itself_as_the_opponent_climbs_its_entropy():
    """T216: every row of the table is a permutation of (1, 2, 3) / 6; each sequence stands 216 G(Y) times."""
    generator, batch = sixths()
    assert batch.batch_size == 216
    objective = DPGAN(likelihood_weight=0.0, baseline="none")
    models = Models(generator, TableGenerator(generator.table.detach().clone()))
    fake = credited(objective, models, batch)
    means = objective.reward(models, batch, batch).mean(dim=1, keepdim=True)
    found = gradient(objective, models, fake._replace(advantages=fake.advantages / means))
    negative_entropy = exact(generator, lambda p: (p * p.log()).sum())
    assert_close(found, negative_entropy)


def test_dpgans_opponent_without_real_text_learns_the_samples_by_maximum_likelihood():
    opponent, batch = random_table(), all_sequences()
    real, fake = batch.select(slice(0, 9)), batch.select(slice(9, None))
    DPGAN(real_weight=0.0).discriminator_loss(Models(None, opponent), real, fake).value.backward()
    assert_close(opponent.table.grad, gradient(MLE(), Models(opponent), fake))


def test_dpgans_opponent_unlearns_real_text_by_its_weight():
    opponent, batch = random_table(), all_sequences()
    real, fake = batch.select(slice(0, 9)), batch.select(slice(9, None))
    DPGAN(real_weight=0.25).discriminator_loss(Models(None, opponent), real, fake).value.backward()
    found = opponent.table.grad.clone()
    expected = gradient(MLE(), Models(opponent), fake).clone() - 0.25 * gradient(MLE(), Models(opponent), real)
    assert_close(found, expected)


# --- ColdGAN ---------------------------------------------------------------------------------------------------------


def test_coldgans_weights_give_the_generators_own_gradient():
    """T27-IS: each sequence once, labelled as drawn from the uniform distribution, at any generator."""
    generator, judge = random_table(), TableJudge()
    objective = ColdGAN(max_weight=1e6, baseline="none")
    batch = all_sequences()._replace(logprobs=torch.full((27, T), -math.log(V)))
    models = Models(generator, judge)
    found = gradient(objective, models, credited(objective, models, batch))
    rewards = judge.log_odds.sigmoid()
    assert_close(found, exact(generator, lambda p: -(p * rewards).sum()))


def test_coldgan_at_the_generators_own_temperature_is_reinforce():
    generator = random_table()
    models, cold = Models(generator, TableJudge()), ColdGAN(temperature=1.0, top_p=1.0, baseline="none")
    batch = all_sequences()._replace(logprobs=cold.behaviour(models, all_sequences()).detach())
    found = gradient(cold, models, credited(cold, models, batch))
    expected = gradient(Reinforce(), models, credited(Reinforce(), models))
    assert_close(found, expected)


# --- Groups, ratios --------------------------------------------------------------------------------------------------


def test_rloo_of_the_whole_batch_is_reinforce_with_the_others_as_baseline():
    models = Models(random_table(), TableJudge())
    plain = Reinforce("leave_one_out")
    expected = gradient(plain, models, credited(plain, models))
    objective = RLOO(kl=0.0)
    assert_close(gradient(objective, models, credited(objective, models)), expected)


@pytest.mark.parametrize(
    ("kl_in", "expected"),
    [("loss", (-1 / 6, 1 / 30, 2 / 15)), ("reward", tuple(27 / 26 * k for k in (-0.158568, 0.011707, 0.146862)))],
)
def test_the_two_places_of_the_kl_follow_two_divergences(kl_in, expected):
    generator, objective = TableGenerator(), GRPO(kl=1.0, kl_in=kl_in)
    models = Models(generator, Judge(torch.zeros(27)), objective.copies())
    models.begin()
    with torch.no_grad():
        models["reference"].table[0] = torch.tensor([0.5, 0.3, 0.2]).log()
    found = gradient(objective, models, credited(objective, models))[0]
    assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("objective", [GRPO(updates=3, scale=False), TextGAIL(demonstrations=0.0)])
def test_the_first_update_is_that_of_reinforce(objective):
    models = Models(random_table(), TableJudge())
    fake = credited(objective, models)
    plain = Reinforce()
    expected = gradient(plain, models, fake)
    assert_close(gradient(objective, models, fake), expected)


# --- Pairs -----------------------------------------------------------------------------------------------------------


def pairs() -> tuple[Samples, Samples]:
    """Every real sequence, (i + 1) times, beside every generated one."""
    real = torch.arange(27).repeat_interleave(torch.arange(1, 28)).repeat_interleave(27)
    batch = all_sequences()
    return batch.select(real), batch.select(torch.arange(27).repeat(378))


@pytest.mark.parametrize("objective", [GAD(), TextGAIL()])
def test_the_best_judge_of_pairs_is_the_log_ratio_up_to_a_constant(objective):
    judge = Judge((TableJudge().log_odds + 0.7).requires_grad_())
    objective.discriminator_loss(Models(None, judge), *pairs()).value.backward()
    assert_close(judge.log_odds.grad, torch.zeros(27))


def test_textgail_with_nothing_but_human_text_is_maximum_likelihood():
    models, objective = Models(random_table(), TableJudge()), TextGAIL(demonstrations=1.0)
    batch = all_sequences()
    fake = credited(objective, models)
    assert torch.equal(fake.ids, batch.ids)
    assert_close(gradient(objective, models, fake), 2 * T * gradient(MLE(), models, batch))


# --- f-divergences ---------------------------------------------------------------------------------------------------


def mean(g, p):
    return (p + g) / 2


DIVERGENCES = {
    "forward_kl": lambda g, p: (p * (p / g).log()).sum(),
    "reverse_kl": lambda g, p: (g * (g / p).log()).sum(),
    "half_forward_kl": lambda g, p: (p * (p / mean(g, p)).log()).sum(),
    "jensen_shannon": lambda g, p: (p * (p / mean(g, p)).log() + g * (g / mean(g, p)).log()).sum(),
    "log_verdict": lambda g, p: (g * (g / p).log() - p * (p / mean(g, p)).log() - g * (g / mean(g, p)).log()).sum(),
    "squared_hellinger": lambda g, p: (p.sqrt() - g.sqrt()).square().sum(),
    "total_variation": lambda g, p: (p - g).abs().sum() / 2,
    "chi_square": lambda g, p: ((p - g).square() / g).sum(),
    "reverse_chi_square": lambda g, p: ((p - g).square() / p).sum(),
}


@pytest.mark.parametrize("divergence", REWARDS)
def test_each_reward_descends_its_divergence(divergence):
    generator = random_table(1)
    probabilities = generator.probabilities(SEQUENCES).detach()
    models = Models(generator, Judge((DATA / probabilities).log()))
    objective = FGAN(divergence, clip=30.0, baseline="none")
    fake = credited(objective, models)
    fake = fake._replace(advantages=fake.advantages * 27 * probabilities[:, None])  # each as often as it is drawn
    found = gradient(objective, models, fake)
    expected = exact(generator, lambda g: DIVERGENCES[divergence](g, DATA))
    assert_close(found, expected)
