"""Resampling and rejection: their laws over all 27 sequences, the estimates of log Z, and what must change nothing."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from seqgan_hf import Samples, realness, reject, resample, sample
from seqgan_hf.errors import UserError
from seqgan_hf.generation import effective_sample_size, log_normalizer, resampling
from seqgan_hf.generation.likelihood import sequence_logprobs
from seqgan_hf.generation.vocabulary import start_prompt
from tests.tools.tiny import BOS, PAD, VOCAB_SIZE, build_discriminator, build_generator, limit_memory


EXPONENT = 0.7


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Judge(nn.Module):
    """Log-odds that differ by up to 4 nats from one sequence to the next; a constant may be added."""

    device = torch.device("cpu")

    def __init__(self, added: float = 0.0):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, 1)
        self.added = added

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids: Tensor, attention_mask: Tensor):
        position = torch.arange(1, input_ids.shape[1] + 1)
        values = ((input_ids + 1.3) * position * 2.1).sin() * attention_mask
        return type("Output", (), {"logits": values.sum(dim=1, keepdim=True) * 1.3 + self.added})


class Unsteady(Judge):
    """Sane when it is tried, and no more."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor):
        self.added = 0.0 if len(input_ids) == 1 else math.inf
        return super().forward(input_ids, attention_mask)


def tiny(vocab_size: int = 3) -> nn.Module:
    return build_generator("lstm", eos=None, vocab_size=vocab_size).eval()


def every_sequence(prompt: Tensor | None = None) -> Samples:
    ids = torch.tensor(list(product(range(3), repeat=3)))
    prompt = torch.full((1, 1), BOS) if prompt is None else prompt
    return Samples(prompt.expand(len(ids), -1), ids, torch.ones_like(ids).bool())


def exact(generator, judge, exponent: float = EXPONENT, prompt: Tensor | None = None) -> tuple[Tensor, float]:
    """The residual model's probabilities of all 27 sequences, and its log Z."""
    samples = every_sequence(prompt)
    logs = sequence_logprobs(generator, samples) + exponent * realness(judge, samples).double()
    return (logs - logs.logsumexp(0)).exp().detach(), float(logs.logsumexp(0))


def law_of_one_kept(g: Tensor, w: Tensor, proposals: int) -> Tensor:
    """P_K(y) = K G(y) E[w(y) / (w(y) + what the K - 1 others weigh)], by enumeration of the others."""
    chances, weights = torch.ones(1).double(), torch.zeros(1).double()
    for _ in range(proposals - 1):
        chances, weights = (chances[:, None] * g).flatten(), (weights[:, None] + w).flatten()
    return proposals * g * (chances * w[:, None] / (w[:, None] + weights)).sum(dim=1)


def assert_law(samples: Samples, law: Tensor) -> None:
    """Chi squared over the sequences that can be drawn; no other is."""
    law, found = law.detach() / law.detach().sum(), frequencies(samples)
    assert not found[law == 0].any()
    assert stats.chisquare(found[law > 0], law[law > 0] * found.sum()).pvalue > 1e-3


def weights(judge) -> Tensor:
    return (EXPONENT * realness(judge, every_sequence()).double()).exp()


def frequencies(samples: Samples) -> Tensor:
    return torch.bincount(samples.ids @ torch.tensor([9, 3, 1]), minlength=27).double()


def expected_by_chance(count: int) -> float:
    """Total variation between 27 probabilities and frequencies of so many draws, at most."""
    return math.sqrt(27 / count) / 2


# --- The law ---------------------------------------------------------------------------------------------------------


def test_the_law_of_resampling_comes_to_the_residual_model_as_one_over_k():
    generator, judge, count = tiny(), Judge(), 20_000
    law, _ = exact(generator, judge)
    distance = {}
    for proposals in (1, 2, 4, 8, 32):
        found = resample(generator, judge, start_prompt(generator, count), 3, proposals, EXPONENT, rng=seeded())
        distance[proposals] = float((frequencies(found.samples) / count - law).abs().sum() / 2)
    own = sequence_logprobs(generator, every_sequence()).exp()
    assert distance[1] == pytest.approx(float((own - law).abs().sum() / 2), abs=expected_by_chance(count))
    assert distance[1] > 0.2
    for proposals, value in distance.items():
        assert value <= 2 * distance[1] / proposals + expected_by_chance(count)
    assert distance[32] < 0.03 < distance[4]


@pytest.mark.parametrize(("proposals", "together"), [(2, 2), (3, 1), (3, 2)])
def test_the_law_of_few_proposals_is_the_enumerated_one(proposals, together, monkeypatch):
    """The choice itself is exact, in however many passes, the last of which may be a smaller one."""
    generator, judge, count = tiny(), Judge(), 40_000
    monkeypatch.setattr(resampling, "PROPOSAL_TOKENS", count * 3 * together)
    found = resample(generator, judge, start_prompt(generator, count), 3, proposals, EXPONENT, rng=seeded())
    assert found.log_weights.shape == (count, proposals)
    g = sequence_logprobs(generator, every_sequence()).exp().double()
    assert_law(found.samples, law_of_one_kept(g, weights(judge), proposals))


@pytest.mark.parametrize("exponent", [0.3, 1.0])
def test_the_law_of_rejection_is_exact_under_a_true_bound(exponent):
    generator, judge, count = tiny(), Judge(), 20_000
    law, _ = exact(generator, judge, exponent)
    bound = float(realness(judge, every_sequence()).max())
    found = reject(generator, judge, start_prompt(generator, count), 3, exponent, bound, rng=seeded())
    assert_law(found.samples, law)
    g = sequence_logprobs(generator, every_sequence()).exp()
    rate = (g * (exponent * (realness(judge, every_sequence()).double() - bound)).exp()).sum()
    assert found.rate == pytest.approx(float(rate), abs=0.01) and found.above == 0 and found.bound == bound


def test_below_the_largest_log_odds_rejection_cuts_the_weights():
    generator, judge, count = tiny(), Judge(), 20_000
    log_odds = realness(judge, every_sequence()).double().detach()
    g = sequence_logprobs(generator, every_sequence()).exp()
    found = reject(generator, judge, start_prompt(generator, count), 3, percentile=60, rng=seeded())
    assert_law(found.samples, g * log_odds.clamp(max=found.bound).exp())
    assert 0.2 < found.above <= 0.45
    assert found.above == pytest.approx(float(g[log_odds > found.bound].sum()), abs=0.02)


def test_proposals_of_one_prompt_compete_with_each_other():
    """Two prompts, row by row: each has the law of its own, though one is judged far more real."""
    generator, judge, count = tiny(), Judge(), 10_000
    prompts = torch.tensor([[BOS, 1], [BOS, 2]])
    rows = prompts.repeat(count, 1)
    resampled = resample(generator, judge, rows, 3, 3, EXPONENT, rng=seeded()).samples
    accepted = reject(generator, judge, rows, 3, EXPONENT, bound=4.0, rng=seeded()).samples
    assert torch.equal(resampled.prompt, rows) and torch.equal(accepted.prompt, rows)
    for row in range(2):
        samples = every_sequence(prompts[row : row + 1])
        g = sequence_logprobs(generator, samples).exp().double()
        w = (EXPONENT * realness(judge, samples).double()).exp()
        assert_law(resampled.select(slice(row, None, 2)), law_of_one_kept(g, w, 3))
        assert_law(accepted.select(slice(row, None, 2)), g * w)


def test_the_temperature_is_that_of_the_proposals():
    generator, judge, count = tiny(), Judge(), 20_000
    given = {"temperature": 0.5, "top_k": 2, "rng": seeded()}
    samples = every_sequence()
    logits = generator(input_ids=F.pad(samples.ids[:, :-1], (1, 0), value=BOS)).logits.double()
    logits = logits.masked_fill(logits == logits.amin(dim=2, keepdim=True), -torch.inf) / 0.5
    g = logits.softmax(dim=2).gather(2, samples.ids[..., None]).squeeze(2).prod(dim=1)
    assert int((g > 0).sum()) == 2**3
    found = resample(generator, judge, start_prompt(generator, count), 3, 2, EXPONENT, **given)
    assert_law(found.samples, law_of_one_kept(g, weights(judge), 2))
    bound = float(realness(judge, samples).max())
    found = reject(generator, judge, start_prompt(generator, count), 3, EXPONENT, bound, **given)
    assert_law(found.samples, g * weights(judge))


# --- What changes nothing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cnn", "rnn", "bert", "relgan"])
def test_one_proposal_is_a_sample_bit_for_bit(kind):
    generator, judge = build_generator("lstm").eval(), build_discriminator(kind)
    prompt = torch.tensor([[PAD, BOS, 5], [BOS, 6, 7]]).repeat(5, 1)
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]]).bool().repeat(5, 1)
    plain = sample(generator, prompt, 6, 0.9, 5, 0.95, seeded(), mask)
    found = resample(generator, judge, prompt, 6, 1, 2.0, 0.9, 5, 0.95, seeded(), mask)
    accepted = reject(generator, judge, prompt, 6, 0.0, 0.0, 100, 0.9, 5, 0.95, seeded(), mask)
    for one in (found.samples, accepted.samples):
        for ours, theirs in zip(one, plain, strict=True):
            assert ours is theirs is None or torch.equal(ours, theirs)
    assert accepted.rate == 1.0


def test_a_constant_added_to_the_log_odds_changes_nothing():
    generator, rows = tiny(), start_prompt(tiny(), 500)
    plain, moved = (resample(generator, Judge(c), rows, 3, 8, EXPONENT, rng=seeded()) for c in (0.0, 3.0))
    assert torch.equal(plain.samples.ids, moved.samples.ids)
    torch.testing.assert_close(moved.log_weights - EXPONENT * 3.0, plain.log_weights, rtol=0, atol=1e-5)
    one, other = (reject(generator, Judge(c), rows, 3, EXPONENT, rng=seeded()) for c in (0.0, 3.0))
    assert torch.equal(one.samples.ids, other.samples.ids) and other.bound == pytest.approx(one.bound + 3.0)


@pytest.mark.parametrize("kind", ["lstm", "gpt2", "memory"])
def test_memory_budgets_change_nothing(kind):
    generator, judge = build_generator(kind).eval(), build_discriminator("cnn")
    prompt = torch.tensor([[PAD, BOS, 5], [BOS, 6, 7]]).repeat(4, 1)
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]]).bool().repeat(4, 1)
    given = {"prompt_mask": mask, "exponent": 3.0}
    drawn = [resample(generator, judge, prompt, 6, 8, rng=seeded(), max_rows=m, **given) for m in (None, 3, 64)]
    kept = [reject(generator, judge, prompt, 6, bound=0.5, rng=seeded(), max_rows=m, **given) for m in (None, 3, 64)]
    for results in (drawn, kept):
        assert all(torch.equal(results[0].samples.sequences, other.samples.sequences) for other in results[1:])
        assert all(torch.equal(results[0].samples.mask, other.samples.mask) for other in results[1:])
    assert not torch.equal(drawn[0].samples.ids, sample(generator, prompt, 6, rng=seeded(), prompt_mask=mask).ids)


def test_the_same_seed_draws_the_same():
    generator, judge, rows = tiny(), Judge(), start_prompt(tiny(), 50)
    for draw in (resample, reject):
        first, again, other = (draw(generator, judge, rows, 3, rng=seeded(seed)).samples.ids for seed in (1, 1, 2))
        assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_bound_is_a_percentile_of_proposals_that_continue_the_prompts_in_turn():
    generator, judge = tiny(), Judge()
    prompts = torch.tensor([[BOS, 0], [BOS, 1], [BOS, 2]])
    found = reject(generator, judge, prompts, 3, percentile=35.0, rng=seeded())
    turn = torch.arange(resampling.PILOT) % 3
    log_odds = realness(judge, sample(generator, prompts[turn], 3, rng=seeded()))
    assert found.bound == pytest.approx(float(log_odds.quantile(0.35)), abs=1e-6)
    assert reject(generator, judge, prompts, 3, percentile=0.5, rng=seeded()).bound < found.bound


def test_unless_told_otherwise_16_proposals_are_weighed_by_their_odds():
    generator, judge = tiny(), Judge()
    plain, told = (
        resample(generator, judge, start_prompt(generator, 9), 3, *t, rng=seeded()) for t in ((), (16, 1.0))
    )
    assert plain.log_weights.shape == (9, 16) and torch.equal(plain.log_weights, told.log_weights)
    assert torch.equal(plain.samples.ids, told.samples.ids)


def test_no_more_than_the_given_rows_are_judged_at_once():
    generator, judge = build_generator("lstm").eval(), build_discriminator("cnn").eval()
    asked = limit_memory(judge, 1_000)
    resample(generator, judge, start_prompt(generator, 5), 3, 8, rng=seeded(), max_rows=7)
    assert max(asked) == 7 and sum(asked) == 5 * 8 + 1  # one for the check before


def test_what_is_never_accepted_ends_after_as_many_proposals_as_allowed():
    generator, judge = build_generator("lstm").eval(), build_discriminator("cnn").eval()
    asked = limit_memory(judge, 1_000)
    message = "5 of 5 samples had 20 proposals rejected .bound 60.: expected one accepted for each. Lower `exponent`"
    with pytest.raises(UserError, match=message):
        reject(generator, judge, start_prompt(generator, 5), 3, bound=60.0, max_proposals=20, rng=seeded())
    assert sum(asked) == 5 * 20 + 1


def test_models_are_left_as_they_were():
    generator, judge = build_generator("lstm"), build_discriminator("cnn")
    resample(generator, judge, start_prompt(generator, 2), 3, rng=seeded())
    assert generator.training and judge.training


# --- Mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g, d, p: resample(g, d, p, 3, proposals=0), "proposals=0: expected at least 1"),
        (lambda g, d, p: resample(g, d, p, 3, exponent=-1.0), "exponent=-1: expected a number of at least 0"),
        (lambda g, d, p: reject(g, d, p, 3, exponent=math.nan), "exponent=nan: expected a number of at least 0"),
        (lambda g, d, p: reject(g, d, p, 3, percentile=0), "percentile=0: expected a number above 0"),
        (lambda g, d, p: resample(g, d, p, 3, temperature=-1), "temperature=-1: expected a positive"),
        (lambda g, d, p: reject(g, d, p, 3, percentile=100.5), "percentile=100.5: expected a number above 0"),
        (
            lambda g, d, p: resample(g, build_discriminator("per_token"), p, 3),
            "^RNNDiscriminatorForSequenceClassification judges every token: expected a discr",
        ),
        (lambda g, d, p: reject(g, build_discriminator("per_token"), p, 3), "judges every token: expected a discr"),
        (lambda g, d, p: resample(g, Judge(math.nan), p, 3), "^Judge gives log-odds that are not finite"),
        (lambda g, d, p: resample(g, Unsteady(), p, 3), "^Unsteady gives log-odds that are not finite"),
        (
            lambda g, d, p: resample(g, build_discriminator("cnn", vocab_size=7), p, 3),
            "the discriminator knows 7 token ids, the generator 13: expected one vocabulary",
        ),
    ],
)
def test_mistakes_are_named(call, message):
    generator = build_generator("lstm")
    with pytest.raises(UserError, match=message):
        call(generator, build_discriminator("cnn"), start_prompt(generator, 5))


# --- log Z and effective sample size ---------------------------------------------------------------------------------


def test_log_z_lies_between_both_estimates_in_the_mean():
    """Means over 20,000 sets of 8 proposals: the first is too low, the second too high, by about as much."""
    generator, judge = tiny(), Judge()
    _, log_z = exact(generator, judge)
    found = resample(generator, judge, start_prompt(generator, 20_000), 3, 8, EXPONENT, rng=seeded())
    low, high = log_normalizer(found.log_weights)
    assert low.shape == high.shape == (20_000,)
    error = float(low.std() / 20_000**0.5)
    assert float(low.mean()) + 5 * error < log_z < float(high.mean()) - 5 * error
    assert float((low + high).mean() / 2) == pytest.approx(log_z, abs=0.005)
    together = log_normalizer(found.log_weights.flatten())
    assert together[0] == pytest.approx(log_z, abs=0.01) and 0 < together[1] - together[0] < 1e-5


def test_the_jackknife_leaves_out_one_proposal_at_a_time():
    """Against a plain double loop, also where one proposal has nearly all of the weight."""
    for weights in ([0.1, -2.0, 0.7, 0.3], [50.0, 0.0, 1.0, -3.0], [0.0, 0.0]):
        values = torch.tensor(weights, dtype=torch.float64)
        n = len(values)
        t = [
            torch.cat([values[:i], values[i + 1 :]]).logsumexp(0) - math.log(n - 1) for i in range(n)
        ]  # without sample i
        low = values.logsumexp(0) - math.log(n)
        expected = (2 * n - 1) * low - 2 * (n - 1) * torch.stack(t).mean()
        assert log_normalizer(values)[0] == pytest.approx(float(low))
        assert log_normalizer(values)[1] == pytest.approx(float(expected))
    with pytest.raises(UserError, match="log Z from 1 proposal: expected at least 2"):
        log_normalizer(torch.zeros(3, 1))


def test_the_effective_sample_size_lies_between_1_and_k():
    weights = torch.tensor([[0.0, 0.0, 0.0, 0.0], [90.0, 0.0, 0.0, 0.0], [0.0, 0.0, -90.0, -90.0]]).double()
    expected = torch.tensor([4.0, 1.0, 2.0]).double()
    torch.testing.assert_close(effective_sample_size(weights), expected)
    torch.testing.assert_close(effective_sample_size(weights + 700.0), expected)
