"""Streams: the rows of the data set in bounded memory, and what they cannot know."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, IterableDataset, IterableDatasetDict, Value
from datasets.distributed import split_dataset_by_node

from seqgan_hf.data import (
    TextData,
    TokenizerConfig,
    materialize,
    stream_samples,
)
from seqgan_hf.data.tokenization import build_tokenizer
from seqgan_hf.errors import DataError
from tests.tools.lines import LINES, texts


def test_stream_gives_the_rows_of_the_dataset(write):
    path = write("a.txt", "".join(f"w{i % 7} x{i % 3}\n\n" for i in range(50)))
    held_out = write("b.txt", "w1 x1\n")
    whole = TextData(train_file=path, eval_file=held_out, max_length=2).load()
    stream = TextData(train_file=path, eval_file=held_out, max_length=2, streaming=True).load()
    assert list(stream.train) == list(whole.train) and list(stream.eval) == list(whole.eval)
    assert stream.report["train"]["lines"] == 50
    batches = list(stream_samples(stream.train, stream, batch_size=8, max_length=2))
    assert [batch.batch_size for batch in batches] == [8] * 6 + [2]
    expected = materialize(whole.train, whole.bos_token_id, whole.pad_token_id)
    assert np.array_equal(np.concatenate([batch.ids for batch in batches]), expected.ids)


def test_stream_drops_what_is_too_long(write):
    path = write("a.txt", "a b c d\na\na b\na b c\n")
    corpus = TextData(train_file=path, eval_size=1, max_length=3, too_long="drop", streaming=True, eval_fraction=0.5)
    with pytest.raises(DataError, match="none of 1 to 3 tokens"):  # the first line, held out, is too long
        corpus.load()
    path = write("b.txt", "a\na b c d\na b\na b c\n")
    corpus = TextData(train_file=path, eval_size=1, max_length=3, too_long="drop", streaming=True).load()
    assert texts(corpus, corpus.train) == ["a b"]


@pytest.fixture
def two_gib():
    """Whoever asks for more than that, beyond what the process has, is refused it."""
    resource = pytest.importorskip("resource")
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 2 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("kind", ["lines", "lines with signs", "labels", "rows of a generator"])
def test_memory_of_a_stream_does_not_grow_with_the_keys_of_its_rows(kind, write, two_gib):
    """Three steps in a row that join the keys of 1,000 rows would take 10 GiB."""
    lines = [f"w{i % 50} x{i % 7} y" for i in range(2000)]
    labels = [i % 2 for i in range(2000)]
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    rows = Dataset.from_dict({"text": lines, "label": labels}, features=features)
    arguments = {
        "lines": {"train_file": write("a.txt", "\n".join(lines))},
        "lines with signs": {"train_file": write("b.txt", "\n".join([*lines[1:], "an end␊"]))},
        "labels": {"dataset": rows, "prompt_column": "label"},
        "rows of a generator": {"dataset": IterableDataset.from_generator(lambda: ({"text": line} for line in lines))},
    }[kind]
    corpus = TextData(**arguments, text_column="text", streaming=True, max_length=4, eval_size=250).load()
    read = sum(batch.batch_size for batch in stream_samples(corpus.train.shuffle(0, buffer_size=1000), corpus, 64, 4))
    assert read == 1750


def test_stream_holds_out_the_first_lines_that_are_not_blank(write):
    path = write("a.txt", "\n\na\n \nb\n\nc\n\nd\n")
    trained = write("tokenizer", "")
    os.remove(trained)
    build_tokenizer(TokenizerConfig(), lambda: [["a b c d"]]).save_pretrained(trained)
    arguments = {"train_file": path, "streaming": True, "max_length": 2}
    corpus = TextData(**arguments, tokenizer=TokenizerConfig(pretrained=trained), eval_size=2).load()
    assert (texts(corpus, corpus.eval), texts(corpus, corpus.train)) == (["a", "b"], ["c", "d"])
    with pytest.raises(DataError, match="a stream of only 4 held-out lines"):
        TextData(**arguments, eval_size=4).load()
    with pytest.raises(DataError, match="eval_size=0: expected at least 1 line"):
        TextData(**arguments, eval_size=0).load()


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_a_stream_of_files_without_the_held_out_lines(processes, write):
    for name in "ab":
        write(f"{name}.txt", "".join(f"{name}{i}\n" for i in range(20)))
    chars = TokenizerConfig(level="char")
    path = write("c.txt", "c").replace("c.txt", "[ab].txt")
    corpus = TextData(train_file=path, streaming=True, max_length=4, eval_size=6, tokenizer=chars).load()
    shares = [texts(corpus, split_dataset_by_node(corpus.train, rank, processes)) for rank in range(processes)]
    assert sorted(sum(shares, [])) == sorted([f"a{i}" for i in range(6, 20)] + [f"b{i}" for i in range(20)])


def test_stream_names_the_row_without_a_value(write):
    path = write("a.jsonl", "".join(json.dumps({"text": None if i == 2500 else f"w{i}"}) + "\n" for i in range(3000)))
    corpus = TextData(dataset=Dataset.from_json(path), streaming=True, max_length=2, eval_size=700)
    with pytest.raises(DataError, match="row 2500 of the streamed rows"):
        corpus.load()
    trained = write("tokenizer", "")
    os.remove(trained)
    build_tokenizer(TokenizerConfig(), lambda: [["w1 w2"] + [f"w{i}" for i in range(3000)]]).save_pretrained(trained)
    corpus.tokenizer = TokenizerConfig(pretrained=trained)
    with pytest.raises(DataError, match="row 2500 of the streamed rows"):
        list(corpus.load().train)


def test_stream_counts_what_it_reads_and_says_what_it_cannot_know(write):
    path = write("a.txt", "\n".join(["a b", "", "b a", " ", "a", "", "a b c d", "b"] * 400))
    arguments = {"train_file": path, "eval_size": 3, "max_length": 3, "streaming": True}
    counts = TextData(**arguments).load().report["train"]
    assert (counts["read"], counts["blank"], counts["lines"]) == (3200, 1200, 1997)
    assert counts["truncated"] is None and counts["duplicates"] is None
    corpus = TextData(**arguments, too_long="drop").load()
    counts = corpus.report["train"]
    assert (counts["read"], counts["blank"], counts["lines"], counts["dropped"]) == (3200, 1200, None, None)
    assert len(list(corpus.train)) == 1597
    trained = write("tokenizer", "")[: -len("tokenizer")] + "trained"
    corpus.tokenizer.save_pretrained(trained)
    counts = TextData(**arguments, tokenizer=TokenizerConfig(pretrained=trained)).load().report["train"]
    assert {counts[name] for name in ("read", "blank", "lines", "truncated", "duplicates")} == {None}


def test_no_word_is_learnt_from_the_lines_that_a_stream_holds_out(write):
    path = write("a.txt", "only\n\n" * 2500 + "a\n")
    corpus = TextData(train_file=path, eval_size=2500, max_length=3, streaming=True).load()
    assert corpus.vocab_size == 5 and corpus.report["train"]["lines"] == 1


def test_stream_without_a_line_that_fits(write):
    path = write("a.txt", "a\n" + "a b c d\n" * 5)
    with pytest.raises(DataError, match="a stream of lines, none of 1 to 3 tokens: .* too_long=truncate"):
        TextData(train_file=path, eval_size=1, max_length=3, too_long="drop", streaming=True).load()


def test_stream_that_breaks_off(write):
    padding = "x" * 3_000  # JSON is read in blocks of 10 MB
    path = write("a.jsonl", f'{{"text": "a", "other": "{padding}"}}\n' * 5_000 + '{"text":\n')
    arguments = {"train_file": path, "eval_size": 1, "max_length": 3, "streaming": True}
    message = "the stream cannot be read to its end .*JSON parse error"
    with pytest.raises(DataError, match=message):
        TextData(**arguments).load()
    tokenizer = build_tokenizer(TokenizerConfig(), lambda: [["a"]])
    trained = path.replace("a.jsonl", "trained")
    tokenizer.save_pretrained(trained)
    corpus = TextData(**arguments, tokenizer=TokenizerConfig(pretrained=trained)).load()
    with pytest.raises(DataError, match=message):
        list(stream_samples(corpus.train, corpus, 100, 3))


def test_stream_from_memory():
    rows = Dataset.from_dict({"text": LINES}).to_iterable_dataset()
    corpus = TextData(dataset=rows, eval_size=2, streaming=True, max_length=6).load()
    assert texts(corpus, corpus.train) == LINES[2:]
    splits = IterableDatasetDict(train=rows, test=rows.take(1))
    assert len(TextData(dataset=splits, eval_split="test", streaming=True, max_length=6).load().eval) == 1
    for dataset in (rows, splits):
        with pytest.raises(DataError, match="without streaming=true: expected a Dataset, or streaming"):
            TextData(dataset=dataset).load()


@pytest.mark.parametrize("arguments", [{}, {"max_length": 5, "deduplicate": True}])
def test_streams_refuse_what_needs_the_whole(arguments, write):
    with pytest.raises(DataError, match="expected a max_length and no deduplication"):
        TextData(train_file=write("a.txt", "a\nb\n"), streaming=True, **arguments).load()
