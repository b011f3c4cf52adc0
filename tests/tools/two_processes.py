"""Start a function in two processes that talk to each other over gloo, as a launcher would, but in two seconds."""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch


def on_two(function: Callable[..., Any], *arguments: Any, timeout: float = 100) -> list[Any]:
    """Call `function(rank, *arguments)` in two forked processes; returns what both gave.

    Raises:
        AssertionError: one of them failed, with its traceback, or did not end in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pids = [_fork(rank, place, function, arguments) for rank in range(2)]
        _wait(pids, timeout)
        errors = [path.read_text() for path in sorted(place.glob("error-*"))]
        assert not errors, "\n".join(errors)
        return [torch.load(place / f"result-{rank}.pt", weights_only=False) for rank in range(2)]


@contextmanager
def forked(function: Callable[..., Any], *arguments: Any, processes: int = 2) -> Iterator[list[int]]:
    """The same in one or two processes that may be killed meanwhile: their numbers; waits for their end."""
    with tempfile.TemporaryDirectory() as folder:
        pids = [_fork(rank, Path(folder), function, arguments, alone=processes == 1) for rank in range(processes)]
        yield pids
        _wait(pids, timeout=100)


def wait_until(condition: Callable[[], bool], timeout: float = 100) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _fork(rank: int, place: Path, function: Callable[..., Any], arguments: tuple, alone: bool = False) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        if not alone:
            _connect(rank, place)
        torch.save(function(rank, *arguments), place / f"result-{rank}.pt")
        status = 0
    except BaseException:
        (place / f"error-{rank}").write_text(f"process {rank}: {traceback.format_exc()}")
    finally:
        os._exit(status)


def _connect(rank: int, place: Path) -> None:
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )


def _wait(pids: list[int], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    left = set(pids)
    while left:
        left -= {pid for pid in left if os.waitpid(pid, os.WNOHANG)[0]}
        if left and time.monotonic() > deadline:
            for pid in left:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
            raise AssertionError(f"no end after {timeout} s: expected one. Do the processes wait for each other?")
        time.sleep(0.01)
