"""What tests of sampling, rollouts and likelihoods share."""

from __future__ import annotations

import torch

from seqgan_hf.generation.rollouts import complete
from seqgan_hf.samples import Samples
from tests.tools.tiny import BOS, PAD


KINDS = ["lstm", "gru", "memory", "gpt2", "llama"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def padded_prompts() -> tuple[torch.Tensor, torch.Tensor]:
    prompt = torch.tensor([[PAD, PAD, BOS, 5], [BOS, 5, 6, 7], [PAD, PAD, PAD, BOS]])
    return prompt, torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]], dtype=torch.bool)


def exact_logprobs(generator, samples: Samples) -> torch.Tensor:
    """Row by row, without padding, cache or blocks."""
    rows = torch.zeros(samples.ids.shape)
    for row in range(samples.batch_size):
        prompt = samples.prompt[row][samples.attention_mask[row, : samples.prompt.shape[1]]]
        ids = samples.ids[row][samples.mask[row]]
        logits = generator(torch.cat([prompt, ids])[None]).logits[0, len(prompt) - 1 : -1]
        rows[row, : len(ids)] = logits.log_softmax(-1).gather(1, ids[:, None]).squeeze(1)
    return rows


def rollouts_of(generator, samples, rollouts, **options):
    parts = list(complete(generator, samples, rollouts, **options))
    whole = Samples.concatenate([part.samples for part in parts])
    rows, lengths = (torch.cat([getattr(part, name) for part in parts]) for name in ("row", "prefix_length"))
    return whole, rows, lengths
