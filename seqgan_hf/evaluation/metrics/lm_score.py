"""LM score and reverse LM score: quality and coverage as seen by an n-gram language model.

Semeniuta, Severyn and Gelly (2018), https://arxiv.org/abs/1806.04936; de Masson d'Autume et al. (2019),
https://arxiv.org/abs/1905.09922.

The language model is interpolated modified Kneser-Ney, Chen and Goodman (1999),
https://doi.org/10.1006/csla.1999.0128, with a start token as context and the end of text as an event, as KenLM has it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import UserError
from ..ngrams import Text, check_texts, encode, frame, number_ngrams
from ..record import Estimate


FALLBACK_DISCOUNTS = np.array([0.0, 0.5, 1.0, 1.5])  # KenLM's, for text too small or too regular to estimate them


def discounts(counts: np.ndarray) -> np.ndarray:
    """What is taken off counts of 0, 1, 2 and of 3 or more, shape (4,): Chen and Goodman (1999), equation 26."""
    ones, twos, threes, fours = (int((counts == k).sum()) for k in (1, 2, 3, 4))
    if not (ones and twos and threes):
        return FALLBACK_DISCOUNTS
    y = ones / (ones + 2 * twos)
    result = np.array([0.0, 1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos, 3 - 4 * y * fours / threes])
    return result if (result[1:] > 0).all() else FALLBACK_DISCOUNTS


def log_probabilities(texts: Sequence[Text], train: Sequence[Text], order: int = 5) -> np.ndarray:
    """Log-probability, in nats, of each token and each end of text under the n-gram model of `train`, text after text.

    The vocabulary is that of both sides and the end of text, so every token has a probability, and over this
    vocabulary they add up to 1. Model and query n-grams are numbered together: an n-gram's counts are found by its
    number. The shape is (sum of (length + 1),).
    """
    check_texts("texts", texts)
    check_texts("training texts", train)
    if order < 1:
        raise UserError(f"order={order}", "an n-gram order of at least 1", "use 5, for example")
    framed = frame(encode([*train, *texts]))
    start_token = framed.vocab_size - 2
    first_query = int(framed.lengths[: len(train)].sum())
    history = np.arange(len(framed.tokens)) - np.repeat(np.cumsum(framed.lengths) - framed.lengths, framed.lengths)
    targets = np.flatnonzero((history > 0) & (np.arange(len(history)) >= first_query))
    # number[n][i]: the number of the n-gram that starts at position i
    number, sizes = [np.zeros(len(history), np.int64)], [1]
    for starts, ngrams, num_ngrams in number_ngrams(framed, order):
        number.append(np.full(len(history), -1))
        number[-1][starts] = ngrams
        sizes.append(num_ngrams)

    probability = np.full(len(targets), 1.0 / (framed.vocab_size - 1))  # the start token is never an event
    for n in range(1, order + 1):
        seen, count = _adjusted_counts(framed.tokens, number, sizes, n, first_query, start_token)
        discount = discounts(count)[np.minimum(count, 3)]
        kept, context_of = np.zeros(sizes[n]), number[n - 1][seen]
        kept[number[n][seen]] = count - discount
        total = np.bincount(context_of, count, minlength=sizes[n - 1])
        freed = np.bincount(context_of, discount, minlength=sizes[n - 1])
        here = np.flatnonzero(history[targets] >= n - 1)  # long enough a history, the start token included
        begin = targets[here] - n + 1
        context, ngram = number[n - 1][begin], number[n][begin]
        known = total[context] > 0  # an unseen context says nothing: the shorter one keeps its word
        here, context, ngram = here[known], context[known], ngram[known]
        probability[here] = (kept[ngram] + freed[context] * probability[here]) / total[context]
    return np.log(probability)


def _adjusted_counts(
    tokens: np.ndarray, number: list[np.ndarray], sizes: list[int], n: int, first_query: int, start_token: int
) -> tuple[np.ndarray, np.ndarray]:
    """One starting position of every n-gram of the training text, and its Kneser-Ney count.

    The count is the plain one at the highest order and for n-grams after a start token (nothing can stand before
    them); otherwise it is the number of different tokens that precede the n-gram.
    """
    numbers = number[n][:first_query]
    position = np.full(sizes[n], -1)
    position[numbers[numbers >= 0]] = np.flatnonzero(numbers >= 0)
    count = np.bincount(numbers[numbers >= 0], minlength=sizes[n])
    if n < len(sizes) - 1:
        longer = number[n + 1][:first_query]
        extension = np.full(sizes[n + 1], -1)
        extension[longer[longer >= 0]] = np.flatnonzero(longer >= 0)
        preceded = np.bincount(number[n][extension[extension >= 0] + 1], minlength=sizes[n])
        count = np.where(tokens[position] == start_token, count, preceded)
    if n == 1:
        count[tokens[position] == start_token] = 0
    seen = np.flatnonzero((position >= 0) & (count > 0))
    return position[seen], count[seen]


def cross_entropy(texts: Sequence[Text], train: Sequence[Text], order: int = 5) -> tuple[float, float]:
    """Nats per token (ends of texts counted) of `texts` under the model of `train`, and the standard error over texts.

    The mean is one of ratios (nats over tokens), so the error is that of a ratio estimate.
    """
    lengths = np.fromiter(map(len, texts), np.int64, len(texts)) + 1
    nats = -np.add.reduceat(log_probabilities(texts, train, order), np.cumsum(lengths) - lengths)
    mean = nats.sum() / lengths.sum()
    residuals = nats - mean * lengths
    error = residuals.std(ddof=1) / lengths.mean() / len(texts) ** 0.5 if len(texts) > 1 else float("nan")
    return float(mean), float(error)


def lm_score(samples: Sequence[Text], train: Sequence[Text], order: int = 5) -> dict[str, Estimate]:
    """Cross-entropy of the samples under an n-gram model of the training text: low is fluent.

    `lm_score` is in nats per token, ends of texts counted. Blind to diversity: one likely sentence repeated scores
    best. Training data recited scores far below held-out text.

    >>> round(lm_score([["a", "b"]], [["a", "b"], ["a", "b"]])["lm_score"].value, 3)
    0.225
    """
    return {"lm_score": Estimate.from_error(*cross_entropy(samples, train, order))}


def reverse_lm_score(samples: Sequence[Text], references: Sequence[Text], order: int = 5) -> dict[str, float]:
    """Cross-entropy of real text under an n-gram model of the samples: low is fluent *and* complete.

    `reverse_lm_score` is in nats per token, ends of texts counted. It falls with the number of samples (more to learn
    from): compare only values of equally many.

    >>> round(reverse_lm_score([["a", "b"], ["a", "b"]], [["a", "b"]])["reverse_lm_score"], 3)
    0.225
    """
    return {"reverse_lm_score": cross_entropy(references, samples, order)[0]}
