"""Tiny models for contract tests: one of every kind, built in memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from seqgan_hf.models import (
    CNNDiscriminatorConfig,
    CNNDiscriminatorForSequenceClassification,
    EnsembleGeneratorForCausalLM,
    LeakGeneratorConfig,
    LeakGeneratorForCausalLM,
    RelationalMemoryConfig,
    RelationalMemoryForCausalLM,
    RelGANDiscriminatorConfig,
    RelGANDiscriminatorForSequenceClassification,
    RNNDiscriminatorConfig,
    RNNDiscriminatorForSequenceClassification,
    RNNGeneratorConfig,
    RNNGeneratorForCausalLM,
)


VOCAB_SIZE = 13
BOS, EOS, PAD = 0, 1, 2


def build_generator(kind: str, eos: int | None = EOS, vocab_size: int = VOCAB_SIZE, seed: int = 0) -> PreTrainedModel:
    """A tiny causal LM; `kind` is lstm, gru, memory, leak, ensemble, gpt2 or llama."""
    torch.manual_seed(seed)
    tokens = {"vocab_size": vocab_size, "bos_token_id": BOS, "eos_token_id": eos, "pad_token_id": PAD}
    if kind in ("lstm", "gru"):
        config = RNNGeneratorConfig(
            cell_type=kind, embedding_size=6, hidden_size=8, num_hidden_layers=2, initializer_range=0.6, **tokens
        )
        return RNNGeneratorForCausalLM(config)
    if kind == "memory":
        config = RelationalMemoryConfig(embedding_size=6, mem_slots=2, head_size=4, **tokens)
        generator = RelationalMemoryForCausalLM(config)
        for name, parameter in generator.named_parameters():
            if "norm" not in name:
                torch.nn.init.normal_(parameter, std=0.6)
        return generator
    if kind == "ensemble":
        members = [build_generator(kind, eos, vocab_size, seed + 1) for kind in ("lstm", "gpt2", "memory")]
        return EnsembleGeneratorForCausalLM.from_members(members)
    if kind == "leak":  # of the features of `build_discriminator("cnn")`
        features = {"embedding_size": 6, "filter_sizes": [1, 2, 4], "num_filters": [4, 4, 4]}
        sizes = {"embedding_size": 6, "hidden_size": 8, "goal_size": 3, "goal_steps": 2, "initializer_range": 0.6}
        return LeakGeneratorForCausalLM(LeakGeneratorConfig(discriminator_config=features, **sizes, **tokens))
    if kind == "gpt2":
        config = GPT2Config(n_positions=32, n_embd=8, n_layer=2, n_head=2, initializer_range=0.5, **tokens)
        return GPT2LMHeadModel(config)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return LlamaForCausalLM(LlamaConfig(initializer_range=0.5, **sizes, **heads, **tokens))


def build_discriminator(
    kind: str, vocab_size: int = VOCAB_SIZE, seed: int = 0, labels: Sequence[str] = ()
) -> PreTrainedModel:
    """A tiny sequence classifier; `kind` is cnn, relgan, rnn, per_token or bert; `labels` if they are not two."""
    torch.manual_seed(seed)
    tokens = {"vocab_size": vocab_size, "pad_token_id": PAD}
    tokens |= {"id2label": dict(enumerate(labels))} if len(labels) > 2 else {}
    if kind == "cnn":
        config = CNNDiscriminatorConfig(embedding_size=6, filter_sizes=[1, 2, 4], num_filters=[4, 4, 4], **tokens)
        return CNNDiscriminatorForSequenceClassification(config)
    if kind == "relgan":
        config = RelGANDiscriminatorConfig(
            embedding_size=6,
            num_representations=3,
            filter_sizes=[1, 2, 4],
            num_filters=[4] * 3,
            hidden_size=5,
            **tokens,
        )
        return RelGANDiscriminatorForSequenceClassification(config)
    if kind in ("rnn", "per_token"):
        bidirectional = kind == "rnn"
        config = RNNDiscriminatorConfig(
            embedding_size=6, hidden_size=8, bidirectional=bidirectional, per_token=not bidirectional, **tokens
        )
        return RNNDiscriminatorForSequenceClassification(config)
    config = BertConfig(
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        **tokens,
    )
    return BertForSequenceClassification(config)


def limit_memory(model: PreTrainedModel, room: int) -> list[int]:
    """Let every pass of more than `room` rows run out of memory; gives the list of how many are asked for."""
    asked: list[int] = []

    def fails_on_more(module: torch.nn.Module, arguments: tuple, options: dict) -> None:
        asked.append(len(options["input_ids"]))
        if asked[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    model.base_model.register_forward_pre_hook(fails_on_more, with_kwargs=True)
    return asked
