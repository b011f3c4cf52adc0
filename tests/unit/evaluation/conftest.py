"""A tiny generator of words, in memory and saved, and files of text."""

import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from seqgan_hf.evaluation.loading import LoadedGenerator
from seqgan_hf.models.modeling_rnn_generator import RNNGeneratorConfig, RNNGeneratorForCausalLM
from tests.tools.small_language import REFERENCES, SAMPLERS, TRAIN, WORDS


@pytest.fixture(scope="session")
def lines_of_text(tmp_path_factory):
    """A folder with samples, references and training text, for tests that write nothing there."""
    folder = tmp_path_factory.mktemp("lines")
    for name, texts in (("samples", SAMPLERS["copying"][:100]), ("references", REFERENCES), ("train", TRAIN)):
        (folder / f"{name}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def files(lines_of_text, tmp_path):
    return Path(shutil.copytree(lines_of_text, tmp_path, dirs_exist_ok=True))


@pytest.fixture(scope="package")
def generator():
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    torch.manual_seed(0)
    config = RNNGeneratorConfig(
        vocab_size=len(vocabulary), pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=1.0
    )
    return LoadedGenerator("tiny", RNNGeneratorForCausalLM(config).eval(), wrapped)


@pytest.fixture(scope="package")
def model_path(generator, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tiny" / "generator"
    generator.model.save_pretrained(path)
    generator.tokenizer.save_pretrained(path)
    return path.parent
