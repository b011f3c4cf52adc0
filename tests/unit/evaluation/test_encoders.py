"""Sentence encoders, and optional libraries that are not installed."""

import sys

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from seqgan_hf.errors import MissingExtraError, UserError
from seqgan_hf.evaluation.arguments import check_names
from seqgan_hf.evaluation.catalog import METRICS, TextSettings
from seqgan_hf.evaluation.encoders import load_encoder
from seqgan_hf.evaluation.tokenization import tokenize


def test_an_encoder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UserError, match="encoder='.*none' cannot be loaded .*: expected a folder with a model"):
        load_encoder(str(tmp_path / "none"))


def test_mean_pooling_encoder_counts_tokens_and_no_padding(tmp_path, generator):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = BertModel(config).eval()
    model.save_pretrained(tmp_path)
    generator.tokenizer.save_pretrained(tmp_path)
    texts = ["the man rides", "", "a boy", "two dogs likes the river"]
    found = load_encoder(str(tmp_path), batch_size=2)(texts)
    assert found.shape == (4, 16) and not found[1].any()
    for text, row in zip(texts, found, strict=True):
        if text:
            ids = torch.tensor([generator.tokenizer(text)["input_ids"]])
            with torch.no_grad():
                expected = model(ids).last_hidden_state.mean(dim=1)[0]
            np.testing.assert_allclose(row, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("module", "call", "extra"),
    [
        ("sentence_transformers", lambda: load_encoder("sentence-transformers/any"), "embeddings"),
        # before anything is trained or measured
        (
            "sentence_transformers",
            lambda: check_names([], TextSettings(encoder="sentence-transformers/any")),
            "embeddings",
        ),
        ("mauve", lambda: METRICS["mauve"].function(np.zeros((9, 2)), np.zeros((9, 2))), "mauve"),
        ("nltk.tokenize", lambda: tokenize(["a"], "treebank"), "treebank"),
    ],
)
def test_missing_libraries_are_named_with_the_line_to_type(monkeypatch, module, call, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf'pip install "seqgan-hf\[{extra}\]"'):
        call()


def test_mauve_of_equal_and_of_distant_texts():
    pytest.importorskip("mauve")
    source = np.random.default_rng(0)
    near, same, far = source.normal(size=(400, 4)), source.normal(size=(400, 4)), source.normal(size=(400, 4)) + 5
    mauve = METRICS["mauve"].function
    assert mauve(near, same)["mauve"] > 0.8 > 0.1 > mauve(near, far)["mauve"]
