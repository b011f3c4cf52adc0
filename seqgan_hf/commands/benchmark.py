"""`seqgan-hf benchmark`: every recipe and seed under one budget, beside maximum likelihood and what a coin can do."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..data import GrammarData, OracleData
from ..data.grammar import english_grammar
from ..errors import RecipeError, UserError, import_by_path
from ..evaluation.arguments import EvaluationArguments, split_names
from ..evaluation.sweep import SWEEP_METRICS
from ..objectives import ConstantReward, Objective
from ..runs.jobs import Job, Queue
from ..runs.leaderboard import collect
from ..runs.planes import write_leaderboard
from ..runs.record import read_lines
from . import main
from .command_parser import CommandParser
from .recipe import instantiate, load_recipe, recipe_parser


SECTIONS = r"--(data|generator|discriminator|objective|pretraining|evaluation|training)\b"
# What the command itself sets in every recipe.
OURS = ("output_dir", "seed", "rounds", "max_seconds", "resume_from_checkpoint", "overwrite_run", "push_to_hub")
# Settings of `training` on which the generator's pretraining depends; two recipes that agree in these share it.
PRETRAINING = re.compile(
    "pretrain_.*|per_device_train_batch_size|gradient_accumulation_steps|max_new_tokens|optim|optim_args|"
    "weight_decay|adam_.*|bf16|fp16|tf32|use_cpu"
)
TEMPERATURES = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
COLDER = (
    0.3,
    0.4,
    0.5,
)  # of likelihood alone: a method that is merely sharper would lie beyond its envelope otherwise
ENDLESS = 1_000_000  # rounds, where time decides
LONGER_STEPS = 100  # of maximum likelihood between two measurements, where time decides
LIKELIHOOD = "maximum likelihood"


@dataclass
class Budget:
    """What every method may use after the generator's pretraining: seconds of work, or rounds."""

    number: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Budget:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|seconds?|rounds?)", text.strip())
        if not found or not float(found[1]) or (found[2][0] == "r" and not float(found[1]).is_integer()):
            raise UserError(f"--budget {text}", "seconds of work (600s) or rounds (50rounds)", "name one of both")
        return cls(float(found[1]), "rounds" if found[2][0] == "r" else "seconds")

    @property
    def training(self) -> dict[str, Any]:
        if self.unit == "rounds":
            return {"rounds": int(self.number), "max_seconds": None}
        return {"rounds": ENDLESS, "max_seconds": self.number}


@dataclass
class Plan:
    """The jobs of a benchmark. Recipes are resolved; the baselines have generator and pretraining of the first one."""

    recipes: dict[str, dict[str, Any]]
    seeds: Sequence[int]
    budget: Budget
    output: Path
    evaluation: dict[str, Any]
    jobs: list[Job] = field(default_factory=list)
    pretrained: dict[str, Job] = field(default_factory=dict)  # by the settings on which pretraining depends

    def __post_init__(self):
        first = next(iter(self.recipes))
        for seed in self.seeds:
            start = self._pretraining(first, self.recipes[first], seed)
            longer = self._longer(self.recipes[first], start, seed)
            self._early(self.recipes[first], start, longer, seed)
            self._constant(self.recipes[first], start, seed)
            for name, recipe in self.recipes.items():
                self._objective(name, recipe, seed)

    def _add(self, name: str, kind: str, seed: int, recipe: Any, needs: Sequence[Job] = ()) -> Job:
        slug = re.sub(r"[^\w.]+", "-", name).strip("-")
        job = Job(name, kind, seed, self.output / "runs" / slug / f"seed-{seed}", recipe, needs)
        job.recipe = lambda: self._complete(recipe(), job)
        self.jobs.append(job)
        return job

    def _complete(self, recipe: dict[str, Any], job: Job) -> dict[str, Any]:
        """The recipe with what is the same in all: where it lies, its seed, and how its generator is evaluated."""
        likelihood = job.kind == "likelihood"
        suffix = "" if likelihood else "-alone"
        evaluation = self.output / "evaluation" / f"seed-{job.seed}{suffix}.yaml"
        evaluation.parent.mkdir(parents=True, exist_ok=True)
        colder = sorted({*COLDER, *self.evaluation["temperatures"]}) if likelihood else self.evaluation["temperatures"]
        of_job = {"seed": job.seed, "mixtures": likelihood, "temperatures": colder}
        settings = yaml.safe_dump(self.evaluation | of_job)
        if not evaluation.exists():  # appears as a whole, as other jobs may look at the same time
            aside = evaluation.with_name(f"{evaluation.name}.{job.path.parent.name}")
            aside.write_text(settings, encoding="utf-8")
            os.replace(aside, evaluation)
        elif evaluation.read_text(encoding="utf-8") != settings:
            problem = f"runs in {str(self.output)!r} are evaluated with other settings ({str(evaluation)!r} has them)"
            raise UserError(problem, "the same temperatures, metrics and samples", "choose another --output")
        own = {"output_dir": str(job.path), "seed": job.seed, "disable_tqdm": True, "report_to": "none"}
        own["estimate_time"] = False  # nobody reads the log of a job
        training = recipe["training"] | own | {"push_to_hub": False, "load_best_model_at_end": False}
        shown = {"metrics": [], "recipe": str(evaluation)}
        return recipe | {"training": training, "evaluation": recipe["evaluation"] | shown}

    def _pretraining(self, name: str, recipe: dict[str, Any], seed: int) -> Job:
        """Maximum likelihood, from which the methods of all recipes that agree in it start."""
        kept = {key: value for key, value in recipe["training"].items() if PRETRAINING.fullmatch(key)}
        own = {key: recipe[key] for key in ("data", "generator", "pretraining", "evaluation")}
        training = kept | {"rounds": 0, "discriminator_pretrain_steps": 0, "eval_epochs": 1, "eval_samples": 256}
        training |= {"metric_for_best_model": "nll_test", "greater_is_better": False}
        own |= {"objective": recipe["pretraining"], "training": training}
        key = json.dumps([own, seed], sort_keys=True)
        if key not in self.pretrained:
            taken = any(job.seed == seed for job in self.pretrained.values())
            label = f"{LIKELIHOOD} ({name})" if taken else LIKELIHOOD
            self.pretrained[key] = self._add(label, "likelihood", seed, lambda: own)
        return self.pretrained[key]

    def _method(self, recipe: dict[str, Any], start: Job | None, **changes: Any) -> dict[str, Any]:
        """A recipe that goes on from a pretrained generator, within the budget; it is measured at its end."""
        training = recipe["training"] | {"eval_epochs": 0, "eval_rounds": 0, "metric_for_best_model": None}
        training |= self.budget.training
        if start is not None:
            training["pretrain_epochs"] = 0
            recipe = recipe | {"generator": recipe["generator"] | {"pretrained": str(start.folder.generator)}}
        return recipe | {"training": training | changes}

    def _objective(self, name: str, recipe: dict[str, Any], seed: int) -> None:
        start = self._pretraining(name, recipe, seed) if shares(recipe) else None
        self._add(name, "objective", seed, lambda: self._method(recipe, start), [start] if start else [])

    def _longer(self, recipe: dict[str, Any], start: Job, seed: int) -> Job:
        """Maximum likelihood that goes on for as long as the methods do."""
        given, rounds = recipe["training"], int(self.budget.number)
        changes = {
            "generator_learning_rate": given["pretrain_learning_rate"],
            "generator_max_grad_norm": given["pretrain_max_grad_norm"],
            "generator_lr_scheduler": "constant",
            "generator_steps": given["generator_steps"] if self.budget.unit == "rounds" else LONGER_STEPS,
            "eval_rounds": max(1, rounds // 20) if self.budget.unit == "rounds" else 1,
            "eval_samples": 256,
            "metric_for_best_model": "nll_test",
            "greater_is_better": False,
        }
        own = _without_opponent(recipe) | {"objective": recipe["pretraining"]}
        made = self._method(own, start, **changes)
        return self._add(f"{LIKELIHOOD}, longer", "likelihood", seed, lambda: made, [start])

    def _early(self, recipe: dict[str, Any], start: Job, longer: Job, seed: int) -> None:
        """The best of both by NLL_test, once it is known."""
        own = _without_opponent(recipe) | {"objective": recipe["pretraining"]}

        def made() -> dict[str, Any]:
            best = min(map(_best_checkpoint, (start, longer)))[1]
            method = self._method(own, start, rounds=0, max_seconds=None)
            return method | {"generator": own["generator"] | {"pretrained": str(best / "generator")}}

        self._add(f"{LIKELIHOOD}, early-stopped", "likelihood", seed, made, [start, longer])

    def _constant(self, recipe: dict[str, Any], start: Job, seed: int) -> None:
        control = {"class_path": f"{ConstantReward.__module__}.{ConstantReward.__qualname__}"}
        made = self._method(_without_opponent(recipe) | {"objective": control}, start)
        self._add("constant reward", "control", seed, lambda: made, [start])


def shares(recipe: dict[str, Any]) -> bool:
    """Whether the generator's pretraining depends on nothing else in the recipe, so that others can start from it."""
    objective: Any = import_by_path(recipe["objective"]["class_path"], "objective")
    alone = objective.schedule is Objective.schedule and not recipe["training"]["discriminator_share"]
    return alone and not recipe["generator"].get("lora")


def _without_opponent(recipe: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key != "discriminator"}


def _best_checkpoint(job: Job) -> tuple[float, Path]:
    """The lowest NLL_test that a run has measured, and the checkpoint from then, which it has kept."""
    lines = [line for line in read_lines(job.folder.metrics) if "nll_test" in line]
    best = min(lines, key=lambda line: line["nll_test"])
    return best["nll_test"], job.folder.checkpoints / f"checkpoint-{best['global_step']}"


# --- The command line ------------------------------------------------------------------------------------------------


def run(arguments: list[str]) -> None:
    """`RECIPE ... --seeds 1 2 3 --budget 600s --output FOLDER [--section.key value ...]`."""
    overrides, own = _split(arguments)
    options = _parser().parse_args(own)
    output = Path(options.output)
    for name in ("jobs", "num_samples"):
        if (number := getattr(options, name)) < 1:
            raise UserError(f"--{name} {number}", "at least 1", "raise it, or leave it out")
    if options.recipes:
        recipes = read_recipes(options.recipes, overrides)
        evaluation = _evaluation(options, next(iter(recipes.values())))
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output {options.output!r} ({error.strerror})", "a folder", "choose another") from error
        plan = Plan(recipes, options.seeds, Budget.parse(options.budget), output, evaluation)
        try:
            Queue(plan.jobs, options.jobs, main, f"{__package__}.build").run()
        finally:  # what is done by then can be read
            collect(plan.jobs, output, options.budget, _entropy(next(iter(recipes.values()))))
    print(write_leaderboard(output))


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="seqgan-hf benchmark",
        description="Train every recipe and seed under one budget, evaluate all alike, and write a leaderboard. Run "
        "it again to go on after an interruption. Without recipes, tables and pictures are made anew from the .csv "
        "files in the folder.",
        epilog="--data.*, --generator.*, --discriminator.*, --training.* and --evaluation.* change all recipes.",
    )
    add = parser.add_argument
    add("recipes", nargs="*", help="recipes of `seqgan-hf train` with one corpus; the baselines are the first one's")
    add("--output", required=True, help="a folder for the runs, leaderboard.md, .csv files and pictures")
    add("--seeds", nargs="+", type=int, default=[1, 2, 3], help="of every recipe (default: 1 2 3)")
    add("--budget", default="600s", help="of every run after pretraining: 600s of work, or 50rounds (default: 600s)")
    add(
        "--temperatures",
        nargs="+",
        type=float,
        default=list(TEMPERATURES),
        help=f"of all; likelihood is measured at 0.3 to 0.5 as well (default: {TEMPERATURES})",
    )
    add("--num_samples", type=int, default=2_000, help="at every temperature (default: 2000)")
    add("--metrics", help="text metrics with commas between them (default: what a sweep measures)")
    add("--jobs", type=int, default=1, help="runs at a time, each on its own GPU if there are several (default: 1)")
    return parser


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides of recipes, and the command's own arguments."""
    overrides: list[str] = []
    own: list[str] = []
    for before, argument in itertools.pairwise(["", *arguments]):
        is_value = re.fullmatch(f"{SECTIONS}[^=]*", before) and not argument.startswith("--")
        (overrides if is_value or re.match(SECTIONS, argument) else own).append(argument)
    for name in OURS:
        if any(re.match(rf"--training\.{name}(=|$)", argument) for argument in overrides):
            fix = "use --seeds, --budget and --output" if name in OURS[:4] else "leave it out"
            raise UserError(f"--training.{name} in a benchmark, which sets it for every run", fix=fix)
    return overrides, own


def read_recipes(paths: Sequence[str], overrides: list[str]) -> dict[str, dict[str, Any]]:
    """Resolved recipes by the names of their files.

    Raises:
        RecipeError: one cannot be read, has the name of another, or another corpus than the first.
        UserError: a class refuses its settings, or the corpus cannot be used.
    """
    recipes: dict[str, dict[str, Any]] = {}
    for path in paths:
        name = Path(path).stem
        if name in recipes or name.startswith(LIKELIHOOD):
            raise RecipeError(f"two recipes of the name {name!r}", "different names", "rename one of the files")
        nodes, text = load_recipe([path, *overrides])
        nodes = instantiate(recipe_parser(), nodes)  # now, so that what a class refuses is not met in every run
        recipe = yaml.safe_load(text)
        if not recipes:
            nodes.data.load()  # likewise: a file that is missing or cannot be used
        recipes[name] = recipe
        first = next(iter(recipes.values()))
        if recipe["data"] != first["data"]:
            problem = f"{path!r} and {paths[0]!r} name different corpora ({recipe['data']} and {first['data']})"
            raise RecipeError(problem, "one corpus for all", "override it (--data.* ...), or leave one out")
        recipe["evaluation"] = first["evaluation"]
    return recipes


def _entropy(recipe: dict[str, Any]) -> float | None:
    """Of the corpus, in nats a sequence, where it is known: of the built-in grammar."""
    source: Any = import_by_path(recipe["data"]["class_path"], "data")
    return english_grammar().entropy() if issubclass(source, GrammarData) else None


def _evaluation(options: argparse.Namespace, recipe: dict[str, Any]) -> dict[str, Any]:
    """Settings of the evaluation of every run."""
    if len(options.temperatures) < 2:
        raise UserError(f"--temperatures {options.temperatures}", "two or more", "leave it out for seven of them")
    source: Any = import_by_path(recipe["data"]["class_path"], "data")
    metrics = split_names(options.metrics)
    given = recipe["evaluation"]
    if metrics is None and issubclass(source, OracleData):
        metrics = ["distinct"]
    elif metrics is None:
        needs = {"fed": "encoder", "judge_lm": "judge_lm", "grammar": "accepts"}
        metrics = [*SWEEP_METRICS, "emb_sim", *(name for name, setting in needs.items() if given.get(setting))]
    settings = {"temperatures": options.temperatures, "num_samples": options.num_samples, "metrics": metrics}
    texts = ("tokenization", "lowercase", "encoder", "judge_lm", "accepts")
    settings |= {name: given[name] for name in texts if given.get(name)}
    EvaluationArguments(model=["-"], references="-", **settings)  # refuses what cannot be used, before any training
    return settings
