"""Convert the oracle of the paper's code to a safetensors file for `--data.oracle_path`.

Run it once: `python convert_published_oracle.py target_params_py3.pkl oracle_seqgan.safetensors`.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from seqgan_hf.errors import DataError


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
    """Convert the oracle of the paper's code to a safetensors file for `seqgan_hf.data.load_oracle`.

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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="save/target_params_py3.pkl of github LantaoYu/SeqGAN")
    parser.add_argument("target", help="the safetensors file to write")
    places = parser.parse_args(arguments)
    try:
        convert_published_oracle(places.source, places.target)
    except DataError as error:
        print(f"convert_published_oracle: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
