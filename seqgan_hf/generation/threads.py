"""Rows shared out among threads that never wait for each other, each with rows of its own.

Torch splits every operation among its threads and lets them wait for the slowest at the end of each. With a busy
neighbour on the machine one of them often does not run, and thousands of such waits take ten times as long as the
work. Here a thread does whole pieces of work, in operations that are not split, and takes another piece when it is
done: whoever is held up takes fewer of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn


Piece = TypeVar("Piece")
Result = TypeVar("Result")

# Pieces that a thread gets of a large piece of work: many enough that the last ones end at about the same time.
PIECES_PER_THREAD = 6


def threads_for(model: nn.Module) -> int:
    """Threads that may run a model side by side: all that torch has, where it lies on the CPU as a whole; else 1.

    Weights that are elsewhere (on the disk, say) come and go while a model runs; and tokenizers of classifiers that
    read text are not made for several threads.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    return torch.get_num_threads() if on_cpu and not hasattr(model, "text_reader") else 1


def side_by_side(function: Callable[[Piece], Result], pieces: Sequence[Piece], threads: int) -> list[Result]:
    """`[function(piece) for piece in pieces]`, with up to `threads` threads that each take the next piece.

    Which thread takes which piece changes no result. Threads see the autograd and autocast settings of the caller.

    Raises:
        BaseException: what the first piece that failed raised; no further piece is begun once one has.
    """
    if min(threads, len(pieces)) == 1:
        return [function(piece) for piece in pieces]
    results: dict[int, Result] = {}
    errors: dict[int, BaseException] = {}
    todo, inherited = iter(range(len(pieces))), _settings()
    stopped = threading.Event()

    def work() -> None:
        torch.set_num_threads(1)  # of this thread
        with inherited():
            while not stopped.is_set() and (index := next(todo, None)) is not None:
                try:
                    results[index] = function(pieces[index])
                except BaseException as error:  # handed over to the caller
                    errors[index] = error
                    stopped.set()

    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, len(pieces)))]
    split = torch.get_num_threads()
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:  # an interrupt, too, leaves no thread at work on models that the caller goes on with
        stopped.set()
        for worker in workers:
            if worker.ident is not None:
                worker.join()
        torch.set_num_threads(split)  # threads yet to come begin with what was set last, by any of them
    try:
        if errors:
            raise errors[min(errors)]
    finally:
        errors.clear()  # they hold the tensors of what failed, and this frame holds them
    return [results[index] for index in range(len(pieces))]


def _settings() -> Callable:
    """What makes the settings of this thread those of another."""
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
    cached = torch.is_autocast_cache_enabled()

    @contextmanager
    def inherited() -> Iterator[None]:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            with torch.autocast("cpu", dtype, enabled=enabled, cache_enabled=cached):
                yield

    return inherited
