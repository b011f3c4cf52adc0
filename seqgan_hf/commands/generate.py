"""`seqgan-hf generate`: write text with a trained generator."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import cycle, islice

import torch
from jsonargparse import ArgumentParser

from ..data.tokenization import decode, one_line
from ..errors import UserError
from ..evaluation.loading import LoadedGenerator, check_prompts, encode_prompts, load_generator
from ..evaluation.run import read_lines
from ..generation.sampling import sample


def run(arguments: list[str]) -> None:
    """`MODEL [--output FILE]`, and the arguments of `generate_texts`."""
    parser = ArgumentParser(prog="seqgan-hf generate", description="Write samples of a trained generator.")
    parser.add_argument("model", help="a run's folder, its `generator` folder, or an id on the Hub")
    parser.add_function_arguments(generate_texts, skip={"generator", "prompts"})
    parser.add_argument("--prompts", help="file of prompts, one a line; each is continued once, or as `prompt` is")
    parser.add_argument("--output", help="write to this file instead of the terminal")
    options = vars(parser.parse_args(arguments))
    output, model = options.pop("output"), options.pop("model")
    device = str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"
    try:  # before any work is done
        file = sys.stdout if output is None else open(output, "w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {output!r} ({error.strerror})", "a file to write", "change it") from error
    if options["prompts"] is not None:
        options["prompts"] = read_lines(options["prompts"], "prompts", [], blank=True)
    texts = generate_texts(load_generator(model, device), **options)
    print("\n".join(map(one_line, texts)), file=file)
    if output is not None:
        file.close()


def generate_texts(
    generator: LoadedGenerator,
    num_samples: int | None = None,
    prompt: str | None = None,
    prompts: Sequence[str] | None = None,
    max_new_tokens: int | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
) -> list[str]:
    """Sample texts.

    Args:
        generator: what `load_generator` gave.
        num_samples: how many; by default 10, or one for each of `prompts`.
        prompt: text that every sample continues; it stands before each.
        prompts: likewise, one text for each sample in turn, and from the first again once all are used up.
        max_new_tokens: longest sample, in tokens; by default as in training.
        temperature: below 1 sharper, above 1 flatter.
        top_k: draw from the k most probable tokens; 0 from all.
        top_p: draw from the most probable tokens that have this probability together.
        seed: the same seed writes the same samples.

    Raises:
        UserError: a value is out of range, or there is no prompt for a generator that was trained to continue some.
    """
    model, tokenizer = generator.model, generator.tokenizer
    if prompt is not None and prompts is not None:
        raise UserError("both a prompt and prompts", "one of them", "drop --prompt or --prompts")
    prompted = prompt is not None or prompts is not None
    check_prompts(generator, prompted)
    if num_samples is None:
        num_samples = 10 if prompts is None else len(prompts)
    if num_samples < 1:
        raise UserError(f"num_samples={num_samples}", "at least 1", "set --num_samples")
    length = model.generation_config.max_new_tokens if max_new_tokens is None else max_new_tokens
    if length is None:
        raise UserError("a generator saved without the length of its texts", "a length", "set --max_new_tokens")
    if seed is not None and not 0 <= seed < 2**63:
        raise UserError(f"seed={seed}", "a number from 0 to 2**63 - 1", "set --seed")
    texts = list(islice(cycle([prompt or ""] if prompts is None else prompts), num_samples))
    given = encode_prompts(generator, texts)
    rng = None if seed is None else torch.Generator(device=model.device).manual_seed(seed)
    samples = sample(model, given.prompt, length, temperature, top_k, top_p, rng, given.prompt_mask)
    if prompted:  # decoded as a whole, so that spaces between prompt and continuation come out right
        after_start = samples.attention_mask & (samples.attention_mask.cumsum(dim=1) > 1)
        samples = samples._replace(ids=samples.sequences, mask=after_start)
    return decode(samples, tokenizer)
