"""What a run has logged, read back: `metrics.jsonl`, and of its recipe what tells it from other runs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import RunFolderError, UserError


# The phases of training, and what each of them counts.
UNITS = {"pretrain_generator": "epoch", "pretrain_discriminator": "step", "adversarial": "round"}
# Where a line of `metrics.jsonl` stands, and what the run cost; all other numbers in it are metrics.
POSITION = {"phase", *UNITS.values(), "global_step", "seconds"}
COST = {f"{name}_per_second" for name in ("sequences", "tokens", "rollouts")}
COST |= {"seconds_left", "seconds_left_at_least", "peak_memory_gib", "peak_gpu_memory_gib"}
# Settings in which runs of one experiment may differ.
SEEDS = {"seed", "data_seed", "output_dir", "run_name", "logging_dir", "overwrite_run", "resume_from_checkpoint"}
NUMBERED = r"[-_.]?(seed|run)?[-_.]?\d+$"  # the end of a name that tells seeds apart


@dataclass
class Run:
    """The record of one run."""

    name: str  # of its folder
    label: str  # of its curve; equal for runs that differ in nothing but the seed
    lines: list[dict[str, Any]]  # of `metrics.jsonl`
    start: str | None = None  # the weights that the generator began from (`generator.pretrained`); `None`: fresh ones
    seeds: str | None = None  # of its recipe, in words; `None` where there is no recipe
    ended: bool = True  # whether it has come to its end; its last values are then those of its recipe

    @property
    def pretraining(self) -> int:
        """Epochs of the generator's pretraining."""
        return max((number for phase, number in map(unit, self.lines) if phase == "pretrain_generator"), default=0)

    @property
    def rounds(self) -> int:
        """Adversarial rounds."""
        return max((number for phase, number in map(unit, self.lines) if phase == "adversarial"), default=0)

    def last(self, metric: str) -> float | None:
        """The value that was measured last."""
        values = [line[metric] for line in self.lines if is_number(line.get(metric))]
        return values[-1] if values else None


def unit(line: dict[str, Any]) -> tuple[str, int]:
    """The phase of a line, and the number of its epoch, step or round."""
    phase = line.get("phase") or ""
    return phase, int(line.get(UNITS.get(phase, ""), 0) or 0)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def measured_metrics(runs: Sequence[Run]) -> list[str]:
    """Names of all values in the records, those of evaluations first; positions and costs left out."""
    numbers = (name for run in runs for line in run.lines for name, value in line.items() if is_number(value))
    names = dict.fromkeys(name for name in numbers if name not in POSITION | COST)
    return sorted(names, key=lambda name: not name.startswith(("nll_", "jsd_", "kl_", "bleu_", "self_bleu_")))


def check_measured(runs: Sequence[Run], metrics: Sequence[str]) -> None:
    """Raise a UserError, which names those that there are, for a metric that no run has measured."""
    for metric in metrics:
        if all(run.last(metric) is None for run in runs):
            known = ", ".join(measured_metrics(runs)) or "none"
            raise UserError(f"metric {metric!r}", f"one that a run measured ({known})", "check the name")


def read_runs(folders: Sequence[str]) -> list[Run]:
    """Read the folders of different runs; raises a UserError if one is named twice, else as `read_run`."""
    places = [Path(folder).resolve() for folder in folders]
    for folder, place in zip(folders, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"the run {folder!r} is named twice", fix="leave one out")
    return [read_run(folder) for folder in folders]


def read_run(folder: str | Path) -> Run:
    """Read a run's folder; raises a RunFolderError for an unreadable or empty log, or a `recipe.yaml` that is none."""
    folder = Path(folder)
    if not (lines := read_lines(folder / "metrics.jsonl")):
        raise RunFolderError(f"{str(folder / 'metrics.jsonl')!r} is empty", fix="train the run first")
    name, ended = folder.resolve().name, (folder / "summary.json").exists()
    settings = _read_recipe(folder / "recipe.yaml")
    if settings is None:
        return Run(name, re.sub(NUMBERED, "", name) or name, lines, ended=ended)
    generator = settings.get("generator")
    start = generator.get("pretrained") if isinstance(generator, dict) else None
    # equal for runs of one recipe with different seeds that have come equally far
    label = json.dumps([_without_seeds(settings), ended], sort_keys=True, default=str)
    return Run(name, label, lines, start, str(_seeds(settings)), ended)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; raises a RunFolderError if it cannot be read, or one is no JSON object."""
    try:
        texts, lines = path.read_text(encoding="utf-8").splitlines(), []
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise RunFolderError(f"cannot read {str(path)!r} ({why})", "the log of a run", "check the path") from error
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
        except ValueError as error:
            problem = f"line {number} of {str(path)!r} is not valid JSON ({error})"
            raise RunFolderError(problem, fix="fix or delete that line") from error
        if not isinstance(line, dict):
            raise RunFolderError(f"line {number} of {str(path)!r} is not a JSON object", fix="fix or delete that line")
        lines.append(line)
    return lines


def _read_recipe(path: Path) -> dict[str, Any] | None:
    """The settings of a run; `None` where the folder holds none."""
    if not path.exists():
        return None
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise RunFolderError(f"{str(path)!r} is not valid YAML ({why})", fix="fix the recipe") from error
    if not isinstance(settings, dict):
        found = "is empty" if settings is None else f"holds a {type(settings).__name__}"
        raise RunFolderError(f"{str(path)!r} {found}", "a recipe: settings by name", "fix the recipe")
    return settings


def _without_seeds(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_seeds(value) for key, value in node.items() if key not in SEEDS}
    return [_without_seeds(value) for value in node] if isinstance(node, list) else node


def _seeds(node: Any) -> list[Any]:
    if isinstance(node, dict):
        own = [node[key] for key in ("seed", "data_seed") if key in node]
        return own + [seed for value in node.values() for seed in _seeds(value)]
    return [seed for value in node for seed in _seeds(value)] if isinstance(node, list) else []


def by_label(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs of one label together, in the order of their first."""
    return {run.label: [other for other in runs if other.label == run.label] for run in runs}


def name_experiments(runs: Sequence[Run]) -> None:
    """Label each experiment with the name of its first run, without the number of the seed where it holds several.

    Runs that have not ended are marked where others have.
    """
    names: dict[str, str] = {}
    for key, members in by_label(runs).items():
        first = members[0].name
        name = (re.sub(NUMBERED, "", first) if len(members) > 1 else first) or first
        if any(run.ended for run in runs) and not all(run.ended for run in members):
            name += " (not ended)"
        taken = sum(re.sub(r" \(\d+\)$", "", other) == name for other in names.values())
        names[key] = f"{name} ({taken + 1})" if taken else name
    for run in runs:
        run.label = names[run.label]
