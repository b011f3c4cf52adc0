"""Generators loaded for evaluation: samples, real texts in their tokens, likelihoods at a temperature."""

import copy
import os
import re
import shutil
import socket
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from seqgan_hf.data import TokenizerConfig, integer_tokenizer
from seqgan_hf.data.tokenization import build_tokenizer, encode_batch
from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.loading import (
    check_generator,
    conditions,
    draw_samples,
    encode_prompts,
    encode_texts,
    load_generator,
    load_writer,
    tempered,
    unknown_notes,
)
from seqgan_hf.evaluation.tokenization import unknown_share
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.generation.vocabulary import suppressing
from tests.tools.small_language import REFERENCES


def test_samples_of_a_generator_depend_on_nothing_but_the_seed(generator):
    start = encode_texts(generator, ["a"])
    first, again, other = (draw_samples(generator, start, 20, 12, 0.8, seed)[1] for seed in (0, 0, 1))
    assert first == again != other
    assert not any("<eos>" in text or "<pad>" in text for text in first)


def test_real_texts_are_encoded_as_the_generator_writes(generator):
    samples = encode_texts(generator, ["the man rides", "a boy"])
    assert samples.prompt.tolist() == [[1], [1]]
    assert samples.lengths.tolist() == [4, 3]
    assert samples.ids[1].tolist() == [*generator.tokenizer.convert_tokens_to_ids(["a", "boy"]), 2, 0]


def test_words_that_the_generator_does_not_know_are_noted_whether_their_token_is_declared_or_not(generator):
    declared = copy.deepcopy(generator.tokenizer)
    declared.unk_token = "<unk>"
    for tokenizer in (generator.tokenizer, declared):
        knows = replace(generator, tokenizer=tokenizer)
        [note] = unknown_notes(knows, encode_texts(knows, ["the zebra", "a boy"]))  # ends do not count
        assert note.startswith("25.00% of the references' tokens are unknown to tiny")
        with suppressing(knows.model, {3}):
            [note] = unknown_notes(knows, encode_texts(knows, ["the zebra"]))
        assert note.endswith("unknown to tiny, which never writes the unknown token: NLL_test leaves them out")
        assert unknown_notes(knows, encode_texts(knows, ["the man"])) == []
        [note] = unknown_notes(knows, encode_texts(knows, ["the man", "a boy"], ["a zebra", "sees it"]))
        assert note.startswith("50.00% of the prompts' tokens are unknown to tiny")


@pytest.mark.parametrize("level", ["word", "char", "unigram"])
def test_unknown_tokens_of_every_level_are_counted(level):
    tokenizer = build_tokenizer(TokenizerConfig(level), lambda: [["a man life", "a dog"]])
    ids = torch.tensor([*encode_batch(tokenizer, ["a 床"])[0], tokenizer.eos_token_id])
    assert unknown_share(tokenizer, ids) == pytest.approx(1 / len(ids[:-1]))


def test_an_end_token_that_serves_as_the_unknown_one_is_no_unknown_word(generator):
    tokenizer = copy.deepcopy(generator.tokenizer)
    tokenizer.unk_token = tokenizer.eos_token  # as in GPT-2
    assert unknown_share(tokenizer, torch.tensor([5, 6, tokenizer.eos_token_id])) == 0


def test_samples_continue_the_prompts_in_turn(generator):
    prompts = encode_texts(generator, ["the man", "a boy", "a dog"], ["a", "two big", ""])
    samples, texts = draw_samples(generator, prompts, 5, 12, 1.0, 0)
    assert samples.prompt.tolist() == prompts.prompt[[0, 1, 2, 0, 1]].tolist()
    assert samples.prompt_mask.tolist() == prompts.prompt_mask[[0, 1, 2, 0, 1]].tolist()
    words = generator.tokenizer.convert_tokens_to_ids(["a", "two", "big"])
    assert conditions(samples) == [words[:1], words[1:], [], words[:1], words[1:]] and len(texts) == 5


def test_long_prompts_keep_as_many_of_their_last_tokens_as_in_training(generator):
    model = copy.deepcopy(generator.model)
    model.config.max_prompt_length = 2
    short = encode_prompts(replace(generator, model=model), ["the man rides a big bike", "a"])
    assert conditions(short) == encode_batch(generator.tokenizer, ["big bike", "a"])
    assert short.ids.shape == (2, 0)


def test_prompts_of_other_number_than_texts_are_refused(generator):
    with pytest.raises(UserError, match="1 prompts for 2 texts: expected one for each text"):
        encode_texts(generator, ["the man", "a boy"], ["a"])


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


@pytest.mark.parametrize("load", [load_writer, lambda path: load_generator(path, "cpu")], ids=["writer", "generator"])
def test_a_file_is_no_repository_to_ask_the_hub_for(load, tmp_path, monkeypatch):
    """With its retries that takes a minute where there is no network."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines.txt").write_text("a man\n")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **how: pytest.fail(f"asked for {where}"))
    with pytest.raises(UserError, match="'lines.txt' is a file: expected a run's folder"):
        load("lines.txt")


def test_a_generator_that_lacks_weights_is_refused(model_path, tmp_path):
    folder = shutil.copytree(model_path / "generator", tmp_path / "incomplete")
    weights = load_file(folder / "model.safetensors")
    name, _ = weights.popitem()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"lacks 1 of its weights .{name}"):
        load_generator(str(folder), "cpu")


def test_a_folder_of_runs_names_the_newest_of_them(tmp_path):
    for number, name in enumerate(["a", "b/generator", "c/generator", "d", "e/generator"]):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
        os.utime(tmp_path / name / "config.json", (number, number))
    (tmp_path / "f").mkdir()
    newest = " or ".join(repr(str(tmp_path / name)) for name in "edc")
    with pytest.raises(UserError, match=re.escape(f"Name a folder in it that does: {newest}, the newest of 5.")):
        check_generator(str(tmp_path))
    with pytest.raises(UserError, match=re.escape("Check the path: no folder in it does either.")):
        check_generator(str(tmp_path / "f"))
