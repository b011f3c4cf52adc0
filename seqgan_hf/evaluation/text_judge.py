"""A pretrained causal LM as the judge of texts, for the metric `judge_lm`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..errors import UserError
from ..generation.likelihood import sequence_logprobs
from ..samples import Samples
from .loading import load_generator


TextJudge = Callable[[Sequence[str]], np.ndarray]  # N texts -> NLL per token of each, in nats, (N,)


def load_text_judge(name: str, device: str = "cpu") -> TextJudge:
    """A function from texts to their NLL per token of the judge, ends of texts counted, in nats, (N,).

    Args:
        name: id or path of a causal LM with its tokenizer.
        device: where it runs.

    Raises:
        UserError: there is no such model, or it has no token that ends a text.
    """
    judge = load_generator(name, device)
    tokenizer = judge.tokenizer
    end = tokenizer.eos_token_id
    if end is None:
        raise UserError(f"judge_lm={name!r} has no end token", "a language model of whole texts", "name another")
    start = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id

    def nlls(texts: Sequence[str]) -> np.ndarray:
        rows = [[*tokenizer(text, add_special_tokens=False)["input_ids"], end] for text in texts]
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = torch.full(mask.shape, end)
        ids[mask] = torch.tensor([token for row in rows for token in row])
        samples = Samples(torch.full((len(rows), 1), start), ids, mask)
        return (-sequence_logprobs(judge.model, samples).cpu() / lengths).numpy()

    return nlls
