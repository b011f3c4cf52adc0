"""Write text with a trained generator: what `seqgan-hf generate` does."""

from __future__ import annotations

import torch

from ..errors import UserError
from ..evaluation.loading import LoadedGenerator
from ..generation.sampling import sample
from ..generation.vocabulary import start_prompt
from ..runs.folder import decode


def generate_texts(
    generator: LoadedGenerator,
    num_samples: int = 10,
    prompt: str | None = None,
    max_new_tokens: int | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
) -> list[str]:
    """Sample texts.

    Args:
        generator: what `evaluation.drawing.load_generator` gave.
        num_samples: how many.
        prompt: text that every sample continues; it stands before each.
        max_new_tokens: T; by default what the generator was trained to write.
        temperature, top_k, top_p: see `functional.filter_logits`.
        seed: the same seed gives the same texts.

    Raises:
        UserError: a value is out of range.
    """
    model, tokenizer = generator.model, generator.tokenizer
    if num_samples < 1:
        raise UserError(f"num_samples={num_samples}", "at least 1", "set --num_samples")
    length = model.generation_config.max_new_tokens if max_new_tokens is None else max_new_tokens
    if length is None:
        raise UserError(
            "a generator that does not say how long its texts are", "a number of tokens", "set --max_new_tokens"
        )
    start = start_prompt(model, num_samples)
    if prompt:
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"].to(start.device)
        start = torch.cat([start, ids.long().expand(num_samples, -1)], dim=1)
    if seed is not None and not 0 <= seed < 2**63:
        raise UserError(f"seed={seed}", "a number from 0 to 2**63 - 1", "set --seed")
    rng = None if seed is None else torch.Generator(device=start.device).manual_seed(seed)
    samples = sample(model, start, length, temperature, top_k, top_p, rng)
    if prompt:  # decoded as a whole, so that spaces between prompt and continuation come out right
        whole = samples._replace(ids=samples.sequences[:, 1:], mask=samples.attention_mask[:, 1:])
        return decode(whole, tokenizer)
    return decode(samples, tokenizer)
