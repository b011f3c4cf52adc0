"""Padding: masks say what is real, and neither the value nor the amount of padding matters."""

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgan_hf.data import Corpus, materialize, stream_samples, to_samples
from seqgan_hf.errors import DataError
from seqgan_hf.samples import Samples
from seqgan_hf.training.batches import StreamedData


BOS, PAD = 1, 0
ids = st.lists(st.integers(2, 90), min_size=1, max_size=7)
rows_with_prompts = st.lists(st.tuples(ids, ids), min_size=1, max_size=6)


def corpus(pad_token_id: int | None = PAD) -> Corpus:
    return Corpus(None, None, 91, 9, BOS, 2, pad_token_id, None)


def real(samples: Samples) -> list[tuple[list[int], list[int]]]:
    """What is left of each row when masks are obeyed."""
    masks = samples.attention_mask[:, : samples.prompt.shape[1]]
    return [
        (prompt[given].tolist(), row[mask].tolist())
        for prompt, given, row, mask in zip(samples.prompt, masks, samples.ids, samples.mask, strict=True)
    ]


def dataset(rows: list[dict]) -> Dataset:
    features = Features({name: List(Value("int32")) for name in rows[0]})
    return Dataset.from_list(rows, features=features)


@settings(max_examples=60, deadline=None)
@given(rows_with_prompts)
def test_padding_and_masks_are_undone_exactly(pairs):
    rows = [{"prompt_ids": prompt, "input_ids": row} for prompt, row in pairs]
    whole = materialize(dataset(rows), BOS, PAD)
    assert real(whole) == real(to_samples(rows, corpus())) == pairs
    assert real(to_samples(dataset(rows)[:], corpus())) == pairs
    prompts = whole.attention_mask[:, : whole.prompt.shape[1]].int()
    assert bool((prompts.diff(dim=1) >= 0).all())  # padding on the left of prompts,
    assert bool((whole.mask.int().diff(dim=1) <= 0).all())  # on the right of ids
    assert whole.ids.shape[1] == max(len(row) for _, row in pairs)
    assert whole.prompt.shape[1] == max(len(prompt) for prompt, _ in pairs)
    assert whole.ids.dtype == whole.prompt.dtype == torch.long and whole.mask.dtype == torch.bool


@settings(max_examples=30, deadline=None)
@given(rows_with_prompts, st.integers(0, 90), st.integers(0, 5))
def test_content_and_amount_of_padding_change_nothing_real(pairs, other_pad, more):
    rows = [{"prompt_ids": prompt, "input_ids": row} for prompt, row in pairs]
    width = max(len(row) for _, row in pairs)
    first, second = to_samples(rows, corpus()), to_samples(rows, corpus(other_pad), max_length=width + more)
    assert real(first) == real(second)
    assert torch.equal(first.lengths, second.lengths)
    assert torch.equal(first.ids * first.mask, (second.ids * second.mask)[:, :width])
    assert not second.mask[:, width:].any()
    # A mean over real tokens, as losses, rewards and metrics are: the same to the last bit.
    values = [(s.ids * s.mask).sum(dim=1) / s.lengths for s in (first, second)]
    assert torch.equal(*values)


def test_rows_without_a_prompt_start_with_the_start_token():
    samples = to_samples([{"input_ids": [5, 2]}, {"input_ids": [7, 8, 2]}], corpus())
    assert samples.prompt.tolist() == [[BOS], [BOS]] and samples.prompt_mask is None
    assert samples.ids.tolist() == [[5, 2, PAD], [7, 8, 2]]
    assert samples.mask.tolist() == [[True, True, False], [True, True, True]]


def test_end_token_that_is_also_the_padding_stays_real():
    samples = to_samples([{"input_ids": [5, 2]}, {"input_ids": [7, 8, 2]}], corpus(pad_token_id=2))
    assert samples.lengths.tolist() == [2, 3]


def test_prompts_of_one_length_need_no_mask():
    rows = [{"prompt_ids": [BOS, 4], "input_ids": [5]}, {"prompt_ids": [BOS, 6], "input_ids": [7]}]
    assert to_samples(rows, corpus()).prompt_mask is None
    assert materialize(dataset(rows), BOS, PAD).prompt.tolist() == [[BOS, 4], [BOS, 6]]


def test_whole_dataset_respects_selection_and_order():
    rows = dataset([{"input_ids": [number] * (1 + number % 3)} for number in range(2, 40)])
    chosen = rows.select([30, 3, 17]).shuffle(seed=1)
    expected = [row["input_ids"] for row in chosen]
    assert [row for _, row in real(materialize(chosen, BOS, PAD))] == expected
    sliced = rows.select(range(5, 9))
    assert [row for _, row in real(materialize(sliced, BOS, PAD))] == [row["input_ids"] for row in sliced]
    both = materialize(rows, BOS, PAD)
    streamed = Samples.concatenate(list(stream_samples(rows.to_iterable_dataset(), corpus(), 7)))
    assert torch.equal(both.ids, streamed.ids) and torch.equal(both.mask, streamed.mask)


def test_many_rows_equal_the_slow_way():
    rng = np.random.default_rng(0)
    rows = dataset([{"input_ids": rng.integers(2, 90, rng.integers(1, 20)).tolist()} for _ in range(3000)])
    whole = materialize(rows, BOS, PAD, max_length=25)
    assert whole.ids.shape == (3000, 25)
    for row, padded, mask in zip(rows["input_ids"], whole.ids.tolist(), whole.mask.tolist(), strict=True):
        assert padded == row + [PAD] * (25 - len(row)) and mask == [True] * len(row) + [False] * (25 - len(row))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: to_samples([{"input_ids": [1, 2, 3]}], corpus(), max_length=2), "a row of 3 tokens .row 0."),
        (lambda: to_samples([{"input_ids": [1]}, {"input_ids": [1, 2]}], corpus(None)), "there is no padding token"),
        (lambda: to_samples([{"input_ids": [1]}], corpus(None), max_length=2), "Give a pad_token_id"),
        (lambda: materialize(dataset([{"input_ids": [1]}]).select([]), BOS, PAD), "without rows"),
        (lambda: materialize(dataset([{"input_ids": [1]}]), BOS, PAD, max_length=2**31), "GiB when padded"),
        (lambda: materialize(dataset([{"input_ids": [1]}, {"input_ids": None}]), BOS, PAD), "1 rows without ids"),
        (lambda: to_samples([], corpus()), "no rows"),
        (lambda: to_samples([{"text": "a"}], corpus()), "expected a column 'input_ids'"),
    ],
)
def test_what_cannot_be_padded_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_fixed_length_needs_no_padding_token():
    assert to_samples([{"input_ids": [1, 2]}, {"input_ids": [3, 4]}], corpus(None)).mask.all()


def test_a_stream_is_known_again_by_its_first_rows():
    def fingerprint(rows, process=0, processes=1):
        stream = Dataset.from_dict({"input_ids": rows}).to_iterable_dataset()
        return StreamedData(stream, 0, 0, 4, torch.device("cpu"), process, processes).fingerprint()

    rows = [[i % 7 + 1, i % 5 + 1, 2] for i in range(40)]
    assert fingerprint(rows) == fingerprint(rows) == fingerprint(rows, 1, 2)
    assert len({fingerprint(rows), fingerprint(rows[::-1]), fingerprint(rows[:-1])}) == 3
