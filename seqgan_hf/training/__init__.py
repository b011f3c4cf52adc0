"""The adversarial trainer, and the parts that it is made of."""

from ..errors import Interrupted
from .arguments import AdversarialTrainingArguments
from .trainer import AdversarialTrainer


__all__ = ["AdversarialTrainer", "AdversarialTrainingArguments", "Interrupted"]
