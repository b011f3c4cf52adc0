"""What tokens are worth to a discriminator, and the text that each of them stands for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification

from seqgan_hf.data.reading import read_as_text
from seqgan_hf.data.tokenization import (
    TokenizerConfig,
    build_tokenizer,
    decode_continuations,
    encode_batch,
    integer_tokenizer,
)
from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.token_values import action_values, prefix_verdicts, token_texts
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.verdicts import rewards
from seqgan_hf.objectives.reinforce import last_of
from seqgan_hf.samples import Samples
from tests.tools.judges import letter_tokenizer, save_judge
from tests.tools.tiny import BOS, PAD, VOCAB_SIZE, build_discriminator, build_generator


LINES = ["床前明月光，疑是地上霜。", "a dog sees the river", "naïve 😀 cats"]
LEVELS = ["word", "char", "bpe", "unigram"]
TOKENIZERS = {level: build_tokenizer(TokenizerConfig(level), lambda: [LINES * 3]) for level in LEVELS}


@pytest.fixture
def samples() -> Samples:
    """20 sequences of up to 7 tokens behind prompts of two; some end by themselves."""
    prompt = torch.tensor([[BOS, 5, 6]]).expand(20, 3)
    return sample(build_generator("lstm"), prompt, 7, rng=torch.Generator().manual_seed(0))


def judge(kind, tmp_path):
    if kind != "text":
        return build_discriminator(kind)
    model = AutoModelForSequenceClassification.from_pretrained(save_judge(tmp_path))
    return read_as_text(model, letter_tokenizer("bert"), integer_tokenizer(VOCAB_SIZE))


@pytest.mark.parametrize("kind", ["cnn", "relgan", "rnn", "per_token", "bert", "text"])
def test_every_token_has_the_verdict_on_the_text_up_to_it(kind, tmp_path, samples):
    discriminator = judge(kind, tmp_path)
    values = prefix_verdicts(discriminator, samples)
    assert values.shape == samples.ids.shape and not values[~samples.mask].any()
    for length in range(1, 8):
        long = samples.select(samples.lengths >= length)
        cut = long._replace(ids=long.ids[:, :length], mask=long.mask[:, :length])
        expected = last_of(rewards(discriminator, cut), cut)
        torch.testing.assert_close(values[samples.lengths >= length, length - 1], expected)


@pytest.mark.parametrize("kind", ["cnn", "per_token", "text"])
def test_action_values_depend_on_nothing_but_the_seed(kind, tmp_path, samples):
    discriminator, generator = judge(kind, tmp_path), build_generator("lstm")
    torch.manual_seed(3)
    untouched = torch.rand(1)
    torch.manual_seed(3)
    first, again, other = (action_values(generator, discriminator, samples, 2, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), untouched)  # what others draw stays as it was
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not first[~samples.mask].any()
    last = first.gather(1, samples.lengths[:, None] - 1).squeeze(1)
    torch.testing.assert_close(last, last_of(rewards(discriminator, samples), samples))  # nothing is left to complete


def test_a_classifier_of_other_labels_is_refused(samples):
    discriminator, generator = build_discriminator("bert"), build_generator("lstm")
    discriminator.classifier = torch.nn.Linear(8, 3)
    with pytest.raises(UserError, match="logits of shape"):
        prefix_verdicts(discriminator, samples)
    with pytest.raises(UserError, match="logits of shape"):
        action_values(generator, discriminator, samples, 1, 0)


def written(tokenizer, prompts: list[str], texts: list[str], end: bool = True) -> Samples:
    """Samples that hold these texts behind these prompts."""
    eos = [tokenizer.eos_token_id] * end
    rows = [torch.tensor([*ids, *eos]) for ids in encode_batch(tokenizer, texts)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    mask = torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in rows])
    return Samples(torch.full((len(rows), 1), BOS), ids, mask)


@pytest.mark.parametrize("level", LEVELS)
def test_the_texts_of_tokens_are_the_continuation_cut_into_pieces(level):
    tokenizer, prompts = TOKENIZERS[level], ["", "a dog", "床前"]
    samples = written(tokenizer, prompts, LINES)
    pieces = token_texts(tokenizer, prompts, samples)
    assert [len(row) for row in pieces] == samples.lengths.tolist()
    assert all(row[-1] == "" for row in pieces), "the end token has no text"
    together = [prompt + "".join(row) for prompt, row in zip(prompts, pieces, strict=True)]
    assert together == decode_continuations(tokenizer, prompts, samples)


def test_pieces_are_words_characters_and_numbers():
    words = TOKENIZERS["word"]
    assert token_texts(words, ["a"], written(words, ["a"], ["dog sees"])) == [[" dog", " sees", ""]]
    characters = TOKENIZERS["char"]
    assert token_texts(
        characters,
        [""],
        written(
            characters,
            [""],
            [
                "明月",
            ],
        ),
    ) == [["明", "月", ""]]
    numbers = integer_tokenizer(20)
    assert token_texts(numbers, ["3 4"], written(numbers, ["3 4"], ["17 5"], end=False)) == [[" 17", " 5"]]


def test_a_character_of_several_tokens_stands_at_the_last_of_them():
    tokenizer = build_tokenizer(TokenizerConfig("bpe", vocab_size=259), lambda: [["a"]])  # bytes alone
    samples = written(tokenizer, ["x"], ["月a"])
    assert token_texts(tokenizer, ["x"], samples) == [[" ", "", "", "月", "a", ""]]
    broken = samples._replace(mask=torch.tensor([[True, True, True, False, False, False]]))
    assert token_texts(tokenizer, ["x"], broken) == [[" ", "", "\N{REPLACEMENT CHARACTER}"]]


@given(st.lists(st.tuples(st.text(max_size=8), st.text(min_size=1, max_size=12)), min_size=1, max_size=3))
def test_no_text_is_lost_whatever_is_written(texts):
    tokenizer = TOKENIZERS["bpe"]
    prompts = [prompt for prompt, _ in texts]
    samples = written(tokenizer, prompts, [text for _, text in texts])
    pieces = token_texts(tokenizer, prompts, samples)
    assert [prompt + "".join(row) for prompt, row in zip(prompts, pieces, strict=True)] == decode_continuations(
        tokenizer, prompts, samples
    )
