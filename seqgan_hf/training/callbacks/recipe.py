"""What a recipe adds to a run besides training: its oracle is kept, and the finished generator evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback

from ...data import Corpus
from ...errors import DataError
from ...evaluation.run import EvaluationArguments, run_evaluation
from ...evaluation.text import decode_ids


# Real text of a run, beside its evaluation.
REFERENCES, TRAIN = "references.txt", "train.txt"


class SaveOracle(TrainerCallback):
    """Puts the oracle into `oracle/` of the run's folder, so that `seqgan-hf evaluate --oracle` finds it there.

    Args:
        corpus: whose data an oracle wrote.
        folder: of the run.
    """

    def __init__(self, corpus: Corpus, folder: Path):
        self.corpus, self.folder = corpus, folder

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.corpus.oracle.save_pretrained(self.folder / "oracle")
            self.corpus.tokenizer.save_pretrained(self.folder / "oracle")


class EvaluateAtEnd(TrainerCallback):
    """Runs an evaluation on the finished generator; its report lies in `evaluation/` of the run's folder.

    Held-out and training text are written beside the report, so that the evaluation can be repeated by hand.

    Args:
        arguments: of the evaluation; `references` and `train` may name the files that are written here.
        corpus: of the run.
    """

    def __init__(self, arguments: EvaluationArguments, corpus: Corpus):
        self.arguments, self.corpus = arguments, corpus

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        output = Path(self.arguments.output)
        output.mkdir(exist_ok=True)
        if self.arguments.references == str(output / REFERENCES):
            self._write(output / REFERENCES, self.corpus.eval)
        if self.arguments.train == str(output / TRAIN):
            self._write(output / TRAIN, self.corpus.train)
        run_evaluation(self.arguments)

    def _write(self, path: Path, rows: Dataset) -> None:
        """One text a line, as the tokenizer writes it."""
        with path.open("w", encoding="utf-8") as file:
            for batch in rows.iter(1000):
                texts = decode_ids(self.corpus.tokenizer, batch["input_ids"])
                file.writelines(" ".join(text.splitlines()) + "\n" for text in texts)


def arguments_of_evaluation(settings: Any, corpus: Corpus, folder: Path) -> list[str]:
    """An evaluation recipe for the generator of a run, as arguments of `seqgan-hf evaluate`.

    Real text is the run's own, or its oracle is asked, unless the recipe names others.

    Args:
        settings: the section `evaluation` of the training recipe; `recipe` names the evaluation's.
        corpus: of the run.
        folder: of the run.

    Raises:
        DataError: the generator continues prompts, which evaluation recipes do not give it.
    """
    if "prompt_ids" in corpus.eval.column_names:
        raise DataError(
            "`evaluation.recipe` for data with prompts",
            "a generator that writes without one",
            "name `evaluation.metrics` instead, which are measured with the training prompts",
        )
    output = folder / "evaluation"
    if corpus.oracle is not None:
        real = ["--oracle", str(folder / "oracle")]
    else:
        real = ["--references", str(output / REFERENCES)]
        if isinstance(corpus.train, Dataset):  # a stream would have to be read to its end
            real += ["--train", str(output / TRAIN)]
    for name in ("encoder", "accepts"):
        if (value := getattr(settings, name)) is not None:
            real += [f"--{name}", value]
    # what comes later wins
    return [*real, "--config", settings.recipe, "--model", str(folder), "--output", str(output)]
