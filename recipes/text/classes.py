"""Sentences of two classes, `singular` and `plural`, and what tells whether a sentence has the class that was asked.

The label of a sentence of the built-in grammar is the number of its (first) subject, on which the verb depends that
may come much later: "the dog near two houses sleeps ." is singular.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from seqgan_hf.data import Corpus, GrammarData, TextData
from seqgan_hf.data.grammar import ENGLISH_RULES, english_grammar, is_english_sentence


CLASSES = {  # the words that decide, wherever only adjectives and "the" stand before them
    "singular": {*ENGLISH_RULES["ONE"], *ENGLISH_RULES["HE"], *ENGLISH_RULES["NOUN"]},
    "plural": {*ENGLISH_RULES["MANY"], "they", *ENGLISH_RULES["NOUNS"]},
}


def class_of(sentence: str) -> str | None:
    """`singular` or `plural`; `None` for what has no subject."""
    for word in sentence.split():
        for name, words in CLASSES.items():
            if word in words:
                return name
        if word != "the" and word not in ENGLISH_RULES["ADJECTIVE"]:
            break
    return None


def is_as_asked(line: str) -> bool:
    """Whether a line of `seqgan-hf generate`, a class and the sentence that was written to it, fit together."""
    asked, _, sentence = line.partition(" ")
    return class_of(sentence) == asked


def is_as_asked_and_right(line: str) -> bool:
    """Whether the grammar accepts that sentence as well."""
    return is_as_asked(line) and is_english_sentence(line.partition(" ")[2])


@dataclass
class LabelledGrammarData(GrammarData):
    """Sentences of the built-in grammar; the prompt of each is its class. The arguments are those of `GrammarData`."""

    def load(self) -> Corpus:
        rng = np.random.default_rng(self.seed)
        texts = [english_grammar().sample(rng) for _ in range(self.num_train + self.num_eval)]
        rows = Dataset.from_dict({"text": texts, "label": [class_of(text) for text in texts]})
        return TextData(dataset=rows, prompt_column="label", eval_size=self.num_eval, seed=self.seed).load()
