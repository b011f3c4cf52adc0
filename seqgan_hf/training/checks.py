"""What is checked before a run begins: do models, data and objective fit together?"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from ..errors import DataError, UserError
from ..generation.vocabulary import special_tokens, vocabulary_size
from ..objectives import Objective
from ..samples import Samples
from .batches import InMemoryData, TrainingData


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
        expected = f"at least one batch of {batch_size}"
        raise DataError(f"{len(data)} training sequences", expected, "give more, or set a smaller batch")


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
        problem, fix = f"token id {largest} in the training data", "set a larger `generator.config.vocab_size`"
        raise UserError(problem, f"ids below {vocab_size}", fix)
    _check_length(generator, "generator", data, max_new_tokens)
    if objective.adversary is None:
        return
    wanted = {"classifier": "a sequence classifier", "language_model": "a causal language model"}[objective.adversary]
    if discriminator is None or discriminator.can_generate() != (objective.adversary == "language_model"):
        given = "no discriminator" if discriminator is None else f"the discriminator {type(discriminator).__name__}"
        raise UserError(f"{given} for the objective {type(objective).__name__}", wanted, "pass one")
    embeddings: Any = discriminator.get_input_embeddings()
    if (known := len(embeddings.weight)) < vocab_size:
        fix = "set `discriminator.config.vocab_size`"
        raise UserError(f"the discriminator knows {known} token ids", f"{vocab_size}", fix)
    _check_length(discriminator, "discriminator", data, max_new_tokens)


def check_objective(objective: Objective) -> None:
    """Raise a UserError for settings that no run could follow."""
    name = type(objective).__name__
    if objective.updates < 1:
        raise UserError(f"{name}.updates={objective.updates}", "1 or more steps on a batch", "set it higher")
    if bad := [copied for copied in objective.copies() if not copied.isidentifier()]:
        raise UserError(f"{name} has a copy named {bad[0]!r}", "a name of letters and digits", "choose another")


def check_fakes(objective: Objective, prompts: Samples, fakes: Samples) -> None:
    """Raise a UserError where rows that should answer each other are not equally many."""
    if objective.paired and fakes.batch_size != prompts.batch_size:
        problem = f"{type(objective).__name__}.fakes gave {fakes.batch_size} rows for {prompts.batch_size} prompts"
        expected = "one row each, as the objective is `paired`"
        raise UserError(problem, expected, "draw as many, or set `paired = False`")


def check_pretraining(pretraining: Objective) -> None:
    """Raise a UserError for an objective that needs more than the generator, as nothing else is there yet."""
    if pretraining.adversary is not None or pretraining.copies():
        problem = f"pretraining={type(pretraining).__name__} needs more models than the generator"
        raise UserError(problem, fix="use it as `objective`")


def _check_length(model: PreTrainedModel, name: str, data: TrainingData, max_new_tokens: int) -> None:
    """Models with a table of positions have a longest sequence."""
    longest = getattr(model.config, "max_position_embeddings", None)
    length = max_new_tokens + (data.samples.prompt.shape[1] if isinstance(data, InMemoryData) else 1)
    if longest is not None and length > longest:
        problem = f"sequences of {length} tokens, but the {name} has {longest} positions"
        raise UserError(problem, fix="set `training.max_new_tokens`")
