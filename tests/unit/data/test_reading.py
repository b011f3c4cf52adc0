"""A discriminator that reads text: what it is given, and that nobody sees a difference."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from seqgan_hf.data.reading import TextReader, read_as_text, text_reader
from seqgan_hf.data.tokenization import TokenizerConfig, build_tokenizer, encode_batch
from seqgan_hf.errors import UserError
from seqgan_hf.generation.verdicts import class_logits, features, judge, realness, rewards
from seqgan_hf.runs.hub import classifier_tokenizer
from seqgan_hf.samples import Samples
from tests.tools.judges import letter_tokenizer, save_judge
from tests.tools.tiny import build_discriminator


TEXTS = ["a red ball", "two dogs", "the old horse sees a bird"]


@pytest.fixture(scope="module")
def writer():
    return build_tokenizer(TokenizerConfig(), lambda: [TEXTS])


def samples_of(writer, texts, prompts=None, ended=True) -> Samples:
    rows = [ids + [writer.eos_token_id] * ended for ids in encode_batch(writer, texts)]
    width = max(map(len, rows))
    ids = torch.tensor([row + [writer.pad_token_id] * (width - len(row)) for row in rows])
    mask = torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]
    if prompts is None:
        return Samples(torch.full((len(rows), 1), writer.bos_token_id), ids, mask)
    given = [[writer.bos_token_id, *row] for row in encode_batch(writer, prompts)]
    width = max(map(len, given))
    prompt = torch.tensor([[writer.pad_token_id] * (width - len(row)) + row for row in given])
    prompt_mask = torch.arange(width) >= torch.tensor([width - len(row) for row in given])[:, None]
    return Samples(prompt, ids, mask, prompt_mask)


def load(folder, writer):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return read_as_text(model, AutoTokenizer.from_pretrained(folder), writer)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "roberta"])
@pytest.mark.parametrize("num_labels", [1, 2])
def test_its_verdicts_are_those_of_a_pipeline_on_the_text(kind, num_labels, writer, tmp_path):
    judge_folder = save_judge(tmp_path, kind, num_labels)
    model = load(judge_folder, writer)
    scores = rewards(model, samples_of(writer, TEXTS)).tolist()
    model.save_pretrained(judge_folder)
    model.text_reader.tokenizer.save_pretrained(judge_folder)
    options = {"function_to_apply": "sigmoid"} if num_labels == 1 else {"top_k": None}
    found = pipeline("text-classification", model=judge_folder)(TEXTS, **options)
    real = [
        each["score"] if num_labels == 1 else next(x["score"] for x in each if x["label"] == "LABEL_1")
        for each in found
    ]
    assert scores == pytest.approx(real, abs=1e-5)
    assert len(set(scores)) == 3


def test_a_reader_with_the_generators_tokenizer_sees_what_a_reader_of_ids_sees(writer):
    model = build_discriminator("cnn", vocab_size=len(writer)).eval()
    model.config.pad_token_id = writer.pad_token_id
    samples = samples_of(writer, TEXTS)
    by_ids = realness(model, samples)
    by_text = realness(read_as_text(model, classifier_tokenizer(writer, writer.eos_token_id), writer), samples)
    torch.testing.assert_close(by_text, by_ids)


def test_neither_padding_nor_the_neighbours_nor_a_batch_count(writer, tmp_path):
    model = load(save_judge(tmp_path), writer)
    samples = samples_of(writer, TEXTS)
    together = judge(model, samples)
    assert torch.allclose(judge(model, samples, max_rows=1), together, atol=1e-6)
    assert torch.allclose(judge(model, samples.select(torch.tensor([2, 0]))), together[[2, 0]], atol=1e-6)
    wider = samples._replace(
        ids=torch.nn.functional.pad(samples.ids, (0, 3)), mask=torch.nn.functional.pad(samples.mask, (0, 3))
    )
    assert torch.equal(judge(model, wider), together)


def test_a_condition_and_its_continuation_are_a_pair(writer):
    own = letter_tokenizer("bert")
    read = TextReader(writer, own)(samples_of(writer, TEXTS[:2], ["the", "a old"]))
    expected = own(["the", "a old"], TEXTS[:2], padding=True, padding_side="right", return_tensors="pt")
    assert read.keys() == expected.keys() == {"input_ids", "attention_mask", "token_type_ids"}
    for name, values in expected.items():
        assert torch.equal(read[name], values), name
    assert read["token_type_ids"].any()


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2"])
def test_a_text_without_a_condition_is_read_alone_whatever_stands_beside_it(kind, writer, tmp_path):
    model = load(save_judge(tmp_path, kind), writer)
    samples = samples_of(writer, TEXTS, ["the", "a old", ""])
    together = realness(model, samples)
    other = load(tmp_path, writer)  # which has read nothing yet
    torch.testing.assert_close(realness(other, samples.select(torch.tensor([2]))), together[2:])
    torch.testing.assert_close(realness(other, samples_of(writer, TEXTS))[2], together[2])


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_text_without_words_and_one_that_did_not_end_are_read(kind, writer, tmp_path):
    model = load(save_judge(tmp_path, kind), writer)
    empty = samples_of(writer, ["", "a"])
    read = model.text_reader(empty)
    assert read["attention_mask"][0].sum() == {"bert": 2, "gpt2": 1}[kind]
    assert realness(model, empty).isfinite().all()
    cut = samples_of(writer, TEXTS, ended=False)
    assert torch.equal(realness(model, cut), realness(model, samples_of(writer, TEXTS)))


def test_an_unknown_word_is_read_as_it_is_written(writer):
    own = letter_tokenizer("bert")
    read = TextReader(writer, own)(samples_of(writer, ["a zebra"]))
    assert torch.equal(read["input_ids"], own(["a <unk>"], return_tensors="pt")["input_ids"])


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_text_longer_than_its_positions_is_cut_with_one_warning(kind, writer, tmp_path, caplog):
    """RoBERTa counts positions from behind the padding token."""
    model = load(save_judge(tmp_path, kind, positions=12), writer)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            values = realness(model, samples_of(writer, TEXTS))
    assert values.isfinite().all()
    limit = {"bert": 12, "roberta": 11}[kind]
    assert model.text_reader(samples_of(writer, TEXTS))["input_ids"].shape[1] == limit
    realness(copy.deepcopy(model), samples_of(writer, ["the old dogs run far away", *TEXTS]))  # a rehearsal's
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "seqgan_hf.data.reading"]
    assert warning.endswith(f"which reads {limit}; it and all others as long are cut")


def test_texts_are_encoded_once(writer, monkeypatch):
    own, seen = letter_tokenizer("bert"), []
    reader, encode = TextReader(writer, own), type(own).__call__
    monkeypatch.setattr(
        type(own), "__call__", lambda self, texts, **how: seen.extend(texts) or encode(self, texts, **how)
    )
    samples = samples_of(writer, [*TEXTS, TEXTS[0]])
    first, second = reader(samples), reader(samples)
    assert torch.equal(first["input_ids"], second["input_ids"]) and len(seen) == 3
    monkeypatch.setattr("seqgan_hf.data.reading.KEPT_TEXTS", 2)
    assert torch.equal(reader(samples_of(writer, ["old dogs", "a"]))["input_ids"][1, :3], torch.tensor([1, 4, 2]))
    assert torch.equal(reader(samples)["input_ids"], first["input_ids"])
    seen.clear()
    reader(samples_of(writer, [TEXTS[-1], TEXTS[0]]))
    assert seen == [TEXTS[0]], "the oldest are forgotten, not all"


def test_features_and_class_logits_are_there_too(writer, tmp_path):
    model = load(save_judge(tmp_path), writer)
    samples = samples_of(writer, TEXTS)
    assert features(model, samples).shape == (3, 8)
    logits = class_logits(model, samples)
    assert torch.equal(logits[:, 1] - logits[:, 0], realness(model, samples))


def test_what_cannot_be_read_is_refused(writer, tmp_path):
    model = load(save_judge(tmp_path), writer)
    soft = samples_of(writer, TEXTS)._replace(soft=torch.zeros(3, 7, len(writer)))
    with pytest.raises(UserError, match="soft tokens for BertForSequenceClassification, which reads text"):
        realness(model, soft)
    bare = letter_tokenizer("gpt2")
    bare.eos_token = None
    with pytest.raises(UserError, match="has no end, separator or padding token"):
        TextReader(writer, bare)
    tokens = read_as_text(
        build_discriminator("per_token", len(letter_tokenizer("bert"))), letter_tokenizer("bert"), writer
    )
    with pytest.raises(UserError, match="its tokens are its own"):
        realness(tokens, samples_of(writer, TEXTS))
    assert text_reader(None) is None and text_reader(build_discriminator("cnn")) is None
