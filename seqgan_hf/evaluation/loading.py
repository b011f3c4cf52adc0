"""Saved generators: loading them, their samples at any temperature, and real texts in their tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import find_adapter_config_file, is_peft_available

from .. import models  # noqa: F401  (registers the architectures with the Auto classes)
from ..data import integer_tokenizer, to_samples
from ..data.oracle import load_oracle
from ..data.tokenization import decode, encode_batch, unknown_token_id
from ..errors import MissingExtraError, UserError
from ..generation.sampling import sample
from ..generation.vocabulary import special_tokens, start_prompt, suppressed_tokens
from ..samples import Samples


GENERATOR = "a run's folder, a saved generator with its tokenizer, or an id on the Hub"


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
    return LoadedGenerator(path, _load(AutoModelForCausalLM, source).to(device).eval(), _load(AutoTokenizer, source))


def check_generator(path: str) -> None:
    """Raise a `UserError` where there is no generator at all, without loading it."""
    _load(AutoConfig, _source(path))


def _source(path: str) -> str:
    """Where the generator lies: in a run's folder or a checkpoint, it is `generator/`.

    Raises:
        UserError: the run has not ended.
    """
    folder = Path(path)
    if (folder / "generator").is_dir():
        return str(folder / "generator")
    if (folder / "metrics.jsonl").exists():
        kept = sorted(folder.glob("checkpoints/checkpoint-*"), key=lambda each: (len(each.name), each.name))
        ways = f"name its checkpoint {str(kept[-1])!r}, or " if kept else ""
        resume = "go on with --training.resume_from_checkpoint true" if kept else "train it to the end"
        raise UserError(f"the run in {path!r} has not ended, so it holds no generator yet", fix=ways + resume)
    return path


def _adapted(source: str) -> str | None:
    """The model that an adapter of peft is to be loaded onto; `None` if `source` is no adapter.

    Raises:
        MissingExtraError: it is one, and peft is not installed.
    """
    try:
        found = find_adapter_config_file(source)
        settings = None if found is None else json.loads(Path(found).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # neither a folder here nor on the Hub, or broken: loading it says so
        return None
    if settings is None:
        return None
    if not is_peft_available():
        raise MissingExtraError(f"the adapter {source!r} needs peft", None, "run `pip install peft`")
    return settings.get("base_model_name_or_path") or ""


def _load(kind: Any, source: str) -> Any:
    place = _adapted(source) if kind is AutoConfig else None  # adapters have none of their own
    try:
        # weights as safetensors only: a pickle could run code; tokenizers ignore this
        return kind.from_pretrained(source if place is None else place, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError, SafetensorError) as error:
        raise _cannot_load(kind, source, str(error).splitlines()[0]) from error


def _cannot_load(kind: Any, source: str, reason: str) -> UserError:
    """Why there is no model or tokenizer in a folder or on the Hub."""
    folder = Path(source)
    if folder.is_file():
        return UserError(f"{source!r} is a file", GENERATOR, "name the folder that it lies in")
    if (base := _adapted(source)) is not None and kind is not AutoTokenizer:
        why = reason if Path(base).is_dir() else _absent(base, reason)
        problem = f"the adapter {source!r} is of the model {base!r}, which cannot be loaded ({why})"
        fix = "put the model there, or write its place as base_model_name_or_path into adapter_config.json"
        return UserError(problem, "the model that was adapted", fix)
    if not folder.is_dir():
        return UserError(_absent(source, reason), GENERATOR, "check the path")
    if not (folder / "config.json").exists() and base is None:
        return UserError(f"the folder {source!r} holds no model", GENERATOR, name_inner(source))
    if kind is AutoTokenizer and not (folder / "tokenizer_config.json").exists():
        return UserError(f"the folder {source!r} holds no tokenizer", GENERATOR, "save the model's tokenizer there")
    if "for this kind of AutoModel" in reason:
        return UserError(f"the model in {source!r} is no causal language model", GENERATOR, "check the path")
    what = "tokenizer" if kind is AutoTokenizer else "model"
    return UserError(f"the {what} in {source!r} cannot be loaded ({reason})", GENERATOR, "check the path")


def _absent(source: str, reason: str) -> str:
    if source.startswith(("/", ".", "~")) or source.count("/") > 1:
        return f"no folder {source!r}"
    return f"no folder {source!r} here, and no such model from the Hub ({reason})"


def name_inner(folder: str) -> str:
    """The advice to name a folder inside this one, where any holds a model."""
    held = sorted(path.parent.name for path in Path(folder).glob("*/config.json"))
    return f"name a folder in it that does: {', '.join(held)}" if held else "check the path"


def load_oracle_generator(path: str, device: str) -> LoadedGenerator:
    """A `.safetensors` file in the layout of the SeqGAN code, or a saved model; its texts are integers."""
    model: Any = load_oracle(path) if path.endswith(".safetensors") else _load(AutoModelForCausalLM, path)
    return LoadedGenerator(path, model.to(device).eval(), integer_tokenizer(model.config.vocab_size))


def encode_texts(generator: LoadedGenerator, texts: Sequence[str]) -> Samples:
    """Real texts as the generator would have written them: start token, tokens, end token.

    Raises:
        UserError: the generator has no start token, or a text has no token at all and nothing to end it, or an id that
            is outside the vocabulary.
    """
    if isinstance(texts, str) or not len(texts):
        raise UserError(f"texts={texts!r:.60}", "a list of at least one text", "pass them as a list")
    ends, pad = special_tokens(generator.model)
    rows = [[*row, *ends[:1]] for row in encode_batch(generator.tokenizer, list(texts))]
    if not all(rows):
        raise UserError("a text without a token", "at least one token in each text", "drop empty references")
    ids = SimpleNamespace(bos_token_id=int(start_prompt(generator.model, 1)), pad_token_id=pad)
    return to_samples({"input_ids": rows}, ids).to(generator.model.device)


def unknown_notes(generator: LoadedGenerator, texts: Samples) -> list[str]:
    """A note if the generator does not know all tokens of real texts: it then scores other texts than these."""
    unknown = unknown_token_id(generator.tokenizer)
    share = 0.0 if unknown is None else float((texts.ids == unknown)[texts.mask].float().mean())
    treated = "leaves them out" if unknown in suppressed_tokens(generator.model) else "scores them as unknown"
    note = f"{share:.1%} of the references' tokens are unknown to {generator.name}; NLL_test {treated}"
    return [note] if share else []


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
    generator: LoadedGenerator, count: int, max_new_tokens: int, temperature: float, seed: int
) -> tuple[Samples, list[str]]:
    """`count` samples as ids and as texts; the same seed gives the same samples."""
    model = generator.model
    rng = torch.Generator(device=model.device).manual_seed(seed)
    with torch.no_grad():
        samples = sample(model, start_prompt(model, count), max_new_tokens, temperature=temperature, rng=rng)
    return samples, decode(samples, generator.tokenizer)
