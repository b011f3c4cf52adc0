"""What a run leaves behind when it ends: models as anyone can load them, and what its card needs to know."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data import decode_ids
from ..evaluation.base import Evaluator
from ..evaluation.likelihood import HeldOutNLL
from ..evaluation.loading import conditions
from ..generation.vocabulary import special_tokens, vocabulary_size
from ..objectives import Models, Objective
from ..runs.card import describe_model, public_recipe, versions
from ..runs.folder import writable
from ..runs.hub import classifier_tokenizer
from .batches import InMemoryData, TrainingData
from .checkpoint import load_weights
from .evaluation import EVALUATION
from .parts import Parts
from .processes import agreed
from .session import Session


def save_results(
    session: Session,
    models: Models,
    objective: Objective,
    tokenizer: PreTrainedTokenizerBase | None,
    data: TrainingData,
    max_new_tokens: int,
    parts: Parts,
) -> None:
    """Write both players with their tokenizers, the last ones or the best, and `summary.json`."""
    evaluation, best, folder = parts.evaluation.last, parts.best, session.folder
    if session.args.load_best_model_at_end and best.checkpoint:
        evaluation = best.evaluation | {"of_these_weights": True}
        for name, model in models.players().items():  # copies may not have been there yet
            load_weights(model, folder.checkpoints / best.checkpoint / name)
    # `generate` and pipelines then write what the generator was trained to write
    models.generator.generation_config.update(do_sample=True, top_k=0, max_new_tokens=max_new_tokens)
    with agreed(session.accelerator):
        if session.is_main:
            first = conditions(data.take((session.args.seed, EVALUATION), 1))
            prompt = "" if tokenizer is None else decode_ids(tokenizer, first)[0]
            facts = (data, prompt, max_new_tokens, parts.evaluation.evaluators, evaluation, parts.units.done)
            with writable(folder.path):
                _save_players(session, models, objective, tokenizer)
                folder.write_summary(summarize(session, models, objective, *facts))


def _save_players(
    session: Session, models: Models, objective: Objective, tokenizer: PreTrainedTokenizerBase | None
) -> None:
    models.generator.save_pretrained(session.folder.generator)
    if tokenizer is not None:
        tokenizer.save_pretrained(session.folder.generator)
    if models.discriminator is not None:
        models.discriminator.save_pretrained(session.folder.discriminator)
        if tokenizer is not None:
            _save_discriminator_tokenizer(session, models.generator, objective, tokenizer)


def _save_discriminator_tokenizer(
    session: Session, generator: PreTrainedModel, objective: Objective, tokenizer: PreTrainedTokenizerBase
) -> None:
    own: PreTrainedTokenizerBase | None = tokenizer
    if objective.adversary == "classifier":
        eos, _ = special_tokens(generator)
        own = classifier_tokenizer(tokenizer, eos[0] if eos else None)
    if own is None:
        session.say("The tokenizer is not a fast one, so none is saved for the discriminator")
    else:
        own.save_pretrained(session.folder.discriminator)


def summarize(
    session: Session,
    models: Models,
    objective: Objective,
    data: TrainingData,
    prompt: str,
    max_new_tokens: int,
    evaluators: list[Evaluator],
    evaluation: dict[str, Any],
    done: dict[str, int],
) -> dict[str, Any]:
    """What the model card needs to know, ready for JSON."""
    rows, step = data.samples if isinstance(data, InMemoryData) else None, session.state.global_step
    held_out = next((e.held_out.batch_size for e in evaluators if isinstance(e, HeldOutNLL)), None)
    opponent = models.discriminator
    recipe = session.folder.recipe
    return {
        "objective": {
            "name": type(objective).__name__,
            "description": (inspect.getdoc(objective) or "").partition("\n\n")[0],
            "citation": objective.citation,
        },
        "generator": describe_model(models.generator),
        "discriminator": None if opponent is None else {**describe_model(opponent), "kind": objective.adversary},
        "data": {
            "train": None if rows is None else rows.batch_size,
            "held_out": held_out,
            "vocab_size": vocabulary_size(models.generator),
            "max_new_tokens": max_new_tokens,
            "prompt": prompt,  # what the first sample of an evaluation continues
        },
        "evaluation": {"of_these_weights": evaluation["global_step"] == step} | evaluation if evaluation else {},
        "progress": {name: count for name, count in done.items() if count},
        "global_step": step,
        "seconds": session.seconds,
        "versions": versions(),
        "license": session.args.hub_license,
        "recipe": public_recipe(recipe.read_text("utf-8")) if recipe.exists() else None,
    }
