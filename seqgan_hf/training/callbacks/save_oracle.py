"""The oracle of synthetic data is kept with the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ...data import Corpus


class SaveOracle(TrainerCallback):
    """Puts a corpus's oracle into `oracle/` of the run's folder, where `seqgan-hf evaluate --oracle` finds it."""

    def __init__(self, corpus: Corpus, folder: Path):
        self.corpus, self.folder = corpus, folder

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.corpus.oracle.save_pretrained(self.folder / "oracle")
            self.corpus.tokenizer.save_pretrained(self.folder / "oracle")
