"""Threads that share work on a CPU, each a piece at a time.

The file is copied beside the weights of models that use it, for `trust_remote_code=True`.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn


Piece = TypeVar("Piece")
Result = TypeVar("Result")

# The fewest floating-point operations that are worth threads: a tenth of a millisecond or two.
LEAST_OPERATIONS = 2**24

# The largest weight of an output layer (numbers) of which threads have a gradient each, two for every one of them.
SHARED_WEIGHT = 2**22

_before = threading.local()  # `threads`, which torch had before `unsplit`


def thread_count() -> int:
    """Threads that share pieces of work: those that torch has, or had before `unsplit`."""
    return getattr(_before, "threads", None) or torch.get_num_threads()


@contextmanager
def unsplit(*models: nn.Module) -> Iterator[None]:
    """Operations of this thread are not split on a CPU; pieces of work are shared out as before.

    For training steps of models that say that they `share_out` what is worth it. What is left are many small
    operations, which gain little from a second thread, and with a busy neighbour wait for it in vain.
    """
    threads = torch.get_num_threads()
    shared = all(getattr(model, "shares_out", False) for model in models)
    if threads == 1 or not shared or any(p.device.type != "cpu" for model in models for p in model.parameters()):
        yield
        return
    _before.threads = threads
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _before.threads = None


def threads_worth(operations: float, device: torch.device) -> int:
    """How many threads share so much work: all there are on a CPU, where it is worth their while."""
    worth = device.type == "cpu" and operations >= LEAST_OPERATIONS and not torch.compiler.is_compiling()
    return thread_count() if worth else 1


class _Gain:
    """Whether several threads bring in more than one: the processor time they get, over the time that passes.

    Beside a busy neighbour two threads often share one core, since the kernel moves none of them in so short a time.
    Then one thread does the work for a while, which changes no result, before others are tried again.

    Attributes:
        window: seconds of shared work after which it is decided.
        least: the gain that several threads are worth.
        pause: for how many times as long one thread goes on without others at first.
        longest: the longest such pause, in seconds. Each time that others were tried in vain doubles it.
    """

    window, least, pause, longest = 0.2, 1.25, 10.0, 16.0

    def __init__(self) -> None:
        self.passed = self.used = self.alone_until = self.rest = 0.0

    def workers(self, most: int) -> int:
        return 1 if time.monotonic() < self.alone_until else most

    def add(self, passed: float, used: float) -> None:
        """Count seconds that passed while several threads worked, and those of the processor that they got."""
        self.passed, self.used = self.passed + passed, self.used + used
        if self.passed >= self.window:
            in_vain = self.used < self.least * self.passed
            self.rest = min(self.longest, max(2 * self.rest, self.pause * self.passed)) if in_vain else 0.0
            self.alone_until = time.monotonic() + self.rest
            self.passed = self.used = 0.0


_gain = _Gain()


def side_by_side(function: Callable[[Piece], Result], pieces: Sequence[Piece], threads: int) -> list[Result]:
    """`[function(piece) for piece in pieces]`, with up to `threads` threads that each take the next piece.

    Torch splits every operation among its threads and lets them wait for the slowest at the end of each. With a busy
    neighbour on the machine one of them often does not run, and thousands of such waits take ten times as long as the
    work. Here a thread does whole pieces, in operations that are not split, and takes another piece when it is done:
    whoever is held up takes fewer of them. Which thread takes which piece, and how many threads there are, changes no
    result. Threads see the autograd and autocast settings and the context variables of the caller, which takes part
    where its own operations are not split.

    Raises:
        BaseException: what the first piece that failed raised; no further piece is begun once one has.
    """
    if min(threads, len(pieces)) == 1:
        return [function(piece) for piece in pieces]
    shared, settings, at_work = _Shared(function, pieces), _settings(), set[int]()

    def work(worker: int) -> None:
        at_work.add(worker)
        with settings():
            shared.take()
        at_work.discard(worker)

    began, number = time.perf_counter(), _gain.workers(min(threads, len(pieces)))
    takes_part = torch.get_num_threads() == 1
    try:
        pool = _pool(threads)
        workers = [pool.submit(copy_context().run, work, worker) for worker in range(number - takes_part)]
        if takes_part:
            _take_part(shared.take)
        while wait(workers, timeout=0.2).not_done:  # an interrupt just before a wait begins shows at its end
            pass
    finally:  # an interrupt, too, leaves no thread at work on models that the caller goes on with
        shared.stopped.set()
        while at_work:  # whom an interrupt kept from becoming one of `workers` included
            time.sleep(0.001)
    if number > 1:
        _gain.add(time.perf_counter() - began, sum(shared.used))
    errors = shared.errors
    try:
        if errors:
            raise errors[min(errors)]
    finally:
        errors.clear()  # they hold the tensors of what failed, and this frame holds them
    return [shared.results[index] for index in range(len(pieces))]


class _Shared:
    """Pieces of work that threads take one after the other, and what became of them.

    Attributes:
        results, errors: of each piece that was done, by its index.
        used: seconds of the processor that each thread took.
    """

    def __init__(self, function: Callable[[Any], Any], pieces: Sequence[Any]):
        self.function, self.pieces, self.todo = function, pieces, iter(range(len(pieces)))
        self.stopped = threading.Event()
        self.results: dict[int, Any] = {}
        self.errors: dict[int, BaseException] = {}
        self.used: list[float] = []

    def take(self) -> None:
        """Do pieces until none is left, or one has failed."""
        began = time.thread_time()
        while not self.stopped.is_set() and (index := next(self.todo, None)) is not None:
            try:
                self.results[index] = self.function(self.pieces[index])
            except BaseException as error:  # handed over to the caller
                self.errors[index] = error
                self.stopped.set()
        self.used.append(time.thread_time() - began)


def _settings() -> Callable[[], AbstractContextManager[None]]:
    """The autograd and autocast settings of this thread, for others."""
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
    autocast: dict[str, Any] = {"dtype": dtype, "enabled": enabled, "cache_enabled": torch.is_autocast_cache_enabled()}

    @contextmanager
    def same() -> Iterator[None]:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad), torch.autocast("cpu", **autocast):
            yield

    return same


def _take_part(take: Callable[[], None]) -> None:
    """The caller takes pieces, whose own work is not shared out again."""
    threads, _before.threads = getattr(_before, "threads", None), None
    try:
        take()
    finally:
        _before.threads = threads


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
