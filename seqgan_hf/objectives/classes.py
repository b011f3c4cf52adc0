"""Classes of text that a token of the prompt names."""

from __future__ import annotations

from typing import Any

import torch

from ..data.tokenization import encode_batch, unknown_token_id
from ..errors import UserError
from ..generation.vocabulary import vocabulary_size
from ..samples import LongTensor, Samples
from .base import Models


Classes = list[str] | list[int] | None


def check_names(classes: Classes) -> None:
    """Raise a UserError for class names that name no classes."""
    if classes is not None and len(set(classes)) < max(2, len(classes)):
        raise UserError(f"classes={classes}", "two or more different tokens", "leave it out for one kind of text")


def check_classes(classes: Classes, models: Models, conditional: bool) -> None:
    """Refuse class names that are no tokens, and prompts that cannot name one."""
    if classes and not conditional:
        problem = f"classes={classes} for sequences without prompts"
        raise UserError(problem, "a prompt that names the class", "name its column as `data.prompt_column`")
    for name in classes or ():
        if not 0 <= _token_id(models, name) < (known := vocabulary_size(models.generator)):
            problem = f"class {name} for a vocabulary of {known} tokens"
            raise UserError(problem, f"ids from 0 to {known - 1}", "check `objective.classes`")


def check_prompts(classes: Classes, models: Models, prompts: Samples) -> None:
    """Refuse a class that no prompt names, and a prompt that names none or several."""
    for name in classes or ():
        if not (prompts.prompt == _token_id(models, name)).any():
            problem, expected = f"class {name!r} is in no prompt of the training data", "classes that prompts name"
            raise UserError(problem, expected, "check `objective.classes` and the column `data.prompt_column`")
    class_of(classes, models, prompts)


def class_of(classes: Classes, models: Models, samples: Samples) -> LongTensor:
    """The index of the class that each prompt names, shape (K,); 0 without classes.

    Raises:
        UserError: a prompt that holds none of them, or several.
    """
    if not classes:
        return torch.zeros_like(samples.prompt[:, 0])
    known = torch.tensor([_token_id(models, name) for name in classes], device=samples.prompt.device)
    named = (samples.prompt[:, :, None] == known).any(dim=1)  # (K, classes)
    if not (named.sum(dim=1) == 1).all():
        row = int((named.sum(dim=1) != 1).nonzero()[0])
        problem = f"a prompt with {int(named[row].sum())} of the class tokens {classes}"
        raise UserError(problem, "one in every prompt", "name its column as `data.prompt_column`")
    return named.int().argmax(dim=1)


def _token_id(models: Models, name: Any) -> int:
    if isinstance(name, int):
        return name
    tokenizer = models.tokenizer
    token_ids = [] if tokenizer is None else encode_batch(tokenizer, [name])[0]
    if len(token_ids) != 1 or token_ids[0] == unknown_token_id(tokenizer):
        problem, expected = f"class {name!r} is no token of the vocabulary", "a word of the prompts that is one token"
        raise UserError(problem, expected, "check `objective.classes` and the column `data.prompt_column`")
    return token_ids[0]
