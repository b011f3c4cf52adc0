"""Lines of text, and those of a corpus."""

from __future__ import annotations

from datasets import Dataset


LINES = ["a man walks", "a dog runs far away", "two cats sleep", "a man sleeps", "the end"]
RAGGED = Dataset.from_dict({"text": ["a b c d", "a b", "a b c", "d c b a"]})


def texts(corpus, rows) -> list[str]:
    return [corpus.tokenizer.decode(row["input_ids"], skip_special_tokens=True).strip() for row in rows]
