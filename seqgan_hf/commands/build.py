"""From a recipe to a trainer."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from datasets import IterableDataset
from huggingface_hub.errors import StrictDataclassError
from jsonargparse import Namespace
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    TrainerCallback,
)

from .. import models  # noqa: F401  (registers the architectures with the Auto classes)
from ..data import Corpus
from ..data.tokenization import blank_token_ids
from ..errors import RecipeError, import_by_path
from ..evaluation.arguments import EvaluationArguments
from ..evaluation.base import Evaluator
from ..evaluation.likelihood import OracleNLL
from ..evaluation.loading import name_inner
from ..evaluation.text import TextEvaluator
from ..objectives import Objective
from ..samples import Samples
from ..training.batches import as_samples
from ..training.callbacks.describe_corpus import DescribeCorpus
from ..training.callbacks.evaluate_at_end import EvaluateAtEnd
from ..training.callbacks.save_oracle import SaveOracle
from ..training.trainer import AdversarialTrainer
from .mistakes import unknown_key
from .recipe import EvaluationSettings, ModelSettings, instantiate, load_evaluation, recipe_parser


def build_trainer(recipe: Namespace, text: str | None = None) -> AdversarialTrainer:
    """Load the data, build the models, put them into a trainer.

    Args:
        recipe: what `load_recipe` gave.
        text: the same as YAML, to be kept in the run's folder.
    """
    nodes = instantiate(recipe_parser(), recipe)
    corpus = nodes.data.load()
    if nodes.training.max_new_tokens is None:
        nodes.training.max_new_tokens = corpus.max_length
    set_seed(nodes.training.seed)  # the same weights on all processes
    generator = build_generator(nodes.generator, corpus)
    generator.config.max_prompt_length = corpus.max_prompt_length  # for prompts that it is given later
    discriminator = build_discriminator(nodes.discriminator, nodes.objective, corpus)
    held_out = as_samples(corpus.eval, corpus.bos_token_id, corpus.pad_token_id)
    known = (nodes.objective, nodes.training, corpus.train, held_out, corpus.tokenizer)
    callbacks = build_callbacks(nodes.evaluation, corpus, Path(nodes.training.output_dir))
    evaluators = build_evaluators(nodes, corpus, held_out)
    return AdversarialTrainer(generator, discriminator, *known, callbacks, evaluators, nodes.pretraining, text)


def build_evaluators(nodes: Namespace, corpus: Corpus, held_out: Samples) -> list[Evaluator]:
    """What is measured at evaluation rounds: NLL_oracle where an oracle wrote the data, and the recipe's metrics."""
    evaluators: list[Evaluator] = []
    if corpus.oracle is not None:
        evaluators.append(OracleNLL(corpus.oracle, held_out))
    if nodes.evaluation.metrics:
        settings = replace(nodes.evaluation, device=nodes.training.device)
        evaluators.append(TextEvaluator.from_corpus(corpus, settings.metrics, settings))
    return evaluators


def build_callbacks(settings: EvaluationSettings, corpus: Corpus, folder: Path) -> list[TrainerCallback]:
    """What a recipe adds to a run: its corpus is described, its oracle saved, the finished generator evaluated."""
    callbacks: list[TrainerCallback] = [DescribeCorpus(corpus)]
    if corpus.oracle is not None:
        callbacks.append(SaveOracle(corpus, folder))
    if settings.recipe is not None:  # read now, so that a mistake in it is not met at the end of the run
        callbacks.append(EvaluateAtEnd(evaluation_of_run(settings, corpus, folder), corpus))
    return callbacks


def evaluation_of_run(settings: EvaluationSettings, corpus: Corpus, folder: Path) -> EvaluationArguments:
    """An evaluation recipe for the generator of a run, with the run's own text or oracle where it names no other.

    Raises:
        RecipeError: the evaluation recipe cannot be read, or names references without the prompts that they continue.
    """
    output = folder / "evaluation"
    here: dict[str, Any] = {"model": [str(folder)], "encoder": settings.encoder, "accepts": settings.accepts}
    if corpus.oracle is not None:
        here["oracle"] = str(folder / "oracle")
    else:
        here["references"] = str(output / "references.txt")
        here["prompts"] = str(output / "prompts.txt") if corpus.conditional else None
        if not isinstance(corpus.train, IterableDataset):  # it would have to be read to its end
            here["train"] = str(output / "train.txt")
    evaluation = load_evaluation([settings.recipe], **here)
    named = [name for name in ("references", "prompts") if getattr(evaluation, name) != here.get(name)]
    if named == ["prompts"] or (corpus.conditional and named == ["references"]):
        problem = f"{settings.recipe!r} names `{named[0]}` alone"
        raise RecipeError(problem, "`references` with the `prompts` that they continue", "name both, or none")
    return replace(evaluation, model=here["model"], output=str(output))


# --- Models ----------------------------------------------------------------------------------------------------------


def build_generator(settings: ModelSettings, corpus: Corpus) -> PreTrainedModel:
    """A causal LM over the corpus's vocabulary."""
    return _build_language_model(settings, corpus, "generator")


def _build_language_model(settings: ModelSettings, corpus: Corpus, section: str) -> PreTrainedModel:
    known = {name: getattr(corpus, name) for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    return _build(settings, known, AutoModelForCausalLM, corpus, section)


def build_discriminator(settings: ModelSettings, objective: Objective, corpus: Corpus) -> PreTrainedModel | None:
    """The opponent that the objective asks for, over the corpus's vocabulary; `None` if it asks for none.

    A classifier has the labels 0 = FAKE and 1 = REAL, or REAL alone.
    """
    if objective.adversary is None:
        return None
    if objective.adversary == "language_model":
        if settings == ModelSettings(model_type="cnn_discriminator"):  # nobody has written the section
            problem = f"discriminator.model_type='cnn_discriminator' for {type(objective).__name__}"
            problem += ", which is what stands there where nothing is named"
            fix = (
                "set `discriminator.model_type` and, where it is to differ from the generator, `discriminator.config`"
            )
            raise RecipeError(problem, "a language model as the opponent, such as rnn_generator or gpt2", fix)
        return _build_language_model(settings, corpus, "discriminator")
    known = {"vocab_size": corpus.vocab_size, "pad_token_id": corpus.pad_token_id} | _labels(settings, objective)
    return _build(settings, known, AutoModelForSequenceClassification, corpus, "discriminator")


def _labels(settings: ModelSettings, objective: Objective) -> dict[str, Any]:
    """Names of the labels: in the settings, or else the objective's, or REAL alone where one is asked or saved."""
    given = settings.config.get("id2label")
    saved = None if settings.pretrained is None else _saved_config(settings.pretrained, "discriminator").num_labels
    labels = list(objective.labels)
    usual = 1 if saved == 1 and len(labels) == 2 else len(labels)
    number = settings.config.get("num_labels", usual) if given is None else len(given)
    if number not in ([1, 2] if len(labels) == 2 else [len(labels)]):
        problem = f"discriminator.config.num_labels={number}"
        expected = "2 (fake and real) or 1 (the logit of real)" if len(labels) == 2 else f"{len(labels)}: {labels}"
        raise RecipeError(problem, expected, "set that, or leave it out")
    names = given or dict(enumerate(labels[-number:]))
    return {"id2label": names, "label2id": {name: index for index, name in names.items()}}


def _build(settings: ModelSettings, known: dict, auto_class: Any, corpus: Corpus, section: str) -> PreTrainedModel:
    make = _new_model if settings.pretrained is None else _pretrained_model
    model = make(settings, known, auto_class, section)
    embeddings: Any = model.get_input_embeddings()
    missing = corpus.vocab_size - (embedded := len(embeddings.weight))
    if settings.pretrained is not None and 0 < missing <= len(blank_token_ids(corpus.tokenizer)):
        model.resize_token_embeddings(corpus.vocab_size)  # the tokens of blanks are new to its tokenizer as well
    elif missing > 0:
        problem, expected = f"a {section} with a vocabulary of {embedded}", f"at least the data's {corpus.vocab_size}"
        fix = f"set `{section}.config.vocab_size`, or leave it out to have it taken from the data"
        raise RecipeError(problem, expected, fix)
    return model


@contextmanager
def _loading(pretrained: str, section: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, StrictDataclassError, SafetensorError) as error:
        problem = f"{section}.pretrained={pretrained!r} cannot be loaded ({' '.join(str(error).split())[:200]})"
        expected = "a folder with a saved model, or an id on the Hub"
        raise RecipeError(problem, expected, name_inner(pretrained)) from error


def _saved_config(pretrained: str, section: str) -> PreTrainedConfig:
    with _loading(pretrained, section):
        return AutoConfig.from_pretrained(pretrained, trust_remote_code=False)


def _pretrained_model(settings: ModelSettings, known: dict, auto_class: Any, section: str) -> PreTrainedModel:
    config = _saved_config(settings.pretrained, section)
    for key in settings.config:  # a recipe may change the model, not how (and whose code) it is loaded
        if key not in config.to_dict().keys() | {"num_labels"}:
            raise unknown_key(key, sorted(config.to_dict()), f"{section}.config")
    changes = {key: value for key, value in known.items() if key != "vocab_size"} | settings.config
    safely = {"trust_remote_code": False, "use_safetensors": True}
    try:
        with _loading(settings.pretrained, section):
            config.update(changes)
            return auto_class.from_pretrained(settings.pretrained, config=config, **safely)
    except RuntimeError as error:
        if "mismatched" not in str(error):
            raise
        problem = f"the weights of {section}.pretrained={settings.pretrained!r} do not fit its settings with {changes}"
        fix = "change these; instead of a classifier with other labels, name the model that it was made from"
        raise RecipeError(problem, "settings that leave the shapes of the weights as they are", fix) from error


def _new_model(settings: ModelSettings, known: dict, auto_class: Any, section: str) -> PreTrainedModel:
    config_class = _config_class(settings.model_type, section)
    inherited = inspect.signature(PreTrainedConfig.__init__).parameters.keys()
    own = inspect.signature(config_class.__init__).parameters.keys()
    for key in settings.config:
        if key not in own | inherited | {"num_labels"}:
            raise unknown_key(key, sorted(own - inherited - {"kwargs"}), f"{section}.config")
    try:
        return auto_class.from_config(config_class(**(known | settings.config)))
    except StrictDataclassError as error:
        raise RecipeError(f"invalid `{section}.config`: {' '.join(str(error.__cause__ or error).split())}") from error
    except (ValueError, TypeError) as error:
        problem = f"no model can be built from {section}.model_type={settings.model_type!r} with {settings.config}"
        example = "rnn_generator or gpt2" if auto_class is AutoModelForCausalLM else "cnn_discriminator or bert"
        expected = f"an architecture that {auto_class.__name__} knows, such as {example}"
        fix = f"set {section}.model_type, or change its config"
        raise RecipeError(f"{problem} ({str(error).splitlines()[0]})", expected, fix) from error


def _config_class(model_type: str, section: str) -> Any:
    if "." in model_type:
        return import_by_path(model_type, f"{section}.model_type")
    if model_type not in CONFIG_MAPPING:
        expected = "an architecture that transformers knows, such as rnn_generator, gpt2 or llama for a generator and "
        expected += "cnn_discriminator, rnn_discriminator or bert for a discriminator"
        fix = "choose one, or give the dotted path of a configuration class"
        raise RecipeError(f"{section}.model_type={model_type!r}", expected, fix)
    return CONFIG_MAPPING[model_type]
