"""Recipes: YAML files and the command lines that override them. Every node is a class with its own signature."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace
from transformers import TrainingArguments

from ..data import DataSource, TextData
from ..errors import RecipeError, import_by_path
from ..evaluation.arguments import OWN, EvaluationArguments, check_names, split_names
from ..evaluation.catalog import TextSettings
from ..objectives import MLE, Objective
from ..training.arguments import SUPPORTED_FIELDS, AdversarialTrainingArguments
from .mistakes import check_nulls, parse, read_recipe, refusal
from .recipe_names import find_recipe, recipe_names


@dataclass
class ModelSettings:
    """A generator (any causal LM), or its opponent: any sequence classifier, or a causal LM if the objective asks so.

    Args:
        model_type: architecture, as `AutoConfig` knows it (`rnn_generator`, `cnn_discriminator`, `gpt2`, `bert`, ...),
            or the dotted path of a configuration class of your own, whose module registers it with the Auto classes.
        config: settings of that architecture. Vocabulary size and special tokens come from the data.
        pretrained: start from these weights instead: a folder, or an id on the Hub.
    """

    model_type: str = "rnn_generator"
    config: dict[str, Any] = field(default_factory=dict)
    pretrained: str | None = None


@dataclass
class GeneratorSettings(ModelSettings):
    """Any causal LM.

    Args:
        lora: train an adapter of `pretrained` alone, by these settings of `peft.LoraConfig` (`r`, `lora_alpha`,
            `target_modules`, ...). The run saves the adapter, with the name of the model that it belongs to. Where
            `pretrained` is an adapter, such as an earlier run's, its training goes on, and `lora` may be left out.
        dtype: in which the weights below an adapter are held. What is trained is float32 always, whatever type the
            model was saved in.
    """

    lora: dict[str, Any] | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"


@dataclass
class DiscriminatorSettings(ModelSettings):
    """The generator's opponent.

    Args:
        reads: `ids`, the generator's, whose vocabulary it shares; or `text`: samples are decoded, and encoded by the
            tokenizer of `pretrained`, so that any classifier or encoder of the Hub can judge any generator.
        freeze: what keeps its pretrained weights: a number of layers, the embeddings and the first so many, or
            patterns of parameter names (`*.embeddings.*`).
    """

    model_type: str = "cnn_discriminator"
    reads: Literal["ids", "text"] = "ids"
    freeze: int | list[str] = 0


@dataclass
class EvaluationSettings(TextSettings):
    """What is measured at evaluation rounds, besides likelihoods, and when the run has ended.

    Args:
        metrics: names of text metrics (`bleu`, `self_bleu`, `distinct`, ...) or dotted paths of functions: a list, or
            one or several with commas between them.
        tokenization: how text is split for them: `white_space`, `treebank` or `character`; by default `character`
            where the tokens of the data are characters, else `white_space`.
        lowercase: fold case first.
        encoder: sentence encoder for the metrics `fed` and `mauve`, an id or a path.
        judge_lm: independent language model for the metric `judge_lm`, an id or a path.
        accepts: dotted path of a function that says whether a text is valid, for the metric `grammar`.
        recipe: an evaluation recipe (`evaluation/full`, or a path) for the finished generator; the report lies in
            `evaluation/` of the run's folder. It is given the data's held-out and training text, or the oracle, and
            `encoder`, `judge_lm` and `accepts` of this section, unless it names others.
    """

    encoder: str | None = None
    judge_lm: str | None = None
    accepts: str | None = None
    metrics: list[str] | str = field(default_factory=list)
    recipe: str | None = None

    def __post_init__(self):
        self.metrics = split_names(self.metrics)
        check_names(self.metrics, self)


# Sections of a training recipe, and keys of an evaluation recipe.
KEYS = {
    "train": {"data", "generator", "discriminator", "objective", "pretraining", "evaluation", "training"},
    "evaluate": {field.name for field in dataclasses.fields(EvaluationArguments)},
}
# Sections of a training recipe that hold settings by name, with their classes; the others name a class of their own.
SECTIONS = {
    "generator": GeneratorSettings,
    "discriminator": DiscriminatorSettings,
    "evaluation": EvaluationSettings,
    "training": AdversarialTrainingArguments,
}
# Settings that must not end up in a file (the token) or that only launchers set.
NOT_IN_RECIPES = {"hub_token", "local_rank"}


@cache
def recipe_parser() -> ArgumentParser:
    """The command line of `train`: a recipe, then overrides of any of its values."""
    parser = _parser("seqgan-hf train RECIPE", "Train from a recipe.")
    parser.add_subclass_arguments(DataSource, "data", required=True)
    parser.add_class_arguments(GeneratorSettings, "generator")
    parser.add_class_arguments(DiscriminatorSettings, "discriminator")
    parser.add_subclass_arguments(Objective, "objective", required=True)
    parser.add_subclass_arguments(Objective, "pretraining", required=False)
    parser.add_class_arguments(EvaluationSettings, "evaluation", skip={"seed", "device"})
    inherited = {base.name for base in dataclasses.fields(TrainingArguments)}
    skip = (inherited - SUPPORTED_FIELDS) | NOT_IN_RECIPES
    parser.add_class_arguments(AdversarialTrainingArguments, "training", skip=skip)
    parser.set_defaults({"pretraining": {"class_path": f"{MLE.__module__}.{MLE.__qualname__}"}})
    return parser


def _parser(command: str, description: str) -> ArgumentParser:
    parser = ArgumentParser(prog=command, exit_on_error=False, allow_abbrev=False, description=description)
    parser.add_argument("--config", action=ActionConfigFile, help="a recipe (the first argument may name it as well)")
    return parser


def load_recipe(arguments: list[str]) -> tuple[Namespace, str]:
    """Read a recipe and its overrides.

    Args:
        arguments: the recipe's name or path, then `--section.key value` pairs.

    Returns:
        The recipe, with a class path or values at every node, and the same as YAML.

    Raises:
        RecipeError: an unknown key (the valid ones are named), a value of a wrong type, a recipe that does not exist.
    """
    parser = recipe_parser()
    recipe = _parse(parser, arguments, "train")
    for name, kind in SECTIONS.items():
        check_nulls(vars(recipe[name]), kind, name)
    check_nulls({name: recipe[name] for name in ("data", "objective", "pretraining")}, None, "")
    saved = recipe.clone()
    objective: Any = import_by_path(recipe.objective.class_path, "objective")
    if objective.adversary is None:
        del saved["discriminator"]  # there is none, whatever its defaults
    return recipe, parser.dump(saved)


def load_evaluation(arguments: list[str], **defaults: Any) -> EvaluationArguments:
    """The settings of `evaluate`: a recipe, if the first argument names one, then `--key value` pairs.

    Args:
        arguments: the command line.
        defaults: values of what neither the recipe nor the command line names.

    Raises:
        RecipeError: as `load_recipe`.
        UserError: a value that cannot be used.
    """
    parser = _parser("seqgan-hf evaluate", "Measure samples or generators.")
    parser.add_class_arguments(EvaluationArguments)
    parser.set_defaults(defaults)
    settings = vars(_parse(parser, _as_lists(arguments), "evaluate"))
    del settings["config"]
    check_nulls(settings, EvaluationArguments, "")
    return EvaluationArguments(**settings)


def _as_lists(arguments: list[str]) -> list[str]:
    """`--model A B` and `--temperatures 0.7,0.8` in the form that the parser reads: `--model=["A", "B"]`.

    `--discriminator` alone is `--discriminator=own`.
    """
    names = [f"--{name}{plus}" for plus in ("", "+") for name in ("model", "temperatures", "exponents", "metrics")]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in names:
        parser.add_argument(name, nargs="+", action="append", default=argparse.SUPPRESS)
    parser.add_argument("--discriminator", nargs="?", const=OWN, default=argparse.SUPPRESS)
    # `--model=A B` as well
    split = (argument.split("=", 1) if argument.split("=")[0] in names else [argument] for argument in arguments)
    try:
        lists, result = parser.parse_known_args([part for parts in split for part in parts])
    except argparse.ArgumentError as error:
        raise RecipeError(f"{error.argument_name} without a value", "one, or several", None) from error
    given = vars(lists)
    if "discriminator" in given:
        result.append(f"--discriminator={given.pop('discriminator')}")
    for name, several in sorted(given.items(), key=lambda item: item[0].endswith("+")):  # what is added comes last
        if len(several) > 1 and not name.endswith("+"):
            raise RecipeError(f"--{name} {len(several)} times", "once", f"name all together, or add with `--{name}+`")
        for values in several:
            if not values[0].startswith("["):
                parts = ",".join(value.strip(",") for value in values)
                values = [json.dumps(values) if name.startswith("model") else f"[{parts}]"]
            result.append(f"--{name}={' '.join(values)}")
    return result


def load_source(corpus: str, overrides: list[str]) -> DataSource:
    """The data source of a recipe, by name or path, or of a file of text, with `--data.key value` overrides.

    Raises:
        RecipeError: as `load_recipe`.
    """
    # whose help shows all settings
    parser = ArgumentParser(prog="seqgan-hf train RECIPE", exit_on_error=False, allow_abbrev=False)
    parser.add_subclass_arguments(DataSource, "data", required=True)
    if Path(corpus).suffix in (".yaml", ".yml") or (corpus in recipe_names() and not Path(corpus).is_file()):
        if (data := read_recipe(str(find_recipe(corpus)), "data").get("data")) is None:
            problem, fix = f"recipe {corpus!r} has no section `data`", "name a recipe of `seqgan-hf train`, or a file"
            raise RecipeError(problem, "one that names a corpus", fix)
        arguments = ["--data", yaml.safe_dump(data)]
    else:
        arguments = ["--data", f"{TextData.__module__}.{TextData.__qualname__}", "--data.train_file", corpus]
    settings = _parse(parser, [*arguments, *overrides], "data")
    check_nulls(vars(settings), None, "")
    return instantiate(parser, settings).data


def instantiate(parser: ArgumentParser, settings: Namespace) -> Namespace:
    """The settings, with an object at every node that names a class.

    Raises:
        UserError: a class refuses a value.
    """
    try:
        return parser.instantiate(settings)
    except (ValueError, TypeError) as error:
        if (reason := refusal(error)) is None:
            raise
        raise reason from error


def _parse(parser: ArgumentParser, arguments: list[str], command: str) -> Namespace:
    """Read a command line whose first argument may be the path or the name of a recipe."""
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--config", *arguments]
    parts = (argument.split("=", 1) if argument.startswith("--config=") else [argument] for argument in arguments)
    arguments = [part for several in parts for part in several]
    for index, (option, recipe) in enumerate(itertools.pairwise(arguments), 1):
        if option == "--config":
            arguments[index] = path = str(find_recipe(recipe))
            _check_kind(path, read_recipe(path, command), command)
    return parse(parser, arguments)


def _check_kind(path: str, settings: dict[str, Any], command: str) -> None:
    """Raise a `RecipeError` for what another command reads, or a section that holds no settings by name."""
    if "compute_environment" in settings:
        problem, expected = f"{path!r} is a configuration of accelerate, no recipe", f"one of `seqgan-hf {command}`"
        fix = f"start `accelerate launch --config_file {path} -m seqgan_hf train RECIPE`"
        raise RecipeError(problem, expected, fix)
    for other in KEYS.keys() - {command}:
        if settings and settings.keys() <= KEYS[other]:
            problem, expected = f"{path!r} is a recipe of `seqgan-hf {other}`", f"one of `seqgan-hf {command}`"
            raise RecipeError(problem, expected, f"run `seqgan-hf {other} {path}`, or name another recipe")
    for name in settings.keys() & SECTIONS.keys() if command == "train" else ():
        if not isinstance(settings[name], dict | None):
            raise RecipeError(f"{name}={settings[name]!r:.60} in {path!r}", "settings by name", "correct it")
