"""The synthetic task of SeqGAN (section 5.1): a random LSTM of known density writes the "real" data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from ..errors import DataError
from ..generation.sampling import sample
from ..generation.vocabulary import start_prompt
from ..models import RNNGeneratorConfig, RNNGeneratorForCausalLM
from ..samples import Samples
from .corpus import Corpus, DataSource
from .tokenization import integer_tokenizer


START_TOKEN = 0


def build_oracle(
    vocab_size: int = 5000, embedding_size: int = 32, hidden_size: int = 32, seed: int = 0
) -> RNNGeneratorForCausalLM:
    """An LSTM with all its parameters drawn from N(0, 1), frozen. The same seed gives the same oracle."""
    options: dict[str, Any] = {"initializer_range": 1.0, "bos_token_id": START_TOKEN}
    options |= {"vocab_size": vocab_size, "embedding_size": embedding_size, "hidden_size": hidden_size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        oracle = RNNGeneratorForCausalLM(RNNGeneratorConfig(**options))
    return oracle.eval().requires_grad_(False)


def load_oracle(path: str | Path) -> RNNGeneratorForCausalLM:
    """Load an oracle from a `safetensors` file with the keys of `torch.nn.LSTM` and `embed_tokens`, `lm_head`.

    `convert_published_oracle.py`, beside the recipe `oracle/seqgan`, makes such a file of the paper's oracle:
    V = 5000, H = 32, T = 20.

    Raises:
        DataError: the file is missing, is not a safetensors file, or has other keys.
    """
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        problem, expected = f"oracle file {str(path)!r} cannot be read ({error})", "a safetensors file of an LSTM"
        raise DataError(problem, expected, "check the path, or leave it out to build an oracle from a seed") from error
    missing = {"embed_tokens.weight", "lm_head.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"} - set(weights)
    if missing:
        problem = f"oracle file {str(path)!r} without {', '.join(sorted(missing))}"
        expected = "the weights of an embedding, a torch.nn.LSTM and a linear layer"
        raise DataError(problem, expected, f"rename its keys ({', '.join(sorted(weights))})")
    vocab_size, embedding_size = weights["embed_tokens.weight"].shape
    oracle = build_oracle(vocab_size, embedding_size, weights["lm_head.weight"].shape[1])
    oracle.load_state_dict({_our_name(name): weight for name, weight in weights.items()})
    return oracle


def _our_name(name: str) -> str:
    """`lstm.weight_ih_l0` of the file is `model.layers.0.weight_ih_l0` of `RNNGeneratorForCausalLM`."""
    if name.startswith("lstm."):
        kind, layer = name.removeprefix("lstm.").rsplit("_l", 1)
        return f"model.layers.{layer}.{kind}_l0"
    return f"model.{name}" if name.startswith("embed_tokens.") else name


def draw(oracle: PreTrainedModel, count: int, length: int, seed: int) -> Samples:
    """`count` sequences of `length` tokens from the oracle; the same seed gives the same sequences."""
    rng = torch.Generator(device=oracle.device).manual_seed(seed)
    return sample(oracle, start_prompt(oracle, count), length, rng=rng)


@dataclass
class OracleData(DataSource):
    """Data drawn from an oracle: training and held-out sequences of fixed length, and the oracle to measure with.

    Args:
        vocab_size: V of an oracle built from `oracle_seed`.
        length: T, tokens of every sequence.
        embedding_size: width of its embeddings.
        hidden_size: width of its state.
        num_train: training sequences (10,000 in the paper).
        num_eval: held-out sequences.
        oracle_seed: draws the oracle's parameters.
        data_seed: draws the sequences; held-out ones are drawn from the next seed.
        oracle_path: load the oracle from this safetensors file instead of building one.
    """

    vocab_size: int = 5000
    length: int = 20
    embedding_size: int = 32
    hidden_size: int = 32
    num_train: int = 10_000
    num_eval: int = 2_000
    oracle_seed: int = 0
    data_seed: int = 1
    oracle_path: str | None = None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "embedding_size", "hidden_size", "length", "num_train", "num_eval"):
            if getattr(self, name) < 1:
                raise DataError(f"{name}={getattr(self, name)}", "at least 1", f"set `data.{name}`")

    def load(self) -> Corpus:
        """Build or load the oracle, and draw from it; the sequences stay the `Samples` that they are drawn as."""
        if self.oracle_path is None:
            oracle = build_oracle(self.vocab_size, self.embedding_size, self.hidden_size, self.oracle_seed)
        else:
            oracle = load_oracle(self.oracle_path)
        return Corpus(
            train=draw(oracle, self.num_train, self.length, self.data_seed),
            eval=draw(oracle, self.num_eval, self.length, self.data_seed + 1),
            vocab_size=oracle.config.vocab_size,
            max_length=self.length,
            bos_token_id=START_TOKEN,
            eos_token_id=None,
            pad_token_id=None,
            tokenizer=integer_tokenizer(oracle.config.vocab_size),
            oracle=oracle,
            report={"source": self.oracle_path or f"oracle of seed {self.oracle_seed}", "lines": self.num_train},
        )
