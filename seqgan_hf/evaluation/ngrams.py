"""Counts of n-grams over whole corpora at once: what BLEU, Self-BLEU and their kin are made of.

Every n-gram gets an integer of its own from the pair (its first n-1 tokens, its last token), and all counting is then
sorting and adding arrays of integers. Counts are exact: nothing is hashed or sampled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from ..errors import UserError


Text = Sequence[Hashable]  # one tokenized text: words, characters or token ids
ORDERS = (2, 3, 4, 5)  # the n of BLEU-n and its kin


class EncodedTexts(NamedTuple):
    """Tokenized texts as one array of token ids."""

    tokens: np.ndarray  # ids of all texts, one text after another, shape (sum of lengths,)
    lengths: np.ndarray  # number of tokens of each text, shape (N,)
    vocab_size: int  # number of different tokens; ids are 0 .. vocab_size - 1


def check_texts(name: str, texts: Sequence[Text], minimum: int = 1) -> None:
    """Refuse too few texts, and strings, which would be read letter by letter."""
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
    tokens, lengths, vocab_size = encoded
    ends = np.cumsum(lengths)
    borders = np.column_stack([ends - lengths, ends]).ravel()
    added = np.tile([vocab_size, vocab_size + 1], len(lengths))
    return EncodedTexts(np.insert(tokens, borders, added), lengths + 2, vocab_size + 2)


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


def count_ngrams(encoded: EncodedTexts, max_n: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
    """Count the n-grams of every text for n = 1 .. max_n.

    Yields:
        For each n the pairs of a text and an n-gram in it, ordered by text, then by n-gram: index of the text, number
        of the n-gram and how often it stands there, each of shape (E,); and how many different n-grams there are.
    """
    text_of_token = np.repeat(np.arange(len(encoded.lengths)), encoded.lengths)
    for starts, ngrams, num_ngrams in number_ngrams(encoded, max_n):
        pairs, count = np.unique(text_of_token[starts] * max(num_ngrams, 1) + ngrams, return_counts=True)
        text, ngram = np.divmod(pairs, max(num_ngrams, 1))
        yield text, ngram, count, num_ngrams
