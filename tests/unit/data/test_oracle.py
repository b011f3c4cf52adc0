"""The synthetic task: the oracle and its data."""

from __future__ import annotations

import importlib.util
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from seqgan_hf.data.oracle import OracleData, build_oracle, draw, load_oracle
from seqgan_hf.errors import DataError
from seqgan_hf.generation.likelihood import sequence_logprobs


SCRIPT = Path(__file__).parents[3] / "recipes/oracle/convert_published_oracle.py"
_spec = importlib.util.spec_from_file_location("convert_published_oracle", SCRIPT)
converter = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(converter)


def test_parameters_are_standard_normal_and_follow_the_seed():
    oracle = build_oracle(vocab_size=2000, hidden_size=16, seed=3)
    for name, parameter in oracle.named_parameters():
        if "bias_hh" in name:  # the paper's LSTM has one bias a gate; torch's second one stays zero
            assert (parameter == 0).all()
            continue
        size = parameter.numel()
        assert abs(parameter.mean()) < 4 / math.sqrt(size) and abs(parameter.std() - 1) < 4 / math.sqrt(2 * size), name
    again, other = build_oracle(2000, hidden_size=16, seed=3), build_oracle(2000, hidden_size=16, seed=4)
    assert torch.equal(oracle.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(oracle.lm_head.weight, other.lm_head.weight)
    assert not any(parameter.requires_grad for parameter in oracle.parameters())


def test_building_an_oracle_leaves_the_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    build_oracle(10)
    assert torch.equal(torch.rand(1), expected)


def published_arrays(vocab_size: int = 9, width: int = 4) -> list[np.ndarray]:
    """What the paper's code stores: embeddings, then W, U, b of the gates i, f, o and of the new memory, then W, b."""
    shapes = [(vocab_size, width), *[(width, width), (width, width), (width,)] * 4, (width, vocab_size), (vocab_size,)]
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def published_logprob(arrays: list[np.ndarray], ids: list[int]) -> float:
    """Its recurrence, written out for one sequence."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    embeddings, (output, bias) = arrays[0], arrays[13:]
    h = c = np.zeros(embeddings.shape[1])
    total, token = 0.0, 0
    for following in ids:
        x = embeddings[token]
        i, f, o, new = (x @ arrays[k] + h @ arrays[k + 1] + arrays[k + 2] for k in (1, 4, 7, 10))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(new)
        h = sigmoid(o) * np.tanh(c)
        logits = h @ output + bias
        total += logits[following] - np.log(np.exp(logits).sum())
        token = following
    return total


@pytest.mark.parametrize("protocol", [2, 4])
def test_the_oracle_of_the_paper_s_code_is_converted(tmp_path, protocol):
    arrays = published_arrays()
    (tmp_path / "params.pkl").write_bytes(pickle.dumps(arrays, protocol=protocol))
    assert converter.main([str(tmp_path / "params.pkl"), str(tmp_path / "oracle.safetensors")]) == 0
    oracle = load_oracle(tmp_path / "oracle.safetensors")
    samples = draw(oracle, 5, 6, seed=0)
    expected = [published_logprob(arrays, ids) for ids in samples.ids.tolist()]
    torch.testing.assert_close(sequence_logprobs(oracle, samples), torch.tensor(expected, dtype=torch.float64))


class MadeOfBytes:
    """An array of Python objects whose addresses stand in the file: reading one ends the process."""

    def __reduce__(self):
        return np.ndarray, ((15,), "O", b"A" * 120)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(print),
        pickle.dumps([1, 2]),
        pickle.dumps(published_arrays()[:-1]),
        pickle.dumps([array[:3] for array in published_arrays()]),
        pickle.dumps([array.astype(object) for array in published_arrays()]),
        pickle.dumps(MadeOfBytes()),
        pickle.dumps([MadeOfBytes()] * 15),
        b"\x80\x02K\x01K\x02a.",
        b"no pickle",
        b"",
    ],
)
def test_other_pickles_run_nothing_and_are_refused(tmp_path, content):
    (tmp_path / "params.pkl").write_bytes(content)
    with pytest.raises(DataError, match="cannot be converted .*: expected save/target_params_py3.pkl"):
        converter.convert_published_oracle(tmp_path / "params.pkl", tmp_path / "oracle.safetensors")
    assert not (tmp_path / "oracle.safetensors").exists()


def test_a_converted_oracle_that_cannot_be_written(tmp_path):
    (tmp_path / "params.pkl").write_bytes(pickle.dumps(published_arrays()))
    with pytest.raises(DataError, match="cannot be written .*: expected a path in a folder that exists"):
        converter.convert_published_oracle(tmp_path / "params.pkl", tmp_path / "missing" / "oracle.safetensors")


def test_a_mistake_on_its_command_line_is_one_line(tmp_path, capsys):
    assert converter.main([str(tmp_path / "missing.pkl"), str(tmp_path / "oracle.safetensors")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "missing.pkl' cannot be converted" in line and "expected save/target_params_py3.pkl" in line


def test_data_are_drawn_once_and_held_out_differs():
    source = OracleData(vocab_size=50, length=7, num_train=30, num_eval=20)
    corpus, again = source.load(), source.load()
    assert corpus.train.ids.shape == (30, 7) and corpus.eval.ids.shape == (20, 7)
    assert torch.equal(corpus.train.ids, again.train.ids)
    assert not torch.equal(corpus.train.ids[:20], corpus.eval.ids)
    for samples in (corpus.train, corpus.eval):  # nothing is padded, every sequence begins with the start token
        assert samples.mask.all() and samples.prompt_mask is None and (samples.prompt == 0).all()
    assert (corpus.vocab_size, corpus.max_length, corpus.bos_token_id, corpus.eos_token_id) == (50, 7, 0, None)
    assert corpus.tokenizer.decode([0, 17, 49]).split() == ["0", "17", "49"]


def test_an_oracle_file_is_loaded_exactly(tmp_path):
    lstm, embedding, head = torch.nn.LSTM(4, 5, batch_first=True), torch.nn.Embedding(7, 4), torch.nn.Linear(5, 7)
    tensors = {f"lstm.{name}": value.detach() for name, value in lstm.named_parameters()}
    tensors |= {"embed_tokens.weight": embedding.weight.detach(), "lm_head.weight": head.weight.detach()}
    save_file(tensors | {"lm_head.bias": head.bias.detach()}, tmp_path / "oracle.safetensors")
    oracle = load_oracle(tmp_path / "oracle.safetensors")
    ids = torch.tensor([[0, 3, 6, 2]])
    torch.testing.assert_close(oracle(ids).logits, head(lstm(embedding(ids))[0]))


def test_files_that_are_no_oracle_are_refused(tmp_path):
    (tmp_path / "text.safetensors").write_text("not weights")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    for name, reason in {
        "missing.safetensors": "cannot be read",
        "text.safetensors": "cannot be read",
        "other.safetensors": "without embed_tokens.weight, lm_head.weight",
    }.items():
        with pytest.raises(DataError, match=f"oracle file .*{name}.*{reason}.*: expected"):
            load_oracle(tmp_path / name)
    with pytest.raises(DataError, match="length=0: expected at least 1"):
        OracleData(length=0)
