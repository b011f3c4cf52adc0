"""A recipe: what to train on, with what, how. YAML in, a trainer out; every node is a class with its own signature."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import json
import re
from argparse import ArgumentError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.errors import StrictDataclassError
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    TrainingArguments,
)

from .. import models  # noqa: F401  (registers the architectures with the Auto classes)
from ..data import Corpus, DataSource, TextData, materialize
from ..errors import RecipeError
from ..evaluation.catalog import TextSettings
from ..evaluation.likelihood import OracleNLL
from ..evaluation.run import EvaluationArguments
from ..evaluation.text import TextEvaluator
from ..objectives import MLE, Objective
from ..training.arguments import SUPPORTED_FIELDS, AdversarialTrainingArguments
from ..training.callbacks.recipe import EvaluateAtEnd, SaveOracle, arguments_of_evaluation
from ..training.trainer import AdversarialTrainer


@dataclass
class GeneratorSettings:
    """The generator: any causal LM.

    Args:
        model_type: architecture, as `AutoConfig` knows it (`rnn_generator`, `gpt2`, `llama`, ...), or the dotted path
            of a configuration class of your own, whose module registers it with the Auto classes.
        config: settings of that architecture. Vocabulary size and special tokens come from the data.
        pretrained: start from these weights instead: a folder, or an id on the Hub.
    """

    model_type: str = "rnn_generator"
    config: dict[str, Any] = field(default_factory=dict)
    pretrained: str | None = None


@dataclass
class DiscriminatorSettings:
    """The discriminator: any sequence classifier.

    Args:
        model_type: architecture (`cnn_discriminator`, `rnn_discriminator`, `bert`, ...), or a dotted path, as for the
            generator.
        config: settings of that architecture. Vocabulary size and padding come from the data.
        pretrained: start from these weights instead: a folder, or an id on the Hub.
    """

    model_type: str = "cnn_discriminator"
    config: dict[str, Any] = field(default_factory=dict)
    pretrained: str | None = None


@dataclass
class EvaluationSettings:
    """What is measured at evaluation rounds, besides likelihoods, and when the run has ended.

    Args:
        metrics: names of text metrics (`bleu`, `self_bleu`, `distinct`, ...) or dotted paths of functions.
        tokenization: how text is cut for them: `white_space`, `treebank` or `character`.
        lowercase: fold case first.
        encoder: sentence encoder for the metrics `fed` and `mauve`, an id or a path.
        accepts: dotted path of a function that says whether a text is valid, for the metric `grammar`.
        recipe: an evaluation recipe (`recipes/evaluation/*.yaml`), run on the finished generator; the report lies in
            `evaluation/` of the run's folder. Held-out and training text of the data, or the oracle, and the encoder
            and `accepts` of this section, unless it names others.
    """

    metrics: list[str] = field(default_factory=list)
    tokenization: str = "white_space"
    lowercase: bool = False
    encoder: str | None = None
    accepts: str | None = None
    recipe: str | None = None


# Actions of the parser that are no part of a recipe.
INTERNAL_KEYS = {"help", "print_config", "print_shtab", "config"}
RECIPE_NODES = {"data", "generator", "discriminator", "objective", "pretraining", "evaluation", "training"}
# Settings that must not end up in a file (the token) or that only launchers set.
NOT_IN_RECIPES = {"hub_token", "local_rank"}


def recipe_parser() -> ArgumentParser:
    """The command line of `train`: a recipe, then overrides of any of its values."""
    parser = ArgumentParser(prog="seqgan-hf train RECIPE", exit_on_error=False, description="Train from a recipe.")
    parser.add_argument("--config", action=ActionConfigFile, help="a recipe (the first argument may name it as well)")
    parser.add_subclass_arguments(DataSource, "data", required=True)
    parser.add_class_arguments(GeneratorSettings, "generator")
    parser.add_class_arguments(DiscriminatorSettings, "discriminator")
    parser.add_subclass_arguments(Objective, "objective", required=True)
    parser.add_subclass_arguments(Objective, "pretraining", required=False)
    parser.set_defaults({"pretraining": {"class_path": f"{MLE.__module__}.{MLE.__qualname__}"}})
    parser.add_class_arguments(EvaluationSettings, "evaluation")
    inherited = {base.name for base in dataclasses.fields(TrainingArguments)}
    skip = (inherited - SUPPORTED_FIELDS) | NOT_IN_RECIPES
    parser.add_class_arguments(AdversarialTrainingArguments, "training", skip=skip)
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
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--config", *arguments]
    try:
        recipe = parser.parse_args(arguments)
    except (ArgumentError, UnicodeDecodeError) as error:
        _check_kind(arguments, "train", "evaluate", {field.name for field in dataclasses.fields(EvaluationArguments)})
        raise RecipeError(explain(str(error), parser)) from error
    return recipe, parser.dump(recipe.clone())


def _check_kind(arguments: list[str], command: str, other: str, keys_of_other: set[str]) -> None:
    """Say so if a recipe is one of the other command."""
    for path in arguments:
        if Path(path).suffix in (".yaml", ".yml") and Path(path).is_file():
            try:
                keys = set(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
            except (OSError, TypeError, ValueError, yaml.YAMLError):
                return
            if keys and keys <= keys_of_other:
                raise RecipeError(
                    f"{path!r}, a recipe of `seqgan-hf {other}`",
                    f"one of `seqgan-hf {command}`",
                    f"run `seqgan-hf {other} {path}`, or name another recipe",
                )


def explain(message: str, parser: ArgumentParser) -> str:
    """Say which keys are valid where an unknown one was met."""
    if no_file := re.search(r"File does not exist: '([^']+)'", message):
        return f"got the recipe {no_file[1]!r}, which does not exist -> expected a YAML file -> check the path"
    unknown = re.search(r"Option '([^']+)' is not accepted", message)
    in_group = re.search(r"Group '([^']+)' does not accept option '([^']+)'", message)
    if in_group:
        valid = [
            action.dest.rpartition(".")[2]
            for action in parser._actions
            if action.dest[: len(in_group[1]) + 1] == f"{in_group[1]}."
        ]
        return _unknown_key(in_group[2], valid, in_group[1])
    class_path = re.search(r"class_path '([^']+)'", message)
    missing = re.search(r"No module named '([^']+)'", message)
    if missing and class_path:
        return (
            f"got class_path {class_path[1]!r}, whose module {missing[1]!r} cannot be found -> expected an importable "
            "one -> check the name, and put its folder on PYTHONPATH (PYTHONPATH=. for this one)"
        )
    if unknown and class_path:
        module, _, name = class_path[1].rpartition(".")
        signature = inspect.signature(getattr(importlib.import_module(module), name))
        return _unknown_key(unknown[1], list(signature.parameters), f"{name}")
    keys = [action.dest for action in parser._actions if action.dest not in INTERNAL_KEYS]
    unrecognized = re.search(r"unrecognized arguments: --([\w.]+)", message)
    key = unknown or unrecognized
    if key is None:
        words = re.sub(r"\s*\n\s*", " ", message).strip()
        return f"got {words} -> expected a value of the right kind -> see all of them with --print_config"
    section = key[1].rpartition(".")[0]
    valid = [name for name in keys if name.startswith(f"{section}.")] if section else []
    return _unknown_key(key[1], valid or sorted({name.split(".")[0] for name in keys}), "the recipe")


def _unknown_key(key: str, valid: list[str], place: str) -> str:
    close = difflib.get_close_matches(key, valid, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else "use one of them"
    return f"got the key {key!r} for {place} -> expected one of {', '.join(valid)} -> {remedy}"


# --- From a recipe to a trainer --------------------------------------------------------------------------------------


def build_trainer(recipe: Namespace, text: str | None = None, **options: Any) -> AdversarialTrainer:
    """Load the data, build the models, put them into a trainer.

    Args:
        recipe: what `load_recipe` gave.
        text: the same as YAML, to be kept in the run's folder.
        options: passed on to the trainer (`callbacks`, ...).
    """
    from accelerate.utils import set_seed

    nodes = recipe_parser().instantiate(recipe)
    corpus = nodes.data.load()
    set_seed(nodes.training.seed)  # the same weights on all processes
    generator = build_generator(nodes.generator, corpus)
    discriminator = build_discriminator(nodes.discriminator, corpus) if nodes.objective.adversarial else None
    if nodes.training.max_new_tokens is None:
        nodes.training.max_new_tokens = corpus.max_length
    evaluators, callbacks = [], list(options.pop("callbacks", ()))
    folder = Path(nodes.training.output_dir)
    if corpus.oracle is not None:
        callbacks.append(SaveOracle(corpus, folder))
        held_out = materialize(corpus.eval, corpus.bos_token_id, corpus.pad_token_id)
        evaluators.append(OracleNLL(corpus.oracle, held_out))
    if nodes.evaluation.metrics:
        chosen = nodes.evaluation
        settings = TextSettings(
            chosen.tokenization, chosen.lowercase, chosen.encoder, chosen.accepts, device=nodes.training.device
        )
        evaluators.append(TextEvaluator.from_corpus(corpus, nodes.evaluation.metrics, settings))
    if nodes.evaluation.recipe is not None:  # read now, so that a mistake in it is not met at the end of the run
        evaluation = load_evaluation(arguments_of_evaluation(nodes.evaluation, corpus, folder))
        callbacks.append(EvaluateAtEnd(evaluation, corpus))
    return AdversarialTrainer(
        generator,
        discriminator,
        nodes.objective,
        nodes.training,
        corpus.train,
        corpus.eval,
        corpus.tokenizer,
        evaluators=evaluators,
        pretraining=nodes.pretraining,
        recipe=text,
        callbacks=callbacks,
        **options,
    )


def load_source(corpus: str, overrides: list[str]) -> DataSource:
    """The data source of a recipe, or of a file of text, with `--data.key value` overrides."""
    parser = ArgumentParser(prog="seqgan-hf data", exit_on_error=False)
    parser.add_subclass_arguments(DataSource, "data", required=True)
    if Path(corpus).suffix in (".yaml", ".yml"):
        try:
            arguments = ["--data", yaml.safe_dump(yaml.safe_load(Path(corpus).read_text(encoding="utf-8"))["data"])]
        except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
            raise RecipeError(
                f"recipe {corpus!r}, whose section `data` cannot be read ({error!r})",
                "a YAML file with one",
                "check the path",
            ) from error
    else:
        arguments = ["--data", f"{TextData.__module__}.{TextData.__qualname__}", "--data.train_file", corpus]
    try:
        return parser.instantiate(parser.parse_args([*arguments, *overrides])).data
    except ArgumentError as error:
        raise RecipeError(explain(str(error), parser)) from error


def load_evaluation(arguments: list[str]) -> EvaluationArguments:
    """The settings of `evaluate`: a recipe, if the first argument names one, then `--key value` pairs."""
    parser = ArgumentParser(
        prog="seqgan-hf evaluate", exit_on_error=False, description="Measure samples or generators."
    )
    parser.add_argument("--config", action=ActionConfigFile, help="a recipe (the first argument may name it as well)")
    parser.add_class_arguments(EvaluationArguments)
    arguments = _as_lists(arguments)
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--config", *arguments]
    try:
        settings = parser.parse_args(arguments)
    except ArgumentError as error:
        _check_kind(arguments, "evaluate", "train", RECIPE_NODES)
        raise RecipeError(explain(str(error), parser)) from error
    return EvaluationArguments(**{name: value for name, value in vars(settings).items() if name != "config"})


def _as_lists(arguments: list[str]) -> list[str]:
    """`--model A B` and `--temperatures 0.7,0.8` in the form that the parser reads: `--model=["A", "B"]`."""
    result: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in ("model", "temperatures", "metrics"):
            result.append(argument)
            continue
        values = [value] if equals else []
        while rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        if values and not values[0].startswith("["):
            parts = values if name == "model" else [part for value in values for part in value.split(",") if part]
            values = [f"[{', '.join(parts)}]" if name == "temperatures" else json.dumps(parts)]
        result.append(f"--{name}={' '.join(values)}")
    return result


def build_generator(settings: GeneratorSettings, corpus: Corpus) -> PreTrainedModel:
    """A causal LM over the corpus's vocabulary."""
    known = {
        "vocab_size": corpus.vocab_size,
        "bos_token_id": corpus.bos_token_id,
        "eos_token_id": corpus.eos_token_id,
        "pad_token_id": corpus.pad_token_id,
    }
    return _build(settings, known, AutoModelForCausalLM, corpus, "generator")


def build_discriminator(settings: DiscriminatorSettings, corpus: Corpus) -> PreTrainedModel:
    """A sequence classifier over the corpus's vocabulary, with the labels 0 = FAKE and 1 = REAL, or REAL alone."""
    known = {"vocab_size": corpus.vocab_size, "pad_token_id": corpus.pad_token_id}
    return _build(settings, known | _labels(settings), AutoModelForSequenceClassification, corpus, "discriminator")


def _labels(settings: DiscriminatorSettings) -> dict[str, Any]:
    """Names of the labels: those that were asked for, or one or two as are asked for or saved, two by default."""
    if "id2label" in settings.config:
        return {"label2id": {name: index for index, name in settings.config["id2label"].items()}}
    if "num_labels" in settings.config:
        number = settings.config["num_labels"]
    else:
        saved = None if settings.pretrained is None else _saved_config(settings.pretrained, "discriminator").num_labels
        number = 1 if saved == 1 else 2
    if number not in (1, 2):
        raise RecipeError(
            f"discriminator.config.num_labels={number}",
            "2 (fake and real) or 1 (the logit of real)",
            "set one of these, or leave it out",
        )
    names = ["FAKE", "REAL"][-number:]
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def _saved_config(pretrained: str, section: str) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(pretrained, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise _not_loaded(pretrained, section, error) from error


def _not_loaded(pretrained: str, section: str, error: Exception) -> RecipeError:
    why = " ".join(str(error).split())[:200]
    return RecipeError(
        f"{section}.pretrained={pretrained!r}, which cannot be loaded ({why})",
        "a folder with a saved model, or an id on the Hub",
        "check it",
    )


def _build(settings: Any, known: dict[str, Any], auto_class: Any, corpus: Corpus, section: str) -> PreTrainedModel:
    make = _new_model if settings.pretrained is None else _pretrained_model
    model = make(settings, known, auto_class, section)
    embedded = model.get_input_embeddings().weight.shape[0]
    if embedded < corpus.vocab_size:
        raise RecipeError(
            f"a {section} with a vocabulary of {embedded}",
            f"at least the data's {corpus.vocab_size}",
            f"set `{section}.config.vocab_size`, or leave it out to have it taken from the data",
        )
    return model


def _pretrained_model(settings: Any, known: dict[str, Any], auto_class: Any, section: str) -> PreTrainedModel:
    config = _saved_config(settings.pretrained, section)
    for key in settings.config:  # a recipe may change the model, not how (and whose code) it is loaded
        if key not in config.to_dict().keys() | {"num_labels"}:
            raise RecipeError(_unknown_key(key, sorted(config.to_dict()), f"{section}.config"))
    changes = {key: value for key, value in known.items() if key != "vocab_size"} | settings.config
    try:
        for key, value in changes.items():
            setattr(config, key, value)
        return auto_class.from_pretrained(
            settings.pretrained, config=config, trust_remote_code=False, use_safetensors=True
        )
    except (ValueError, OSError, StrictDataclassError, SafetensorError) as error:
        raise _not_loaded(settings.pretrained, section, error) from error
    except RuntimeError as error:
        if "mismatched" not in str(error):
            raise
        raise RecipeError(
            f"{section}.pretrained={settings.pretrained!r}, whose weights have other shapes than its "
            f"settings with {changes}",
            "the shapes that are saved",
            "change only what leaves them; a classifier of other labels is no discriminator: name "
            "the model that it was made from",
        ) from error


def _new_model(settings: Any, known: dict[str, Any], auto_class: Any, section: str) -> PreTrainedModel:
    config_class = _config_class(settings.model_type, section)
    valid = {"num_labels", *inspect.signature(config_class.__init__).parameters}
    valid |= set(inspect.signature(PreTrainedConfig.__init__).parameters)
    for key in settings.config:
        if key not in valid:
            raise RecipeError(_unknown_key(key, sorted(_own_settings(config_class)), f"{section}.config"))
    try:
        config = config_class(**(known | settings.config))
    except StrictDataclassError as error:
        reasons = [line.strip() for line in str(error).splitlines()]
        written = next((line for line in reasons if " -> " in line), None)
        raise RecipeError(
            written or f"got a {section}.config that is not valid -> {' '.join(reasons)} -> correct it"
        ) from error
    try:
        return auto_class.from_config(config)
    except (ValueError, TypeError) as error:
        raise RecipeError(
            f"{section}.model_type={settings.model_type!r} with {settings.config}, of which no model "
            f"can be built ({str(error).splitlines()[0]})",
            f"{auto_class.__name__} to know it",
            "change them",
        ) from error


def _own_settings(config_class: type[PreTrainedConfig]) -> set[str]:
    inherited = set(inspect.signature(PreTrainedConfig.__init__).parameters)
    return set(inspect.signature(config_class.__init__).parameters) - inherited - {"self", "kwargs"}


def _config_class(model_type: str, section: str) -> type[PreTrainedConfig]:
    if "." in model_type:
        module, _, name = model_type.rpartition(".")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise RecipeError(
                f"{section}.model_type={model_type!r}, which cannot be imported ({error})",
                "the dotted path of a configuration class",
                "check the path and that its module is on PYTHONPATH",
            ) from error
    try:
        return type(AutoConfig.for_model(model_type))
    except ValueError as error:
        raise RecipeError(
            f"{section}.model_type={model_type!r}",
            "an architecture that transformers knows, such as rnn_generator, gpt2 or llama for a "
            "generator and cnn_discriminator, rnn_discriminator or bert for a discriminator",
            "choose one, or give the dotted path of a configuration class",
        ) from error
