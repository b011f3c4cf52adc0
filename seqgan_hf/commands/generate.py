"""`seqgan-hf generate`: write text with a trained generator."""

from __future__ import annotations

import sys

import torch
from jsonargparse import ArgumentParser

from ..data.tokenization import decode, one_line
from ..errors import UserError
from ..evaluation.loading import LoadedGenerator, load_generator
from ..generation.sampling import sample
from ..generation.vocabulary import start_prompt
from .mistakes import parse


def run(arguments: list[str]) -> None:
    """`MODEL [--output FILE]`, and the arguments of `generate_texts`."""
    parser = ArgumentParser(
        prog="seqgan-hf generate", exit_on_error=False, description="Write samples of a trained generator."
    )
    parser.add_argument("model", help="a run's folder, its `generator` folder, or an id on the Hub")
    parser.add_function_arguments(generate_texts, skip={"generator"})
    parser.add_argument("--output", help="write to this file instead of the terminal")
    options = vars(parse(parser, arguments))
    output, model = options.pop("output"), options.pop("model")
    device = str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"
    try:  # before any work is done
        file = sys.stdout if output is None else open(output, "w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {output!r} ({error.strerror})", "a file to write", "change it") from error
    texts = generate_texts(load_generator(model, device), **options)
    print("\n".join(map(one_line, texts)), file=file)
    if output is not None:
        file.close()


def generate_texts(
    generator: LoadedGenerator,
    num_samples: int = 10,
    prompt: str = "",
    max_new_tokens: int | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
) -> list[str]:
    """Sample texts.

    Args:
        generator: what `load_generator` gave.
        num_samples: how many.
        prompt: text that every sample continues; it stands before each.
        max_new_tokens: longest sample, in tokens; by default as in training.
        temperature: below 1 sharper, above 1 flatter; 0 takes the most probable token, so that all samples are equal.
        top_k: draw from the k most probable tokens; 0 from all.
        top_p: draw from the most probable tokens that have this probability together.
        seed: the same seed writes the same samples.

    Raises:
        UserError: a value is out of range.
    """
    model, tokenizer = generator.model, generator.tokenizer
    if num_samples < 1:
        raise UserError(f"num_samples={num_samples}", "at least 1", "set --num_samples")
    length = model.generation_config.max_new_tokens if max_new_tokens is None else max_new_tokens
    if length is None:
        raise UserError("a generator saved without the length of its texts", "a length", "set --max_new_tokens")
    if seed is not None and not 0 <= seed < 2**63:
        raise UserError(f"seed={seed}", "a number from 0 to 2**63 - 1", "set --seed")
    start = start_prompt(model, num_samples)
    if prompt:
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"].to(start.device)
        start = torch.cat([start, ids.long().expand(num_samples, -1)], dim=1)
    rng = None if seed is None else torch.Generator(device=start.device).manual_seed(seed)
    if temperature == 0:
        temperature, top_k = 1.0, 1
    samples = sample(model, start, length, temperature, top_k, top_p, rng)
    if prompt:  # decoded as a whole, so that spaces between prompt and continuation come out right
        samples = samples._replace(ids=samples.sequences[:, 1:], mask=samples.attention_mask[:, 1:])
    return decode(samples, tokenizer)
