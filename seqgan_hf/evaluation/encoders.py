"""Sentence encoders for the metrics that compare embeddings (Frechet distance, MAUVE)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from ..data.network import asking_once
from ..errors import MissingExtraError, UserError


TextEncoder = Callable[[Sequence[str]], np.ndarray]  # N texts -> (N, D)
LONGEST_INPUT = 512  # tokens, for encoders whose tokenizer and configuration name no limit


def load_encoder(name: str, batch_size: int = 64, device: str | torch.device = "cpu") -> TextEncoder:
    """A function from texts to embeddings (N, D), float64.

    Args:
        name: id or path of a Sentence Transformers model (ids under `sentence-transformers/`, folders with a
            `modules.json`), or of any model that `AutoModel` loads, whose last hidden states are averaged over tokens.
        batch_size, device: texts encoded at a time, and where.

    Raises:
        MissingExtraError: a Sentence Transformers model without that library.
        UserError: there is no such model.
    """
    check_encoder(name)
    try:
        with asking_once(name):
            return (_sentence_transformer if _of_sentences(name) else _mean_pooling)(name, batch_size, device)
    except (OSError, ValueError) as error:
        problem = f"encoder={name!r} cannot be loaded ({str(error).splitlines()[0]})"
        raise UserError(problem, "a folder with a model, or an id on the Hub", "check the name") from error


def check_encoder(name: str) -> None:
    """Raise a `MissingExtraError` for a Sentence Transformers model without that library."""
    if _of_sentences(name) and find_spec("sentence_transformers") is None:
        problem, fix = f"encoder {name!r} needs sentence-transformers", 'run `pip install "seqgan-hf[embeddings]"`'
        raise MissingExtraError(problem, None, fix)


def _of_sentences(name: str) -> bool:
    return name.startswith("sentence-transformers/") or (Path(name) / "modules.json").is_file()


def _sentence_transformer(name: str, batch_size: int, device: str | torch.device) -> TextEncoder:
    from sentence_transformers import SentenceTransformer

    encode = SentenceTransformer(name, device=str(device)).encode
    return lambda texts: encode(list(texts), batch_size=batch_size, show_progress_bar=False).astype(np.float64)


def _mean_pooling(name: str, batch_size: int, device: str | torch.device) -> TextEncoder:
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    model = AutoModel.from_pretrained(name, use_safetensors=True, trust_remote_code=False).to(device).eval()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"  # positions then count from the first token
    longest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or LONGEST_INPUT)
    cut: dict[str, Any] = {"truncation": True, "max_length": longest}

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> np.ndarray:
        lengths = np.array([len(row) for row in tokenizer(list(texts), **cut)["input_ids"]])
        embeddings = np.zeros((len(texts), model.config.hidden_size))  # a text without a token keeps the zero vector
        rows = np.argsort(lengths, kind="stable")  # alike lengths together: little padding
        rows = rows[lengths[rows] > 0]
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            inputs = tokenizer([texts[row] for row in batch], padding=True, return_tensors="pt", **cut).to(device)
            states = model(**inputs).last_hidden_state.double()  # (B, T, H)
            mask = inputs["attention_mask"][..., None].double()
            embeddings[batch] = ((states * mask).sum(dim=1) / mask.sum(dim=1)).cpu().numpy()
        return embeddings

    return encode
