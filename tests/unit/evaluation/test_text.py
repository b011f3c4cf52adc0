"""Text metrics at evaluation rounds."""

import pytest
from datasets import Dataset

from seqgan_hf.data import Corpus
from seqgan_hf.data.tokenization import TokenizerConfig, build_tokenizer
from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.catalog import METRICS, TextSettings
from seqgan_hf.evaluation.loading import draw_samples, encode_texts
from seqgan_hf.evaluation.record import Estimate
from seqgan_hf.evaluation.suite import evaluate_texts
from seqgan_hf.evaluation.text import TextEvaluator
from tests.tools.small_language import REFERENCES, TRAIN


def test_text_evaluator_measures_decoded_samples(generator):
    samples, texts = draw_samples(generator, encode_texts(generator, ["a"]), 40, 12, 1.0, 0)
    evaluator = TextEvaluator(generator.tokenizer, REFERENCES, TRAIN, ["bleu", "copy_rate", "distinct"])
    found = evaluator.evaluate(generator.model, samples, seed=0)
    expected = evaluate_texts(texts, REFERENCES, TRAIN, evaluator.metrics).results
    assert found.keys() == expected.keys()
    for name, estimate in found.items():
        assert estimate.value == expected[name].value
        assert estimate.signature == f"{expected[name].signature}|vocabulary:{len(generator.tokenizer)}|temperature:1"
        jackknifed = name.startswith(("distinct", "unique", "longest_copy_share"))  # too slow for every round
        assert (estimate.low, estimate.high) == (
            (None, None) if jackknifed else (expected[name].low, expected[name].high)
        )


@pytest.mark.parametrize(
    ("metrics", "message"), [(["copy_rate"], "needs the training texts"), (["blue"], "expected one of")]
)
def test_text_evaluator_refuses_before_training(generator, metrics, message):
    with pytest.raises(UserError, match=message):
        TextEvaluator(generator.tokenizer, REFERENCES, None, metrics)


def test_texts_are_split_as_the_tokenizer_does(caplog):
    """Lines without spaces, written by characters."""
    lines = ["abcabd", "abdabc", "abcabc"] * 20
    tokenizer = build_tokenizer(TokenizerConfig(level="char"), lambda: [lines])
    evaluator = TextEvaluator(tokenizer, lines, lines)
    signed = evaluator.measurement.sign({"bleu_2": Estimate(1.0)}, METRICS["bleu"])
    assert "|tokenization:character|" in signed["bleu_2"].signature
    assert not evaluator.flags and not caplog.records


def test_before_training_it_is_said_that_words_show_nothing(caplog):
    lines = ["abcabd", "abdabc", "abcabc"] * 20
    tokenizer = build_tokenizer(TokenizerConfig(level="char"), lambda: [lines])
    evaluator = TextEvaluator(tokenizer, lines, lines, ["bleu", "grammar"], TextSettings("white_space", accepts=bool))
    why = "the median text has 1 token (tokenization white_space): set evaluation.tokenization character"
    assert evaluator.flags == [f"bleu cannot judge: {why}"]
    assert [record.getMessage() for record in caplog.records] == [f"{evaluator.flags[0]}."]
    assert not TextEvaluator(tokenizer, None, lines, ["self_bleu"]).flags


def test_text_evaluator_from_a_corpus(generator):
    rows = {"eval": [[5, 6, 2], [7, 2]], "train": [[5, 2]]}
    corpus = Corpus(
        **{split: Dataset.from_dict({"input_ids": ids}) for split, ids in rows.items()},
        **{"vocab_size": 13, "max_length": 3, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        tokenizer=generator.tokenizer,
    )
    evaluator = TextEvaluator.from_corpus(corpus, ["bleu", "copy_rate"])
    words = generator.tokenizer.convert_ids_to_tokens([5, 6, 7])
    assert evaluator.measurement.references.texts == [f"{words[0]} {words[1]}", words[2]]
    assert evaluator.measurement.train.texts == [words[0]]


def test_real_texts_are_compared_as_the_tokenizer_writes_them(generator):
    evaluator = TextEvaluator(generator.tokenizer, ["the  zebra rides", "a boy"], ["a yak"], ["copy_rate"])
    assert evaluator.measurement.references.texts == ["the <unk> rides", "a boy"]
    assert evaluator.measurement.train.texts == ["a <unk>"]
    samples = encode_texts(generator, ["a <unk>"])
    found = evaluator.evaluate(generator.model, samples, seed=0)["copy_rate"]
    assert found.value == 1 and "|unknown:20.00%|" in found.signature
