"""The synthetic task of SeqGAN (section 5.1): a random LSTM of known density writes the "real" data."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
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
    config = RNNGeneratorConfig(
        vocab_size=vocab_size,
        embedding_size=embedding_size,
        hidden_size=hidden_size,
        initializer_range=1.0,
        bos_token_id=START_TOKEN,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        oracle = RNNGeneratorForCausalLM(config)
    return oracle.eval().requires_grad_(False)


def load_oracle(path: str | Path) -> RNNGeneratorForCausalLM:
    """Load an oracle from a `safetensors` file with the keys of `torch.nn.LSTM` and `embed_tokens`, `lm_head`.

    The published oracle of the paper's code is such a file after `convert_published_oracle`: V = 5000, H = 32, T = 20.

    Raises:
        DataError: the file is missing, is not a safetensors file, or has other keys.
    """
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        problem, expected = (
            f"oracle file {str(path)!r} cannot be read ({error})",
            "a safetensors file with an LSTM's weights",
        )
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


class _StoredType:
    """Stands in for a NumPy dtype while a pickle is read."""

    def __init__(self, code: str, *_: Any):
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


class _StoredArray:
    """Stands in for a NumPy array while a pickle is read: its shape, type and bytes, of which nothing is made yet."""

    def __init__(self, *_: Any):
        self.state: tuple = ()

    def __setstate__(self, state: tuple) -> None:
        self.state = state

    def tensor(self) -> Tensor:
        """The array in float32; errors of any kind where the pickle stored something else."""
        _, shape, stored, by_columns, data = self.state
        if stored.code not in ("f4", "f8") or stored.order not in ("<", ">"):
            raise ValueError("it holds an array that is not of floating-point numbers")
        data = data.encode("latin1") if isinstance(data, str) else data
        array = np.frombuffer(data, stored.order + stored.code).reshape(shape, order="F" if by_columns else "C")
        return torch.tensor(array.astype(np.float32))


def _stored_bytes(text: str, _: str) -> bytes:
    return text.encode("latin1")


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays of numbers and nothing else: a pickle can run code, and even NumPy's own parts can be misled."""

    STAND_INS = {
        ("numpy.core.multiarray", "_reconstruct"): _StoredArray,
        ("numpy._core.multiarray", "_reconstruct"): _StoredArray,
        ("numpy", "ndarray"): "ndarray",
        ("numpy", "dtype"): _StoredType,
        ("_codecs", "encode"): _stored_bytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.STAND_INS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is not an array")
        return self.STAND_INS[module, name]


def convert_published_oracle(source: str | Path, target: str | Path) -> None:
    """Convert the oracle of the paper's code to a safetensors file for `load_oracle`.

    Args:
        source: `save/target_params_py3.pkl` of github LantaoYu/SeqGAN: a list of the embeddings (V, E); for input
            gate, forget gate, output gate and new memory each W (E, H), U (H, H) and b (H,), so that a gate is
            x W + h U + b; and the output matrix (H, V) with its bias (V,).
        target: the file to write.

    Raises:
        DataError: the source cannot be read, or holds something else; or the target cannot be written.
    """
    try:
        with open(source, "rb") as file:
            arrays = [array.tensor() for array in _ArraysOnly(file, encoding="latin1").load()]
        weights = _torch_layout(arrays)
    except Exception as error:  # a file that is not a pickle makes its reader raise anything
        problem = f"{str(source)!r} cannot be converted ({' '.join(str(error).split())})"
        raise DataError(problem, "save/target_params_py3.pkl of the paper's code") from error
    try:
        save_file(weights, target)
    except (OSError, SafetensorError) as error:
        problem = f"the target {str(target)!r} cannot be written ({error})"
        raise DataError(problem, "a path in a folder that exists") from error


def _torch_layout(arrays: list[Tensor]) -> dict[str, Tensor]:
    """The arrays, in the order of `convert_published_oracle`, under torch's names; torch orders gates i, f, g, o.

    Raises:
        ValueError: the shapes do not fit together.
    """
    embedding, *gates, output, output_bias = arrays
    (vocab_size, width), hidden = embedding.shape, len(output)
    expected = [(width, hidden), (hidden, hidden), (hidden,)] * 4 + [(hidden, vocab_size), (vocab_size,)]
    found = [tuple(array.shape) for array in arrays[1:]]
    if found != expected:
        raise ValueError(f"it holds arrays of the shapes {found} after the embeddings, not {expected}")
    (w_i, u_i, b_i), (w_f, u_f, b_f), (w_o, u_o, b_o), (w_c, u_c, b_c) = zip(*[iter(gates)] * 3, strict=True)
    weights = {
        "embed_tokens.weight": embedding,
        "lstm.weight_ih_l0": torch.cat([w_i, w_f, w_c, w_o], dim=1).T,
        "lstm.weight_hh_l0": torch.cat([u_i, u_f, u_c, u_o], dim=1).T,
        "lstm.bias_ih_l0": torch.cat([b_i, b_f, b_c, b_o]),
        "lstm.bias_hh_l0": torch.zeros(4 * hidden),
        "lm_head.weight": output.T,
        "lm_head.bias": output_bias,
    }
    return {name: weight.contiguous() for name, weight in weights.items()}


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
