"""What a run learns from: it is described before the run begins, and the oracle of synthetic data is kept."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ...data import Corpus
from ...data.corpus_report import corpus_lines


logger = logging.getLogger(__name__)


class DescribeCorpus(TrainerCallback):
    """Logs how many lines there are, what was cut or left out, and how many tokens the vocabulary knows."""

    def __init__(self, corpus: Corpus):
        self.corpus = corpus

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            lines, warnings = corpus_lines(self.corpus)
            for line in lines:
                logger.info("%s", line)
            for warning in warnings:
                logger.warning("%s", warning)


class SaveOracle(TrainerCallback):
    """Puts a corpus's oracle into `oracle/` of the run's folder, where `seqgan-hf evaluate --oracle` finds it."""

    def __init__(self, corpus: Corpus, folder: Path):
        self.corpus, self.folder = corpus, folder

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.corpus.oracle.save_pretrained(self.folder / "oracle")
            self.corpus.tokenizer.save_pretrained(self.folder / "oracle")
