"""What is checked before a run begins: do models, data and objective fit together?"""

from __future__ import annotations

import logging
from typing import Any

from transformers import PreTrainedModel

from ..errors import DataError, UserError
from ..generation.vocabulary import special_tokens, vocabulary_size
from ..objectives import Objective
from ..samples import Samples
from .batches import InMemoryData, TrainingData


logger = logging.getLogger(__name__)


def check_generator(generator: PreTrainedModel) -> tuple[int, int | None]:
    """The start and the padding token of a generator; there is none of the latter for sequences of fixed length.

    Raises:
        UserError: it has no start token.
    """
    config = generator.config
    if config.bos_token_id is None:
        raise UserError("the generator has no `bos_token_id`", "a start token", "set it in its config")
    eos, pad = special_tokens(generator)
    return config.bos_token_id, pad if eos or config.pad_token_id is not None else None


def check_enough_data(data: TrainingData, batch_size: int) -> None:
    """Raise a DataError where there is not one batch of all processes."""
    if isinstance(data, InMemoryData) and len(data) < batch_size:
        raise DataError(
            f"{len(data)} training sequences",
            f"at least one batch of {batch_size}",
            "give more, or set a smaller batch",
        )


def check_models(
    generator: PreTrainedModel,
    discriminator: PreTrainedModel | None,
    objective: Objective,
    data: TrainingData,
    max_new_tokens: int,
) -> None:
    """Whether both players know all tokens and positions of the data.

    Raises:
        UserError: they do not, or the objective needs an opponent of another kind.
    """
    vocab_size = vocabulary_size(generator)
    if isinstance(data, InMemoryData) and (largest := int(data.samples.ids.max())) >= vocab_size:
        raise UserError(
            f"token id {largest} in the training data",
            f"ids below {vocab_size}",
            "set a larger `generator.config.vocab_size`",
        )
    _check_length(generator, "generator", data, max_new_tokens)
    if objective.adversary is None:
        return
    is_language_model = objective.adversary == "language_model"
    if discriminator is None or discriminator.can_generate() != is_language_model:
        given = "no discriminator" if discriminator is None else f"the discriminator {type(discriminator).__name__}"
        wanted = "a causal language model" if is_language_model else "a sequence classifier"
        raise UserError(f"{given} for the objective {type(objective).__name__}", wanted, "pass one")
    embeddings: Any = discriminator.get_input_embeddings()
    embedded = len(embeddings.weight)
    if embedded < vocab_size:
        raise UserError(
            f"the discriminator knows {embedded} token ids", f"{vocab_size}", "set `discriminator.config.vocab_size`"
        )
    if embedded > vocab_size:
        logger.warning(
            "The discriminator knows %d token ids, the generator %d, whose ids it reads. If it was pretrained with "
            "another tokenizer, they are other words to it: name that tokenizer in `data.tokenizer.pretrained`",
            embedded,
            vocab_size,
        )
    _check_length(discriminator, "discriminator", data, max_new_tokens)


def check_objective(objective: Objective) -> None:
    """Raise a UserError for settings that no run could follow."""
    name = type(objective).__name__
    if objective.updates < 1:
        raise UserError(
            f"{name}.updates={objective.updates}", "1 or more steps on a batch of samples", "set it higher"
        )
    if bad := [copied for copied in objective.copies() if not copied.isidentifier()]:
        raise UserError(f"{name} has a copy named {bad[0]!r}", "a name of letters and digits", "choose another")


def check_fakes(objective: Objective, prompts: Samples, fakes: Samples) -> None:
    """Raise a UserError where rows that should answer each other are not equally many."""
    if objective.paired and fakes.batch_size != prompts.batch_size:
        raise UserError(
            f"{type(objective).__name__}.fakes gave {fakes.batch_size} rows for {prompts.batch_size} prompts",
            "one row each, as the objective is `paired`",
            "draw as many, or set `paired = False`",
        )


def check_pretraining(pretraining: Objective) -> None:
    """Raise a UserError for an objective that needs more than the generator, as nothing else is there yet."""
    if pretraining.adversary is not None or pretraining.copies():
        raise UserError(
            f"pretraining={type(pretraining).__name__} needs more models than the generator",
            fix="use it as `objective`",
        )


def _check_length(model: PreTrainedModel, name: str, data: TrainingData, max_new_tokens: int) -> None:
    """Models with a table of positions have a longest sequence."""
    longest = getattr(model.config, "max_position_embeddings", None)
    prompt = data.samples.prompt.shape[1] if isinstance(data, InMemoryData) else 1
    if longest is not None and prompt + max_new_tokens > longest:
        raise UserError(
            f"sequences of {prompt + max_new_tokens} tokens, but the {name} has {longest} positions",
            fix="set `training.max_new_tokens`",
        )
