"""A reward that knows the truth: is it a sentence of the built-in grammar? See docs/methods/functionreward.md."""

from __future__ import annotations

from seqgan_hf.data.grammar import is_english_sentence


def grammatical(texts: list[str]) -> list[float]:
    """1 for a sentence of the grammar, else 0."""
    return [float(is_english_sentence(text)) for text in texts]
