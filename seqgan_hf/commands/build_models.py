"""From settings to models that fit a corpus."""

from __future__ import annotations

import fnmatch
import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import is_peft_available

from .. import models  # noqa: F401  (registers the architectures with the Auto classes)
from ..data import Corpus
from ..data.network import asking_once
from ..data.reading import read_as_text
from ..data.tokenization import blank_token_ids
from ..errors import MissingExtraError, RecipeError, import_by_path
from ..evaluation.loading import adapted_model, name_inner
from ..objectives import Objective
from .command_parser import unknown_key
from .recipe import DiscriminatorSettings, GeneratorSettings, ModelSettings


logger = logging.getLogger(__name__)


def build_generator(corpus: Corpus, settings: GeneratorSettings | None = None) -> PreTrainedModel:
    """A causal LM over a corpus's vocabulary, whole or with an adapter, which alone is then trained.

    Args:
        corpus: what a data source loaded; it says which tokens there are, and how long prompts are.
        settings: as the section `generator` of a recipe; by default an LSTM of the size of SeqGAN's.

    Raises:
        RecipeError: there can be no such model, or none for this corpus.
    """
    settings = settings or GeneratorSettings()
    model = _build_language_model(settings, corpus, "generator")
    if settings.lora is not None:
        if blank_token_ids(corpus.tokenizer):
            problem, expected = "generator.lora with data.blanks", "embeddings of the two new tokens that are trained"
            raise RecipeError(problem, expected, "set `generator.lora` to null, which trains all of the generator")
        _adapt(model, settings)
    if getattr(model, "peft_config", None):
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.to(getattr(torch, settings.dtype))
    elif settings.dtype != "float32":
        problem, expected = f"generator.dtype={settings.dtype} without `generator.lora`", "float32 for trained weights"
        raise RecipeError(problem, expected, "set `training.bf16` for mixed precision, or train an adapter")
    kept: Any
    for kept in (model.config, model.generation_config):  # adapters are saved with the second alone
        kept.max_prompt_length = corpus.max_prompt_length  # for prompts that it is given later
    return model


# Settings of LoRA with which a saved adapter is not the one that was trained, once transformers has loaded it.
NOT_READ_AGAIN = "use_dora", "trainable_token_indices"


def _adapt(model: PreTrainedModel, settings: GeneratorSettings) -> None:
    """Add a LoRA adapter to a pretrained generator, or see that the one which came with it is as it is asked for."""
    if settings.pretrained is None:
        problem, expected = "generator.lora without `generator.pretrained`", "a pretrained generator to adapt"
        raise RecipeError(problem, expected, "name one, or leave `lora` out and train all of it")
    if not is_peft_available():
        raise MissingExtraError("generator.lora needs peft", None, 'run `pip install "seqgan-hf[lora]"`')
    from peft import LoraConfig

    given = {"task_type": "CAUSAL_LM"} | (settings.lora or {})
    known = sorted(inspect.signature(LoraConfig).parameters)
    for key in given:
        if key not in known:
            raise unknown_key(key, known, "generator.lora")
    if given["task_type"] != "CAUSAL_LM":
        problem = f"generator.lora.task_type={given['task_type']!r}"
        raise RecipeError(problem, "CAUSAL_LM, as a generator is a causal LM", "leave it out")
    for key in NOT_READ_AGAIN:
        if given.get(key):
            problem = f"generator.lora.{key}={given[key]!r}, which transformers does not load again as it was saved"
            raise RecipeError(problem, "settings of plain LoRA", "leave it out")
    if own := getattr(model, "peft_config", None):
        has = next(iter(own.values())).to_dict()
        for key, value in given.items():
            if value != (sorted(has[key]) if isinstance(has[key], set) else has[key]):
                problem = f"generator.lora.{key}={value!r} for the adapter {settings.pretrained!r}"
                fix = "leave it out; or merge the adapter into its model (`merge_and_unload`) and name that"
                raise RecipeError(problem, f"{has[key]!r}, with which it was made, as its training goes on", fix)
        return
    try:
        model.add_adapter(LoraConfig(**given))
        with torch.no_grad():  # some settings only fail where the model is used
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device))
    except (ValueError, TypeError, AttributeError, RuntimeError, LookupError, ImportError) as error:
        problem = f"no adapter can be added to {type(model).__name__} ({' '.join(str(error).split())[:200]})"
        expected = "settings of peft.LoraConfig that fit it"
        fix = 'name its layers in `generator.lora.target_modules`; for other versions: `pip install "seqgan-hf[lora]"`'
        raise RecipeError(problem, expected, fix) from error


def _build_language_model(settings: ModelSettings, corpus: Corpus, section: str) -> PreTrainedModel:
    known = {name: getattr(corpus, name) for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    return _build(settings, known, AutoModelForCausalLM, corpus, section)


def build_discriminator(
    corpus: Corpus, objective: Objective, settings: DiscriminatorSettings | None = None
) -> PreTrainedModel | None:
    """The opponent that an objective asks for; `None` if it asks for none.

    It reads ids of the corpus's vocabulary, or text. A classifier has the labels 0 = FAKE and 1 = REAL, or REAL alone.

    Args:
        corpus: what a data source loaded.
        objective: of the run.
        settings: as the section `discriminator` of a recipe; by default SeqGAN's CNN.

    Raises:
        RecipeError: there can be no such model, or none for this corpus and objective.
    """
    settings = settings or DiscriminatorSettings()
    if objective.adversary is None:
        return None
    model = _build_opponent(settings, objective, corpus)
    freeze(model, settings.freeze)
    return model


def _build_opponent(settings: DiscriminatorSettings, objective: Objective, corpus: Corpus) -> PreTrainedModel:
    if settings.reads == "text":
        return _build_reader(settings, objective, corpus)
    if objective.adversary == "language_model":
        if settings == DiscriminatorSettings():  # nobody has written the section
            problem = f"discriminator.model_type='cnn_discriminator' for {type(objective).__name__}"
            problem += ", which is what stands there where nothing is named"
            fix = "set `discriminator.model_type` and, where it is not the generator's, `discriminator.config`"
            raise RecipeError(problem, "a language model as the opponent, such as rnn_generator or gpt2", fix)
        return _build_language_model(settings, corpus, "discriminator")
    known = {"vocab_size": corpus.vocab_size, "pad_token_id": corpus.pad_token_id} | _labels(settings, objective)
    model = _build(settings, known, AutoModelForSequenceClassification, corpus, "discriminator")
    if settings.pretrained is not None:
        _compare_tokens(settings.pretrained, corpus)
    return model


def _compare_tokens(pretrained: str, corpus: Corpus) -> None:
    """Warn where a discriminator's own tokenizer, if it has one, gives tokens of the data other ids."""
    try:
        with asking_once(pretrained):
            own = AutoTokenizer.from_pretrained(pretrained, trust_remote_code=False).get_vocab()
    except Exception:  # whatever keeps a tokenizer from being loaded: there is none to compare with
        return
    known = corpus.tokenizer.get_vocab()
    if other := [token for token, token_id in known.items() if own.get(token, token_id) != token_id]:
        logger.warning(
            "discriminator.pretrained=%r was trained on other ids of the data's tokens (%d of %d, such as %r): set "
            "discriminator.reads to text, or name its tokenizer in data.tokenizer.pretrained",
            *(pretrained, len(other), len(known), other[0].strip()),
        )


def _build_reader(settings: DiscriminatorSettings, objective: Objective, corpus: Corpus) -> PreTrainedModel:
    """A pretrained classifier, or encoder with a new head, that reads text by its own tokenizer."""
    name, expected = settings.pretrained, "a classifier or an encoder with a tokenizer of its own"
    if objective.adversary != "classifier":
        problem = f"discriminator.reads=text for {type(objective).__name__}, whose opponent is a language model"
        raise RecipeError(problem, "ids of the generator's vocabulary", "leave `reads` out")
    if name is None:
        problem = "discriminator.reads=text without `discriminator.pretrained`"
        raise RecipeError(problem, expected, "name one: a folder, or an id on the Hub")
    model = _pretrained_model(
        settings, _labels(settings, objective), AutoModelForSequenceClassification, "discriminator"
    )
    try:
        with asking_once(name):
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, ImportError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        problem = f"discriminator.pretrained={name!r} has no tokenizer that can be loaded ({why})"
        fix = "install what it names, save the model's tokenizer beside it, or choose another"
        raise RecipeError(problem, expected, fix) from error
    embeddings: Any = model.get_input_embeddings()
    # without a tokenizer's files, transformers makes one that knows special tokens only
    if not len(embeddings.weight) / 2 <= len(tokenizer) <= len(embeddings.weight):
        problem = f"discriminator.pretrained={name!r} has {len(embeddings.weight)} embeddings"
        problem += f", and its tokenizer {len(tokenizer)} tokens"
        raise RecipeError(problem, expected, "save its tokenizer beside it, or choose another")
    return read_as_text(model, tokenizer, corpus.tokenizer)


def freeze(model: PreTrainedModel, what: int | list[str]) -> None:
    """Keep weights as they are: of the embeddings and the first so many layers, or by patterns of parameter names.

    Raises:
        RecipeError: there are not as many layers, or nothing has such a name.
    """
    if isinstance(what, int):
        below = _lowest(model, what)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name not in below)
        return
    names = [name for name, _ in model.named_parameters()]
    for pattern in [what] if isinstance(what, str) else what:
        if not (found := fnmatch.filter(names, pattern)):
            problem = f"discriminator.freeze: no parameter of {type(model).__name__} is called {pattern!r}"
            raise RecipeError(problem, f"patterns of names such as {names[0]!r}", "`*` stands for anything")
        for name in found:
            model.get_parameter(name).requires_grad_(False)


def _lowest(model: PreTrainedModel, count: int) -> set[str]:
    """Names of the parameters of a model's embeddings and of its first layers; none for 0 of these."""
    if count == 0:
        return set()
    number, fix = getattr(model.config, "num_hidden_layers", 0), "give patterns of parameter names"
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outer = [name for name in lists if not name.startswith(tuple(f"{other}." for other in lists))]
    stacks = [name for name in outer if len(lists[name]) == number]
    if not stacks:
        expected = f"patterns of names, as {type(model).__name__} has no layers that can be counted"
        raise RecipeError(f"discriminator.freeze={count}", expected, fix)
    if not 0 < count <= number:
        expected = f"0 to {number}, as many as {type(model).__name__} has"
        raise RecipeError(f"discriminator.freeze={count}", expected, f"or {fix}")
    names = [name for name, _ in model.named_parameters()]
    layers = tuple(f"{stack}.{index}." for stack in stacks for index in range(count))
    within = tuple(f"{stack}." for stack in stacks)
    tables = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, nn.Embedding))
    embeddings = {name for name in names if not name.startswith(within) and ("emb" in name or name.startswith(tables))}
    return embeddings | {name for name in names if name.startswith(layers)}


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
        with asking_once(pretrained):
            yield
    except (ValueError, OSError, StrictDataclassError, SafetensorError) as error:
        problem = f"{section}.pretrained={pretrained!r} cannot be loaded ({' '.join(str(error).split())[:200]})"
        expected = "a folder with a saved model, or an id on the Hub"
        raise RecipeError(problem, expected, name_inner(pretrained)) from error


def _saved_config(pretrained: str, section: str) -> PreTrainedConfig:
    """Of a model; of the one that it adapts, if it is an adapter."""
    with asking_once(pretrained):
        base = adapted_model(pretrained)
    if base is not None and section != "generator":
        fix = "merge it into its model (`merge_and_unload`), save that with its tokenizer, and name it"
        raise RecipeError(f"{section}.pretrained={pretrained!r} is an adapter", "a whole model", fix)
    with _loading(pretrained if base is None else base, section):
        return AutoConfig.from_pretrained(pretrained if base is None else base, trust_remote_code=False)


def _pretrained_model(settings: ModelSettings, known: dict, auto_class: Any, section: str) -> PreTrainedModel:
    config = _saved_config(settings.pretrained, section)
    for key in settings.config:  # a recipe may change the model, not how (and whose code) it is loaded
        if key not in config.to_dict().keys() | {"num_labels"}:
            raise unknown_key(key, sorted(config.to_dict()), f"{section}.config")
    changes = {key: value for key, value in known.items() if key != "vocab_size"} | settings.config
    # small steps would be lost in a saved model's bfloat16 or float16
    options = {"trust_remote_code": False, "use_safetensors": True, "dtype": torch.float32}
    try:
        with _loading(settings.pretrained, section):
            config.update(changes)
            if (base := adapted_model(settings.pretrained)) is None:
                return auto_class.from_pretrained(settings.pretrained, config=config, **options)
            model = auto_class.from_pretrained(base, config=config, **options)
            model.load_adapter(settings.pretrained, is_trainable=True)
            return model
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
