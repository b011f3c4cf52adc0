"""Rows shared out: as many as fit into memory, halved when a device runs out of it; on a CPU among threads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import nn

from ..errors import UserError
from ..models.modeling_threads import side_by_side, thread_count


logger = logging.getLogger(__name__)

# For each model and task, the rows that turned out to fit into memory.
_FITTING_ROWS: WeakKeyDictionary[nn.Module, dict[str, int]] = WeakKeyDictionary()

# Pieces that a thread gets of a large piece of work: many enough that the last ones end at about the same time.
PIECES_PER_THREAD = 6


def threads_for(model: nn.Module) -> int:
    """Threads that may run a model side by side: all there are, where it lies on the CPU as a whole; else 1.

    Weights that are elsewhere (on the disk, say) come and go while a model runs; and tokenizers of classifiers that
    read text are not made for several threads.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    return thread_count() if on_cpu and not hasattr(model, "text_reader") else 1


def fitting_rows(model: nn.Module, task: str, max_rows: int) -> int:
    """How many rows to try at once: `max_rows`, or fewer where more have run out of memory before."""
    return min(max_rows, _FITTING_ROWS.get(model, {}).get(task, max_rows))


def fewer_rows(model: nn.Module, task: str, rows: int) -> int:
    """Half of the `rows` that ran out of memory, remembered for the next time, with a warning."""
    clear_device_cache(garbage_collection=True)
    rows = max(1, rows // 2)
    _FITTING_ROWS.setdefault(model, {})[task] = rows
    logger.warning("%s ran out of memory; going on with %d rows at a time", task, rows)
    return rows


def in_parts(
    model: nn.Module, task: str, batch_size: int, max_rows: int, function: Callable[[slice], Any], least: int = 0
) -> list[Any]:
    """Apply a function to consecutive rows of a batch, as many at once as fit into memory.

    Args:
        model: what needs the memory.
        task: what is done, for the warning and the memory of what fits.
        batch_size: rows in all.
        max_rows: at most so many at once; halved when they run out of memory, from then on.
        function: takes the rows; its result must not depend on how they are cut.
        least: share the rows out among threads where the model runs on a CPU, so many at least to each; 0: do not.
    """
    if max_rows < 1:
        raise UserError(f"max_rows={max_rows}", "at least 1 row", "leave it out to have it chosen")
    threads = threads_for(model) if least else 1
    rows, start, parts = fitting_rows(model, task, max_rows), 0, []
    while start < batch_size:
        left = batch_size - start
        size, stop = rows, start + rows
        if threads > 1 and left > least:
            size = max(1, min(rows // threads, max(least, left // (threads * PIECES_PER_THREAD))))
            stop = batch_size
        stop = min(stop, batch_size)
        pieces = [slice(first, min(first + size, stop)) for first in range(start, stop, size)]
        try:
            parts += side_by_side(function, pieces, threads)
        except RuntimeError as error:
            if size == 1 or stop - start == 1 or not should_reduce_batch_size(error):
                raise
        else:
            start = stop
            continue
        # outside the handler, since a caught error keeps the failed attempt's tensors alive
        rows = fewer_rows(model, task, min(rows, stop - start))
    return parts
