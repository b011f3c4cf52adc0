"""Folders of runs that never ran: a log with known numbers, and its recipe."""

from __future__ import annotations

import json
from pathlib import Path

import yaml


# Seconds of an epoch of pretraining, of D's pretraining, and of a round.
EPOCH, DISCRIMINATOR, ROUND = 10.0, 7.0, 5.0


def write_run(folder: Path, epochs: int, rounds: int, shift: float = 0.0, start: str | None = None, **recipe) -> str:
    """A log whose NLL_oracle is 10 - epoch, then 8 - round / 10 (plus `shift`); NLL_test only at even rounds.

    Args:
        folder: of the run; made here.
        start: `generator.pretrained` of the recipe.
        recipe: settings of the objective, which tell experiments apart.

    Returns:
        The folder.
    """
    lines, seconds = [], 0.0
    for epoch in range(1, epochs + 1):
        seconds += EPOCH
        nll = 10 - epoch + shift
        line = {"phase": "pretrain_generator", "epoch": epoch, "seconds": seconds, "nll_train": 3.0, "nll_oracle": nll}
        lines.append(line | {"intervals": {"nll_oracle": [nll - 0.25, nll + 0.5]}})
    if rounds:
        seconds += DISCRIMINATOR
        lines.append({"phase": "pretrain_discriminator", "step": 1, "seconds": seconds, "nll_oracle": 99.0, "d": 1.0})
    for number in range(1, rounds + 1):
        seconds += ROUND
        line = {"phase": "adversarial", "round": number, "seconds": seconds, "nll_oracle": 8 - number / 10 + shift}
        lines.append(line | ({"nll_test": 4.0 + number} if number % 2 == 0 else {}))
    folder.mkdir(parents=True)
    write_lines(folder, lines)
    training = {"seed": sum(map(ord, folder.name)), "output_dir": str(folder), "pretrain_epochs": epochs}
    settings = {"generator": {"pretrained": start}, "objective": recipe, "training": training}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return str(folder)


def write_lines(folder: str | Path, lines: list[dict]) -> None:
    """A log in place of the one that is there."""
    Path(folder, "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def sign(folder: str, metric: str, signature: str) -> None:
    """Give all values of a metric in a log this signature."""
    lines = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    write_lines(folder, [line | {"signatures": {metric: signature}} for line in lines])
