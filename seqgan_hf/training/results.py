"""What a run leaves behind when it ends: models as anyone can load them, and what its card needs to know."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..data import decode_ids
from ..evaluation.likelihood import HeldOutNLL
from ..evaluation.loading import conditions
from ..generation.vocabulary import special_tokens, vocabulary_size
from ..objectives import Models, Objective
from ..runs.card import describe_model, public_recipe, versions
from ..runs.folder import writable
from ..runs.hub import classifier_tokenizer
from .batches import InMemoryData
from .checkpoint import load_weights
from .evaluation import EVALUATION, Evaluation
from .processes import agreed
from .session import Session


def save_results(objective: Objective, measured: Evaluation, tokenizers: dict[str, PreTrainedTokenizerBase]) -> None:
    """Write both players with their tokenizers, the last ones or the best, and `summary.json`.

    `measured` is the part that measured the run; `tokenizers` are by the name of the model that reads with each.
    """
    session, models, best, last = measured.session, measured.models, measured.best, measured.last
    if session.args.load_best_model_at_end and best.checkpoint:
        last = best.evaluation | {"of_these_weights": True}
        for name, model in models.players().items():  # copies may not have been there yet
            load_weights(model, session.folder.checkpoints / best.checkpoint / name)
    with agreed(session.accelerator), writable(session.folder.path):
        if session.is_main:
            for name, model in models.players().items():
                model.save_pretrained(session.folder.path / name)
            if measured.tokenizer is not None:
                _save_tokenizers(session, models, objective, tokenizers)
            session.folder.write_summary(summarize(objective, measured, last))


def _save_tokenizers(
    session: Session, models: Models, objective: Objective, tokenizers: dict[str, PreTrainedTokenizerBase]
) -> None:
    """Those of the run; a discriminator without one of its own reads the generator's tokens."""
    tokenizer = tokenizers["generator"]
    tokenizer.save_pretrained(session.folder.generator)
    own: PreTrainedTokenizerBase | None = tokenizers.get("discriminator", tokenizer)
    if "discriminator" not in tokenizers and objective.adversary == "classifier":
        eos, _ = special_tokens(models.generator)
        own = classifier_tokenizer(tokenizer, eos[0] if eos else None)
    if own is None:
        session.say("The tokenizer is not a fast one, so none is saved for the discriminator")
    elif models.discriminator is not None:
        own.save_pretrained(session.folder.discriminator)


def summarize(objective: Objective, measured: Evaluation, last: dict[str, Any]) -> dict[str, Any]:
    """What the model card needs to know, ready for JSON; `last` is the evaluation to show."""
    session, data, models = measured.session, measured.data, measured.models
    generator, opponent = models.generator, models.discriminator
    # what the first sample of an evaluation continues
    first = conditions(data.take((session.args.seed, EVALUATION), 1))
    prompt = "" if measured.tokenizer is None else decode_ids(measured.tokenizer, first)[0]
    rows, step = data.samples if isinstance(data, InMemoryData) else None, session.state.global_step
    held_out = next((e.held_out.batch_size for e in measured.evaluators if isinstance(e, HeldOutNLL)), None)
    recipe = session.folder.recipe
    return {
        "objective": {
            "name": type(objective).__name__,
            "description": (inspect.getdoc(objective) or "").partition("\n\n")[0],
            "citation": objective.citation,
        },
        "generator": describe_model(generator),
        "discriminator": None if opponent is None else {**describe_model(opponent), "kind": objective.adversary},
        "data": {
            "train": None if rows is None else rows.batch_size,
            "held_out": held_out,
            "vocab_size": vocabulary_size(generator),
            "max_new_tokens": measured.max_new_tokens,
            "prompt": prompt,
        },
        "evaluation": {"of_these_weights": last["global_step"] == step} | last if last else {},
        "progress": {name: count for name, count in measured.units.done.items() if count},
        "global_step": step,
        "seconds": session.seconds,
        "seconds_after_pretraining": measured.units.seconds,  # of work, see `max_seconds`
        "versions": versions(),
        "license": session.args.hub_license,
        "recipe": public_recipe(recipe.read_text("utf-8")) if recipe.exists() else None,
    }
