"""The finished generator is evaluated before the run ends."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel, TrainerCallback

from ...data import Corpus
from ...data.lines import one_line
from ...evaluation.arguments import EvaluationArguments
from ...evaluation.loading import LoadedGenerator, load_oracle_generator
from ...evaluation.run import evaluate_generator, read_lines, write_evaluation
from ...generation.modes import evaluating


class EvaluateAtEnd(TrainerCallback):
    """Evaluates the finished generator; the report lies in `evaluation/` of the run's folder.

    Held-out and training text are written beside the report, so that the evaluation can be repeated by hand.

    Args:
        settings: of the evaluation. Where `references`, `train` and `oracle` name the run's own files, what is in
            memory is used instead of these.
        corpus: of the run.
    """

    def __init__(self, settings: EvaluationArguments, corpus: Corpus):
        self.settings, self.corpus = settings.for_texts_of(corpus.tokenizer), corpus
        self.output = Path(settings.output)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        self.output.mkdir(exist_ok=True)
        notes: list[str] = []
        references = self._texts("references", "eval", notes)
        train = self._texts("train", "train", notes)
        generator = LoadedGenerator(self.output.resolve().parent.name, model, self.corpus.tokenizer)
        with evaluating(model):
            points = evaluate_generator(generator, self.settings, references, train, self._oracle(model))
        for point in points:
            point.evaluation.notes[:0] = notes
        write_evaluation(points, self.output, asdict(self.settings))

    def _texts(self, name: str, split: Literal["train", "eval"], notes: list[str]) -> list[str] | None:
        """Real texts: the run's own, which are also written to a file, or those of a file that the recipe names."""
        if (path := getattr(self.settings, name)) is None:
            return None
        if Path(path) != self.output / f"{name}.txt":
            return read_lines(path, name, notes, self.settings)
        texts = self.corpus.texts(split)
        Path(path).write_text("".join(f"{one_line(text)}\n" for text in texts), encoding="utf-8")
        return [text for text in texts if text.strip()]  # as from a file

    def _oracle(self, model: PreTrainedModel) -> PreTrainedModel | None:
        if (path := self.settings.oracle) is None:
            return None
        own = self.corpus.oracle is not None and Path(path) == self.output.parent / "oracle"
        oracle: Any = self.corpus.oracle if own else load_oracle_generator(path, str(model.device)).model
        return oracle.to(model.device).eval()
