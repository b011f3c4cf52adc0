"""Copy rate: how much of the samples stands in the training set word for word."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np

from ..ngrams import Text, check_texts, encode
from ..record import Estimate


def longest_shared(samples: Sequence[Text], train: Sequence[Text]) -> np.ndarray:
    """Tokens of the longest n-gram that each sample shares with any training text, shape (N,).

    An n-gram can only be shared if its first n-1 tokens are, so each round looks at the survivors of the round before,
    on both sides, and the work ends where nothing is shared any more.
    """
    check_texts("samples", samples)
    check_texts("training texts", train)
    tokens, lengths, vocab_size = encode([*samples, *train])
    size, boundary = len(samples), lengths[: len(samples)].sum()
    text = np.repeat(np.arange(len(lengths)), lengths)
    room = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(tokens))
    starts, ngrams = np.arange(len(tokens)), np.zeros(len(tokens), np.int64)
    longest = np.zeros(size, np.int64)
    for n in count(1):
        fits = room[starts] >= n
        starts, ngrams = starts[fits], ngrams[fits]
        unique, ngrams = np.unique(ngrams * vocab_size + tokens[starts + n - 1], return_inverse=True)
        ours = starts < boundary
        shared = np.bincount(ngrams[ours], minlength=len(unique)).astype(bool)
        shared &= np.bincount(ngrams[~ours], minlength=len(unique)).astype(bool)
        survives = shared[ngrams]
        starts, ngrams = starts[survives], ngrams[survives]
        if not len(starts):
            break
        longest[text[starts[starts < boundary]]] = n
    return longest


def copy_rate(samples: Sequence[Text], train: Sequence[Text]) -> dict[str, Estimate | float]:
    """Share of samples that are training texts, and how long a run of words they share with one.

    No other metric here punishes a generator that recites its training data: its BLEU, Self-BLEU, Frechet distance and
    language-model scores are those of real text. Real text has a rate of its own (captions repeat), so read it beside
    the value of held-out text.

    Returns:
        `copy_rate`: share of samples equal to a training text; `longest_copy`: mean length, in tokens, of the longest
        n-gram shared with a training text; `longest_copy_share`: the same as a share of the sample's length (empty
        samples left out).

    >>> copy_rate([["a", "b", "c"], ["b", "c", "x", "y"]], [["a", "b", "c"]])["longest_copy_share"]
    0.75
    """
    longest, known = longest_shared(samples, train), set(map(tuple, train))
    copied = sum(tuple(text) in known for text in samples)
    lengths = np.fromiter(map(len, samples), np.int64, len(samples))
    written = lengths > 0
    share = float((longest[written] / lengths[written]).mean()) if written.any() else 0.0
    rates = {"copy_rate": Estimate.of_share(copied, len(samples)), "longest_copy": Estimate.of_mean(longest)}
    return rates | {"longest_copy_share": share}
