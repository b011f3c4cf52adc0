"""Without a network, what only the Hub could have is refused at once, and what its cache holds is found."""

from __future__ import annotations

import json
import socket

import datasets
import huggingface_hub
import pytest
from huggingface_hub import constants

from seqgan_hf.commands.build import build_trainer
from seqgan_hf.commands.recipe import load_recipe
from seqgan_hf.data import TextData
from seqgan_hf.data.network import asking_once
from seqgan_hf.data.tokenization import load_tokenizer
from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.encoders import load_encoder
from seqgan_hf.evaluation.loading import check_generator, load_discriminator, load_generator, load_writer
from seqgan_hf.models.modeling_rnn_generator import RNNGeneratorConfig


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """Nothing answers at the Hub's address, and nobody waits for it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"

    def impatient(seconds: float) -> None:
        raise AssertionError(f"waits for {seconds} s")

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", impatient)
    monkeypatch.chdir(tmp_path)


def train(name: str) -> None:
    recipe, text = load_recipe(["--data", "GrammarData", "--data.num_train", "50", "--objective", "MLE",
                                "--generator.pretrained", name])  # fmt: skip
    build_trainer(recipe, text)


@pytest.mark.parametrize(
    "load",
    [
        lambda name: load_generator(name, "cpu"),
        lambda name: load_discriminator(name, None),
        check_generator,
        load_writer,
        load_encoder,
        load_tokenizer,
        train,
        lambda name: TextData(dataset=name).load(),
    ],
    ids=["generator", "discriminator", "check", "writer", "encoder", "tokenizer", "train", "dataset"],
)
def test_a_mistyped_folder_is_refused_at_once(load):
    with pytest.raises(UserError, match="runs/seqgn"):
        load("runs/seqgn")
    assert not constants.HF_HUB_OFFLINE  # for as long as it was loaded


def test_the_missing_model_of_an_adapter_is_refused_at_once(tmp_path):
    (tmp_path / "adapter").mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": "owner/base"}
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="of the model 'owner/base', which cannot be loaded"):
        check_generator(str(tmp_path / "adapter"))


def test_what_the_cache_holds_is_found(tmp_path):
    commit, folder = "0" * 40, tmp_path / "cache/models--owner--words"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(commit)
    RNNGeneratorConfig().save_pretrained(folder / "snapshots" / commit)
    check_generator("owner/words")
    with pytest.raises(UserError, match="owner/word'"):
        check_generator("owner/word")


def test_offline_stays_offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with asking_once("a/b"):
        assert constants.HF_HUB_OFFLINE
    assert constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    "settings",
    [
        {"train_file": "lines.txt"},
        {"train_file": "rows.csv"},
        {"train_file": "rows.jsonl"},
        {"train_file": "lines.txt", "streaming": True, "max_length": 4, "eval_size": 5},
        {"dataset": "texts"},
        {"dataset": "objects"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_what_is_here_is_read_without_a_network(settings, tmp_path, monkeypatch):
    """Nobody is told of it, and no address is looked for."""
    asked = []

    def refuse(*address, **options):
        asked.append(address)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    texts = ["a cat sits", "the dog runs"] * 20
    objects = "".join(f"{json.dumps({'text': text})}\n" for text in texts)
    for name, content in {
        "lines.txt": "\n".join(texts),
        "rows.csv": "\n".join(["text", *texts]),
        "rows.jsonl": objects,
        "texts/train.txt": "\n".join(texts),
        "objects/train.jsonl": objects,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    corpus = TextData(**settings).load()
    assert len(list(corpus.train)) + len(corpus.eval) == 40 and not asked
    assert datasets.config.HF_UPDATE_DOWNLOAD_COUNTS  # of what comes from the Hub
