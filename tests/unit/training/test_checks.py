"""What is checked before a run begins."""

import re

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

from seqgan_hf.errors import UserError
from seqgan_hf.objectives import RelGAN, SeqGAN
from tests.tools.small_runs import BRIEF, build, metrics, small_corpus
from tests.tools.tiny import build_discriminator


@pytest.mark.parametrize(("size", "warned"), [(13, False), (14, True)])
def test_a_discriminator_of_a_larger_vocabulary_is_warned_of(size, warned, tmp_path, caplog):
    caplog.set_level("WARNING", logger="seqgan_hf")
    build(small_corpus(), tmp_path, discriminator=build_discriminator("bert", vocab_size=size))
    assert ("The discriminator knows 14 token ids, the generator 13" in caplog.text) == warned


def causal_classifier(kind: str, vocab_size: int, pad: int | None) -> PreTrainedModel:
    torch.manual_seed(0)
    tokens = {"vocab_size": vocab_size, "bos_token_id": None, "eos_token_id": None, "pad_token_id": pad}
    if kind == "gpt2":
        return GPT2ForSequenceClassification(GPT2Config(n_positions=8, n_embd=8, n_layer=1, n_head=2, **tokens))
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForSequenceClassification(LlamaConfig(**sizes, **tokens))


@pytest.mark.parametrize(
    ("size", "fix"),
    [
        (13, "`discriminator.config.pad_token_id` to 13, an .* holds, and `discriminator.config.vocab_size` to 14."),
        (14, "`discriminator.config.pad_token_id` to 13, an id that no sequence holds."),
    ],
)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_classifier_that_needs_a_padding_token_and_has_none_is_refused_before_the_run(kind, size, fix, tmp_path):
    """Though no sequence is padded."""
    with pytest.raises(UserError, match="without `pad_token_id` cannot judge batches .Cannot handle batch") as error:
        build(small_corpus(), tmp_path / "run", discriminator=causal_classifier(kind, size, None))
    assert re.search(f"Choose one, or set {fix}$", str(error.value)) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("objective", [SeqGAN(rollouts=2), RelGAN()], ids=["hard tokens", "soft tokens"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_padding_token_that_no_sequence_holds_is_enough(kind, objective, tmp_path):
    build(small_corpus(), tmp_path, objective, discriminator=causal_classifier(kind, 14, 13), **BRIEF).train()
    assert metrics(tmp_path)[-1]["phase"] == "adversarial"


@pytest.mark.parametrize("kind", ["cnn", "bert"])
def test_one_that_goes_by_the_mask_needs_no_padding_token(kind, tmp_path):
    discriminator = build_discriminator(kind)
    discriminator.config.pad_token_id = None
    trainer = build(small_corpus(), tmp_path / "run", discriminator=discriminator)
    assert trainer.models.discriminator is discriminator and discriminator.training
