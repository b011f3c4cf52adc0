"""Sources of text: every kind of file, and what goes wrong with real ones."""

import gzip
import json
import os
import re
from io import BytesIO

import datasets
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgan_hf.data import (
    IdsData,
    TextData,
    TokenizerConfig,
)
from seqgan_hf.errors import DataError
from tests.tools.lines import LINES, RAGGED, texts


# -- sources ----------------------------------------------------------------------------------------------------------


def in_text(write):
    return {"train_file": write("a.txt", "\n".join(LINES))}


def in_gzip(write):
    return {"train_file": write("a.txt.gz", gzip.compress("\n".join(LINES).encode()))}


def in_two_files_by_pattern(write):
    write("part1.txt", "\n".join(LINES[:2]))
    return {"train_file": write("part2.txt", "\n".join(LINES[2:])).replace("part2", "part*")}


def in_list_of_files(write):
    return {"train_file": [write("x.txt", "\n".join(LINES[:2])), write("y.txt", "\n".join(LINES[2:]) + "\n")]}


def in_odd_name(write):
    return {"train_file": write("my [old] file*.md", "\n".join(LINES))}


def in_csv(write):
    return {"train_file": write("a.csv", "n,line\n" + "".join(f'{i},"{x}"\n' for i, x in enumerate(LINES)))}


def in_csv_in_capitals(write):
    return {"train_file": write("a.CSV.GZ", gzip.compress(("text\n" + "\n".join(LINES)).encode()))}


def in_tsv(write):
    return {"train_file": write("a.TSV", "n\ttext\n" + "".join(f"{i}\t{x}\n" for i, x in enumerate(LINES)))}


def in_json_lines(write):
    return {"train_file": write("a.jsonl", "".join(json.dumps({"text": x, "n": 1}) + "\n" for x in LINES))}


def in_json(write):
    return {"train_file": write("a.json", json.dumps([{"text": x} for x in LINES]))}


def in_parquet(write):
    path = write("a.parquet", "")
    Dataset.from_dict({"line": LINES, "n": [1, 2, 3, 4, 5]}).to_parquet(path)
    return {"train_file": path}


def in_saved_dataset(write):
    path = write("saved", "x")[:-5] + "saved_dataset"
    Dataset.from_dict({"text": LINES}).save_to_disk(path)
    return {"dataset": path}


def in_saved_dataset_dict(write):
    path = write("saved", "x")[:-5] + "saved_dict"
    DatasetDict({"lines": Dataset.from_dict({"text": LINES})}).save_to_disk(path)
    return {"dataset": path, "train_split": "lines"}


def in_memory(write):
    return {"dataset": Dataset.from_dict({"text": LINES})}


SOURCES = [
    in_text,
    in_gzip,
    in_two_files_by_pattern,
    in_list_of_files,
    in_odd_name,
    in_csv,
    in_csv_in_capitals,
    in_tsv,
    in_json_lines,
    in_json,
    in_parquet,
    in_saved_dataset,
    in_saved_dataset_dict,
    in_memory,
]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_every_line_once(source, streaming, write):
    arguments = {"streaming": True, "max_length": 9} if streaming else {}
    corpus = TextData(**source(write), eval_size=2, **arguments).load()
    assert len(corpus.eval) == 2
    seen = texts(corpus, corpus.train)
    if streaming:
        assert seen == LINES[2:]
    else:
        assert len(seen) == 3 and seen == [x for x in LINES if x in seen]


def test_held_out_lines_from_a_file_and_from_a_split(write):
    train, held_out = write("train.txt", "a b\nc d\n"), write("eval.txt", "a c\nx d\n")
    corpus = TextData(train_file=train, eval_file=held_out).load()
    assert texts(corpus, corpus.train) == ["a b", "c d"]
    assert texts(corpus, corpus.eval) == ["a c", "<unk> d"]
    splits = DatasetDict(train=Dataset.from_dict({"text": ["a b"]}), test=Dataset.from_dict({"text": ["b a"]}))
    corpus = TextData(dataset=splits, eval_split="test").load()
    assert (texts(corpus, corpus.train), texts(corpus, corpus.eval)) == (["a b"], ["b a"])


def test_csv_keeps_what_looks_like_numbers_and_missing_values(write):
    path = write("a.csv", "text,label\n007,1\nNA,NA\nnull,x\n\n1.50,y\n")
    corpus = TextData(train_file=path, eval_size=1, prompt_column="label").load()
    shown = {row["text"] for row in corpus.report["examples"]}
    assert shown <= {"007", "NA", "null", "1.50"} and len(shown) == 3
    assert corpus.report["train"]["blank"] == 1


def test_csv_of_passwords_keeps_leading_zeros(write):
    corpus = TextData(train_file=write("a.csv", "text\n007\n1.50\n1e5\n"), eval_size=1).load()
    assert {row["text"] for row in corpus.report["examples"]} <= {"007", "1.50", "1e5"}


# -- what goes wrong --------------------------------------------------------------------------------------------------


WORKS = {
    "mixed line endings": (b"a b\r\nc d\re f\ng h", ["a b", "c d", "e f", "g h"], 0),
    "byte-order mark": (b"\xef\xbb\xbfa b\nc d\n", ["a b", "c d"], 0),
    "control characters": (b"a\x00b \x07c\x1b[31m\nd\x0be\x0cf\n", ["a\x00b \x07c\x1b[31m", "d e f"], 0),
    "separators of other systems": ("a\u2028b\nc\x1cd\n".encode(), ["a b", "c\x1cd"], 0),
    "emoji": ("👩‍👩‍👧😀\nhello\n".encode(), ["hello", "👩‍👩‍👧😀"], 0),
    "blank lines": (b"\n\na b\n \t \nc\n\n", ["a b", "c"], 4),
    "two lines": (b"a\nb", ["a", "b"], 0),
    "three equal lines": (b"a\na\na\n", ["a", "a", "a"], 0),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("case", WORKS)
def test_odd_files_that_work(case, streaming, write):
    content, expected, blank = WORKS[case]
    path = write("a.txt", content)
    arguments = {"streaming": True, "max_length": 50} if streaming else {}
    corpus = TextData(train_file=path, eval_file=path, **arguments).load()
    assert sorted(texts(corpus, corpus.train)) == expected
    if not streaming:
        assert corpus.report["train"]["blank"] == blank


@pytest.mark.parametrize("level", ["word", "char", "bpe", "unigram"])
def test_line_of_a_megabyte(level, write):
    path = write("a.txt", "a b c\n" * 20 + "x" * 500_000 + " " + "word " * 100_000 + "\n")
    config = TokenizerConfig(level=level, vocab_size=300)
    corpus = TextData(train_file=path, eval_size=5, tokenizer=config, max_length=12).load()
    counts = corpus.report["train"], corpus.report["eval"]
    assert sum(part["truncated"] for part in counts) == 1
    assert max(part["length_longest"] for part in counts) > 100_000
    assert max(map(len, corpus.train["input_ids"])) <= 12


EMPTY_PARQUET = BytesIO()
pd.DataFrame({"text": pd.Series([], dtype=str)}).to_parquet(EMPTY_PARQUET)


BAD_FILES = {
    "empty file": ("a.txt", b"", "the file .*a.txt' is empty: expected at least one line. Name another one"),
    "empty gzip": ("a.txt.gz", gzip.compress(b""), "no line in .*a.txt.gz'"),
    "blank lines only": ("a.txt", b"\n \n\t\n", "3 training rows, 3 of them blank"),
    "one line": ("a.txt", b"a b\n", "1 lines to train on, of which 1 should be held out"),
    "undecodable byte": ("a.txt", b"one\ntwo\nca\xe9f\n", "byte 0xe9 in line 3 of .*encoding=cp1252"),
    "binary": ("a.txt", b"\x89PNG\r\n\x1a\n\x00\xff", "byte 0x89 in line 1 of"),
    "UTF-16": ("a.txt", "a\nb\n".encode("utf-16"), r"line 1 of .*\(UTF-16\): .*encoding=utf-16, for example\.$"),
    "UTF-16 JSON": ("a.json", "[]".encode("utf-16"), r"line 1 of .*\(UTF-16\): expected UTF-8. Convert the file\.$"),
    "Latin-1 JSON": ("a.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}\n', "byte 0xe9 in line 2 of .*a.jsonl"),
    "cut gzip": ("a.txt.gz", gzip.compress(b"a b\n" * 500)[:30], "is damaged"),
    "no gzip": ("a.txt.gz", b"a b\nc d\n", "is damaged"),
    "unquoted commas": (
        "a.csv",
        b"text\na man, b\na, c\n",
        "2 fields in line 2 of .*a.csv.* Put quotes .* rename it to .txt",
    ),
    "unquoted commas in two columns": (
        "a.csv",
        b"n,text\na, b,1\na, c,2\n",
        r"3 fields in line 2 .*: expected 2, .*\['n', 'text'\]",
    ),
    "comma at the end of lines": ("a.csv", b"n,text\n1,a,\n2,b,\n", "3 fields in line 2 of"),
    "header only": ("a.csv", b"text,n\n", "a.csv' has only a header"),
    "tabs in the capitals of TSV": (
        "a.TSV",
        b"text\tn\na\tb\t1\n",
        "3 fields in line 2 of .*a.TSV.* Remove the separator",
    ),
    "Parquet without rows": ("a.parquet", EMPTY_PARQUET.getvalue(), "no line in .*a.parquet'"),
    "archive": ("a.txt.ZIP", b"PK", "a.txt.ZIP' is an archive .* Unpack"),
    "undecodable CSV": ("a.csv", b"text\nok\nca\xe9f\n", "byte 0xe9 in line 3 of"),
    "ragged CSV": ("a.csv", b"text,n\na,1\nb,2,3,4\n", "4 fields in line 3 of .*: expected 2"),
    "missing column": ("a.csv", b"caption,n\na b,1\nc,2\n", r"no column 'text': expected one of \['caption', 'n'\]"),
    "broken JSON": ("a.jsonl", b'{"text": "a"}\n{"text": \n', "cannot be read as json"),
    "no text in the column": ("a.jsonl", b'{"text": [1]}\n{"text": [2]}\n', "expected text. .*IdsData"),
    "NaN column": ("a.jsonl", b'{"text": 1.5}\n{"text": NaN}\n', "column 'text' of type float64"),
    "null in JSON": ("a.jsonl", b'{"text": "a"}\n{"text": null}\n{"text": "b"}\n', "row 1 of the training rows"),
    "no Parquet": ("a.parquet", b"nope", "cannot be read as parquet"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_in_words(case, write):
    name, content, message = BAD_FILES[case]
    with pytest.raises(DataError, match=message) as caught:
        TextData(train_file=write(name, content), text_column="text").load()
    assert caught.value.expected


def test_a_pipe_is_refused_for_what_it_is(tmp_path):
    """Its size is 0, but it need not be empty."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe' is a pipe or a device: expected a file, as it is read twice. Write it"):
        TextData(train_file=str(tmp_path / "pipe")).load()


BAD_STREAMS = [
    "Latin-1 JSON",
    "UTF-16 JSON",
    "unquoted commas",
    "unquoted commas in two columns",
    "header only",
    "archive",
    "empty file",
    "blank lines only",
    "undecodable byte",
    "one line",
    "null in JSON",
    "missing column",
]


@pytest.mark.parametrize("case", BAD_STREAMS)
def test_bad_streams_are_refused_in_words(case, write):
    name, content, _ = BAD_FILES[case]
    with pytest.raises(DataError):
        path = write(name, content)
        TextData(train_file=path, text_column="text", streaming=True, max_length=5, eval_size=1).load()


def test_nan_in_a_data_frame_names_the_row():
    frame = pd.DataFrame({"text": ["a b", "c", float("nan"), "d"]})
    with pytest.raises(DataError, match="in row 2 of the training rows, column 'text'"):
        TextData(dataset=Dataset.from_pandas(frame)).load()


def test_empty_split():
    empty = Dataset.from_dict({"text": []}, features=Features({"text": Value("string")}))
    with pytest.raises(DataError, match="0 held-out rows"):
        TextData(dataset=DatasetDict(train=RAGGED, test=empty), eval_split="test").load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected exactly one of them"),
        ({"train_file": "a.txt", "dataset": "b"}, "expected exactly one of them"),
        ({"train_file": "a.txt", "eval_split": "test"}, "Set one of eval_split and eval_file to null"),
        ({"dataset": RAGGED, "eval_split": "test", "eval_file": "a.txt"}, "Set one of eval_split and eval_file"),
        ({"dataset": RAGGED, "eval_split": "test"}, "which has no splits"),
        ({"train_file": "missing/*.txt"}, "'missing/.*' does not exist in /"),
        ({"train_file": []}, "empty list of files"),
        ({"train_file": "."}, "Name a file in it, or in a recipe the folder as `dataset`"),
        ({"dataset": "./missing"}, "neither a folder here nor a dataset"),
        ({"train_file": "a.txt", "dataset_config": "en"}, "expected these settings only with a dataset"),
        ({"train_file": "a.txt", "train_split": "test"}, "expected these settings only with a dataset"),
        ({"dataset": "klingon.txt"}, "which is a file: .* Name it as train_file"),
        ({"dataset": "script"}, "Dataset scripts are no longer supported"),
        ({"dataset": "cut"}, "dataset='cut' .*cannot be loaded .*Expected to read"),
        ({"dataset": RAGGED, "seed": -1}, "seed=-1"),
        ({"dataset": RAGGED, "text_column": "text", "prompt_column": "text"}, "expected two different columns"),
        ({"train_file": "a.txt", "max_length": 0}, "max_length=0"),
        ({"train_file": "a.txt", "max_prompt_length": 0}, "max_prompt_length=0"),
        ({"train_file": "a.txt", "too_long": "keep"}, "'truncate' or 'drop'"),
        ({"train_file": "a.txt", "eval_fraction": 1.5}, "between 0 and 1"),
        ({"dataset": RAGGED, "encoding": "klingon", "eval_file": "klingon.txt"}, "encoding='klingon'"),
        ({"dataset": RAGGED, "eval_size": 4}, "4 lines to train on, of which 4"),
        ({"dataset": RAGGED, "eval_size": 0}, "of which 0 should be held out"),
        ({"dataset": RAGGED, "max_length": 2, "too_long": "drop"}, "none of 1 to 2 tokens"),
        ({"dataset": RAGGED, "tokenizer": TokenizerConfig(pretrained="./missing")}, "could not be loaded"),
    ],
)
def test_mistakes_in_the_settings(arguments, message, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("klingon.txt", "a\n")
    (tmp_path / "script").mkdir()
    write("script/script.py", "")
    RAGGED.save_to_disk("cut")
    [arrow] = (tmp_path / "cut").glob("*.arrow")
    os.truncate(arrow, 20)
    with pytest.raises(DataError, match=message):
        TextData(**arguments).load()


def test_files_of_two_kinds(write):
    with pytest.raises(DataError, match=r"files of several kinds, \['csv', 'tsv'\]"):
        TextData(train_file=[write("a.csv", "text\na\n"), write("b.tsv", "text\na\n")]).load()
    with pytest.raises(DataError, match=r"files of several kinds, \['csv', 'text'\]"):
        TextData(train_file=[write("a.csv", "text\na\n"), write("b.txt", "a\n")]).load()


def test_named_encoding(write):
    corpus = TextData(train_file=write("a.txt", "café au\nlait\n".encode("utf-16")), encoding="utf-16").load()
    assert sorted(row["text"] for row in corpus.report["examples"]) in (["café au"], ["lait"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=12), min_size=2, max_size=6))
def test_characters_of_any_text_survive(lines):
    """Nothing is lost or dropped in silence: every line comes back, or is counted as blank."""
    rows = Dataset.from_dict({"text": [*lines, "x", "y"]})
    corpus = TextData(dataset=rows, eval_split="train", tokenizer=TokenizerConfig(level="char")).load()
    decoded = [corpus.tokenizer.decode(ids, skip_special_tokens=True) for ids in corpus.train["input_ids"]]
    counts = corpus.report["train"]
    assert counts["read"] == counts["blank"] + len(decoded)
    assert set(decoded) <= set(lines) | {"x", "y"}
    assert sum(bool(line.strip()) for line in lines) <= len(decoded)


# -- recipes and the command line -------------------------------------------------------------------------------------


def test_sources_are_made_from_a_recipe_and_overrides(write):
    from jsonargparse import ArgumentParser

    from seqgan_hf.data import DataSource

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(DataSource, "data", required=True)

    def make(*arguments: str) -> DataSource:
        return parser.instantiate(parser.parse_args(arguments)).data

    tokenizer = "{level: char, vocab_size: 100}"
    recipe = f"data: {{class_path: seqgan_hf.data.TextData, init_args: {{train_file: a.txt, tokenizer: {tokenizer}}}}}"
    overrides = ["--data.train_file", "b.txt", "--data.tokenizer.min_count", "2"]
    source = make("--config", write("recipe.yaml", recipe), *overrides)
    assert source.train_file == "b.txt"
    assert source.tokenizer == TokenizerConfig(level="char", vocab_size=100, min_count=2)
    several = make("--data", "seqgan_hf.data.IdsData", "--data.train_file", "[a.txt, b.txt]", "--data.eos", "false")
    assert isinstance(several, IdsData) and several.train_file == ["a.txt", "b.txt"] and several.eos is False
    assert make("--data", "seqgan_hf.data.GrammarData", "--data.num_train", "7").num_train == 7


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    """It is not the file that is at fault."""
    (tmp_path / "lines.txt").write_text("a cat\na dog\n")
    (tmp_path / "cache").write_text("a file, not a folder")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    expected = re.escape(f"cannot be kept in {str(tmp_path / 'cache')!r} (")
    with pytest.raises(DataError, match=f"{expected}.*: expected a folder to write. Set HF_DATASETS_CACHE to one"):
        TextData(train_file=str(tmp_path / "lines.txt")).load()
