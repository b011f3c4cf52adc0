"""Text GANs on Hugging Face parts: SeqGAN and its relatives, trained, measured and shared.

Names are imported when they are first used, so that `import seqgan_hf` alone costs nothing. `import seqgan_hf.models`
registers the models with the Auto classes of transformers; where transformers has been imported already, `import
seqgan_hf` does so too.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any


__version__ = "0.1.0"

_HOMES = {
    "models": [
        "CNNDiscriminatorConfig",
        "CNNDiscriminatorForSequenceClassification",
        "EnsembleGeneratorConfig",
        "EnsembleGeneratorForCausalLM",
        "LeakGeneratorConfig",
        "LeakGeneratorForCausalLM",
        "RNNDiscriminatorConfig",
        "RNNDiscriminatorForSequenceClassification",
        "RNNGeneratorConfig",
        "RNNGeneratorForCausalLM",
    ],
    "errors": ["DataError", "UserError"],
    "samples": ["Completions", "Samples"],
    "generation": [
        "complete",
        "realness",
        "reject",
        "resample",
        "rewards",
        "sample",
        "token_logprobs",
        "weighted_nll",
    ],
    "data": [
        "Corpus",
        "DataSource",
        "GrammarData",
        "IdsData",
        "OracleData",
        "TextData",
        "build_oracle",
        "load_oracle",
    ],
    "objectives": ["MLE", "ConstantReward", "Loss", "Objective", "RandomReward", "Reinforce", "SeqGAN"],
    "training": ["AdversarialTrainer", "AdversarialTrainingArguments"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'seqgan_hf' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]


if TYPE_CHECKING:  # what type checkers and editors read in place of `__getattr__`
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

if "transformers" in sys.modules:  # the seconds that this takes have been spent
    importlib.import_module(".models", __name__)
