"""Where the messages of this package go."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm
from transformers.utils import logging as transformers_logging


class _ConsoleHandler(logging.Handler):
    """Messages on standard error, above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(f"seqgan-hf: {self.format(record)}", file=sys.stderr)
        except Exception:
            self.handleError(record)


def watched() -> bool:
    """Whether somebody looks at standard error while the program runs: in a terminal, or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


@contextmanager
def without_bars_of_files() -> Iterator[None]:
    """Leave out the bars of transformers for small files, which would tear up the lines and bars of a run."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, `1:02:05`."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def roughly(seconds: float) -> str:
    """Seconds, minutes or hours in words: `40 s`, `12 min`, `2 h 5 min`."""
    minutes = round(seconds / 60)
    if minutes >= 90:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"


def show_log() -> None:
    """Show the messages of this package on standard error, unless the program has set up logging by itself."""
    logger = logging.getLogger("seqgan_hf")
    if not logger.hasHandlers():
        logger.addHandler(_ConsoleHandler())
        logger.setLevel(logging.INFO)
