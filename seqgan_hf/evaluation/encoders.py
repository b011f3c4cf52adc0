"""Sentence encoders for the metrics that compare embeddings (Frechet distance, MAUVE)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from ..errors import MissingExtraError, UserError


TextEncoder = Callable[[Sequence[str]], np.ndarray]  # N texts -> (N, D)
LONGEST_INPUT = 512  # tokens, for encoders whose tokenizer and configuration name no limit


def load_encoder(name: str, batch_size: int = 64, device: str | torch.device = "cpu") -> TextEncoder:
    """A function from texts to embeddings (N, D), float64.

    Args:
        name: id or path of a Sentence Transformers model (ids under `sentence-transformers/`, folders with a
            `modules.json`), or of any model that `AutoModel` loads, whose last hidden states are averaged over tokens.
        batch_size: texts encoded at a time.
        device: where the encoder runs.

    Raises:
        MissingExtraError: a Sentence Transformers model without that library.
        UserError: there is no such model.
    """
    of_sentences = name.startswith("sentence-transformers/") or (Path(name) / "modules.json").is_file()
    try:
        return (_sentence_transformer if of_sentences else _mean_pooling)(name, batch_size, device)
    except MissingExtraError:
        raise
    except (OSError, ValueError) as error:
        problem = f"encoder={name!r} cannot be loaded ({str(error).splitlines()[0]})"
        raise UserError(problem, "a folder with a model, or an id on the Hub", "check the name") from error


def _sentence_transformer(name: str, batch_size: int, device: str | torch.device) -> TextEncoder:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        problem, fix = f"encoder {name!r} needs sentence-transformers", 'run `pip install "seqgan-hf[embeddings]"`'
        raise MissingExtraError(problem, None, fix) from error
    model = SentenceTransformer(name, device=str(device))

    def encode(texts: Sequence[str]) -> np.ndarray:
        return model.encode(list(texts), batch_size=batch_size, show_progress_bar=False).astype(np.float64)

    return encode


def _mean_pooling(name: str, batch_size: int, device: str | torch.device) -> TextEncoder:
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(name, trust_remote_code=False),
        AutoModel.from_pretrained(name, use_safetensors=True, trust_remote_code=False).to(device).eval(),
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"  # positions then count from the first token
    longest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or LONGEST_INPUT)

    @torch.no_grad()
    def encode_batch(texts: Sequence[str]) -> np.ndarray:
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt").to(device)
        states = model(**inputs).last_hidden_state.double()  # (B, T, H)
        mask = inputs["attention_mask"][..., None].double()
        return ((states * mask).sum(dim=1) / mask.sum(dim=1)).cpu().numpy()

    def encode(texts: Sequence[str]) -> np.ndarray:
        ids = tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
        lengths = np.array([len(row) for row in ids])
        embeddings = np.zeros((len(texts), model.config.hidden_size))  # a text without a token keeps the zero vector
        rows = np.argsort(lengths, kind="stable")  # alike lengths together: little padding
        rows = rows[lengths[rows] > 0]
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            embeddings[batch] = encode_batch([texts[row] for row in batch])
        return embeddings

    return encode
