"""Work that is cut by what fits into memory: every row once, in order, and an end to every shortage."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seqgan_hf.generation.memory import in_parts


class Device:
    """Runs out of memory above `room` rows, and remembers what it was asked for."""

    def __init__(self, room: int):
        self.room, self.asked = room, []

    def __call__(self, rows: slice) -> list[int]:
        self.asked.append(rows.stop - rows.start)
        if rows.stop - rows.start > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return list(range(rows.start, rows.stop))


@settings(max_examples=30, deadline=None)  # every shortage collects garbage
@given(batch_size=st.integers(0, 40), max_rows=st.integers(1, 50), room=st.integers(1, 50))
def test_every_row_is_worked_on_once_in_order_and_never_too_many_at_once(batch_size, max_rows, room):
    device = Device(room)
    parts = in_parts(nn.Identity(), "a task", batch_size, max_rows, device)
    assert [row for part in parts for row in part] == list(range(batch_size))
    assert all(0 < rows <= max_rows for rows in device.asked)


def test_what_fits_is_remembered_for_each_model_and_task():
    model, other = nn.Identity(), nn.Identity()
    in_parts(model, "sampling", 8, 8, Device(room=3))
    for known, task, max_rows, first in (
        (model, "sampling", 8, 2),
        (model, "sampling", 1, 1),  # a lower limit still holds
        (model, "scoring", 8, 8),
        (other, "sampling", 8, 8),
    ):
        device = Device(room=8)
        in_parts(known, task, 8, max_rows, device)
        assert device.asked[0] == first, (task, max_rows)


def test_rows_are_halved_when_memory_runs_out_later_on():
    """As when another process takes its share in the middle of a batch."""
    device = Device(room=4)

    def shrinking(rows: slice) -> list[int]:
        device.room = 4 if rows.start < 8 else 2
        return device(rows)

    parts = in_parts(nn.Identity(), "a task", 13, 4, shrinking)
    assert device.asked == [4, 4, 4, 2, 2, 1] and [row for part in parts for row in part] == list(range(13))


@pytest.mark.parametrize("position", [0, 1, 4])
def test_a_row_that_does_not_fit_alone_is_an_error_wherever_it_stands(position):
    def fails_there(rows: slice) -> None:
        if rows.start <= position < rows.stop:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    with pytest.raises(torch.OutOfMemoryError):
        in_parts(nn.Identity(), "a task", 5, 2, fails_there)


def test_memory_of_a_failed_attempt_is_free_before_the_next():
    """Even where it is held by a circle of references, as frames of an error and autograd graphs do."""
    failed = []

    def fails_first(rows: slice) -> None:
        if failed:
            assert failed[0]() is None, "the failed attempt is still in memory"
            return
        circle = nn.Identity()
        circle.itself = [circle]
        failed.append(weakref.ref(circle))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    gc.disable()
    try:
        in_parts(nn.Identity(), "a task", 2, 2, fails_first)
    finally:
        gc.enable()


@pytest.mark.parametrize("max_rows", [0, -1])
def test_no_rows_at_once_are_refused(max_rows):
    with pytest.raises(ValueError, match=f"max_rows={max_rows}: expected at least 1 row"):
        in_parts(nn.Identity(), "a task", 2, max_rows, Device(room=2))
