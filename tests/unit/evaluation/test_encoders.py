"""Sentence encoders, and optional libraries that are not installed."""

import json
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


def save_encoder(folder, tokenizer):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = BertModel(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def test_mean_pooling_encoder_counts_tokens_and_no_padding(tmp_path, generator):
    model = save_encoder(tmp_path, generator.tokenizer)
    texts = ["the man rides", "", "a boy", "two dogs likes the river"]
    found = load_encoder(str(tmp_path), batch_size=2)(texts)
    assert found.shape == (4, 16) and not found[1].any()
    for text, row in zip(texts, found, strict=True):
        if text:
            ids = torch.tensor([generator.tokenizer(text)["input_ids"]])
            with torch.no_grad():
                expected = model(ids).last_hidden_state.mean(dim=1)[0]
            np.testing.assert_allclose(row, expected.numpy(), atol=1e-5)


def test_a_sentence_transformer_runs_the_modules_of_its_folder(tmp_path, generator):
    """The mean over tokens by one module, unit length by the next."""
    pytest.importorskip("sentence_transformers")
    save_encoder(tmp_path, generator.tokenizer)
    texts = ["the man rides", "a boy", "two dogs likes the river"]
    plain = load_encoder(str(tmp_path))(texts)
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{name}"}
        for index, (name, path) in enumerate(paths.items())
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    found = load_encoder(str(tmp_path), batch_size=2)(texts)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-5)


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
