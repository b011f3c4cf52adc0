"""Rollouts: completions of every prefix, one matrix over recurrent and attention models."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from scipy import stats

from seqgan_hf.generation import rollouts
from seqgan_hf.generation.rollouts import complete
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.samples import Samples
from tests.tools.drawn import KINDS, exact_logprobs, rollouts_of, seeded
from tests.tools.tiny import BOS, EOS, PAD, build_generator, limit_memory


def test_every_rollout_keeps_its_own_sentence_and_prefix(generator):
    """Sentences are traced by their tokens: each completion must start with its own sentence's prefix."""
    samples = sample(generator, start_prompt(generator, 6), 7, rng=seeded(0))
    whole, rows, lengths = rollouts_of(generator, samples, rollouts=3, rng=seeded(1))
    wanted = {(row, t): 3 for row in range(6) for t in range(1, int(samples.lengths[row]))}
    found: dict[tuple[int, int], int] = {}
    for ids, mask, row, t in zip(whole.ids, whole.mask, rows.tolist(), lengths.tolist(), strict=True):
        found[row, t] = found.get((row, t), 0) + 1
        assert torch.equal(ids[:t], samples.ids[row, :t]) and mask[:t].all()
    assert found == wanted
    for ids, mask in zip(whole.ids.tolist(), whole.mask.tolist(), strict=True):
        length = ids.index(EOS) + 1 if EOS in ids else len(ids)
        assert mask == [position < length for position in range(len(ids))]
        assert all(token == PAD for token in ids[length:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padded", [False, True])
def test_completions_follow_the_models_distribution(kind, padded):
    """The last two tokens after every prefix, against their exact probabilities: the caches were the right ones."""
    generator = build_generator(kind, eos=None, vocab_size=4).eval()
    prompt, mask = (torch.tensor([[PAD, BOS], [BOS, 3]]), torch.tensor([[False, True], [True, True]]))
    if not padded:
        prompt, mask = prompt[:, 1:] * 0, None
    samples = Samples(prompt, torch.tensor([[3, 1, 2], [0, 2, 2]]), torch.ones(2, 3, dtype=torch.bool), mask)
    count = 3_000
    whole, rows, lengths = rollouts_of(generator, samples, count, rng=seeded(5))
    for row, t in product(range(2), (1, 2)):
        mine = whole.ids[(rows == row) & (lengths == t)]
        endings = torch.tensor(list(product(range(4), repeat=3 - t)))
        ids = torch.cat([samples.ids[row, :t].expand(len(endings), -1), endings], dim=1)
        case = samples.select(torch.full((len(ids),), row))._replace(ids=ids, mask=torch.ones_like(ids).bool())
        expected = exact_logprobs(generator, case)[:, t:].sum(1).exp().detach().double()
        weights = 4 ** torch.arange(2 - t, -1, -1)
        observed = torch.bincount((mine[:, t:] * weights).sum(1), minlength=len(ids))
        expected = expected / expected.sum() * count
        assert stats.chisquare(observed.numpy(), expected.numpy()).pvalue > 1e-3, (row, t)


def test_only_prefixes_of_chosen_lengths_are_completed(generator):
    samples = sample(generator, start_prompt(generator, 6), 7, rng=seeded(0))
    whole, rows, lengths = rollouts_of(generator, samples, 3, rng=seeded(1), prefix_lengths=[5, 2, 9])
    wanted = sorted((row, t) for row in range(6) for t in (2, 5) if t < samples.lengths[row] for _ in range(3))
    assert sorted(zip(rows.tolist(), lengths.tolist(), strict=True)) == wanted
    chosen, *_ = rollouts_of(generator, samples, 3, rng=seeded(1), prefix_lengths=range(1, 7))
    every, *_ = rollouts_of(generator, samples, 3, rng=seeded(1))
    assert torch.equal(chosen.ids, every.ids)


def test_all_completions_may_end_before_the_next_prefixes_join():
    generator = build_generator("lstm").eval()
    with torch.no_grad():
        generator.lm_head.bias[EOS] = 50.0
    ids = torch.full((3, 8), 4)
    samples = Samples(start_prompt(generator, 3), ids, torch.ones_like(ids, dtype=torch.bool))
    whole, _, lengths = rollouts_of(generator, samples, 2, prefix_lengths=[1, 6])
    assert lengths.tolist() == [1] * 6 + [6] * 6
    assert torch.equal(whole.mask.sum(dim=1), lengths + 1), "EOS at once"


@pytest.mark.parametrize("max_rows", [1, 7, 30])
def test_the_row_budget_changes_no_rollout(generator, max_rows):
    samples = sample(generator, start_prompt(generator, 6), 7, rng=seeded(0))
    expected = rollouts_of(generator, samples, 3, rng=seeded(1))
    limited = rollouts_of(generator, samples, 3, rng=seeded(1), max_rows=max_rows)
    for ours, theirs in zip(limited, expected, strict=True):
        assert all(a is b or torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_row_budget_is_kept(monkeypatch):
    generator = build_generator("lstm", eos=None)
    samples = sample(generator, start_prompt(generator, 4), 6, rng=seeded(0))
    parts = list(complete(generator, samples, 5, max_rows=11))
    assert max(len(part.row) for part in parts) == 8  # two rollouts of four rows: three would be too many


@pytest.mark.skipif("config.getoption('--fast-paths') == 'off'", reason="the reference reads all prefixes anew")
def test_no_row_is_fed_that_nobody_waits_for():
    """Three sequences of four tokens, two completions each, prefix length by prefix length: rows of every step.

    The sampled sequences leave when the last prefix is handed over, and nothing is fed after the last token.
    """
    generator, rows, steps = build_generator("lstm", eos=None), [], []
    samples = sample(generator, start_prompt(generator, 3), 4, rng=seeded(0))
    generator.base_model.register_forward_pre_hook(
        lambda module, arguments, options: rows.append(len(options["input_ids"])), with_kwargs=True
    )
    for _ in complete(generator, samples, 2, max_rows=6):
        steps.append(list(rows))
        rows.clear()
    assert steps == [[3, 6, 6], [3, 6], [3]]


def test_completed_prefixes_are_counted_for_reports_of_speed():
    generator = build_generator("lstm", eos=None)
    samples = sample(generator, start_prompt(generator, 3), 4, rng=seeded(0))
    before = rollouts.rollouts_done()
    list(complete(generator, samples, 2, max_rows=6))
    assert rollouts.rollouts_done() - before == 2 * 3 * 3


def test_out_of_memory_halves_the_budget_and_changes_nothing(caplog):
    generator = build_generator("lstm")
    samples = sample(generator, start_prompt(generator, 6), 7, rng=seeded(0))
    expected = rollouts_of(generator, samples, 4, rng=seeded(1))
    limit_memory(generator, 18)  # the six sequences and two rollouts of each
    limited = rollouts_of(generator, samples, 4, rng=seeded(1))
    assert "rollouts ran out of memory; going on with" in caplog.text
    for ours, theirs in zip(limited, expected, strict=True):
        assert all(a is b or torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    caplog.clear()
    rollouts_of(generator, samples, 4, rng=seeded(1))
    assert not caplog.text, "what fits is remembered"


def test_two_rollouts_that_do_not_fit_together_are_walked_one_by_one():
    generator = build_generator("lstm", eos=None)
    samples = sample(generator, start_prompt(generator, 6), 3, rng=seeded(0))
    expected, *_ = rollouts_of(generator, samples, 1, rng=seeded(1))
    limit_memory(generator, 11)
    assert torch.equal(rollouts_of(generator, samples, 1, rng=seeded(1))[0].ids, expected.ids)


def test_what_does_not_fit_by_itself_is_an_error_and_not_tried_again_and_again():
    generator, calls = build_generator("lstm", eos=None), []
    samples = sample(generator, start_prompt(generator, 6), 3, rng=seeded(0))

    def full(*_) -> None:
        calls.append(1)
        assert len(calls) < 20
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    generator.base_model.register_forward_pre_hook(full)
    with pytest.raises(torch.OutOfMemoryError):
        list(complete(generator, samples, 2))


@pytest.mark.parametrize(
    ("threads", "least", "number"), [(1, 8, 1), (2, 8, 6), (2, 60, 2), (2, 1000, 1)], ids=lambda value: str(value)
)
def test_threads_walk_consecutive_pieces_with_about_as_many_tokens_to_draw(threads, least, number, monkeypatch):
    """Three for each thread, if a piece has `least` rows then."""
    generator, pieces, walk = build_generator("lstm", eos=None), [], rollouts.walk
    samples = sample(generator, start_prompt(generator, 4), 8, rng=seeded(0))
    expected, *_ = rollouts_of(generator, samples, 6, rng=seeded(1), max_rows=1000)

    def recorded(generator, samples, units, *policy):
        pieces.append([(unit.prefix_length, len(unit.rows)) for unit in units])
        return walk(generator, samples, units, *policy)

    monkeypatch.setattr(rollouts, "walk", recorded)
    monkeypatch.setattr(rollouts, "threads_for", lambda generator: threads)
    monkeypatch.setattr(rollouts, "block_rows", lambda vocab_size, device: least)
    monkeypatch.setattr(rollouts, "PIECES_PER_THREAD", 3)
    found, *_ = rollouts_of(generator, samples, 6, rng=seeded(1), max_rows=1000)
    assert torch.equal(found.ids, expected.ids) and len(pieces) == number
    tokens = [sum(rows * (8 - t) for t, rows in piece) for piece in pieces]
    assert all(abs(own - sum(tokens) / number) <= 4 * 7 for own in tokens)  # a rollout of a token has 4 x 7 to draw
    assert [unit for piece in sorted(pieces) for unit in piece] == [(t, 4) for t in range(1, 8) for _ in range(6)]


def test_other_errors_are_not_taken_for_memory():
    generator = build_generator("lstm")
    samples = sample(generator, start_prompt(generator, 6), 4, rng=seeded(0))
    generator.config.vocab_size = 3  # ids beyond it cannot be embedded
    generator.set_input_embeddings(torch.nn.Embedding(2, 6))
    with pytest.raises(IndexError):
        list(complete(generator, samples, 1))


def test_sequences_that_ended_take_no_rollouts():
    generator = build_generator("gpt2")
    ids = torch.tensor([[EOS, PAD, PAD], [4, EOS, PAD]])
    samples = Samples(start_prompt(generator, 2), ids, torch.tensor([[1, 0, 0], [1, 1, 0]]).bool())
    _, rows, lengths = rollouts_of(generator, samples, 2)
    assert rows.tolist() == [1, 1] and lengths.tolist() == [1, 1]
    whole = samples.select(slice(0, 1))
    assert list(complete(generator, whole, 2)) == []


def test_rollouts_of_zero_are_refused():
    generator = build_generator("lstm")
    with pytest.raises(ValueError, match="rollouts=0: expected at least 1"):
        list(complete(generator, sample(generator, start_prompt(generator, 2), 3), 0))


def test_completions_carry_no_credit_of_the_sentences_they_grew_from():
    generator = build_generator("lstm")
    samples = sample(generator, start_prompt(generator, 3), 4, rng=seeded(0))
    credited = samples._replace(logprobs=torch.ones(3, 4), advantages=torch.ones(3, 4))
    assert all(
        part.samples.logprobs is None and part.samples.advantages is None for part in complete(generator, credited, 2)
    )
