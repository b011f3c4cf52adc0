"""The finished generator is evaluated before the run ends."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel, TrainerCallback

from ...data import Corpus
from ...data.lines import one_line
from ...data.tokenization import blank_token_ids, decode_ids, encode_batch
from ...evaluation.arguments import EvaluationArguments
from ...evaluation.loading import LoadedGenerator, conditions, load_oracle_generator
from ...evaluation.run import evaluate_generator, load_judge, read_lines, read_references, write_evaluation
from ...generation.modes import evaluating
from ...samples import Samples
from ..batches import as_samples


class EvaluateAtEnd(TrainerCallback):
    """Evaluates the finished generator; the report lies in `evaluation/` of the run's folder.

    Held-out and training text are written beside the report, so that the evaluation can be repeated by hand. It is
    itself given the run's sequences, so that its likelihoods are those that the run has logged.

    Args:
        settings: of the evaluation. Where `references`, `prompts`, `train` and `oracle` name the run's own files, what
            is in memory is used instead of these.
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
        generator = LoadedGenerator(self.output.resolve().parent.name, model, self.corpus.tokenizer)
        references: Samples | list[str] | None = self._own("references", "eval", notes)
        prompts: list[str] | None = None
        if references is None:
            references, prompts = read_references(self.settings, notes)
        train: Samples | list[str] | None = self._own("train", "train", notes)
        if train is None and self.settings.train is not None:
            train = read_lines(self.settings.train, "train", notes, self.settings)
        judge, oracle = load_judge(self.settings, str(self.output.parent), generator), self._oracle(model)
        with evaluating(model):
            points = evaluate_generator(generator, self.settings, references, train, oracle, prompts, judge)
        for point in points:
            point.evaluation.notes[:0] = notes
        write_evaluation(points, self.output, asdict(self.settings))

    def _own(self, name: str, split: Literal["train", "eval"], notes: list[str]) -> Samples | None:
        """The run's own sequences, which are written to a file as well; `None` if the recipe names another file."""
        if getattr(self.settings, name) != str(self.output / f"{name}.txt"):
            return None
        corpus = self.corpus
        sequences = as_samples(getattr(corpus, split), corpus.bos_token_id, corpus.pad_token_id)
        self._write(name, corpus.rows(split), notes)
        if corpus.conditional and split == "eval":
            self._write("prompts", conditions(sequences), notes)
        return sequences

    def _write(self, name: str, rows: list[list[int]], notes: list[str]) -> None:
        """Write token ids as texts; that some of these are read as other tokens goes to the notes."""
        tokenizer = self.corpus.tokenizer
        ends = {self.corpus.eos_token_id, *blank_token_ids(tokenizer)[1:]}  # which are not written
        texts = decode_ids(tokenizer, rows)
        lines = "".join(f"{one_line(text)}\n" for text in texts)
        (self.output / f"{name}.txt").write_text(lines, encoding="utf-8")
        read = encode_batch(tokenizer, texts)
        kept = [[token for token in row if token not in ends] for row in rows]
        if changed := sum(again != row for again, row in zip(read, kept, strict=True)):
            told = f"{changed} of {len(rows)} lines of {name}.txt, which the tokenizer wrote, read back as"
            notes.append(f"{told} other tokens: to repeat this evaluation by hand, use the original file")

    def _oracle(self, model: PreTrainedModel) -> PreTrainedModel | None:
        if (path := self.settings.oracle) is None:
            return None
        own = self.corpus.oracle is not None and Path(path) == self.output.parent / "oracle"
        oracle: Any = self.corpus.oracle if own else load_oracle_generator(path, str(model.device)).model
        return oracle.to(model.device).eval()
