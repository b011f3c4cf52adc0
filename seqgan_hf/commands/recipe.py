"""Recipes: YAML files and the command lines that override them. Every node is a class with its own signature."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace
from transformers import TrainingArguments

from ..data import DataSource, TextData
from ..errors import RecipeError, UserError
from ..evaluation.arguments import EvaluationArguments
from ..evaluation.catalog import TextSettings
from ..evaluation.tokenization import import_by_path
from ..objectives import MLE, Objective
from ..training.arguments import SUPPORTED_FIELDS, AdversarialTrainingArguments
from .yaml_structure import check_structure


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
class EvaluationSettings(TextSettings):
    """What is measured at evaluation rounds, besides likelihoods, and when the run has ended.

    Args:
        metrics: names of text metrics (`bleu`, `self_bleu`, `distinct`, ...) or dotted paths of functions.
        tokenization: how text is split for them: `white_space`, `treebank` or `character`.
        lowercase: fold case first.
        encoder: sentence encoder for the metrics `fed` and `mauve`, an id or a path.
        accepts: dotted path of a function that says whether a text is valid, for the metric `grammar`.
        recipe: an evaluation recipe (`recipes/evaluation/*.yaml`) for the finished generator; the report lies in
            `evaluation/` of the run's folder. It is given the data's held-out and training text, or the oracle, and
            `encoder` and `accepts` of this section, unless it names others.
    """

    encoder: str | None = None
    accepts: str | None = None
    metrics: list[str] = field(default_factory=list)
    recipe: str | None = None


# Sections of a training recipe, and keys of an evaluation recipe.
KEYS = {
    "train": {"data", "generator", "discriminator", "objective", "pretraining", "evaluation", "training"},
    "evaluate": {field.name for field in dataclasses.fields(EvaluationArguments)},
}
# Settings that must not end up in a file (the token) or that only launchers set.
NOT_IN_RECIPES = {"hub_token", "local_rank"}


def recipe_parser() -> ArgumentParser:
    """The command line of `train`: a recipe, then overrides of any of its values."""
    parser = _parser("seqgan-hf train RECIPE", "Train from a recipe.")
    parser.add_subclass_arguments(DataSource, "data", required=True)
    parser.add_class_arguments(ModelSettings, "generator")
    parser.add_class_arguments(ModelSettings, "discriminator")
    parser.add_subclass_arguments(Objective, "objective", required=True)
    parser.add_subclass_arguments(Objective, "pretraining", required=False)
    parser.add_class_arguments(EvaluationSettings, "evaluation", skip={"seed", "device"})
    inherited = {base.name for base in dataclasses.fields(TrainingArguments)}
    skip = (inherited - SUPPORTED_FIELDS) | NOT_IN_RECIPES
    parser.add_class_arguments(AdversarialTrainingArguments, "training", skip=skip)
    parser.set_defaults({"pretraining": {"class_path": f"{MLE.__module__}.{MLE.__qualname__}"}})
    parser.set_defaults({"discriminator.model_type": "cnn_discriminator"})
    return parser


def _parser(command: str, description: str) -> ArgumentParser:
    parser = ArgumentParser(prog=command, exit_on_error=False, description=description)
    parser.add_argument("--config", action=ActionConfigFile, help="a recipe (the first argument may name it as well)")
    return parser


def load_recipe(arguments: list[str]) -> tuple[Namespace, str]:
    """Read a recipe and its overrides.

    Args:
        arguments: the recipe's path, then `--section.key value` pairs.

    Returns:
        The recipe, with a class path or values at every node, and the same as YAML.

    Raises:
        RecipeError: an unknown key (the valid ones are named), a value of a wrong type, a missing file.
    """
    parser = recipe_parser()
    recipe = _parse(parser, arguments, "train")
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
    return EvaluationArguments(**settings)


def _as_lists(arguments: list[str]) -> list[str]:
    """`--model A B` and `--temperatures 0.7,0.8` in the form that the parser reads: `--model=["A", "B"]`."""
    names = ("--model", "--temperatures", "--metrics")
    parser = argparse.ArgumentParser(prog="seqgan-hf evaluate", add_help=False, allow_abbrev=False)
    for name in names:
        parser.add_argument(name, nargs="+", default=argparse.SUPPRESS)
    # `--model=A B` as well
    split = (argument.split("=", 1) if argument.split("=")[0] in names else [argument] for argument in arguments)
    lists, result = parser.parse_known_args([part for parts in split for part in parts])
    for name, values in vars(lists).items():
        if not values[0].startswith("["):
            parts = ",".join(value.strip(",") for value in values)
            values = [json.dumps(values) if name == "model" else f"[{parts}]"]
        result.append(f"--{name}={' '.join(values)}")
    return result


def load_source(corpus: str, overrides: list[str]) -> DataSource:
    """The data source of a recipe, or of a file of text, with `--data.key value` overrides.

    Raises:
        RecipeError: as `load_recipe`.
    """
    parser = ArgumentParser(prog="seqgan-hf train RECIPE", exit_on_error=False)  # which shows all settings
    parser.add_subclass_arguments(DataSource, "data", required=True)
    if Path(corpus).suffix in (".yaml", ".yml"):
        check_structure(corpus)
        try:
            arguments = ["--data", yaml.safe_dump(yaml.safe_load(Path(corpus).read_text(encoding="utf-8"))["data"])]
        except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
            problem = f"cannot read the section `data` of recipe {corpus!r} ({error!r})"
            raise RecipeError(problem, "a YAML file that has one", "check the path") from error
    else:
        arguments = ["--data", f"{TextData.__module__}.{TextData.__qualname__}", "--data.train_file", corpus]
    return parser.instantiate(_parse(parser, [*arguments, *overrides], "data")).data


# --- Mistakes --------------------------------------------------------------------------------------------------------


def _parse(parser: ArgumentParser, arguments: list[str], command: str) -> Namespace:
    """Read a command line whose first argument may be the path of a recipe."""
    if arguments and not arguments[0].startswith("-"):
        if not Path(arguments[0]).is_file():
            raise RecipeError(f"recipe {arguments[0]!r} does not exist", "a YAML file", "check the path")
        check_structure(arguments[0])
        arguments = ["--config", *arguments]
    for argument in arguments:
        if argument.endswith((".yaml", ".yml")):
            check_structure(argument.rpartition("=")[2])
    try:
        return parser.parse_args(arguments)
    except (argparse.ArgumentError, UnicodeDecodeError) as error:
        _check_kind(arguments, command)
        raise explain(error, parser) from error


def _check_kind(arguments: list[str], command: str) -> None:
    """Say so if a recipe is one of another command."""
    for path in arguments:
        if not path.endswith((".yaml", ".yml")):
            continue
        try:
            keys = set(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError, yaml.YAMLError):
            continue
        for other in KEYS.keys() - {command}:
            if keys and keys <= KEYS[other]:
                problem, expected = f"{path!r} is a recipe of `seqgan-hf {other}`", f"one of `seqgan-hf {command}`"
                raise RecipeError(problem, expected, f"run `seqgan-hf {other} {path}`, or name another recipe")


# What jsonargparse says of unknown keys.
UNKNOWN_KEY = re.compile(
    r"(?:Group '(?P<section>[\w.]+)' does not accept option|Option|unrecognized arguments:) '?-*(?P<key>[\w.]+)"
)


def explain(error: Exception, parser: ArgumentParser) -> RecipeError:
    """The parser's error in words that help: the valid keys where an unknown one was met, the class that is wrong."""
    message = str(error)
    if "Errors:" in message:  # of all types that are allowed: what the first one says
        detail = message.rpartition("Errors:")[2].partition("- Expected a <class 'NoneType'>")[0]
        message = message.partition("\n")[0] + detail
    unknown = UNKNOWN_KEY.search(message)
    if classes := re.findall(r"class_path '([^']+)':", message):
        name = classes[-1].rpartition(".")[2]
        try:
            parameters = inspect.signature(import_by_path(classes[-1], "class_path")).parameters
        except UserError as missing:
            fix = "check the name, and put its folder on PYTHONPATH (PYTHONPATH=. for this one)"
            return RecipeError(missing.problem, "a class that can be imported", fix)
        if unknown:
            return unknown_key(unknown["key"], parameters, name)
        message = f"{name}: " + message.rpartition(f"{name}':")[2]
    elif unknown:
        defaults, (section, _, key) = parser.get_defaults(), unknown["key"].rpartition(".")
        section = unknown["section"] or section
        if isinstance(node := defaults.get(section), Namespace):
            return unknown_key(key, vars(node), section)
        keys = [name for name in vars(defaults) if name != "config"]
        return unknown_key(unknown["key"].partition(".")[0], keys, "the recipe")
    words = " ".join(message.split()).replace("Parser key ", "")
    return RecipeError(words, None, f"`{parser.prog} --print_config` shows all settings")


def unknown_key(key: str, valid: Iterable[str], place: str) -> RecipeError:
    """The error for a key that does not exist there, with those that do."""
    valid = list(valid)
    close = difflib.get_close_matches(key, valid, n=1)
    fix = f"did you mean {close[0]!r}?" if close else "use one of these"
    return RecipeError(f"unknown key {key!r} in {place}", f"one of {', '.join(valid)}", fix)
