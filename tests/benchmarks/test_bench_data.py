"""Speed of data: run with `pytest tests/benchmarks/test_bench_data.py --benchmark-only`.

`measure_corpus.py` beside this file gives time and peak memory for a million lines and more.
"""

import datasets
import numpy as np
import pytest
from datasets import Dataset, Features, List, Value

from seqgan_hf.data import TextData, TokenizerConfig, materialize, to_samples
from seqgan_hf.data.grammar import english_grammar


LINES = 50_000


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory):
    rng = np.random.default_rng(0)
    words = np.array([f"w{number:x}" for number in range(20_000)])
    cumulative = np.cumsum(1.0 / np.arange(1, 20_001))
    drawn = words[np.searchsorted(cumulative, rng.random((LINES, 10)) * cumulative[-1])]
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n".join(" ".join(row) for row in drawn))
    return path


@pytest.fixture(scope="module")
def rows():
    """100,000 rows of 1 to 40 ids."""
    rng = np.random.default_rng(0)
    values = [rng.integers(2, 5000, length).tolist() for length in rng.integers(1, 41, 100_000)]
    return Dataset.from_dict({"input_ids": values}, features=Features({"input_ids": List(Value("int32"))}))


@pytest.mark.parametrize("level", ["word", "char", "bpe", "unigram"])
def test_read_and_tokenize_50000_lines(benchmark, corpus_file, level, tmp_path, monkeypatch):
    """Floor: 60 s for a million lines of ten words with two cores, 3 s here."""
    datasets.disable_progress_bars()
    runs = iter(range(100))

    def load():
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / str(next(runs))))
        return TextData(train_file=str(corpus_file), tokenizer=TokenizerConfig(level=level)).load()

    corpus = benchmark.pedantic(load, rounds=3)
    assert len(corpus.train) + len(corpus.eval) == LINES


def test_materialize_100000_rows(benchmark, rows):
    """Floor: one second."""
    assert benchmark(materialize, rows, 1, 0).ids.shape == (100_000, 40)


def test_row_access_of_the_same_rows(benchmark, rows):
    """The reference: what the one padded tensor replaces, for a fiftieth of the rows."""
    ids = type("Ids", (), {"bos_token_id": 1, "pad_token_id": 0})
    assert benchmark(lambda: to_samples([rows[i] for i in range(2000)], ids)).batch_size == 2000


def test_parse_1000_sentences(benchmark):
    grammar, rng = english_grammar(), np.random.default_rng(0)
    sentences = [grammar.sample(rng) for _ in range(1000)]
    assert benchmark(lambda: sum(map(grammar.accepts, sentences))) == 1000
