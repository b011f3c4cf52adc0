"""Generators loaded for evaluation: samples, real texts in their tokens, likelihoods at a temperature."""

import copy
from dataclasses import replace

import pytest
import torch

from seqgan_hf.data import TokenizerConfig, integer_tokenizer
from seqgan_hf.data.tokenization import build_tokenizer, encode_batch
from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.loading import draw_samples, encode_texts, tempered, unknown_notes
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.generation.vocabulary import suppressing
from tests.tools.small_language import REFERENCES


def test_samples_of_a_generator_depend_on_nothing_but_the_seed(generator):
    first, again, other = (draw_samples(generator, 20, 12, 0.8, seed)[1] for seed in (0, 0, 1))
    assert first == again != other
    assert not any("<eos>" in text or "<pad>" in text for text in first)


def test_real_texts_are_encoded_as_the_generator_writes(generator):
    samples = encode_texts(generator, ["the man rides", "a boy"])
    assert samples.prompt.tolist() == [[1], [1]]
    assert samples.lengths.tolist() == [4, 3]
    assert samples.ids[1].tolist() == [*generator.tokenizer.convert_tokens_to_ids(["a", "boy"]), 2, 0]


def test_tokens_that_the_generator_does_not_know_are_noted(generator):
    """Whether its tokenizer declares the unknown token or not."""
    samples = encode_texts(generator, ["the zebra", "a boy"])  # 1 of 4 words, 2 ends
    tokenizer = copy.deepcopy(generator.tokenizer)
    tokenizer.unk_token = "<unk>"
    for each in (generator, replace(generator, tokenizer=tokenizer)):
        note = "16.7% of the references' tokens are unknown to tiny; NLL_test "
        assert unknown_notes(each, samples) == [note + "scores them as unknown"]
        with suppressing(each.model, {3}):
            assert unknown_notes(each, samples) == [note + "leaves them out"]
        assert unknown_notes(each, encode_texts(generator, ["the man"])) == []


def test_references_are_read_as_training_lines_are(generator):
    """An end token that is spelled out does not end anything, and an id outside the vocabulary is an error."""
    words = build_tokenizer(TokenizerConfig(), lambda: [["the <eos> man"]])
    samples = encode_texts(replace(generator, tokenizer=words), ["the <eos> man"])
    assert samples.ids.tolist() == [[*encode_batch(words, ["the <eos> man"])[0], 2]] and (samples.ids == 2).sum() == 1
    ids = replace(generator, tokenizer=integer_tokenizer(5))
    with pytest.raises(UserError, match="'7' in a text of integer ids: expected ids from 0 to 4"):
        encode_texts(ids, ["3 4", "3 7"])


def test_tempered_likelihoods_are_those_of_scaled_logits(generator):
    samples = encode_texts(generator, REFERENCES[:5])
    with torch.no_grad():
        logits = generator.model(input_ids=samples.sequences[:, :-1]).logits / 0.7
        expected = logits.log_softmax(-1).gather(2, samples.ids[..., None])[..., 0] * samples.mask
        with tempered(generator.model, 0.7):
            found = token_logprobs(generator.model, samples)
        after = token_logprobs(generator.model, samples)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (after - found).abs().max() > 0.01  # the temperature is gone again
