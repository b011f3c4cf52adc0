"""Saved generators and discriminators: loading them, samples at any temperature, real texts in their tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import find_adapter_config_file, is_peft_available

from .. import models  # noqa: F401  (registers the architectures with the Auto classes)
from ..data import integer_tokenizer, to_samples
from ..data.network import asking_once
from ..data.oracle import load_oracle
from ..data.reading import read_as_text
from ..data.tokenization import as_prompts, decode, encode_batch, unknown_token_id
from ..errors import MissingExtraError, UserError
from ..generation.resampling import check_discriminator
from ..generation.sampling import sample
from ..generation.vocabulary import special_tokens, start_prompt, suppressed_tokens
from ..samples import Samples
from .tokenization import unknown_note, unknown_share


GENERATOR = "a run's folder, a saved generator with its tokenizer, or an id on the Hub"
DISCRIMINATOR = "a run's folder, a saved discriminator, or an id on the Hub"
INNER = 3  # folders that are named where the folder around them was given
EXPECTED = {AutoModelForSequenceClassification: DISCRIMINATOR}  # of all else, a generator


@dataclass
class LoadedGenerator:
    """A generator, which is any causal LM, with its tokenizer."""

    name: str  # in tables and pictures
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_generator(path: str, device: str) -> LoadedGenerator:
    """From a folder, a run's folder (which holds its generator in `generator/`) or a Hub id.

    Raises:
        UserError: there is no generator with a tokenizer.
    """
    source = _source(path)
    with _asking_once(source):
        model, tokenizer = _load_model(source), _load(AutoTokenizer, source)
    return LoadedGenerator(path, model.to(device).eval(), tokenizer)


def load_discriminator(path: str, generator: LoadedGenerator) -> PreTrainedModel:
    """A classifier of the generator's sequences, on its device, in eval mode.

    Args:
        path: a folder, a run's folder or its `generator/` (the discriminator lies in `discriminator/`, as it does in a
            repository of the Hub that holds a run), or a Hub id.
        generator: whose tokens it reads.

    Raises:
        UserError: there is no trained classifier, or it was trained on other tokens.
    """
    with asking_once(path):
        source, place = _discriminator_source(path)
        model, found = _load(AutoModelForSequenceClassification, source, output_loading_info=True, **place)
        if found["missing_keys"]:
            problem = f"the model in {source!r} is no classifier: it lacks {', '.join(sorted(found['missing_keys']))}"
            raise UserError(problem, DISCRIMINATOR, "name a discriminator that was trained as a classifier")
        if (labels := model.config.num_labels) > 2:
            problem = f"the discriminator in {source!r} tells {labels} classes apart"
            raise UserError(problem, "real from generated", "name one that was trained without classes")
        model = model.to(generator.model.device).eval()
        if getattr(model.config, "reads", "ids") == "text":
            return read_as_text(model, _load(AutoTokenizer, source, **place), generator.tokenizer)
        check_discriminator(generator.model, model)
        try:
            tokenizer = _load(AutoTokenizer, source, **place)
        except UserError:  # it need not have one
            return model
    if tokenizer.get_vocab() != generator.tokenizer.get_vocab():
        problem = f"the discriminator in {source!r} reads other tokens than {generator.name} writes"
        raise UserError(problem, "one vocabulary", "give the discriminator of the generator's run")
    return model


def _discriminator_source(path: str) -> tuple[str, dict[str, str]]:
    """Where a discriminator lies, and where inside of that."""
    folder = Path(path)
    run = folder.parent if folder.name == "generator" else folder
    if (run / "discriminator").is_dir():
        return str(run / "discriminator"), {}
    if (run / "generator").is_dir():
        fix = "give another's, or train with an objective that has a classifier for an opponent"
        raise UserError(f"the run in {str(run)!r} holds no discriminator", DISCRIMINATOR, fix)
    if not folder.exists():
        with suppress(OSError, ValueError):  # it lies at the root of its repository, or nowhere: loading it says so
            AutoConfig.from_pretrained(path, subfolder="discriminator", trust_remote_code=False)
            return path, {"subfolder": "discriminator"}
    return path, {}


def load_writer(path: str) -> tuple[PreTrainedTokenizerBase, int | None]:
    """The tokenizer of a generator, and the length T of its longest text, where that is recorded."""
    source = _source(path)
    with _asking_once(source):
        tokenizer, longest = _load(AutoTokenizer, source), None
        with suppress(OSError):
            longest = GenerationConfig.from_pretrained(source).max_new_tokens
    return tokenizer, longest


def check_generator(path: str) -> None:
    """Raise a `UserError` where there is no generator at all, without loading it."""
    source = _source(path)
    with _asking_once(source):
        _load(AutoConfig, source)


def _source(path: str) -> str:
    """Where the generator lies: in a run that has ended (others raise a `UserError`) or a checkpoint, `generator/`."""
    folder = Path(path)
    if (folder / "generator").is_dir():
        return str(folder / "generator")
    if (folder / "metrics.jsonl").exists():
        kept = sorted(folder.glob("checkpoints/checkpoint-*"), key=lambda each: (len(each.name), each.name))
        ways = f"name its checkpoint {str(kept[-1])!r}, or " if kept else ""
        resume = "go on with --training.resume_from_checkpoint true" if kept else "train it to the end"
        raise UserError(f"the run in {path!r} has not ended, so it holds no generator yet", fix=ways + resume)
    return path


@contextmanager
def _asking_once(source: str) -> Iterator[None]:
    """`asking_once` for a model, and for the one that it adapts, if it is an adapter."""
    with asking_once(source), asking_once(adapted_model(source) or source):
        yield


def adapted_model(source: str) -> str | None:
    """The model that an adapter of peft is to be loaded onto; `None` if `source` is no adapter.

    Raises:
        MissingExtraError: it is one, and peft is not installed.
    """
    settings = None
    with suppress(OSError, ValueError):  # neither a folder here nor on the Hub, or broken: loading it says so
        if not Path(source).is_file() and (found := find_adapter_config_file(source)):
            settings = json.loads(Path(found).read_text(encoding="utf-8"))
    if settings is None:
        return None
    if not is_peft_available():
        raise MissingExtraError(f"the adapter {source!r} needs peft", None, "run `pip install peft`")
    return settings.get("base_model_name_or_path") or ""


def _load(kind: Any, source: str, **options: Any) -> Any:
    if Path(source).is_file():  # transformers would ask the Hub for a repository of its name
        raise UserError(f"{source!r} is a file", EXPECTED.get(kind, GENERATOR), "name the folder that it lies in")
    place = adapted_model(source) if kind is AutoConfig else None  # adapters have none of their own
    # weights as safetensors only: a pickle could run code; tokenizers ignore this
    safely = {"use_safetensors": True, "trust_remote_code": False}
    try:
        return kind.from_pretrained(source if place is None else place, **safely, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise _cannot_load(kind, source, str(error).splitlines()[0]) from error


def _load_model(source: str) -> Any:
    adapts = adapted_model(source) is not None
    # adapters were trained on a base in this type, however it was saved
    options: dict[str, Any] = {"dtype": torch.float32} if adapts else {}
    model, found = _load(AutoModelForCausalLM, source, output_loading_info=True, **options)
    if missing := sorted(found["missing_keys"]):  # transformers would draw them at random
        problem = f"the generator in {source!r} lacks {len(missing)} of its weights ({missing[0]}, ...)"
        fix = "save it again" + (", and update peft: `pip install -U peft`" if adapts else "")
        raise UserError(problem, "all weights of a causal language model", fix)
    if adapts:
        with suppress(OSError):  # peft itself writes none
            # else the adapted model's; what is its own is left out of a configuration that was made from a model's
            model.generation_config = GenerationConfig.from_pretrained(source, _from_model_config=False)
            for name in ("conditional", "max_prompt_length", "bos_token_id", "eos_token_id", "pad_token_id"):
                setattr(model.config, name, getattr(model.generation_config, name, None))
    return model


def _cannot_load(kind: Any, source: str, reason: str) -> UserError:
    """Why there is no model or tokenizer in a folder or on the Hub."""
    folder, expected = Path(source), EXPECTED.get(kind, GENERATOR)
    if (base := adapted_model(source)) is not None and kind is not AutoTokenizer:
        why = reason if Path(base).is_dir() else _absent(base, reason)
        problem = f"the adapter {source!r} is of the model {base!r}, which cannot be loaded ({why})"
        fix = "put the model there, or write its place as base_model_name_or_path into adapter_config.json"
        return UserError(problem, "the model that was adapted", fix)
    if not folder.is_dir():
        return UserError(_absent(source, reason), expected, "check the path")
    if not (folder / "config.json").exists() and base is None:
        return UserError(f"the folder {source!r} holds no model", expected, name_inner(source))
    if kind is AutoTokenizer and not (folder / "tokenizer_config.json").exists():
        return UserError(f"the folder {source!r} holds no tokenizer", expected, "save the model's tokenizer there")
    if "for this kind of AutoModel" in reason:
        needed = "causal language model" if expected == GENERATOR else "sequence classifier"
        return UserError(f"the model in {source!r} is no {needed}", expected, "check the path")
    what = "tokenizer" if kind is AutoTokenizer else "model"
    return UserError(f"the {what} in {source!r} cannot be loaded ({reason})", expected, "check the path")


def _absent(source: str, reason: str) -> str:
    if source.startswith(("/", ".", "~")) or source.count("/") > 1:
        return f"no folder {source!r}"
    return f"no folder {source!r} here, and no such model from the Hub ({reason})"


def name_inner(folder: str) -> str:
    """The advice to name a folder inside this one, where any holds a model or a run: the newest are named."""
    if not Path(folder).is_dir() or (Path(folder) / "config.json").exists():
        return "check the path"
    found = [*Path(folder).glob("*/config.json"), *Path(folder).glob("*/generator/config.json")]
    found.sort(key=lambda path: (-path.stat().st_mtime, path))
    names = [str(Path(folder) / path.relative_to(folder).parts[0]) for path in found]
    if not names:
        return "check the path: no folder in it does either"
    newest = " or ".join(map(repr, names[:INNER]))
    return f"name a folder in it that does: {newest}" + (f", the newest of {len(names)}" if names[INNER:] else "")


def load_oracle_generator(path: str, device: str) -> LoadedGenerator:
    """A `.safetensors` file in the layout of the SeqGAN code, or a saved model; its texts are integers."""
    with _asking_once(path):
        model: Any = load_oracle(path) if path.endswith(".safetensors") else _load(AutoModelForCausalLM, path)
    return LoadedGenerator(path, model.to(device).eval(), integer_tokenizer(model.config.vocab_size))


def encode_texts(generator: LoadedGenerator, texts: Sequence[str], prompts: Sequence[str] | None = None) -> Samples:
    """Real texts as training reads them: start token and prompt, tokens, end token.

    Args:
        generator: whose tokens they are.
        texts: N real texts.
        prompts: what each of them continues; of a long one, the last tokens that training kept.

    Returns:
        N rows on the generator's device.

    Raises:
        UserError: the generator has no start token, a text has no token at all and nothing to end it, an id is outside
            the vocabulary, or there are not as many prompts as texts.
    """
    if isinstance(texts, str) or not len(texts):
        raise UserError(f"texts={texts!r:.60}", "a list of at least one text", "pass them as a list")
    if prompts is not None and len(prompts) != len(texts):
        raise UserError(f"{len(prompts)} prompts for {len(texts)} texts", "one for each text", "check the files")
    ends, _ = special_tokens(generator.model)
    rows = [[*row, *ends[:1]] for row in encode_batch(generator.tokenizer, list(texts))]
    if not all(rows):
        raise UserError("a text without a token", "at least one token in each text", "drop empty references")
    return _as_samples(generator, rows, prompts)


def encode_prompts(generator: LoadedGenerator, prompts: Sequence[str]) -> Samples:
    """Prompts as training reads them, `prompt` and `prompt_mask` of shape (N, P), with nothing written yet (T = 0)."""
    return _as_samples(generator, [[] for _ in prompts], prompts)


def _as_samples(generator: LoadedGenerator, rows: list[list[int]], prompts: Sequence[str] | None) -> Samples:
    model, (_, pad) = generator.model, special_tokens(generator.model)
    columns, bos = {"input_ids": rows}, int(start_prompt(model, 1))
    if prompts is not None:
        longest = getattr(model.config, "max_prompt_length", None)
        given = encode_batch(generator.tokenizer, list(prompts))
        columns["prompt_ids"] = as_prompts(generator.tokenizer, given, bos, longest)
    return to_samples(columns, SimpleNamespace(bos_token_id=bos, pad_token_id=pad)).to(model.device)


def continues_prompts(model: PreTrainedModel) -> bool:
    """Whether the generator was trained to continue prompts: its run has recorded it."""
    return getattr(model.config, "conditional", False)


def check_prompts(generator: LoadedGenerator, given: bool) -> None:
    """Raise a `UserError` where a generator that continues prompts is given none."""
    if continues_prompts(generator.model) and not given:
        problem = f"{generator.name} without prompts, which it was trained to continue"
        raise UserError(problem, "a prompt for each text", "give `prompts`, a file with one prompt a line")


def conditions(samples: Samples) -> list[list[int]]:
    """The ids between the start token and what was written, of every sequence."""
    masks = samples.attention_mask[:, : samples.prompt.shape[1]].cpu()
    return [ids[mask][1:].tolist() for ids, mask in zip(samples.prompt.cpu(), masks, strict=True)]


def unknown_notes(generator: LoadedGenerator, texts: Samples) -> list[str]:
    """Notes if the generator does not know all words of real texts, or of their prompts, and so reads other ones."""
    prompts = texts.prompt[texts.attention_mask[:, : texts.prompt.shape[1]]]
    left_out = unknown_token_id(generator.tokenizer) in suppressed_tokens(generator.model)
    notes = []
    for what, ids in (("references", texts.ids[texts.mask]), ("prompts", prompts)):
        if share := unknown_share(generator.tokenizer, ids):
            notes.append(unknown_note(f"{share:.2%}", what, generator.name, left_out and what == "references"))
    return notes


@contextmanager
def tempered(model: PreTrainedModel, temperature: float) -> Iterator[None]:
    """Within it the model's logits are divided by the temperature, so its likelihoods are those of what it samples.

    Raises:
        UserError: the architecture changes its logits after the output layer, so this would not hold.
    """
    if temperature == 1.0:
        yield
        return
    probe = start_prompt(model, 1)
    with torch.no_grad():
        expected = model(input_ids=probe).logits / temperature
    hook = model.get_output_embeddings().register_forward_hook(lambda module, inputs, logits: logits / temperature)
    try:
        with torch.no_grad():
            if not torch.allclose(model(input_ids=probe).logits, expected, rtol=1e-3, atol=1e-4):
                kind = type(model).__name__
                problem = f"temperature {temperature} cannot be used: {kind} changes its logits after the output layer"
                raise UserError(problem, None, "evaluate it at temperature 1")
        yield
    finally:
        hook.remove()


def draw_samples(
    generator: LoadedGenerator, prompts: Samples, count: int, max_new_tokens: int, temperature: float, seed: int
) -> tuple[Samples, list[str]]:
    """`count` samples as ids and as texts; the same seed gives the same samples.

    They continue the `prompts` of these N sequences, row by row, and from the first again once all are used up.
    """
    model, given = generator.model, in_turn(prompts, count)
    rng = torch.Generator(device=model.device).manual_seed(seed)
    samples = sample(model, given.prompt, max_new_tokens, temperature, rng=rng, prompt_mask=given.prompt_mask)
    return samples, decode(samples, generator.tokenizer)


def in_turn(samples: Samples, count: int) -> Samples:
    """`count` rows: the given ones in order, and from the first again once all are used up."""
    return samples.select(torch.arange(count, device=samples.ids.device) % samples.batch_size)
