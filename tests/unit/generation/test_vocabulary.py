"""What a config says of its tokens: where a sequence starts and ends, and what stands after the end."""

from __future__ import annotations

import pytest
import torch

from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import special_tokens, start_prompt
from tests.tools.tiny import build_generator


@pytest.mark.parametrize(
    ("eos", "pad", "expected"),
    [
        (1, 2, ([1], 2)),
        (1, 0, ([1], 0)),  # a padding token whose id is 0 is one
        ([5, 4], 3, ([5, 4], 3)),
        ([5, 4], None, ([5, 4], 5)),  # a model without a padding token is padded with its end
        (6, None, ([6], 6)),
        (None, 3, ([], 3)),
        (None, None, ([], 0)),
    ],
)
def test_ends_and_padding_are_those_of_the_config(eos, pad, expected):
    generator = build_generator("gpt2")
    generator.config.eos_token_id, generator.config.pad_token_id = eos, pad
    assert special_tokens(generator) == expected


def test_any_of_several_end_tokens_ends_a_sequence():
    generator, ends = build_generator("gpt2"), {4, 7}
    generator.config.eos_token_id = sorted(ends)
    drawn = sample(generator, start_prompt(generator, 100), 8, rng=torch.Generator().manual_seed(0))
    lasts = set()
    for ids, length in zip(drawn.ids.tolist(), drawn.lengths.tolist(), strict=True):
        assert not ends & set(ids[: length - 1])
        assert length == 8 or ids[length - 1] in ends
        lasts.add(ids[length - 1])
    assert ends <= lasts


def test_a_start_prompt_is_the_start_token_of_every_row():
    generator = build_generator("gpt2")
    generator.config.bos_token_id = 9
    prompt = start_prompt(generator, 3)
    assert prompt.tolist() == [[9], [9], [9]] and prompt.dtype == torch.long


def test_a_generator_without_a_start_token_is_refused():
    generator = build_generator("gpt2")
    generator.config.bos_token_id = None
    with pytest.raises(ValueError, match="without `bos_token_id`: expected a start token"):
        start_prompt(generator, 3)
