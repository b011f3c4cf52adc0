"""The results of a benchmark: raw values as CSV, and from these a table with verdicts.

A method is compared with the envelope of maximum likelihood of its own seed: all temperatures of its generators, and
all coins between two temperatures of one of them.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError
from ..evaluation.envelope import ABOVE_ENTROPY, PLANES, Plane, envelope, gaps
from ..evaluation.record import Z
from ..evaluation.report import format_value
from .jobs import Job


RAW, COINS, PAGE = "leaderboard.csv", "mixtures.csv", "leaderboard.md"
POSITION = ("name", "kind", "seed", "temperature", "budget", "seconds", "rounds", "played", "failed")
COLUMNS = (*POSITION, "metric", "value", "standard_error")
COIN_POSITION = ("name", "seed", "temperature", "other", "weight")
REAL = "real text"
SEQUENCE = "nll_test_sequence"
# What the table shows where it was measured, besides the values of the planes.
SHOWN = "jsd_oracle nll_test grammar_acceptance judge_nll bleu_4 self_bleu_4 emb_sim fed mauve".split()
SURE = 2.0  # standard errors
FEWEST = 3  # seeds, without which their standard error says little


class Gap(NamedTuple):
    """How far a method lies beyond the envelope at one temperature: mean and standard error over seeds."""

    temperature: float
    mean: float
    error: float
    seeds: int

    @property
    def certain(self) -> bool:
        return self.mean > SURE * self.error


@dataclass
class Method:
    """What is compared: at each temperature the values of each seed."""

    name: str  # of the recipe, or of the baseline
    kind: str  # `likelihood`, `control`, `objective` or `real`
    # by seed and temperature, values by name, and their standard errors over samples
    values: dict[tuple[int, float], dict[str, float]] = field(default_factory=dict)
    errors: dict[tuple[int, float], dict[str, float]] = field(default_factory=dict)
    cost: dict[int, tuple[float, float]] = field(default_factory=dict)  # by seed, seconds after pretraining, rounds
    idle: set[int] = field(default_factory=set)  # seeds whose time was used up before the first round
    failed: dict[int, str] = field(default_factory=dict)  # by seed, why

    @property
    def played(self) -> bool:
        """Whether it was trained by its own objective, with any seed."""
        return not self.idle or len(self.idle) < len(self.cost)

    @property
    def temperatures(self) -> list[float]:
        return sorted({temperature for _, temperature in self.values})

    def seeds(self, temperature: float) -> list[int]:
        return sorted(seed for seed, at in self.values if at == temperature)

    def over_seeds(self, temperature: float, metric: str) -> tuple[float, float, int]:
        """Mean and standard error over seeds, and their number; of one seed the error over samples."""
        at = [(seed, temperature) for seed in self.seeds(temperature)]
        found = [self.values[key][metric] for key in at if metric in self.values[key]]
        if len(found) == 1:
            return found[0], self.errors.get(at[0], {}).get(metric, math.nan), 1
        return mean_and_error(found)

    def places(self, plane: Plane) -> dict[tuple[int, float], tuple[float, float]]:
        """By seed and temperature, where it was measured."""
        return {key: place for key, values in self.values.items() if (place := plane.place(values))}


def mean_and_error(values: Sequence[float]) -> tuple[float, float, int]:
    """Mean, standard error of it, and number; NaN where there are too few."""
    count = len(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else math.nan
    return float(np.mean(values)) if count else math.nan, error, count


@dataclass
class Board:
    """All methods, and what coins can do, by seed: values by name of each mixture."""

    methods: dict[str, Method]
    coins: dict[int, list[dict[str, float]]]
    budget: str = ""

    @property
    def likelihoods(self) -> list[Method]:
        return [method for method in self.methods.values() if method.kind == "likelihood"]

    def curve(self, seed: int, plane: Plane) -> np.ndarray:
        """The envelope of maximum likelihood of a seed, (K, 2); empty where there is none in this plane."""
        coins = [place for values in self.coins.get(seed, []) if (place := plane.place(values))]
        alone = [place for m in self.likelihoods for (of, _), place in m.places(plane).items() if of == seed]
        return envelope([*coins, *alone] if coins else [])

    def planes(self) -> list[Plane]:
        """In which maximum likelihood was measured: for each measure of quality the first one."""
        measured = [plane for plane in PLANES if any(method.places(plane) for method in self.likelihoods)]
        return list({plane.y: plane for plane in reversed(measured)}.values())[::-1]

    def gaps(self, method: Method, plane: Plane) -> tuple[list[Gap], list[Gap]]:
        """Gaps in quality and in coverage, at every temperature at which they are known."""
        found: tuple[list[Gap], list[Gap]] = ([], [])
        for temperature in method.temperatures:
            places = [(seed, method.places(plane).get((seed, temperature))) for seed in method.seeds(temperature)]
            pairs = [gaps(curve, *place) for seed, place in places if place and len(curve := self.curve(seed, plane))]
            for axis, of_seeds in zip(found, zip(*pairs, strict=True), strict=False):
                gap = Gap(temperature, *mean_and_error(of_seeds))
                if not math.isnan(gap.mean):
                    axis.append(gap)
        return found

    def verdict(self, method: Method, plane: Plane) -> str:
        """Whether the method lies beyond the envelope by more than two standard errors, in which axis, and where."""
        if not method.played:
            return "did not play"
        quality, coverage = self.gaps(method, plane)
        if not quality + coverage:
            return "-"
        told = []
        for axis, of_axis in (("quality", quality), ("coverage", coverage)):
            if of_axis:
                best = max(of_axis, key=lambda gap: gap.mean / gap.error if gap.error > 0 else gap.mean)
                error = "" if math.isnan(best.error) else f" ± {best.error:.2g}"
                told.append(f"{axis} {best.mean:+.3g}{error} at {best.temperature:g}")
        at = [{gap.temperature for gap in of_axis if gap.certain} for of_axis in (quality, coverage)]
        if max(gap.seeds for gap in quality + coverage) < FEWEST:
            word = f"no verdict of fewer than {FEWEST} seeds"
        elif at[0] and at[1]:
            word = "**both**" if at[0] & at[1] else "**both**, at different temperatures"
        else:
            word = "**quality**" if at[0] else "**coverage**" if at[1] else "neither"
        idle = f"; did not play with seed {' and '.join(map(str, sorted(method.idle)))}" if method.idle else ""
        return f"{word} ({'; '.join(told)}){idle}"

    def order(self) -> list[Method]:
        """Objectives by their gap in coverage in the first plane, the best first; then controls, likelihoods, text.

        Of each kind, those that did not play come last.
        """
        planes = self.planes()

        def key(method: Method) -> tuple[int, bool, float]:
            kinds = ("objective", "control", "likelihood", "real")
            coverage = self.gaps(method, planes[0])[1] if planes else []
            best = max((gap.mean for gap in coverage), default=-math.inf)
            return kinds.index(method.kind), not method.played, -best

        return sorted(self.methods.values(), key=key)


# --- Raw values ------------------------------------------------------------------------------------------------------


def collect(jobs: Iterable[Job], output: Path, budget: str, entropy: float | None) -> None:
    """Write `leaderboard.csv`, a row for each value of a run, and `mixtures.csv`, from what all jobs left so far.

    `budget` is in words; `entropy` is that of the corpus, in nats a sequence, where it is known.
    """
    rows: list[dict[str, Any]] = []
    coins: list[dict[str, Any]] = []
    limit = re.match(r"([\d.]+)\s*s", budget)  # seconds; rounds are played in any case
    for job in jobs:
        position = {"name": job.name, "kind": job.kind, "seed": job.seed, "budget": budget}
        if job.failure is not None:
            rows.append(position | {"failed": job.failure})
        elif job.done:
            found = json.loads((job.folder.evaluation / "metrics.json").read_text("utf-8"))
            told = job.folder.read_summary()
            position["seconds"] = round(told["seconds_after_pretraining"], 1)
            position["rounds"] = told["progress"].get("adversarial", 0)
            if job.kind in ("objective", "control"):
                late = limit is not None and told["seconds_after_pretraining"] >= float(limit[1])
                position |= {"played": "no" if late and not position["rounds"] else "yes"}
            for point in found["points"]:
                rows += _measured(position | {"temperature": point["temperature"]}, point["results"], entropy)
            if not any(row["kind"] == "real" and row["seed"] == job.seed for row in rows):
                real = {name: r["real"] for name, r in found["points"][0]["results"].items() if r["real"]}
                rows += _real({"name": REAL, "kind": "real", "seed": job.seed, "temperature": 1.0}, real, entropy)
            if (mixtures := job.folder.evaluation / COINS).exists():
                coins += [{"name": job.name, "seed": job.seed} | row for row in _read(mixtures, COIN_POSITION[2:])]
    for row in coins:
        if entropy is not None and row.get(SEQUENCE):
            row[ABOVE_ENTROPY] = float(row[SEQUENCE]) - entropy
    output.mkdir(parents=True, exist_ok=True)
    _write(rows, COLUMNS, output / RAW)
    _write(coins, dict.fromkeys([*COIN_POSITION, *(name for row in coins for name in row)]), output / COINS)


def _measured(position: dict[str, Any], results: dict[str, Any], entropy: float | None) -> Iterator[dict[str, Any]]:
    """A row for each value, with its standard error over samples where it has one."""
    for name, found in results.items():
        if found["value"] is not None:
            row = position | {"metric": name, "value": found["value"]}
            if found["low"] is not None and found["high"] is not None:
                row["standard_error"] = (found["high"] - found["low"]) / (2 * Z)
            yield row
            if name == SEQUENCE and entropy is not None:
                yield row | {"metric": ABOVE_ENTROPY, "value": found["value"] - entropy}


def _real(position: dict[str, Any], results: dict[str, Any], entropy: float | None) -> Iterator[dict[str, Any]]:
    """Likewise of real text; what is known of whoever writes it, a grammar or an oracle, is exact."""
    exact = {} if entropy is None else {ABOVE_ENTROPY: 0.0, "grammar_acceptance": 1.0}
    if "nll_oracle" in results:
        exact |= {"kl_generator_oracle": 0.0, "kl_oracle_generator": 0.0}
        results = results | {"nll_test": results["nll_oracle"]}  # of held-out text under the model that wrote it
    others = {name: found for name, found in results.items() if name not in exact}
    yield from _measured(position, others, None)
    yield from (position | {"metric": name, "value": value} for name, value in exact.items())


def _write(rows: Sequence[dict[str, Any]], names: Collection[str], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _read(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            lacking = [name for name in needed if name not in (reader.fieldnames or ())]
            rows = list(reader)
    except OSError as error:
        problem = f"cannot read {str(path)!r} ({error.strerror})"
        raise UserError(problem, "the folder of a benchmark", "name recipes to begin one") from error
    if lacking:
        problem, fix = f"{str(path)!r} has no column {', '.join(lacking)}", "name the recipes and settings again"
        raise UserError(problem, "a file as this version writes it", f"{fix}: it is written anew, no run is repeated")
    return rows


def read_board(output: Path) -> Board:
    """What `collect` wrote; raises a UserError if it is not there, or lacks columns."""
    board = Board({}, {})
    for row in _read(output / RAW, COLUMNS):
        method = board.methods.setdefault(row["name"], Method(row["name"], row["kind"]))
        seed, board.budget = int(row["seed"]), row["budget"] or board.budget
        if row["failed"]:
            method.failed[seed] = row["failed"]
            continue
        if row["seconds"]:
            method.cost[seed] = float(row["seconds"]), float(row["rounds"])
            method.idle |= {seed} if row["played"] == "no" else set()
        key, metric = (seed, float(row["temperature"])), row["metric"]
        method.values.setdefault(key, {})[metric] = float(row["value"])
        if row["standard_error"]:
            method.errors.setdefault(key, {})[metric] = float(row["standard_error"])
    for row in _read(output / COINS, COIN_POSITION):
        values = {name: float(cell) for name, cell in row.items() if cell and name not in COIN_POSITION}
        board.coins.setdefault(int(row["seed"]), []).append(values)
    return board


# --- The table -------------------------------------------------------------------------------------------------------


def table(board: Board) -> list[str]:
    """A row for each method: values at temperature 1 (or the nearest), cost, and a verdict for each plane."""
    measured = {name for method in board.methods.values() for values in method.values.values() for name in values}
    of_planes = (name for plane in board.planes() for name in (plane.y, plane.x))
    metrics = [name for name in dict.fromkeys([*of_planes, *SHOWN]) if name in measured]
    lines = ["| | seeds | seconds | rounds | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 4) + "|"]
    for method in (method for method in board.order() if method.values):
        at = nearest(method.temperatures)
        cells = [_cell(*method.over_seeds(at, metric)) for metric in metrics]
        cost = [f"{np.mean(each):.0f}" for each in zip(*method.cost.values(), strict=True)] or ["", ""]
        lines.append(f"| {method.name} | {len(method.seeds(at))} | {' | '.join([*cost, *cells])} |")
    for method in board.methods.values():
        for seed, reason in sorted(method.failed.items()):
            told = f"| {method.name} | seed {seed} failed: {reason.replace('|', '/')} "
            lines.append(told + "|" * (len(metrics) + 3))
    return lines


def nearest(temperatures: Iterable[float]) -> float:
    """Of these, to 1."""
    return min(temperatures, key=lambda temperature: abs(temperature - 1))


def _cell(mean: float, error: float, count: int) -> str:
    if not count:
        return "-"
    return format_value(mean) + ("" if math.isnan(error) else f" ± {format_value(error)}")


def verdicts(board: Board) -> list[str]:
    """For each plane, whether each method lies beyond the envelope."""
    planes = [plane for plane in board.planes() if any(len(board.curve(seed, plane)) for seed in board.coins)]
    if not planes:
        return []
    names = [f"{plane.y} at {plane.x}" for plane in planes]
    lines = ["| beyond the envelope | " + " | ".join(names) + " |", "|---" * (len(planes) + 1) + "|"]
    for method in (m for m in board.order() if m.kind in ("objective", "control") and m.values):
        lines.append(f"| {method.name} | {' | '.join(board.verdict(method, plane) for plane in planes)} |")
    return lines


def page(board: Board, pictures: Sequence[str]) -> str:
    budget = re.sub(r"(?<=\d)(?=[a-z])", " ", board.budget)
    measured = [m.temperatures for m in board.methods.values() if m.kind != "real" and m.values]
    at = ", ".join(f"{each:g}" for each in sorted({nearest(each) for each in measured})) or "1"
    where = f"At temperature {at}{'' if at == '1' else ', the nearest to 1'}"
    lines = ["# Leaderboard", "", f"Budget after the generator's pretraining: {budget}.", ""]
    lines += [f"{where}: mean ± standard error over seeds (of one seed, over samples).", "", *table(board), ""]
    if idle := ", ".join(method.name for method in board.order() if method.idle):
        lines += [
            f"Did not play, or not with every seed: {idle}. The budget was used up before the first round, such as by",
            "the pretraining of the discriminator, so these rows say nothing of their objectives: set a larger",
            "`--budget`, or fewer `--training.discriminator_pretrain_steps`.",
            "",
        ]
    if found := verdicts(board):
        lines += [
            "Beyond the envelope of maximum likelihood: by more than two standard errors over seeds, in quality at",
            "equal coverage, in coverage at equal quality, or both at one temperature. In brackets the surest gap in",
            "each axis and its temperature; a negative one lies inside. Where quality is missing, the method covers",
            "less than every mixture, at all temperatures.",
            "",
            *found,
            "",
        ]
    lines += [line for name in pictures for line in (f"![{name}]({name})", "")]
    return "\n".join(lines)
