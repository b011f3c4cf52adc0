"""Tiny pretrained judges with a tokenizer of their own, in a folder as the Hub would give it."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)


LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789<>.,!?"


def letter_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Reads letters, words apart; frames a text as BERT does, a pair too, or (GPT-2) adds nothing."""
    names = ["<pad>", "[CLS]", "[SEP]", "[UNK]"]
    vocabulary = {token: number for number, token in enumerate([*names, *LETTERS, *(f"##{c}" for c in LETTERS)])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if kind == "gpt2":
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="[SEP]", unk_token="[UNK]")
    special = [("[CLS]", 1), ("[SEP]", 2)]
    single, pair = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
    roles = {"pad_token": "<pad>", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if kind == "bert" else [])]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=names, **roles)


def save_judge(folder: Path, kind: str = "bert", num_labels: int = 2, positions: int = 64, seed: int = 0) -> str:
    """A random classifier of letters (`encoder` has no head yet), with its tokenizer; returns the folder's name."""
    torch.manual_seed(seed)
    tokenizer = letter_tokenizer("bert" if kind == "encoder" else kind)
    vocab_size, labels = len(tokenizer), {"num_labels": num_labels, "initializer_range": 0.5}
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "gpt2":
        config = GPT2Config(
            vocab_size=vocab_size, n_positions=positions, n_embd=8, n_layer=2, n_head=2, pad_token_id=2, **labels
        )
        model = GPT2ForSequenceClassification(config)
    elif kind == "roberta":
        config = RobertaConfig(
            vocab_size=vocab_size, max_position_embeddings=positions, pad_token_id=0, **sizes, **labels
        )
        model = RobertaForSequenceClassification(config)
    else:
        config = BertConfig(vocab_size=vocab_size, max_position_embeddings=positions, **sizes, **labels)
        model = (BertModel if kind == "encoder" else BertForSequenceClassification)(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
