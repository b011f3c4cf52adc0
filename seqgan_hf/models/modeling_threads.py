"""Threads that share work on a CPU, each a piece at a time.

The file is copied beside the weights of models that use it, for `trust_remote_code=True`.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any, TypeVar

import torch


Piece = TypeVar("Piece")
Result = TypeVar("Result")

# The fewest floating-point operations that are worth threads: a tenth of a millisecond or two.
LEAST_OPERATIONS = 2**24


def threads_worth(operations: float, device: torch.device) -> int:
    """How many threads share so much work: those that torch has on a CPU, where it is worth their while."""
    worth = device.type == "cpu" and operations >= LEAST_OPERATIONS and not torch.compiler.is_compiling()
    return torch.get_num_threads() if worth else 1


def side_by_side(function: Callable[[Piece], Result], pieces: Sequence[Piece], threads: int) -> list[Result]:
    """`[function(piece) for piece in pieces]`, with up to `threads` threads that each take the next piece.

    Torch splits every operation among its threads and lets them wait for the slowest at the end of each. With a busy
    neighbour on the machine one of them often does not run, and thousands of such waits take ten times as long as the
    work. Here a thread does whole pieces, in operations that are not split, and takes another piece when it is done:
    whoever is held up takes fewer of them. Which thread takes which piece changes no result. Threads see the autograd
    and autocast settings of the caller.

    Raises:
        BaseException: what the first piece that failed raised; no further piece is begun once one has.
    """
    if min(threads, len(pieces)) == 1:
        return [function(piece) for piece in pieces]
    results: dict[int, Result] = {}
    errors: dict[int, BaseException] = {}
    todo, stopped = iter(range(len(pieces))), threading.Event()
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
    autocast: dict[str, Any] = {"dtype": dtype, "enabled": enabled, "cache_enabled": torch.is_autocast_cache_enabled()}

    at_work: set[int] = set()

    def work(worker: int) -> None:
        at_work.add(worker)
        with torch.inference_mode(inference), torch.set_grad_enabled(grad), torch.autocast("cpu", **autocast):
            while not stopped.is_set() and (index := next(todo, None)) is not None:
                try:
                    results[index] = function(pieces[index])
                except BaseException as error:  # handed over to the caller
                    errors[index] = error
                    stopped.set()
        at_work.discard(worker)

    try:
        workers = [_pool(threads).submit(work, worker) for worker in range(min(threads, len(pieces)))]
        while wait(workers, timeout=0.2).not_done:  # an interrupt just before a wait begins shows at its end
            pass
    finally:  # an interrupt, too, leaves no thread at work on models that the caller goes on with
        stopped.set()
        while at_work:  # whom an interrupt kept from becoming one of `workers` included
            time.sleep(0.001)
    try:
        if errors:
            raise errors[min(errors)]
    finally:
        errors.clear()  # they hold the tensors of what failed, and this frame holds them
    return [results[index] for index in range(len(pieces))]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that stay: to a new one libraries of products give memory, and torch forgets what it has prepared."""
    split, ready = torch.get_num_threads(), threading.Barrier(threads)
    pool = ThreadPoolExecutor(threads, "seqgan_hf", initializer=_split_nothing)
    wait([pool.submit(ready.wait) for _ in range(threads)])  # all have begun
    torch.set_num_threads(split)  # threads yet to come begin with what was set last, by any of them
    return pool


def _split_nothing() -> None:
    torch.get_num_threads()  # when first asked for, the number is set to that of the process
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
