"""The synthetic task: the oracle, its data, and measurements against exact values."""

from __future__ import annotations

import math
import pickle
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from seqgan_hf.data import DataError
from seqgan_hf.data.oracle import OracleData, build_oracle, convert_published_oracle, draw, load_oracle
from seqgan_hf.evaluation.likelihood import HeldOutNLL, OracleNLL, divergences, nll
from seqgan_hf.generation.likelihood import sequence_logprobs
from seqgan_hf.samples import Samples
from tests.tools.tiny import build_generator


PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "oracle_seqgan.safetensors"


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
    convert_published_oracle(tmp_path / "params.pkl", tmp_path / "oracle.safetensors")
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
        convert_published_oracle(tmp_path / "params.pkl", tmp_path / "oracle.safetensors")
    assert not (tmp_path / "oracle.safetensors").exists()


def test_a_converted_oracle_that_cannot_be_written(tmp_path):
    (tmp_path / "params.pkl").write_bytes(pickle.dumps(published_arrays()))
    with pytest.raises(DataError, match="cannot be written .*: expected a path in a folder that exists"):
        convert_published_oracle(tmp_path / "params.pkl", tmp_path / "missing" / "oracle.safetensors")


def test_data_are_drawn_once_and_held_out_differs():
    source = OracleData(vocab_size=50, length=7, num_train=30, num_eval=20)
    corpus, again = source.load(), source.load()
    train, held_out = torch.tensor(corpus.train["input_ids"][:]), torch.tensor(corpus.eval["input_ids"][:])
    assert train.shape == (30, 7) and held_out.shape == (20, 7)
    assert corpus.train["input_ids"][:] == again.train["input_ids"][:]
    assert not torch.equal(train[:20], held_out)
    assert (corpus.vocab_size, corpus.max_length, corpus.bos_token_id, corpus.eos_token_id) == (50, 7, 0, None)
    assert corpus.tokenizer.decode([0, 17, 49]).split() == ["0", "17", "49"]


def test_nll_of_own_samples_is_the_entropy():
    """V = 4, T = 3: the entropy of all 64 sequences, enumerated; and the reported standard error is right."""
    oracle = build_oracle(vocab_size=4, hidden_size=4, seed=1)
    ids = torch.tensor(list(product(range(4), repeat=3)))
    every = Samples(torch.zeros(64, 1).long(), ids, torch.ones_like(ids).bool())
    logs = sequence_logprobs(oracle, every)
    assert math.isclose(float(logs.exp().sum()), 1.0, rel_tol=1e-5)
    entropy = float(-(logs.exp() * logs).sum())
    values = nll(oracle, draw(oracle, 20_000, 3, seed=5), "oracle")
    assert abs(values["nll_oracle"] - entropy / 3) < 4 * values["nll_oracle_se"]
    deviation = float(((logs.exp() * logs**2).sum() - entropy**2).sqrt())
    assert math.isclose(values["nll_oracle_se"], deviation / 3 / math.sqrt(20_000), rel_tol=0.05)
    assert math.isclose(values["nll_oracle_sequence"], 3 * values["nll_oracle"], rel_tol=1e-9)


def test_padding_does_not_count_in_nll():
    model = build_generator("lstm").eval()
    ids = torch.tensor([[3, 4, 1, 2, 2], [5, 1, 2, 2, 2]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]).bool()
    short = Samples(torch.zeros(2, 1).long(), ids[:, :3], mask[:, :3])
    long = Samples(torch.zeros(2, 1).long(), ids, mask)
    ours, theirs = nll(model, long, "test"), nll(model, short, "test")
    assert ours == pytest.approx(theirs)
    assert ours["nll_test"] == pytest.approx(-float(sequence_logprobs(model, short).sum()) / 5)


def test_divergences_are_the_enumerated_ones():
    generator, oracle = build_oracle(3, hidden_size=4, seed=1), build_oracle(3, hidden_size=4, seed=2)
    ids = torch.tensor(list(product(range(3), repeat=2)))
    every = Samples(torch.zeros(9, 1).long(), ids, torch.ones_like(ids).bool())
    g, o = sequence_logprobs(generator, every).exp(), sequence_logprobs(oracle, every).exp()
    m = (g + o) / 2
    exact = {
        "kl_generator_oracle": (g * (g / o).log()).sum(),
        "kl_oracle_generator": (o * (o / g).log()).sum(),
        "jsd_oracle": ((g * (g / m).log()).sum() + (o * (o / m).log()).sum()) / 2,
    }
    count = 20_000
    values = divergences(generator, oracle, draw(generator, count, 2, 3), draw(oracle, count, 2, 4))
    for name, value in exact.items():
        assert abs(values[name] - float(value)) < 4 * values[f"{name}_se"], name
        assert 0 < values[f"{name}_se"] < 0.1
    itself = divergences(oracle, oracle, draw(oracle, 50, 2, 3), draw(oracle, 50, 2, 4))
    assert itself["kl_generator_oracle"] == itself["jsd_oracle"] == 0


def test_evaluators_report_what_they_promise():
    generator, oracle = build_oracle(6, hidden_size=4, seed=1), build_oracle(6, hidden_size=4, seed=2)
    fake, held_out = draw(generator, 30, 4, 1), draw(oracle, 30, 4, 2)
    values = HeldOutNLL(held_out).evaluate(generator, fake) | OracleNLL(oracle, held_out).evaluate(generator, fake)
    assert values["nll_test"] == nll(generator, held_out, "test")["nll_test"]
    assert values["nll_div"] == nll(generator, fake, "div")["nll_div"]
    assert values["nll_oracle"] == nll(oracle, fake, "oracle")["nll_oracle"]
    assert {"jsd_oracle", "kl_generator_oracle", "kl_oracle_generator"} <= values.keys()


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
        with pytest.raises(DataError, match=f"oracle file .*{name}.*{reason}.*. Expected"):
            load_oracle(tmp_path / name)
    with pytest.raises(DataError, match="length=0: expected at least 1"):
        OracleData(length=0)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published oracle is not part of the repository")
def test_the_published_oracle_has_its_published_entropy(request):
    if request.config.getoption("--fast-paths") == "off":
        pytest.skip("20,000 sequences of a vocabulary of 5,000 take minutes without a cache")
    oracle = load_oracle(PUBLISHED)
    values = nll(oracle, draw(oracle, 20_000, 20, seed=0), "oracle")
    assert abs(values["nll_oracle"] - 5.7525) < 0.012
