"""Objectives, one paper a file; docs/contributing.md says what belongs to a new one.

Every class of an objective is exported from here by itself, so that a paper is one file and no other line.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING, Any

from .base import Copy, Credit, Loss, Models, Objective, Turn
from .controls import ConstantReward, RandomReward
from .mle import MLE
from .reinforce import Reinforce
from .seqgan import SeqGAN


__all__ = ["MLE", "ConstantReward", "Copy", "Credit", "Loss", "Models", "Objective", "RandomReward"]
__all__ += ["Reinforce", "SeqGAN", "Turn"]

for _found in pkgutil.iter_modules(__path__, f"{__name__}."):
    _module = importlib.import_module(_found.name)
    for _name, _class in inspect.getmembers(_module, inspect.isclass):
        if issubclass(_class, Objective) and _class.__module__ == _found.name and _name not in __all__:
            globals()[_name] = _class
            __all__.append(_name)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """What the loop above exports; a type checker knows its details by the dotted path of the paper's file."""
