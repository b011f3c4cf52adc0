"""Sentences of the built-in grammar: a text corpus that needs no download and whose distribution is known."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from ..errors import DataError
from .corpus import Corpus, DataSource
from .encoding import Encoding, describe, encode_part, finish
from .grammar import english_grammar
from .splitting import check_seed, split
from .tokenization import TokenizerConfig, build_tokenizer


class GrammarData(DataSource):
    """Sentences drawn from `seqgan_hf.grammar.english_grammar()`, word by word.

    The report gives the grammar's entropy, in nats a sentence: no generator can have a lower mean negative
    log-likelihood on held-out sentences than this, but for chance. Equal sentences are kept, as they belong to the
    distribution.

    Args:
        num_train: sentences to train on.
        num_eval: held-out sentences, drawn independently.
        seed: of the draws.
    """

    def __init__(self, num_train: int = 10_000, num_eval: int = 2_000, seed: int = 0):
        if min(num_train, num_eval) < 1:
            raise DataError(f"num_train={num_train} and num_eval={num_eval}", "at least 1 of each", "raise them")
        check_seed(seed)
        self.num_train = num_train
        self.num_eval = num_eval
        self.seed = seed

    def load(self) -> Corpus:
        """Draw the sentences; every word of the grammar is in the vocabulary, drawn or not."""
        grammar = english_grammar()
        rng = np.random.default_rng(self.seed)
        rows = [
            Dataset.from_dict({"text": [grammar.sample(rng) for _ in range(count)]})
            for count in (self.num_train, self.num_eval)
        ]
        train, held_out, report = split(*rows, deduplicate=False, eval_fraction=0.1, eval_size=None, seed=self.seed)
        report["grammar"] = {"entropy": grammar.entropy(), "mean_length": grammar.mean_length()}
        tokenizer = build_tokenizer(TokenizerConfig(), lambda: [grammar.words])
        encoding = Encoding(tokenizer, tokenizer.bos_token_id, tokenizer.eos_token_id, None, None)
        corpus = Corpus(
            train=encode_part(train, encoding),
            eval=encode_part(held_out, encoding),
            vocab_size=len(tokenizer),
            max_length=0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tokenizer=tokenizer,
            report=report,
        )
        return describe(finish(corpus, encoding, "truncate"), train.examples())
