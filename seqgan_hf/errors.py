"""Mistakes that a user can correct: what was given, what is expected, what to do."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any


class UserError(ValueError):
    """Something in the user's settings, data or surroundings that has to be changed before this can work.

    Its text is `problem: expected <expected>. <Fix>.`, in one line.

    Args:
        problem: what was given or found, with its value: `rollouts=0`.
        expected: what belongs there: `at least 1 completion of each prefix`.
        fix: what to do, as an order: `set objective.rollouts`.
    """

    def __init__(self, problem: str, expected: str | None = None, fix: str | None = None):
        super().__init__(problem, expected, fix)
        self.problem, self.expected, self.fix = problem, expected, fix

    def __str__(self) -> str:
        text = self.problem
        if self.expected is None and text.partition(" ")[0].isalpha():  # a sentence, not the name of a setting
            text = text[0].upper() + text[1:]
        text += f": expected {self.expected}" if self.expected else ""
        text += f". {self.fix[:1].upper()}{self.fix[1:]}" if self.fix else ""
        return text if text.endswith((".", "?", "!")) else f"{text}."


class RecipeError(UserError):
    """A recipe or a command line that cannot be read."""


class DataError(UserError):
    """Training or held-out data that cannot be used."""


class RunFolderError(UserError):
    """A run's folder that cannot be read, written, or replaced."""


class TrainingError(UserError):
    """A run that cannot go on."""


class HubError(UserError):
    """A run that cannot be shared."""


class Interrupted(Exception):
    """The user asked a run to end; a checkpoint has been saved."""


class MissingExtraError(UserError, ImportError):
    """An optional package that is not installed."""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it or was being handled, and so on to the first one."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def import_by_path(path: str, what: str) -> Any:
    """The object at a dotted path such as `my_package.my_module.name`; raises `UserError` if there is none."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        problem = f"{what} {path!r} cannot be imported ({error})"
        raise UserError(problem, "the dotted path of an existing object", "check the spelling") from error
    except (Exception, SystemExit) as error:  # of the module itself, which may hold anything
        problem = f"{what} {path!r} cannot be imported ({type(error).__name__}: {' '.join(str(error).split())})"
        raise UserError(problem, fix=f"correct the module {module}") from error
    if not callable(found):
        raise UserError(f"{what} {path!r} is a {type(found).__name__}", "a function or a class", "name another")
    return found
