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
