"""The adversarial trainer, and the parts that it is made of."""

from .arguments import AdversarialTrainingArguments
from .trainer import AdversarialTrainer
from .units import Interrupted


__all__ = ["AdversarialTrainer", "AdversarialTrainingArguments", "Interrupted"]
