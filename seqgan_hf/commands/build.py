"""From a recipe to a trainer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from datasets import IterableDataset
from jsonargparse import Namespace
from transformers import TrainerCallback

from ..data import Corpus
from ..errors import RecipeError
from ..evaluation.arguments import OWN, EvaluationArguments
from ..evaluation.base import Evaluator
from ..evaluation.likelihood import OracleNLL
from ..evaluation.text import TextEvaluator
from ..objectives import Objective
from ..samples import Samples
from ..training.batches import as_samples
from ..training.callbacks.corpus import DescribeCorpus, SaveOracle
from ..training.callbacks.evaluate_at_end import EvaluateAtEnd
from ..training.trainer import AdversarialTrainer
from .build_models import build_discriminator, build_generator
from .recipe import EvaluationSettings, instantiate, load_evaluation, recipe_parser


def build_trainer(recipe: Namespace, text: str | None = None) -> AdversarialTrainer:
    """Load the data, build the models, put them into a trainer.

    Args:
        recipe: what `load_recipe` gave.
        text: the same as YAML, to be kept in the run's folder.
    """
    nodes = instantiate(recipe_parser(), recipe)
    corpus = nodes.data.load()
    if nodes.training.max_new_tokens is None:
        nodes.training.max_new_tokens = corpus.max_length
    set_seed(nodes.training.seed)  # the same weights on all processes
    generator = build_generator(corpus, nodes.generator)
    discriminator = build_discriminator(corpus, nodes.objective, nodes.discriminator)
    held_out = as_samples(corpus.eval, corpus.bos_token_id, corpus.pad_token_id)
    known = (nodes.objective, nodes.training, corpus.train, held_out, corpus.tokenizer)
    callbacks = build_callbacks(nodes.evaluation, nodes.objective, corpus, Path(nodes.training.output_dir))
    evaluators = build_evaluators(nodes, corpus, held_out)
    return AdversarialTrainer(generator, discriminator, *known, callbacks, evaluators, nodes.pretraining, text)


def build_evaluators(nodes: Namespace, corpus: Corpus, held_out: Samples) -> list[Evaluator]:
    """What is measured at evaluation rounds: NLL_oracle where an oracle wrote the data, and the recipe's metrics."""
    evaluators: list[Evaluator] = []
    if corpus.oracle is not None:
        evaluators.append(OracleNLL(corpus.oracle, held_out))
    if nodes.evaluation.metrics:
        settings = replace(nodes.evaluation, device=nodes.training.device)
        evaluators.append(TextEvaluator.from_corpus(corpus, settings.metrics, settings))
    return evaluators


def build_callbacks(
    settings: EvaluationSettings, objective: Objective, corpus: Corpus, folder: Path
) -> list[TrainerCallback]:
    """What a recipe adds to a run: its corpus is described, its oracle saved, the finished generator evaluated."""
    callbacks: list[TrainerCallback] = [DescribeCorpus(corpus)]
    if corpus.oracle is not None:
        callbacks.append(SaveOracle(corpus, folder))
    if settings.recipe is not None:  # read now, so that a mistake in it is not met at the end of the run
        evaluation = evaluation_of_run(settings, corpus, folder)
        if evaluation.discriminator == OWN and objective.adversary != "classifier":
            kind = type(objective).__name__
            problem = f"{settings.recipe!r} draws with the run's discriminator, and {kind} trains none"
            raise RecipeError(problem, "an objective with a classifier", "drop `discriminator`, or name a saved one")
        callbacks.append(EvaluateAtEnd(evaluation, corpus))
    return callbacks


def evaluation_of_run(settings: EvaluationSettings, corpus: Corpus, folder: Path) -> EvaluationArguments:
    """An evaluation recipe for the generator of a run, with the run's own text or oracle where it names no other.

    Raises:
        RecipeError: the evaluation recipe cannot be read, or names references without the prompts that they continue.
    """
    output = folder / "evaluation"
    here: dict[str, Any] = {name: getattr(settings, name) for name in ("encoder", "judge_lm", "accepts")}
    here["model"] = [str(folder)]
    if corpus.oracle is not None:
        here["oracle"] = str(folder / "oracle")
    else:
        here["references"] = str(output / "references.txt")
        here["prompts"] = str(output / "prompts.txt") if corpus.conditional else None
        if not isinstance(corpus.train, IterableDataset):  # it would have to be read to its end
            here["train"] = str(output / "train.txt")
    evaluation = load_evaluation([settings.recipe], **here)
    named = [name for name in ("references", "prompts") if getattr(evaluation, name) != here.get(name)]
    if named == ["prompts"] or (corpus.conditional and named == ["references"]):
        problem = f"{settings.recipe!r} names `{named[0]}` alone"
        raise RecipeError(problem, "`references` with the `prompts` that they continue", "name both, or none")
    return replace(evaluation, model=here["model"], output=str(output))
