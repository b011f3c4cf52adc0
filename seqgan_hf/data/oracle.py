"""The synthetic task of SeqGAN (section 5.1): a random LSTM of known density writes the "real" data."""

from __future__ import annotations

import pickle
from pathlib import Path

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
        raise DataError(
            f"oracle file {str(path)!r}, which cannot be read ({error})",
            "a safetensors file with an LSTM's weights",
            "check the path, or leave it out to build an oracle from a seed",
        ) from error
    missing = {"embed_tokens.weight", "lm_head.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"} - set(weights)
    if missing:
        raise DataError(
            f"oracle file {str(path)!r} without {', '.join(sorted(missing))}",
            "the weights of an embedding, a torch.nn.LSTM and a linear layer",
            f"rename its keys ({', '.join(sorted(weights))})",
        )
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

    def __init__(self, code, *_):
        self.code, self.order = code, "<"

    def __setstate__(self, state) -> None:
        self.order = state[1]


class _StoredArray:
    """Stands in for a NumPy array while a pickle is read: its shape, type and bytes, of which nothing is made yet."""

    def __init__(self, *_):
        self.state = None

    def __setstate__(self, state) -> None:
        self.state = state

    def tensor(self) -> Tensor:
        """The array in float32; errors of any kind where the pickle stored something else."""
        _, shape, stored, by_columns, data = self.state
        if stored.code not in ("f4", "f8") or stored.order not in ("<", ">"):
            raise ValueError("it holds an array of something else than floating-point numbers")
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

    def find_class(self, module: str, name: str):
        if (module, name) not in self.STAND_INS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no array")
        return self.STAND_INS[module, name]


def convert_published_oracle(source: str | Path, target: str | Path) -> None:
    """Make the oracle of the paper's code a safetensors file for `load_oracle`.

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
    except Exception as error:  # whatever a pickle that is none makes its reader do
        raise DataError(
            f"{str(source)!r}, which cannot be converted ({' '.join(str(error).split())})",
            "save/target_params_py3.pkl of the paper's code",
            "check the file",
        ) from error
    try:
        save_file(weights, target)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"the target {str(target)!r}, which cannot be written ({error})",
            "a path in a folder that exists",
            "name another",
        ) from error


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
        raise ValueError(f"it holds arrays of the shapes {found} behind the embeddings, not {expected}")
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

    def __init__(
        self,
        vocab_size: int = 5000,
        length: int = 20,
        embedding_size: int = 32,
        hidden_size: int = 32,
        num_train: int = 10_000,
        num_eval: int = 2_000,
        oracle_seed: int = 0,
        data_seed: int = 1,
        oracle_path: str | None = None,
    ):
        sizes = {"vocab_size": vocab_size, "embedding_size": embedding_size, "hidden_size": hidden_size}
        for name, value in (sizes | {"length": length, "num_train": num_train, "num_eval": num_eval}).items():
            if value < 1:
                raise DataError(f"{name}={value}", "at least 1", f"set `data.{name}`")
        self.vocab_size, self.length = vocab_size, length
        self.embedding_size, self.hidden_size = embedding_size, hidden_size
        self.num_train, self.num_eval = num_train, num_eval
        self.oracle_seed, self.data_seed, self.oracle_path = oracle_seed, data_seed, oracle_path

    def load(self) -> Corpus:
        if self.oracle_path is None:
            oracle = build_oracle(self.vocab_size, self.embedding_size, self.hidden_size, self.oracle_seed)
        else:
            oracle = load_oracle(self.oracle_path)
        from datasets import Dataset

        def rows(count: int, seed: int) -> Dataset:
            return Dataset.from_dict({"input_ids": draw(oracle, count, self.length, seed).ids.numpy()})

        return Corpus(
            train=rows(self.num_train, self.data_seed),
            eval=rows(self.num_eval, self.data_seed + 1),
            vocab_size=oracle.config.vocab_size,
            max_length=self.length,
            bos_token_id=START_TOKEN,
            eos_token_id=None,
            pad_token_id=None,
            tokenizer=integer_tokenizer(oracle.config.vocab_size),
            oracle=oracle,
            report={"source": self.oracle_path or f"oracle of seed {self.oracle_seed}", "lines": self.num_train},
        )
