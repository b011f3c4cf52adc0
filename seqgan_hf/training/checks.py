"""What is checked before a run begins: do models, data and objective fit together?"""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import PreTrainedModel

from ..data.reading import text_reader
from ..errors import DataError, UserError
from ..generation.modes import evaluating
from ..generation.vocabulary import special_tokens, vocabulary_size
from ..objectives import Models, Objective
from ..samples import Samples
from .batches import InMemoryData, TrainingData


logger = logging.getLogger(__name__)


def check_generator(generator: PreTrainedModel) -> tuple[int, int | None]:
    """The start and the padding token of a generator; there is none of the latter for sequences of fixed length.

    A UserError if it has no start token, or is no model of transformers, but wraps one.
    """
    if not isinstance(generator, PreTrainedModel):
        fix = "add an adapter of peft to the model itself, `model.add_adapter(lora)`, instead of wrapping it"
        raise UserError(f"a generator of the class {type(generator).__name__}", "a PreTrainedModel", fix)
    config = generator.config
    if config.bos_token_id is None:
        raise UserError("the generator has no `bos_token_id`", "a start token", "set it in its config")
    eos, pad = special_tokens(generator)
    return config.bos_token_id, pad if eos or config.pad_token_id is not None else None


def check_enough_data(data: TrainingData, batch_size: int, pretrain_batch_size: int) -> None:
    """Raise a DataError where there is not one batch to pretrain on; say so where a step of the game has fewer.

    Batch sizes are those of all processes together.
    """
    if not isinstance(data, InMemoryData):
        return
    if len(data) < pretrain_batch_size:
        expected = f"at least one batch of {pretrain_batch_size}"
        fix = "give more, or lower `training.pretrain_batch_size` (and `training.per_device_train_batch_size`)"
        raise DataError(f"{len(data)} training sequences", expected, fix)
    if len(data) < batch_size:
        told = "per_device_train_batch_size: a step of the rounds would take %d training sequences, and takes all %d"
        logger.warning(told, batch_size, len(data))


def check_share(data: TrainingData) -> InMemoryData:
    """Raise a UserError where rows cannot be divided between the players, as in a stream."""
    if not isinstance(data, InMemoryData):
        raise UserError("discriminator_share of streamed data", "a corpus in memory", "leave one of them out")
    return data


def check_models(models: Models, data: TrainingData, max_new_tokens: int) -> None:
    """Raise a UserError for players that do not know all tokens and positions of the data, or cannot learn."""
    vocab_size = vocabulary_size(models.generator)
    if isinstance(data, InMemoryData) and (largest := int(data.samples.ids.max())) >= vocab_size:
        problem, fix = f"token id {largest} in the training data", "set a larger `generator.config.vocab_size`"
        raise UserError(problem, f"ids below {vocab_size}", fix)
    readers = {"discriminator"} if text_reader(models.discriminator) else set[str]()
    if models.discriminator is not None and not readers:
        embeddings: Any = models.discriminator.get_input_embeddings()
        if (known := len(embeddings.weight)) < vocab_size:
            fix = "set `discriminator.config.vocab_size`"
            raise UserError(f"the discriminator knows {known} token ids", f"{vocab_size}", fix)
        check_padding(models.discriminator, known, vocab_size)
        if known > vocab_size:
            logger.warning(
                "The discriminator knows %d token ids, the generator %d, whose ids it reads. If it was pretrained "
                "with another tokenizer, they are other words to it: name that one in `data.tokenizer.pretrained`",
                known,
                vocab_size,
            )
    length = max_new_tokens + (data.samples.prompt.shape[1] if isinstance(data, InMemoryData) else 1)
    for name, model in models.players().items():
        longest = getattr(model.config, "max_position_embeddings", None)  # of a model with a table of positions
        # readers of text cut what is too long, by tokens of their own
        if name not in readers and longest is not None and length > longest:
            problem = f"sequences of {length} tokens, but the {name} has {longest} positions"
            raise UserError(problem, fix="set `training.max_new_tokens`")
        if not any(parameter.requires_grad for parameter in model.parameters()):
            problem, fix = f"all parameters of the {name} are frozen", "set `requires_grad` of those that shall learn"
            raise UserError(problem, fix=fix)


def check_padding(discriminator: PreTrainedModel, known: int, vocab_size: int) -> None:
    """Raise a UserError for one that judges several sequences only with a padding token, and has none.

    Classifiers of `transformers` that are built on a causal LM ask for it even where no sequence is padded.

    Args:
        known: token ids that it has embeddings of.
        vocab_size: those that the generator can write.
    """
    if getattr(discriminator.config, "pad_token_id", None) is not None:
        return
    ids = torch.zeros(2, 2, dtype=torch.long, device=discriminator.device)
    try:
        with torch.no_grad(), evaluating(discriminator):
            discriminator(input_ids=ids, attention_mask=torch.ones_like(ids))
    except ValueError as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        problem = f"{type(discriminator).__name__} without `pad_token_id` cannot judge batches ({reason})"
        fix = f"choose one, or set `discriminator.config.pad_token_id` to {vocab_size}, an id that no sequence holds"
        fix += "" if known > vocab_size else f", and `discriminator.config.vocab_size` to {vocab_size + 1}"
        raise UserError(problem, "one that goes by the mask, such as cnn_discriminator or bert", fix) from error


def check_objective(objective: Objective, models: Models, data: TrainingData, batch_size: int) -> None:
    """Raise a UserError where an objective cannot follow the settings, or learn from the sequences."""
    objective.check(models, batch_size, data.conditional)
    objective.check_sequences(models, data.samples if isinstance(data, InMemoryData) else None)


def checkpoint_activations(models: Models) -> None:
    """Let players compute activations again for the backward pass, not keep them; a UserError if none can."""
    able = [model for model in models.players().values() if model.supports_gradient_checkpointing]
    for model in able:
        # the second is what older versions of transformers call it
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    if not able:
        names = " and ".join(type(model).__name__ for model in models.players().values())
        raise UserError(f"activation_checkpointing for {names}", "a player that is a transformer", "leave it out")


def check_fakes(objective: Objective, prompts: Samples, fakes: Samples) -> None:
    """Raise a UserError where nothing is drawn, or rows that should answer each other are not equally many."""
    gave, count = f"{type(objective).__name__}.fakes gave", prompts.batch_size
    if not isinstance(fakes, Samples) or not fakes.batch_size:
        problem = f"{gave} {'no row' if isinstance(fakes, Samples) else repr(fakes)[:80]}"
        raise UserError(problem, f"`Samples` of 1 row or more, here for {count} prompts", "return some")
    if objective.paired and fakes.batch_size != count:
        problem, fix = f"{gave} {fakes.batch_size} rows for {count} prompts", "draw as many, or set `paired = False`"
        raise UserError(problem, "one row each, as the objective is `paired`", fix)


def check_pretraining(pretraining: Objective) -> None:
    """Raise a UserError for an objective that needs more than the generator, as nothing else is there yet."""
    if pretraining.adversary is not None or pretraining.copies():
        problem = f"pretraining={type(pretraining).__name__} needs more models than the generator"
        raise UserError(problem, fix="use it as `objective`")
