"""Threads that take whole pieces of work: every piece once, the settings of the caller, and the same ends."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import torch
from torch import nn

from seqgan_hf.models import modeling_threads
from seqgan_hf.models.modeling_threads import side_by_side, thread_count, unsplit


@pytest.fixture(autouse=True)
def several_threads(monkeypatch):
    """Three of them, and none is left out: pieces that sleep look as if a neighbour kept the cores."""
    monkeypatch.setattr(modeling_threads, "_gain", modeling_threads._Gain())
    monkeypatch.setattr(modeling_threads._Gain, "least", 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("pieces", [0, 1, 2, 3, 20])
def test_every_piece_is_done_once_and_results_keep_their_order(pieces):
    done = []

    def square(piece: int) -> int:
        time.sleep(0.001 * (piece % 3))
        done.append(piece)
        return piece**2

    assert side_by_side(square, range(pieces), 3) == [piece**2 for piece in range(pieces)]
    assert sorted(done) == list(range(pieces))


def test_a_thread_that_is_held_up_takes_fewer_pieces():
    """Nobody waits for it: the others do the rest meanwhile."""
    rest = threading.Event()
    done = []

    def work(piece: int) -> None:
        if piece == 0:
            assert rest.wait(10)
        done.append(piece)
        if len(done) == 9:
            rest.set()

    side_by_side(work, range(10), 2)
    assert done[-1] == 0


def test_operations_of_a_piece_are_not_split_and_those_of_the_caller_are_as_before():
    assert side_by_side(lambda piece: torch.get_num_threads(), range(6), 3) == [1] * 6
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start(), thread.join()
    assert torch.get_num_threads() == 3 and later == [3]


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_threads_have_the_settings_of_the_caller(grad, dtype):
    def settings(_):
        autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), autocast

    with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype, enabled=dtype is not None):
        assert side_by_side(settings, range(4), 2) == [settings(None)] * 4
    with torch.inference_mode():
        assert side_by_side(settings, range(4), 2) == [settings(None)] * 4


def test_the_first_piece_that_fails_is_the_error_and_no_more_are_begun():
    begun, second = [], threading.Event()

    def fails(piece: int) -> None:
        begun.append(piece)
        if piece == 1:
            second.set()
            raise ValueError("the second")
        assert second.wait(10)
        time.sleep(0.05)
        raise KeyError("the first")

    with pytest.raises(KeyError, match="the first"):
        side_by_side(fails, range(10), 2)
    assert sorted(begun) == [0, 1]
    assert torch.get_num_threads() == 3


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt, even in a shell's background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_leaves_no_thread_at_work(interruptible):
    begun, ended = [], []

    def interrupts(piece: int) -> None:
        begun.append(piece)
        if piece == 0:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.05)
        ended.append(piece)

    with pytest.raises(KeyboardInterrupt):
        side_by_side(interrupts, range(1000), 2)
    assert sorted(begun) == sorted(ended) and len(begun) < 100
    time.sleep(0.1)
    assert len(begun) == len(ended) < 100 and torch.get_num_threads() == 3


def test_threads_are_begun_once_and_again_in_a_child_of_the_process():
    """A forked child has the memory of its parent's threads, and none of the threads."""
    seen = [set(side_by_side(lambda piece: threading.get_ident(), range(50), 3)) for _ in range(5)]
    assert len(set.union(*seen)) <= 3
    if (child := os.fork()) == 0:
        os._exit(0 if side_by_side(lambda piece: piece, range(9), 3) == list(range(9)) else 1)
    deadline = time.monotonic() + 20
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)


# --- Beside a busy neighbour -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("caller", ["split", "unsplit"])
def test_where_threads_get_no_more_of_the_processor_than_one_a_single_one_works_for_a_while(monkeypatch, caller):
    monkeypatch.setattr(modeling_threads._Gain, "least", 1.25)
    monkeypatch.setattr(modeling_threads._Gain, "window", 0.02)
    if caller == "unsplit":
        torch.set_num_threads(1)

    def threads_of(pause: float) -> set[int]:
        time.sleep(pause)
        return set(side_by_side(lambda piece: time.sleep(0.005) or threading.get_ident(), range(12), 3))

    assert len(threads_of(0)) == 3
    (alone,) = threads_of(0)  # they slept, and used nothing of the processor
    assert (alone == threading.get_ident()) == (caller == "unsplit")
    assert len(threads_of(0.5)) == 3  # after a pause others are tried again


@pytest.mark.parametrize("used, expected", [(0.49, 1), (0.51, 3)])
def test_the_gain_is_processor_time_over_the_time_that_passed_in_a_window(monkeypatch, used, expected):
    monkeypatch.setattr(modeling_threads._Gain, "least", 1.25)
    gain = modeling_threads._Gain()
    gain.add(0.1, 0.0)
    assert gain.workers(3) == 3  # too short to tell
    gain.add(0.3, used)
    assert gain.workers(3) == expected
    gain.alone_until = 0.0
    gain.add(0.1, 0.0)
    assert gain.workers(3) == 3  # the next window begins anew


def test_others_are_tried_again_more_and_more_seldom_until_they_bring_something_in(monkeypatch):
    monkeypatch.setattr(modeling_threads._Gain, "least", 1.25)
    now, gain = 100.0, modeling_threads._Gain()
    monkeypatch.setattr(modeling_threads.time, "monotonic", lambda: now)
    for used, pause in ((0.2, 2), (0.2, 4), (0.2, 8), (0.2, 16), (0.2, 16), (0.3, 0), (0.2, 2)):
        gain.add(0.2, used)
        assert gain.alone_until == pytest.approx(now + pause)
        now += pause
        assert gain.workers(3) == 3


class Sharing(nn.Linear):
    shares_out = True


def test_operations_are_not_split_while_models_share_out_what_is_worth_it():
    with unsplit(Sharing(2, 2), Sharing(2, 2)):
        assert torch.get_num_threads() == 1 and thread_count() == 3
        assert (
            side_by_side(lambda piece: thread_count(), range(6), thread_count()) == [1] * 6
        )  # nothing within a piece
        assert thread_count() == 3
    assert torch.get_num_threads() == thread_count() == 3


@pytest.mark.parametrize("other", [nn.Linear(2, 2), Sharing(2, 2, device="meta")])
def test_operations_are_split_beside_a_model_that_shares_nothing_out_or_lies_elsewhere(other):
    with unsplit(Sharing(2, 2), other):
        assert torch.get_num_threads() == thread_count() == 3


def test_operations_are_split_again_after_an_error():
    with pytest.raises(KeyError), unsplit(Sharing(2, 2)):
        raise KeyError
    assert torch.get_num_threads() == thread_count() == 3


def test_an_interrupt_of_a_caller_that_takes_part_leaves_no_thread_at_work(interruptible):
    begun, ended = [], []

    def interrupts(piece: int) -> None:
        begun.append(piece)
        if piece == 5:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.01)
        ended.append(piece)

    with unsplit(Sharing(2, 2)), pytest.raises(KeyboardInterrupt):
        side_by_side(interrupts, range(1000), 3)
    assert len(begun) < 100 and len(begun) - len(ended) <= 1  # the caller's own piece is broken off
    time.sleep(0.05)
    assert len(begun) < 100 and torch.get_num_threads() == 3
