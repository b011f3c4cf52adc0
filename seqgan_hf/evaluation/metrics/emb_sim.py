"""EmbSim of Zhu et al. (2018), https://arxiv.org/abs/1802.01886 (Texygen): do words keep the company they keep?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..ngrams import Text, check_texts


WIDTH = 32  # of the embeddings
LEAST = 1e-6  # the mean of sets that have nothing in common
WORDS = 2_000  # the most frequent ones of the references, which bounds the cost


def emb_sim(samples: Sequence[Text], references: Sequence[Text]) -> dict[str, float]:
    """`emb_sim`: log10 of the mean, over words, of how alike the word's similarities to all others are in both sets.

    With W the cosines of the embeddings of all words, learnt from the references, and W' those learnt from the samples
    alone, it is log10(mean over i of cos(W_i, W'_i)): 0 at best, -6 where nothing is in common. A word that the
    samples lack counts as 0 in the mean. It sees which words stand side by side, but no more order, and no diversity.

    Embeddings are those of a skip-gram model (window 1, 32 dimensions) in closed form, where Texygen trains one from a
    random start: the factors of the positive pointwise mutual information of neighbours, Levy and Goldberg (2014),
    https://papers.nips.cc/paper/5477. The values differ from Texygen's, and depend on nothing drawn at random.

    >>> abs(emb_sim([["a", "b"], ["b", "c"]], [["a", "b"], ["b", "c"]])["emb_sim"]) < 1e-9
    True
    """
    check_texts("samples", samples)
    check_texts("references", references)
    counts = Counter(word for text in references for word in text)
    number = {word: place for place, (word, _) in enumerate(counts.most_common(WORDS))}
    ours, real = (similarities(word_embeddings(neighbours(texts, number))) for texts in (samples, references))
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(real, axis=1)
    alike = np.divide((ours * real).sum(axis=1), norms, out=np.zeros(len(number)), where=norms > 0)
    return {"emb_sim": math.log10(max(LEAST, float(alike.mean()) if number else 0.0))}


def neighbours(texts: Sequence[Text], number: Mapping[Any, int]) -> np.ndarray:
    """How often each word stands beside each other one, (V, V)."""
    beside = np.zeros((len(number), len(number)))
    pairs = [(number[a], number[b]) for text in texts for a, b in pairwise(text) if a in number and b in number]
    if pairs:
        np.add.at(beside, tuple(np.array(pairs).T), 1)
    return beside + beside.T


def word_embeddings(beside: np.ndarray) -> np.ndarray:
    """Factors of the positive pointwise mutual information, (V, at most `WIDTH`)."""
    from scipy.sparse.linalg import eigsh

    of_word = beside.sum(axis=1)
    chance = np.outer(of_word, of_word) / max(1.0, of_word.sum())
    ratio = np.divide(beside, chance, out=np.ones_like(beside), where=beside > 0)
    information = np.log(np.maximum(ratio, 1.0))
    if not information.any():  # no word stands beside another more often than by chance, as where all are the same
        return np.zeros((len(information), 1))
    if len(information) > 4 * WIDTH:
        values, vectors = eigsh(information, k=WIDTH, v0=np.ones(len(information)))
    else:
        values, vectors = np.linalg.eigh(information)
        largest = np.argsort(-np.abs(values), kind="stable")[:WIDTH]
        values, vectors = values[largest], vectors[:, largest]
    return vectors * np.sqrt(np.abs(values))


def similarities(embeddings: np.ndarray) -> np.ndarray:
    """Cosines of all words, (V, V); rows of words that stand beside no other are zero."""
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    units = np.divide(embeddings, norms, out=np.zeros_like(embeddings), where=norms > 1e-6)
    return units @ units.T
