"""Text sources: reading, splitting, lengths, prompts, streams, and what goes wrong with real files."""

import dataclasses
import gzip
import json
import os
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict, Value
from datasets.distributed import split_dataset_by_node
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgan_hf.data import (
    GrammarData,
    IdsData,
    OracleData,
    TextData,
    TokenizerConfig,
    corpus_report,
    materialize,
    stream_samples,
    write_corpus_report,
)
from seqgan_hf.data.corpus_report import corpus_lines, draw_lengths
from seqgan_hf.data.tokenization import build_tokenizer
from seqgan_hf.errors import DataError


LINES = ["a man walks", "a dog runs far away", "two cats sleep", "a man sleeps", "the end"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Nothing is read from, or left in, the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


@pytest.fixture
def write(tmp_path):
    def write_file(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write_file


def texts(corpus, rows) -> list[str]:
    return [corpus.tokenizer.decode(row["input_ids"], skip_special_tokens=True).strip() for row in rows]


def everything(corpus) -> list[str]:
    return sorted(texts(corpus, corpus.train) + texts(corpus, corpus.eval))


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


# -- held out, repeated, overlapping ----------------------------------------------------------------------------------


def test_cut_is_the_same_for_the_same_seed_only(write):
    path = write("a.txt", "".join(f"w{i}\n" for i in range(200)))
    first, again, other = (TextData(train_file=path, seed=seed).load() for seed in (0, 0, 1))
    assert first.eval["input_ids"][:] == again.eval["input_ids"][:] and len(first.eval) == 20
    examples = [{row["text"] for row in corpus.report["examples"]} for corpus in (first, other)]
    assert examples[0] != examples[1]


def test_every_line_is_on_one_side_of_the_cut():
    lines = [f"w{i}" for i in range(100)]
    chars = TokenizerConfig(level="char")
    corpus = TextData(dataset=Dataset.from_dict({"text": lines}), eval_fraction=0.25, tokenizer=chars).load()
    assert (len(corpus.train), len(corpus.eval)) == (75, 25)
    assert everything(corpus) == sorted(lines)
    assert corpus.report["overlap"] == {"held_out_lines": 0, "different": 0}


def test_repeated_and_overlapping_lines_are_counted_and_left_out_on_request():
    train = Dataset.from_dict({"text": ["a", "b", "a", "c", "a", " ", "b"]})
    test = Dataset.from_dict({"text": ["a", "a", "d", "b"]})
    splits = DatasetDict(train=train, test=test)
    report = TextData(dataset=splits, eval_split="test").load().report
    assert report["overlap"] == {"held_out_lines": 3, "different": 2}
    assert [report["train"][key] for key in ("read", "blank", "duplicates", "lines")] == [7, 1, 3, 6]
    corpus = TextData(dataset=splits, eval_split="test", deduplicate=True).load()
    assert texts(corpus, corpus.train) == ["a", "b", "c"]
    assert corpus.report["train"]["removed_duplicates"] == 3
    assert corpus.report["eval"]["removed_duplicates"] == 1


def test_coco_overlap():
    """The captions that the literature trains on and tests with are not disjoint."""
    folder = Path(__file__).parents[4] / "shared/data/image_coco"
    if not folder.exists():
        pytest.skip("needs the COCO captions")
    report = TextData(train_file=str(folder / "train.txt"), eval_file=str(folder / "test.txt")).load().report
    assert report["overlap"] == {"held_out_lines": 15, "different": 7}


# -- length -----------------------------------------------------------------------------------------------------------

RAGGED = Dataset.from_dict({"text": ["a b c d", "a b", "a b c", "d c b a"]})


def test_longest_line_sets_the_length():
    corpus = TextData(dataset=RAGGED, eval_size=1).load()
    assert corpus.max_length == 5
    for rows in (corpus.train, corpus.eval):
        assert all(ids[-1] == corpus.eos_token_id and corpus.eos_token_id not in ids[:-1] for ids in rows["input_ids"])


def test_too_long_lines_are_cut_and_lose_their_end():
    corpus = TextData(dataset=RAGGED, eval_split="train", max_length=4).load()
    assert texts(corpus, corpus.train) == ["a b c d", "a b", "a b c", "d c b a"]
    ends = [ids[-1] == corpus.eos_token_id for ids in corpus.train["input_ids"]]
    assert ends == [False, True, True, False]
    assert (corpus.report["train"]["truncated"], corpus.report["train"]["dropped"]) == (2, 0)
    shorter = TextData(dataset=RAGGED, eval_split="train", max_length=2).load()
    assert texts(shorter, shorter.train) == ["a b", "a b", "a b", "d c"]


def test_too_long_lines_are_dropped():
    corpus = TextData(dataset=RAGGED, eval_split="train", max_length=4, too_long="drop").load()
    assert texts(corpus, corpus.train) == ["a b", "a b c"]
    assert (corpus.report["train"]["truncated"], corpus.report["train"]["dropped"]) == (0, 2)


def test_fixed_length_without_end_token():
    corpus = TextData(dataset=RAGGED, eval_split="train", max_length=2, eos=False).load()
    assert corpus.eos_token_id is None and corpus.pad_token_id is None
    assert [len(ids) for ids in corpus.train["input_ids"]] == [2, 2, 2, 2]
    with pytest.raises(DataError, match="a line of 2 tokens with eos=false: .*. Set eos=true, or max_length=2"):
        TextData(dataset=RAGGED, eval_split="train", eos=False).load()


def of_lengths(*lengths: int, column: str = "text") -> Dataset:
    return Dataset.from_dict({"text": ["a"] * len(lengths)} | {column: [" ".join("a" * n) for n in lengths]})


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([5] * 1500 + [50_000], "50,001 tokens, where 1,501 of 1,502 have at most 6: expected at most 256"),
        ([9, 3, 600, 9], "601 tokens, where 4 of 5 have at most 10: expected at most 256"),
        ([100] * 3000 + [450] * 3, "451 tokens, where 3,001 of 3,004 have at most 101: expected at most 404"),
        ([3_000, 10_000], "10,001 tokens, where 2 of 3 have at most 3,001: expected at most 10,000"),
    ],
)
def test_a_stray_line_is_refused_before_it_sets_the_length_of_all(lengths, message):
    rows, shortest = of_lengths(*lengths), of_lengths(2)
    longest, usual = max(lengths) + 1, int(message.partition(":")[0].rpartition(" ")[2].replace(",", ""))
    for train, held_out in ((rows, shortest), (shortest, rows)):
        splits = DatasetDict(train=train, test=held_out)
        with pytest.raises(DataError, match=f"a line of {message}") as caught:
            TextData(dataset=splits, eval_split="test").load()
        assert f"Set data.max_length={usual} (longer ones are cut" in str(caught.value)
        assert f"or data.max_length={longest} to keep all" in str(caught.value)
        for length in (usual, longest):
            assert TextData(dataset=splits, eval_split="test", max_length=length).load().max_length == length


@pytest.mark.parametrize(
    ("lengths", "longest"),
    [([1, 1, 255], 256), ([100] * 3000 + [403] * 3, 404), ([2_600, 9_999], 10_000), ([300] * 9, 301)],
)
def test_a_line_that_is_long_but_not_stray_sets_the_length(lengths, longest):
    splits = DatasetDict(train=of_lengths(*lengths), test=of_lengths(2))
    assert TextData(dataset=splits, eval_split="test").load().max_length == longest


def test_a_stray_prompt_is_refused_likewise():
    splits = DatasetDict(train=of_lengths(4, 0, 700, 6, column="turn"), test=of_lengths(2, column="turn"))
    arguments = {"dataset": splits, "eval_split": "test", "text_column": "text", "prompt_column": "turn"}
    with pytest.raises(DataError, match="a prompt of 700 tokens, where 4 of 5 have at most 6: .* Set") as caught:
        TextData(**arguments).load()
    assert "data.max_prompt_length=6 (longer ones keep their last tokens)" in str(caught.value)
    prompts = TextData(**arguments, max_prompt_length=6).load().train["prompt_ids"]
    assert [len(ids) for ids in prompts] == [5, 1, 7, 7]


# -- what is known ----------------------------------------------------------------------------------------------------


def known(share: int, column: str = "text") -> Dataset:
    """100 lines of two words, of which so many lines are of one frequent word; the others occur once."""
    lines = [f"a{number} b{number}" for number in range(100 - share)] + ["the the"] * share
    return Dataset.from_dict({"text": ["the"] * 100} | {column: lines})


@pytest.mark.parametrize("streaming", [False, True])
def test_a_vocabulary_that_knows_nothing_of_the_lines_or_prompts_is_refused(streaming):
    arguments = {"streaming": True, "max_length": 5} if streaming else {}
    arguments |= {"eval_split": "test", "text_column": "text", "tokenizer": TokenizerConfig(min_count=2)}
    for column, prompt_column, what in (("text", None, "training"), ("turn", "turn", "prompt")):
        splits = {share: DatasetDict(train=known(share, column), test=known(50, column)) for share in (0, 4, 5)}
        for share in (0, 4):
            message = f"^{share}.00 % of the {what} tokens are in the vocabulary of .*: expected at least 5 %"
            with pytest.raises(DataError, match=message) as caught:
                TextData(dataset=splits[share], prompt_column=prompt_column, **arguments).load()
            assert "expected at least 5 %" in str(caught.value) and "Lower data.tokenizer.min_count" in str(
                caught.value
            )
        corpus = TextData(dataset=splits[5], prompt_column=prompt_column, **arguments).load()
        assert corpus.report["train"]["prompt_coverage" if prompt_column else "coverage"] == pytest.approx(0.05)


def test_a_run_says_what_its_corpus_lost_and_knows():
    train = ["the dog", "the cat", "the cat sat on the mat", " ", "the dog"]
    splits = DatasetDict(train=Dataset.from_dict({"text": train}), test=Dataset.from_dict({"text": ["the hen"]}))
    lines, warnings = corpus_lines(TextData(dataset=splits, eval_split="test", max_length=4, deduplicate=True).load())
    assert lines == [
        "Training data: lines used: 3; tokens in the vocabulary: 100.00 %; blank lines, left out: 1; "
        "repeated lines, left out: 1; too long, cut: 1",
        "Held-out data: lines used: 1; tokens in the vocabulary: 50.00 %",
    ]
    [warning] = warnings
    assert warning.startswith("Held-out data: only 50.00 % of the tokens in the vocabulary. ")
    assert "lower data.tokenizer.min_count" in warning
    assert corpus_lines(OracleData(vocab_size=5, length=2, num_train=2, num_eval=2).load()) == ([], [])


def test_a_streamed_run_says_what_its_first_lines_tell():
    train = ["x", "the dog", "", "the cat sat on the mat"] + ["the dog"] * 2000
    source = TextData(dataset=Dataset.from_dict({"text": train}), streaming=True, max_length=4, eval_size=1)
    lines, warnings = corpus_lines(source.load())
    assert lines == [
        "Training data: lines used: 2,002; tokens in the vocabulary: 100.00 %; blank lines, left out: 1; "
        "of the first 1,000 lines, too long, cut: 1",
        "Held-out data: lines used: 1; tokens in the vocabulary: 0.00 %",
    ]
    assert len(warnings) == 1
    page = corpus_report(source.load(), source)
    assert "- a stream: coverage and lengths of training lines are those of the first 1,000" in page
    source.too_long = "drop"
    assert "lines used: not counted" in corpus_lines(source.load())[0][0]
    source.max_length = 9
    assert corpus_lines(source.load())[0][0].endswith("of the first 1,000 lines, no line cut or left out")


# -- prompts ----------------------------------------------------------------------------------------------------------


def test_prompts_start_with_the_start_token_and_join_with_a_space():
    rows = Dataset.from_dict({"text": ["fine thanks", "bye"], "turn": ["how are you", ""]})
    corpus = TextData(dataset=rows, eval_split="train", prompt_column="turn", text_column="text").load()
    first, second = corpus.train
    assert first["prompt_ids"][0] == second["prompt_ids"][0] == corpus.bos_token_id
    assert second["prompt_ids"] == [corpus.bos_token_id]
    joined = corpus.tokenizer.decode(first["prompt_ids"] + first["input_ids"], skip_special_tokens=True)
    assert joined == " how are you fine thanks"
    assert first["prompt_ids"] == corpus.tokenizer("how are you")["input_ids"]  # what the pipeline will give


@pytest.mark.parametrize(
    ("labels", "feature", "expected"),
    [([1, 0, 1], ClassLabel(names=["neg", "pos"]), [" pos", " neg", " pos"]), ([3, 4, 3], Value("int64"), None)],
)
def test_labels_are_prompts(labels, feature, expected):
    features = Features({"text": Value("string"), "label": feature})
    rows = Dataset.from_dict({"text": ["good", "bad", "fine"], "label": labels}, features=features)
    corpus = TextData(dataset=rows, eval_split="train", prompt_column="label").load()
    shown = [corpus.tokenizer.decode(ids[1:]) for ids in corpus.train["prompt_ids"]]
    assert shown == (expected or [f" {label}" for label in labels])


def test_long_prompts_keep_their_last_tokens():
    rows = Dataset.from_dict({"text": ["x", "y"], "turn": ["a b c d", "e"]})
    corpus = TextData(dataset=rows, eval_split="train", prompt_column="turn", max_prompt_length=2).load()
    assert [corpus.tokenizer.decode(ids[1:]) for ids in corpus.train["prompt_ids"]] == [" c d", " e"]
    assert corpus.report["train"]["prompt_longest"] == 4
    assert corpus.report["train"]["truncated_prompts"] == 1


def test_equal_lines_after_different_prompts_are_not_repeated():
    rows = Dataset.from_dict({"text": ["x", "x", "x"], "turn": ["a", "b", "a"]})
    corpus = TextData(dataset=rows, eval_split="train", prompt_column="turn", deduplicate=True).load()
    assert len(corpus.train) == 2


# -- streams ----------------------------------------------------------------------------------------------------------


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
    "empty file": ("a.txt", b"", "the file .*a.txt' is empty: expected at least one line. Leave it out"),
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
        ({"train_file": "."}, "Name it as `dataset` instead"),
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


# -- the grammar as a corpus, and the report --------------------------------------------------------------------------


def test_grammar_corpus():
    corpus, again = GrammarData(300, 50, seed=3).load(), GrammarData(300, 50, seed=3).load()
    assert corpus.train["input_ids"][:] == again.train["input_ids"][:]
    assert (len(corpus.train), len(corpus.eval)) == (300, 50)
    assert corpus.report["train"]["coverage"] == corpus.report["eval"]["coverage"] == 1.0
    from seqgan_hf.data.grammar import english_grammar

    grammar = english_grammar()
    assert all(grammar.accepts(text) for text in texts(corpus, corpus.eval))
    assert corpus.report["grammar"]["entropy"] == grammar.entropy()
    assert corpus.vocab_size == len(grammar.words) + 4


def test_corpus_report_is_a_page_and_is_saved(tmp_path):
    lines = [f"w{i} x\x1b[31m y" for i in range(30)] + ["long " * 30, "w1 x\x1b[31m y", " "]
    source = TextData(dataset=Dataset.from_dict({"text": lines}), max_length=20, eval_size=3)
    corpus = source.load()
    page = corpus_report(corpus, source)
    assert "| blank lines, left out | 1 |" in page and "| repeated lines | 1 |" in page
    assert "\x1b" not in page and r" x\x1b[31m y" in page  # examples, their control characters written out
    write_corpus_report(corpus, source, tmp_path / "report")
    assert (tmp_path / "report/corpus.md").read_text() == page
    saved = json.loads((tmp_path / "report/corpus.json").read_text())
    assert saved["train"] == corpus.report["train"] and saved["train"]["lines"] + saved["eval"]["lines"] == 32
    assert len(saved["examples"]) == 10 and saved["example"]["input_ids"] == corpus.train[0]["input_ids"]
    assert saved["source"]["class"] == "TextData" and saved["source"]["max_length"] == 20
    assert (tmp_path / "report/lengths.png").read_bytes().startswith(b"\x89PNG")


def test_lengths_are_drawn_with_the_length_to_generate():
    [axes] = draw_lengths({2: 5, 3: 1, 7: 4}, max_length=4).axes
    heights = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in axes.patches}
    assert heights == {1: 0, 2: 5, 3: 1, 4: 0, 5: 0, 6: 0, 7: 4}
    [line] = axes.lines
    assert set(line.get_xdata()) == {4.5} and "length to generate: 4" in line.get_label()
    [axes] = draw_lengths({1: 1, 1000: 2}, max_length=10).axes
    assert len(axes.patches) <= 80 and sum(bar.get_height() for bar in axes.patches) == 3


def test_report_into_a_file(write):
    corpus = GrammarData(3, 3).load()
    with pytest.raises(DataError, match="cannot be written into .*taken.* .File exists.: .* Set --output"):
        write_corpus_report(corpus, "grammar", write("taken", "x"))


def test_report_of_prompts_and_ids_shows_them():
    rows = Dataset.from_dict({"ids": [[3, 1], [0, 2]], "given": [[1], [2]]})
    source = IdsData(dataset=rows, eval_size=1, ids_column="ids", prompt_column="given")
    corpus = source.load()
    [shown] = corpus.report["examples"]
    assert set(shown) == {"ids", "prompt"}
    assert f"\n{shown['prompt'][0]} => {shown['ids'][0]} {shown['ids'][1]}\n" in corpus_report(corpus, source)


def test_report_of_a_source_that_counts_nothing():
    source = OracleData(vocab_size=5, length=2, num_train=2, num_eval=2)
    with pytest.raises(DataError, match="OracleData does not count what it reads"):
        corpus_report(source.load(), source)


def test_report_of_a_stream_says_what_was_not_counted(write):
    source = TextData(train_file=write("a.txt", "\n".join(LINES)), streaming=True, max_length=6, eval_size=2)
    page = corpus_report(source.load(), source)
    assert "also trained on: not counted" in page
    assert "| lines used | 3 | 2 |" in page and "| too long, cut | not counted | 0 |" in page


# -- what a corpus tells of itself ------------------------------------------------------------------------------------


def test_a_corpus_gives_its_texts_and_tells_whether_they_continue_prompts():
    rows = Dataset.from_dict({"text": ["fine thanks", "bye"], "turn": ["how are you", ""]})
    corpus = TextData(dataset=rows, eval_split="train", prompt_column="turn", text_column="text").load()
    assert corpus.conditional and corpus.texts("train") == corpus.texts("eval") == ["fine thanks", "bye"]
    streamed = TextData(dataset=rows, eval_size=1, text_column="text", streaming=True, max_length=5).load()
    assert not streamed.conditional
    assert (streamed.texts("train"), streamed.texts("eval")) == (["bye"], ["<unk> <unk>"])
    drawn = OracleData(vocab_size=5, length=3, num_train=4, num_eval=2).load()
    assert not drawn.conditional
    assert drawn.texts("eval") == [" ".join(map(str, row)) for row in drawn.eval.ids.tolist()]
    assert dataclasses.replace(drawn, eval=drawn.eval._replace(prompt=torch.zeros(2, 2).long())).conditional
