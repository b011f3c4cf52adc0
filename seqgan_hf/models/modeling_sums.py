"""Convolutions, each followed by its maximum over time, as sums of what tokens add to filters.

Over embeddings of a known vocabulary a convolution is a sum: each token of a window adds a row of numbers that depends
on the token and its place alone. Where many tokens are read without gradient, these rows are multiplied once for the
vocabulary, and then only added up.

The file is copied beside the weights of a model that imports it, with the modules that it imports.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .modeling_products import compute_dtype, multiply
from .modeling_threads import side_by_side, threads_worth


# Devices on which adding up entries of a table is faster than multiplying embeddings.
LOOK_UP = {"cpu"}
# As many tokens for each of the vocabulary are worth a table, of so many numbers at most (512 MiB in float32).
LEAST_READ, MOST_ENTRIES = 5, 2**27
# Sums in a block, fewer than of activations: their memory is read again at once, while entries come from everywhere.
BLOCK_OF_SUMS = 2**19
# The model that looks up at present, and its tables.
_TABLES: ContextVar[tuple[nn.Module, tuple[Tensor, ...]] | None] = ContextVar("_TABLES", default=None)


def looks_up(tokens: int, vectors: Tensor, sizes: Sequence[int], numbers: Sequence[int]) -> bool:
    """Whether to read so many tokens by a table of what each of the vectors (V, E) adds to every filter.

    Args:
        sizes, numbers: width of each convolution, and how many filters it has.
    """
    entries = (len(vectors) + 1) * sum(size * number for size, number in zip(sizes, numbers, strict=True))
    pays = tokens >= LEAST_READ * len(vectors) and entries <= MOST_ENTRIES
    return pays and vectors.device.type in LOOK_UP and not torch.is_grad_enabled()


@contextmanager
def using(model: nn.Module, tables: tuple[Tensor, ...]) -> Iterator[None]:
    """The model looks up in these tables, in this thread and those that share its work."""
    before = _TABLES.set((model, tables))
    try:
        yield
    finally:
        _TABLES.reset(before)


def tables_for(model: nn.Module, sizes: Sequence[int], ids: Tensor | None) -> tuple[Tensor, ...] | None:
    """The tables of a model that looks up, if these are to be used: without gradient, and for ids that they know."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or ids is None:
        return None
    owner, tables = _TABLES.get() or (None, ())
    known = owner is model and (ids.numel() == 0 or int(ids.max()) < vocabulary(tables, sizes))
    return tables if known else None


def vocabulary(tables: tuple[Tensor, ...], sizes: Sequence[int]) -> int:
    """V, the number of tokens in the tables, which have a last row for padding besides."""
    return len(tables[0]) // sizes[0] - 1


def entries_of(vectors: Tensor, sizes: Sequence[int], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What each token adds to every filter at each place of the window, of the type in which products would be.

    Args:
        vectors: embeddings of all tokens (V, E).
        sizes: width w of each convolution.
        weights: its filters, (number, w * E) each.

    Returns:
        for each width a table ((V + 1) * w, number), whose last w rows are those of padding, and zero.
    """
    vectors, dtype = F.pad(vectors, (0, 0, 0, 1)), compute_dtype(vectors)

    def table(index: int) -> Tensor:
        number, size = len(weights[index]), sizes[index]
        of_places = weights[index].view(number, size, -1).transpose(0, 1).flatten(0, 1)
        with torch.autocast(vectors.device.type, enabled=False):
            return multiply(vectors, of_places).view(-1, number).to(dtype)

    operations = 2 * len(vectors) * sum(weight.numel() for weight in weights)
    return tuple(side_by_side(table, range(len(sizes)), threads_worth(operations, vectors.device)))


def sums_of_entries(ids: Tensor, lengths: Tensor | None, sizes: Sequence[int], *tables: Tensor) -> Tensor:
    """`MaxOverTime` by additions: the tokens' entries in a table are added up for each window.

    Args:
        ids: token ids (B, T), V after a row's end.
        lengths, sizes: see `MaxOverTime`.
        tables: see `entries_of`.

    Returns:
        the features (B, sum of numbers).
    """
    batch, length = ids.shape
    numbers = [table.shape[1] for table in tables]
    columns = columns_of(numbers)
    features = tables[0].new_empty(batch, columns[-1].stop)

    def add_up(piece: tuple[int, slice]) -> None:
        index, rows = piece
        size, table = min(sizes[index], length), tables[index]
        windows = ids[rows].unfold(1, size, 1) * sizes[index] + torch.arange(size, device=ids.device)
        activations = F.embedding_bag(windows.flatten(0, 1), table, mode="sum").view(
            -1, length - size + 1, table.shape[1]
        )
        leave_out_padding(activations, None if lengths is None else lengths[rows], sizes[index])
        torch.amax(activations, dim=1, out=features[rows, columns[index]])

    held = [(max(length - size, 0) + 1) * number for size, number in zip(sizes, numbers, strict=True)]
    additions = sum(number * min(size, length) for size, number in zip(sizes, held, strict=True))
    side_by_side(add_up, pieces_of_rows(batch, BLOCK_OF_SUMS, held), threads_worth(8 * batch * additions, ids.device))
    return features


# --- What sums and products have in common ---------------------------------------------------------------------------


def columns_of(numbers: Sequence[int]) -> list[slice]:
    """Where the features of each width stand, of which there are so many."""
    return [slice(end - number, end) for number, end in zip(numbers, accumulate(numbers), strict=True)]


def pieces_of_rows(batch: int, block: int, numbers: Sequence[int]) -> list[tuple[int, slice]]:
    """Rows for each width (its index): as many as hold `block` numbers, given how many of them a row of it has."""
    pieces = []
    for index, number in enumerate(numbers):
        rows = max(block // number, 1)
        pieces += [(index, slice(first, first + rows)) for first in range(0, batch, rows)]
    return pieces


def leave_out_padding(activations: Tensor, lengths: Tensor | None, size: int) -> None:
    """Of activations (B, steps, C) those of windows that touch padding are made -inf; the first of a row never is."""
    if lengths is not None and activations.shape[1] > 1:
        beyond = torch.arange(activations.shape[1], device=lengths.device) > (lengths - size).clamp(min=0)[:, None]
        activations.masked_fill_(beyond[..., None], float("-inf"))
