"""Text GANs on Hugging Face parts: SeqGAN and its relatives, trained, measured and shared.

Names are imported when they are first used, so that `import seqgan_hf` alone costs nothing. The models are registered
with the Auto classes of transformers once these are there: as soon as they are imported, before or after this package.
"""

from __future__ import annotations

import ast
import importlib
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any


__version__ = "0.1.0"

if TYPE_CHECKING:  # what type checkers and editors read, and `__getattr__` looks up
    from .commands.build import build_trainer
    from .commands.build_models import build_discriminator, build_generator
    from .commands.recipe import DiscriminatorSettings, GeneratorSettings, load_recipe
    from .data import Corpus, DataSource, GrammarData, IdsData, OracleData, TextData, build_oracle, load_oracle
    from .errors import DataError, UserError
    from .generation import complete, realness, reject, resample, rewards, sample, token_logprobs, weighted_nll
    from .models import (
        CNNDiscriminatorConfig,
        CNNDiscriminatorForSequenceClassification,
        EnsembleGeneratorConfig,
        EnsembleGeneratorForCausalLM,
        LeakGeneratorConfig,
        LeakGeneratorForCausalLM,
        RNNDiscriminatorConfig,
        RNNDiscriminatorForSequenceClassification,
        RNNGeneratorConfig,
        RNNGeneratorForCausalLM,
    )
    from .objectives import MLE, ConstantReward, Loss, Objective, RandomReward, Reinforce, SeqGAN
    from .samples import Completions, Samples
    from .training import AdversarialTrainer, AdversarialTrainingArguments

# the names above with their modules, read from this file: so each is said once
_HOME_OF = {
    each.name: node.module
    for node in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
    if isinstance(node, ast.ImportFrom) and node.level == 1
    for each in node.names
}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'seqgan_hf' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]


_AUTO = "transformers.models.auto.configuration_auto"


class _WhenAutoClassesAreThere(MetaPathFinder):
    """Registers the models after the import of transformers that brought the Auto classes.

    While one of its modules is being imported, others are there in parts only, and models cannot be: the outermost
    has to be done.
    """

    depth = 0  # of modules of transformers whose imports wait for each other

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith("transformers."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            self.depth += 1
            try:
                execute(module)
            finally:
                self.depth -= 1
            if self.depth == 0 and _AUTO in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                importlib.import_module(f"{__name__}.models")

        loader.exec_module = exec_module


if _AUTO in sys.modules:
    importlib.import_module(f"{__name__}.models")
else:
    sys.meta_path.insert(0, _WhenAutoClassesAreThere())
