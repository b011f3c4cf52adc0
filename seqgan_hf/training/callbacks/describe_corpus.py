"""What a run learns from, said before it begins."""

from __future__ import annotations

import logging
from typing import Any

from transformers import TrainerCallback

from ...data import Corpus
from ...data.corpus_report import corpus_lines


logger = logging.getLogger(__name__)


class DescribeCorpus(TrainerCallback):
    """Logs how many lines there are, what was cut or left out, and how many tokens the vocabulary knows.

    Args:
        corpus: that the run learns from.
    """

    def __init__(self, corpus: Corpus):
        self.corpus = corpus

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            lines, warnings = corpus_lines(self.corpus)
            for line in lines:
                logger.info("%s", line)
            for warning in warnings:
                logger.warning("%s", warning)
