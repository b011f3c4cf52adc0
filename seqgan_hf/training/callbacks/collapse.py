"""Warnings while a text GAN goes wrong, each with what to try."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback


logger = logging.getLogger(__name__)

AUC_GAP = "the difference of both areas"  # computed here

FEW_DISTINCT = (
    "{name} fell to {value:.3f}, below {bound:.3f}: samples repeat one another (mode collapse). Try fewer generator "
    "steps a round, a lower generator learning rate, or more pretraining, and go back to an earlier checkpoint"
)
ALIKE = (
    "{name} rose to {value:.3f}, above {bound:.3f}: samples resemble one another (mode collapse). Try fewer generator "
    "steps a round or a lower generator learning rate, and compare with the value of real text"
)
SATURATED = (
    "{name} has been {value:.4f} or so for {rounds} rounds: every sample gets nearly the same reward. Try a weaker "
    "discriminator (fewer steps, more dropout), rewards by rank, or a baseline"
)
GUESSES = (
    "{name} has been {value:.3f} or so for {rounds} rounds: the discriminator guesses, its rewards are noise. Try "
    "more discriminator steps or a higher learning rate for it; if a fresh judge guesses too, training is done"
)
WINS = (
    "{name} has been {value:.3f} or so for {rounds} rounds: the discriminator always wins, its rewards tell the "
    "generator nothing. Try fewer discriminator steps, more dropout, or more pretraining of the generator"
)
NOTHING_TO_WIN = (
    "{name} is {value:.3f}: the discriminator cannot tell real text that it has not seen from samples, so its rewards "
    "say nothing about real text. Try a pretrained one that reads text, or more training text"
)
MEMORISES = (
    "The discriminator's AUC is higher by {value:.3f} on training text than on held-out text: it knows its training "
    "text by heart, and rewards that. Try a pretrained one that reads text, more dropout, or fewer steps"
)


@dataclass
class CollapseWarnings(TrainerCallback):
    """Watches the metrics of each round and warns when they look like mode collapse or a stuck game.

    Each warning is given once and again only after the condition was gone. A metric that is not measured is not
    watched.

    Args:
        distinct_metric: name of a distinct-n value.
        distinct_bound: least share of distinct n-grams that is healthy; `None` means half of the first round's value.
        self_bleu_metric: name of a Self-BLEU value.
        self_bleu_bound: largest healthy Self-BLEU.
        spread_metric: name of the standard deviation of rewards over the samples of a batch.
        spread_bound: least healthy one; below it all samples get the same reward, and nothing can be learnt.
        accuracy_metric: name of the discriminator's accuracy.
        accuracy_margin: accuracy within this of 0.5 or of 1 is a stuck game.
        auc_metric, train_auc_metric: names of the discriminator's area under the curve, on held-out and on training
            sequences.
        auc_margin: a held-out one within this of 0.5 has nothing to teach.
        auc_gap: the largest healthy difference of the two.
        patience: rounds in a row before saturated rewards and a stuck accuracy are reported.
    """

    distinct_metric: str = "distinct_2"
    distinct_bound: float | None = None
    self_bleu_metric: str = "self_bleu_3"
    self_bleu_bound: float = 0.95
    spread_metric: str = "reward_std"
    spread_bound: float = 0.002
    accuracy_metric: str = "discriminator_accuracy"
    accuracy_margin: float = 0.01
    auc_metric: str = "discriminator_auc_test"
    train_auc_metric: str = "discriminator_auc_train"
    auc_margin: float = 0.03
    auc_gap: float = 0.15
    patience: int = 5
    _rounds: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "adversarial/round" in logs:
            for warning in self.update(logs):
                if state.is_local_process_zero:
                    logger.warning("%s", warning)

    def update(self, metrics: Mapping[str, float]) -> list[str]:
        """Look at one round.

        Args:
            metrics: values by name; those that are watched are picked out.

        Returns:
            Warnings that are new in this round.
        """
        if self.distinct_bound is None and self.distinct_metric in metrics:
            self.distinct_bound = metrics[self.distinct_metric] / 2
        if {self.auc_metric, self.train_auc_metric} <= metrics.keys():
            metrics = {**metrics, AUC_GAP: metrics[self.train_auc_metric] - metrics[self.auc_metric]}
        warnings = []
        for key, name, holds, bound, rounds, message in self._conditions():
            if (value := metrics.get(name)) is not None:
                self._rounds[key] = self._rounds.get(key, 0) + 1 if holds(value) else 0
                if self._rounds[key] == rounds:
                    warnings.append(message.format(name=name, value=value, bound=bound, rounds=rounds))
        return warnings

    def state_dict(self) -> dict:
        return {"distinct_bound": self.distinct_bound, "rounds": dict(self._rounds)}

    def load_state_dict(self, state: Mapping) -> None:
        self.distinct_bound, self._rounds = state["distinct_bound"], dict(state["rounds"])

    def _conditions(self) -> Iterator[tuple[str, str, Callable[[float], bool], float | None, int, str]]:
        """What is watched: its key, the metric, what is unhealthy, its bound, rounds until the report, the message."""
        few, alike, spread, margin = self.distinct_bound, self.self_bleu_bound, self.spread_bound, self.accuracy_margin
        yield "distinct", self.distinct_metric, lambda value: value < few, few, 1, FEW_DISTINCT
        yield "self_bleu", self.self_bleu_metric, lambda value: value > alike, alike, 1, ALIKE
        yield "spread", self.spread_metric, lambda value: value < spread, spread, self.patience, SATURATED
        accuracy, patience, edge, gap = self.accuracy_metric, self.patience, 0.5 + self.auc_margin, self.auc_gap
        yield "guesses", accuracy, lambda value: abs(value - 0.5) < margin, None, patience, GUESSES
        yield "wins", accuracy, lambda value: value > 1 - margin, None, patience, WINS
        yield "nothing", self.auc_metric, lambda value: value < edge, None, 1, NOTHING_TO_WIN
        yield "memorises", AUC_GAP, lambda value: value > gap, None, 1, MEMORISES
