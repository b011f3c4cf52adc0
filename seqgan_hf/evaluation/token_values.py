"""What each token of a sample is worth to a discriminator, and the text that each token stands for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.tokenization import decode_continuations
from ..generation.verdicts import rewards
from ..objectives import Models, SeqGAN
from ..objectives.reinforce import last_of
from ..samples import LongTensor, Samples


UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what bytes are decoded to that are not yet a character


def action_values(
    generator: PreTrainedModel, discriminator: PreTrainedModel, samples: Samples, rollouts: int, seed: int
) -> Tensor:
    """Q of every token: mean D over `rollouts` completions of the text up to it (SeqGAN, equation 4).

    Returns:
        Probabilities of being real, shape (B, T), zero at padding. The same seed gives the same ones.

    Raises:
        UserError: the discriminator is no classifier of real and generated.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SeqGAN(rollouts=rollouts).action_values(Models(generator, discriminator), samples, samples)


def prefix_verdicts(discriminator: PreTrainedModel, samples: Samples) -> Tensor:
    """D of the text up to every token, as if it ended there; returns and raises as `action_values`."""
    prefixes, row, place = _prefixes(samples)
    values = torch.zeros_like(samples.ids, dtype=torch.float32)
    values[row, place] = last_of(rewards(discriminator, prefixes), prefixes)
    return values


def token_texts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], samples: Samples) -> list[list[str]]:
    """The text that each token adds to its prompt and the tokens before it.

    A token that adds nothing has an empty text: the end token, and all but the last token of a character that is
    spelled in several.

    Returns:
        For each of B samples as many texts as it has tokens; together they are the continuation as it is decoded.
    """
    prefixes, row, place = _prefixes(samples)
    texts = decode_continuations(tokenizer, [prompts[number] for number in row.tolist()], prefixes)
    pieces: list[list[str]] = [[] for _ in prompts]
    is_last = (place + 1 == samples.lengths[row]).tolist()
    for number, last, text in zip(row.tolist(), is_last, texts, strict=True):
        written = text[len(prompts[number]) + sum(map(len, pieces[number])) :]
        pieces[number].append(written if last or not text.endswith(UNFINISHED) else "")
    return pieces


def _prefixes(samples: Samples) -> tuple[Samples, LongTensor, LongTensor]:
    """Every prefix of every sample, with the row and the place of its last token, shape (K,) each."""
    row, place = samples.mask.nonzero(as_tuple=True)
    given = torch.arange(samples.ids.shape[1], device=place.device) <= place[:, None]
    return samples.uncredited.select(row)._replace(mask=given), row, place
