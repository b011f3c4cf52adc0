"""Warnings while a text GAN goes wrong, each with what to try."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback


logger = logging.getLogger(__name__)

DISTINCT, ACCURACY = "distinct_2", "discriminator_accuracy"
AUC, TRAIN_AUC = "discriminator_auc_test", "discriminator_auc_train"
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
        distinct_bound: least share of distinct n-grams that is healthy; `None` means half of the first round's value.
        self_bleu_bound: largest healthy Self-BLEU.
        spread_bound: least healthy standard deviation of rewards over the samples of a batch; below it all samples get
            the same reward, and nothing can be learnt.
        accuracy_margin: accuracy of the discriminator within this of 0.5 or of 1 is a stuck game.
        auc_margin: its area under the curve on held-out sequences within this of 0.5 has nothing to teach.
        auc_gap: the largest healthy difference of that on training sequences.
        patience: rounds in a row before saturated rewards and a stuck accuracy are reported.
    """

    distinct_bound: float | None = None
    self_bleu_bound: float = 0.95
    spread_bound: float = 0.002
    accuracy_margin: float = 0.01
    auc_margin: float = 0.03
    auc_gap: float = 0.15
    patience: int = 5
    _rounds: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        # before the rounds it is known what the discriminator knows, and nothing else of the game
        game = "adversarial/round" in logs
        if watched := {name: value for name, value in logs.items() if game or name in (AUC, TRAIN_AUC)}:
            for warning in self.update(watched):
                if state.is_local_process_zero:
                    logger.warning("%s", warning)

    def update(self, metrics: Mapping[str, float]) -> list[str]:
        """The warnings that are new in this round, from its values by name."""
        if self.distinct_bound is None and DISTINCT in metrics:
            self.distinct_bound = metrics[DISTINCT] / 2
        if {AUC, TRAIN_AUC} <= metrics.keys():
            metrics = {**metrics, AUC_GAP: metrics[TRAIN_AUC] - metrics[AUC]}
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
        yield "distinct", DISTINCT, lambda value: value < few, few, 1, FEW_DISTINCT
        yield "self_bleu", "self_bleu_3", lambda value: value > alike, alike, 1, ALIKE
        yield "spread", "reward_std", lambda value: value < spread, spread, self.patience, SATURATED
        patience, edge, gap = self.patience, 0.5 + self.auc_margin, self.auc_gap
        yield "guesses", ACCURACY, lambda value: abs(value - 0.5) < margin, None, patience, GUESSES
        yield "wins", ACCURACY, lambda value: value > 1 - margin, None, patience, WINS
        yield "nothing", AUC, lambda value: value < edge, None, 1, NOTHING_TO_WIN
        yield "memorises", AUC_GAP, lambda value: value > gap, None, 1, MEMORISES
