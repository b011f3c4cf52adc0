"""The record that flows through the house: its optional fields ride along with the rows."""

from __future__ import annotations

import pytest
import torch

from seqgan_hf.samples import Samples


def batch(rows: int, width: int, credited: bool = True) -> Samples:
    ids = torch.arange(rows * width).view(rows, width)
    mask = torch.ones(rows, width, dtype=torch.bool)
    fields = {"logprobs": -ids.float() - 1, "advantages": ids.float() / 10} if credited else {}
    return Samples(torch.zeros(rows, 1, dtype=torch.long), ids, mask, **fields)


def test_credit_rides_along_with_its_rows():
    chosen = batch(4, 3).select(torch.tensor([2, 0]))
    assert torch.equal(chosen.logprobs, -chosen.ids.float() - 1) and torch.equal(chosen.advantages, chosen.ids / 10)
    parts = batch(5, 3).split(2)
    assert [part.batch_size for part in parts] == [2, 2, 1]
    again = Samples.concatenate(parts)
    assert torch.equal(again.advantages, batch(5, 3).advantages) and torch.equal(again.logprobs, batch(5, 3).logprobs)
    assert batch(2, 2).to("cpu").logprobs is not None
    assert batch(2, 2).uncredited.logprobs is None and batch(2, 2).uncredited.advantages is None


def test_padding_earns_nothing():
    joined = Samples.concatenate([batch(1, 2), batch(1, 4)])
    assert (
        joined.advantages.shape == (2, 4) and not joined.advantages[0, 2:].any() and not joined.logprobs[0, 2:].any()
    )
    assert torch.equal(joined.mask[0], torch.tensor([True, True, False, False]))


def test_credit_in_some_parts_only_is_refused():
    with pytest.raises(ValueError, match="`logprobs` in some of the samples only"):
        Samples.concatenate([batch(1, 2), batch(1, 2, credited=False)])
    assert Samples.concatenate([batch(1, 2, credited=False)] * 2).advantages is None


def test_soft_samples_are_not_joined():
    soft = batch(1, 2)._replace(soft=torch.zeros(1, 2, 5))
    with pytest.raises(ValueError, match="soft relaxation: expected token ids only. Drop `soft`"):
        Samples.concatenate([soft, soft])


def test_prompts_are_padded_before_and_continuations_behind():
    short = Samples(torch.tensor([[1]]), torch.tensor([[5, 6]]), torch.tensor([[True, False]]))
    long = Samples(torch.tensor([[2, 1, 4]]), torch.tensor([[7, 8, 9]]), torch.ones(1, 3, dtype=torch.bool))
    long = long._replace(prompt_mask=torch.tensor([[False, True, True]]))
    joined = Samples.concatenate([short, long], pad_token_id=3)
    assert joined.sequences.tolist() == [[3, 3, 1, 5, 6, 3], [2, 1, 4, 7, 8, 9]]
    assert joined.attention_mask.long().tolist() == [[0, 0, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]]
    assert joined.batch_size == 2 and joined.lengths.tolist() == [1, 3]
    assert Samples.concatenate([short, long]).sequences.tolist()[0] == [0, 0, 1, 5, 6, 0]


def test_a_mask_of_prompts_is_there_where_some_are_padded_only():
    plain, padded = batch(2, 2), batch(2, 2)._replace(prompt_mask=torch.tensor([[True], [False]]))
    assert Samples.concatenate([plain, plain]).prompt_mask is None
    assert Samples.concatenate([plain, padded]).prompt_mask.tolist() == [[True], [True], [True], [False]]
    wider = plain._replace(prompt=torch.zeros(2, 3, dtype=torch.long))
    assert Samples.concatenate([plain, wider]).prompt_mask.long().tolist() == [[0, 0, 1]] * 2 + [[1, 1, 1]] * 2


def test_every_field_that_is_there_moves_and_is_selected():
    whole = batch(3, 2)._replace(prompt_mask=torch.ones(3, 1, dtype=torch.bool), soft=torch.randn(3, 2, 5))
    whole = whole._replace(origin=torch.tensor([[0, 1], [1, 1], [1, 2]]))
    assert {field.device.type for field in whole.to("meta")} == {"meta"}
    assert Samples.concatenate([whole]) is whole
    for rows in (slice(1, 3), torch.tensor([False, True, True]), torch.tensor([1, 2])):
        chosen = whole.select(rows)
        assert all(torch.equal(field, original[1:]) for field, original in zip(chosen, whole, strict=True))
    assert batch(3, 2).select(slice(0, 1)).soft is None


def test_origins_are_joined_where_all_have_one():
    """They are a hint only, which nobody misses."""
    part = batch(2, 3)._replace(origin=torch.tensor([[0, 1], [1, 1]]))
    assert Samples.concatenate([part, part]).origin.tolist() == [[0, 1], [1, 1]] * 2
    assert Samples.concatenate([part, batch(2, 3)]).origin is None
