"""Means, sums and softmax over several processes: mostly each is played in turn, with the others' part of a sum."""

from __future__ import annotations

import pytest
import torch
from torch import distributed

from seqgan_hf.objectives.statistics import (
    place_of_rows,
    rows_of_processes,
    samples_of_processes,
    shared_mean,
    shared_softmax,
    sum_over_processes,
)
from seqgan_hf.samples import Samples
from tests.tools.two_processes import on_two


@pytest.fixture
def beside(monkeypatch):
    """Two processes, of which the other holds the given tensor."""

    def join(theirs: torch.Tensor) -> None:
        monkeypatch.setattr(distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
        monkeypatch.setattr(distributed, "all_reduce", lambda ours: ours.add_(theirs))

    return join


VALUES, MASK = torch.tensor([[2.0, 4.0, float("nan")], [8.0, -1.0, 5.0]]), torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()


def test_one_process_has_the_plain_sum_and_mean():
    assert sum_over_processes(VALUES) is VALUES
    assert shared_mean(VALUES, MASK) == 14 / 3
    assert shared_mean(VALUES[0], MASK[1]) == 2, "one value"
    assert shared_mean(VALUES, torch.zeros_like(MASK)) == 0, "nothing is counted"


def test_a_sum_is_that_of_all_processes_and_changes_nothing_here(beside):
    beside(torch.tensor([10.0, 20.0]))
    ours = torch.tensor([1.0, 2.0], requires_grad=True)
    total = sum_over_processes(ours)
    assert total.tolist() == [11, 22] and not total.requires_grad and ours.tolist() == [1, 2]


def test_the_mean_of_all_processes_shares_is_the_mean_over_all_their_values(beside):
    """As the trainer averages gradients over processes: one with many tokens counts more."""
    theirs = torch.tensor([[6.0]])
    beside(torch.tensor(1))
    ours = shared_mean(VALUES, MASK)
    beside(torch.tensor(3))
    others = shared_mean(theirs, torch.ones_like(theirs, dtype=torch.bool))
    assert (ours + others) / 2 == (14 + 6) / 4


def test_a_process_without_anything_to_count_is_no_error(beside):
    beside(torch.tensor(0))
    assert shared_mean(VALUES, torch.zeros_like(MASK)) == 0


def test_the_mean_of_all_processes_shares_is_the_softmax_over_all_their_scores():
    """Scores whose exponentials are below the smallest float."""
    scores = torch.tensor([-500.0, -501.0, -502.5, -500.5])
    assert torch.equal(shared_softmax(scores), scores.softmax(dim=0))
    shares = on_two(_softmax_of_share, scores)
    torch.testing.assert_close(torch.cat(shares) / 2, scores.softmax(dim=0))


def test_rows_of_unequal_batches_are_put_together():
    """Three rows here, one there; prompts of one width more there. Gradients go back to whose rows they are."""
    for rank, (values, samples, place, gradient) in enumerate(on_two(_put_together)):
        assert values.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [10.0, 11.0]]
        assert samples.ids.tolist() == [[0, 1], [2, 3], [4, 5], [10, 11]]
        assert samples.prompt.tolist() == [[0, 7]] * 3 + [[6, 7]]
        assert samples.attention_mask[:, 0].tolist() == [False] * 3 + [True] and samples.mask.all()
        assert place == ((0, 4), (3, 4))[rank]
        weights = torch.arange(4.0)[3:] if rank else torch.arange(4.0)[:3]
        torch.testing.assert_close(gradient, 2 * weights[:, None].expand(-1, 2))  # both processes have the same loss


def _put_together(rank):
    values = torch.tensor([[10.0, 11.0]]) if rank else torch.arange(6.0).view(3, 2)
    prompt = torch.tensor([[6, 7]] if rank else [[7]] * 3)
    samples = samples_of_processes(Samples(prompt, values.long(), torch.ones_like(values, dtype=torch.bool)))
    together = rows_of_processes(values.requires_grad_(), differentiable=True)
    (torch.arange(4.0) @ together).sum().backward()
    plain = rows_of_processes(values)
    assert torch.equal(plain, together) and not plain.requires_grad
    return plain, samples, place_of_rows(len(values), values.device), values.grad


def test_one_process_has_its_own_rows():
    samples = Samples(torch.zeros(2, 1).long(), torch.zeros(2, 3).long(), torch.ones(2, 3).bool())
    assert samples_of_processes(samples) is samples and rows_of_processes(VALUES) is VALUES
    assert place_of_rows(2, VALUES.device) == (0, 2)


def _softmax_of_share(rank, scores):
    return shared_softmax(scores.split([3, 1])[rank])
