"""Saved generators: loading them, their samples at any temperature, and real texts in their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .. import models  # noqa: F401  (registers the architectures with the Auto classes)
from ..data import integer_tokenizer, to_samples
from ..data.oracle import load_oracle
from ..data.tokenization import decode, encode_batch, unknown_token_id
from ..errors import UserError
from ..generation.sampling import sample
from ..generation.vocabulary import special_tokens, start_prompt, suppressed_tokens
from ..samples import Samples


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
    inner = Path(path) / "generator"
    return str(inner) if inner.is_dir() else path


def _load(kind: Any, source: str) -> Any:
    try:
        # weights as safetensors only: a pickle could run code; tokenizers ignore this
        return kind.from_pretrained(source, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError, SafetensorError) as error:
        problem = f"{kind.__name__} cannot load model {source!r} ({str(error).splitlines()[0]})"
        expected = "a run's folder, a saved generator with its tokenizer, or an id on the Hub"
        raise UserError(problem, expected, "check the path") from error


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
