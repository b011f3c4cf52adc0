"""Counts of n-grams over whole corpora at once: what BLEU, Self-BLEU and their kin are made of.

Tokens become integers, every n-gram gets an integer of its own from the pair (its first n-1 tokens, its last token),
and all counting is then sorting and adding arrays of integers. Counts are exact: nothing is hashed or sampled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from ..errors import UserError


Text = Sequence[Hashable]  # one tokenized text: words, characters or token ids


class EncodedTexts(NamedTuple):
    """Tokenized texts as one array of token ids.

    Attributes:
        tokens: ids of all texts, one text after another, shape (sum of lengths,).
        lengths: number of tokens of each text, shape (N,).
        vocab_size: number of different tokens; ids are 0 .. vocab_size - 1.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    vocab_size: int


class NgramCounts(NamedTuple):
    """How often each n-gram stands in each text; only pairs that occur are listed, E of them.

    Attributes:
        text: index of the text, shape (E,).
        ngram: number of the n-gram, 0 .. num_ngrams - 1, shape (E,).
        count: occurrences of that n-gram in that text, shape (E,).
        num_ngrams: number of different n-grams in all texts.
    """

    text: np.ndarray
    ngram: np.ndarray
    count: np.ndarray  # type: ignore[assignment]  # hides tuple.count
    num_ngrams: int


def check_texts(name: str, texts: Sequence[Text], minimum: int = 1) -> None:
    """Refuse what would give a number without meaning: too few texts, or text that is not tokenized.

    Raises:
        UserError: fewer than `minimum` texts, or a text is a string (it would be read letter by letter).
    """
    if len(texts) < minimum:
        raise UserError(f"{len(texts)} {name}", f"at least {minimum}", f"give more {name}")
    if isinstance(texts, str) or isinstance(texts[0], str):
        problem = f"the {name} are not tokenized ({texts[0]!r:.60})"
        raise UserError(problem, "a list of tokens for every text", "pass them through `tokenize(texts)` first")


def encode(texts: Sequence[Text]) -> EncodedTexts:
    """Number the tokens in order of first appearance."""
    vocabulary: defaultdict[Hashable, int] = defaultdict()
    vocabulary.default_factory = vocabulary.__len__
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    tokens = np.fromiter(map(vocabulary.__getitem__, chain.from_iterable(texts)), np.int64, int(lengths.sum()))
    return EncodedTexts(tokens, lengths, len(vocabulary))


def frame(encoded: EncodedTexts) -> EncodedTexts:
    """Put a start token (id `vocab_size`) before and an end token (id `vocab_size + 1`) behind every text."""
    lengths = encoded.lengths + 2
    ends = np.cumsum(lengths) - 1
    tokens = np.empty(lengths.sum(), np.int64)
    inside = np.ones(len(tokens), bool)
    inside[ends] = inside[ends - lengths + 1] = False
    tokens[inside] = encoded.tokens
    tokens[ends], tokens[ends - lengths + 1] = encoded.vocab_size + 1, encoded.vocab_size
    return EncodedTexts(tokens, lengths, encoded.vocab_size + 2)


def number_ngrams(encoded: EncodedTexts, max_n: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Number all n-grams for n = 1 .. max_n.

    Yields:
        For each n the starting position of every n-gram that fits into its text, shape (M,), the number of that
        n-gram, shape (M,), and how many different ones there are.
    """
    tokens, lengths, vocab_size = encoded
    room = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(tokens))  # tokens from here to the end of the text
    starts, ngrams, num_ngrams = np.arange(len(tokens)), tokens, vocab_size
    for n in range(1, max_n + 1):
        if n > 1:
            fits = room[starts] >= n
            starts, ngrams = starts[fits], ngrams[fits]
            unique, ngrams = np.unique(ngrams * vocab_size + tokens[starts + n - 1], return_inverse=True)
            num_ngrams = len(unique)
        yield starts, ngrams, num_ngrams


def count_ngrams(encoded: EncodedTexts, max_n: int) -> list[NgramCounts]:
    """Count the n-grams of every text for n = 1 .. max_n; entries are ordered by text, then by n-gram."""
    text_of_token = np.repeat(np.arange(len(encoded.lengths)), encoded.lengths)
    counts = []
    for starts, ngrams, num_ngrams in number_ngrams(encoded, max_n):
        pairs, count = np.unique(text_of_token[starts] * max(num_ngrams, 1) + ngrams, return_counts=True)
        counts.append(NgramCounts(*np.divmod(pairs, max(num_ngrams, 1)), count, num_ngrams))
    return counts
