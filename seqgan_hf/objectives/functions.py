"""Functions of one's own as rewards: on texts or on token ids, several with weights, named by dotted path."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..data.tokenization import decode
from ..errors import UserError, import_by_path
from ..generation.vocabulary import special_tokens
from ..samples import Samples
from .base import Models


# From K texts (or lists of token ids) to K numbers.
Function = Callable[[list], Sequence[float]]
Functions = str | list[str] | dict[str, float]


class RewardFunctions:
    """A weighted sum of functions on batches of sequences.

    Args:
        functions: a dotted path, several (whose mean it is), or paths with weights; callables in their place.
        reads: `texts`, as `decode` writes them, or `ids`: the continuation's tokens without the end token.

    Raises:
        UserError: no function, or one that cannot be imported; on calls: one that raises, or does not give a finite
            number for every sequence.
    """

    def __init__(
        self, functions: Functions | Function | Mapping[str | Function, float], reads: Literal["texts", "ids"]
    ):
        if reads not in ("texts", "ids"):
            raise UserError(f"reads={reads!r}", "texts or ids", "choose one")
        if isinstance(functions, Mapping):
            weights = dict(functions)
        else:
            named: list[Any] = list(functions) if isinstance(functions, list | tuple) else [functions]
            weights = {function: named.count(function) / len(named) for function in named}
        if bad := [weight for weight in weights.values() if not math.isfinite(weight)]:
            raise UserError(f"a reward function with the weight {bad[0]}", "a finite number", "set `functions`")
        if not weights:
            raise UserError("no reward function", "the dotted path of at least one", "set `functions`")
        self.reads = reads
        self.weights = [
            (import_by_path(function, "reward function") if isinstance(function, str) else function, weight)
            for function, weight in weights.items()
        ]

    def __call__(self, models: Models, samples: Samples) -> Tensor:
        """The reward of each sequence, shape (K,)."""
        if self.reads == "texts":
            sequences: list = decode(samples, models.tokenizer)
        else:
            ends, _ = special_tokens(models.generator)
            rows = zip(samples.ids.tolist(), samples.mask.tolist(), strict=True)
            sequences = [[i for i, real in zip(*row, strict=True) if real and i not in ends] for row in rows]
        total = torch.zeros(samples.batch_size, device=samples.ids.device)
        for function, weight in self.weights:
            total += weight * _numbers(function, sequences).to(total.device)
        return total


def _numbers(function: Function, sequences: list) -> Tensor:
    name = getattr(function, "__qualname__", type(function).__name__)
    try:
        found = torch.as_tensor(function(sequences), dtype=torch.float32).cpu()
    except (Exception, SystemExit) as error:  # `sys.exit` in a function would end the run without a word
        problem = f"the reward function {name} raised {type(error).__name__}: {' '.join(str(error).split())}"
        expected = "a list of numbers, one for each sequence it is given"
        raise UserError(problem, expected, "correct the function") from error
    if found.shape != (len(sequences),):
        problem = f"the reward function {name} returned shape {tuple(found.shape)} for {len(sequences)} sequences"
        raise UserError(problem, "one number each", "return a list as long as the one it is given")
    if not found.isfinite().all():
        worst = int((~found.isfinite()).nonzero()[0])
        problem = f"the reward function {name} returned {found[worst]} for {str(sequences[worst])[:80]!r}"
        raise UserError(problem, "finite numbers", "return 0 for what it cannot score")
    return found
