"""What a run, or a queue of runs, does when it is told to end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def handling_signals(handle: Callable[[int, Any], None]) -> Iterator[None]:
    """Have SIGINT (Ctrl-C) and SIGTERM call `handle`, and put back what they did before; only in the main thread."""
    try:
        previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals are somebody else's
        previous = {}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
