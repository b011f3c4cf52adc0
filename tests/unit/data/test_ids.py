"""Columns of integer ids: used as they are, and checked."""

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from seqgan_hf.data import IdsData, materialize
from seqgan_hf.data.text import read_prompts, read_texts
from seqgan_hf.errors import DataError


ROWS = [[3, 1, 2], [0, 0], [4]]


def rows_of(**columns) -> DatasetDict:
    """The same rows to train on and to hold out."""
    rows = Dataset.from_dict(columns)
    return DatasetDict(train=rows, test=rows)


def load(**arguments):
    return IdsData(**{"eval_split": "test"} | arguments).load()


def test_ids_stay_and_special_tokens_come_after_them():
    corpus = load(dataset=rows_of(ids=ROWS))
    assert (corpus.bos_token_id, corpus.eos_token_id, corpus.pad_token_id, corpus.vocab_size) == (5, 6, 7, 8)
    assert corpus.train["input_ids"][:] == [[3, 1, 2, 6], [0, 0, 6], [4, 6]]
    assert corpus.max_length == 4
    assert corpus.tokenizer.decode(corpus.train[1]["input_ids"], skip_special_tokens=True) == " 0 0"
    samples = materialize(corpus.train, corpus.bos_token_id, corpus.pad_token_id)
    assert samples.ids.tolist() == [[3, 1, 2, 6], [0, 0, 6, 7], [4, 6, 7, 7]]


def test_fixed_length_with_the_start_token_of_the_paper():
    corpus = load(dataset=rows_of(ids=[[1, 2], [0, 3]]), eos=False, bos_token_id=0, vocab_size=10)
    assert (corpus.bos_token_id, corpus.eos_token_id, corpus.pad_token_id, corpus.vocab_size) == (0, None, None, 10)
    assert corpus.train["input_ids"][:] == [[1, 2], [0, 3]]
    with pytest.raises(DataError, match="a line of 1 tokens with eos=false"):
        load(dataset=rows_of(ids=[[1, 2], [0]]), eos=False)


def test_end_token_of_the_data_is_added_where_it_is_missing():
    corpus = load(dataset=rows_of(ids=[[1, 2], [3, 4]]), eos_token_id=4)
    assert corpus.train["input_ids"][:] == [[1, 2, 4], [3, 4]]
    with pytest.raises(DataError, match="the end token 1 inside row 0"):
        load(dataset=rows_of(ids=ROWS), eos_token_id=1)


def test_prompts_and_lengths():
    dataset = rows_of(ids=ROWS, given=[[1], [], [2, 2, 9]])
    corpus = load(dataset=dataset, ids_column="ids", prompt_column="given", max_length=2, max_prompt_length=2)
    assert corpus.vocab_size == 13  # the 9 stands in a prompt only
    assert corpus.train["prompt_ids"][:] == [[10, 1], [10], [10, 2, 9]]
    assert corpus.train["input_ids"][:] == [[3, 1], [0, 0], [4, 11]]
    assert corpus.report["train"]["truncated"] == 2


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_files(name, tmp_path):
    path = tmp_path / name
    if name == "a.txt":
        path.write_text("3 1 2\n\n0 0\n4\n")
    elif name == "a.jsonl":
        Dataset.from_dict({"ids": ROWS, "n": [1, 2, 3]}).to_json(path)
    else:
        Dataset.from_dict({"ids": ROWS, "n": [1, 2, 3]}).to_parquet(path)
    corpus = IdsData(train_file=str(path), eval_file=str(path)).load()
    assert corpus.train["input_ids"][:] == [[3, 1, 2, 6], [0, 0, 6], [4, 6]]
    assert corpus.report["train"]["blank"] == (1 if name == "a.txt" else 0)


def test_deduplication_and_empty_rows():
    report = load(dataset=rows_of(ids=[[1], [1], [], [1, 1]]), deduplicate=True).report
    assert [report["train"][key] for key in ("blank", "removed_duplicates", "lines")] == [1, 1, 2]
    assert report["overlap"] == {"held_out_lines": 2, "different": 2}


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        ({"ids": [[1, 2], [3, 9]]}, {"vocab_size": 5}, "id 9 in row 1 of the training rows: expected 0 to 4"),
        ({"ids": [[1, 2], [3, 5]]}, {"vocab_size": 5}, "id 5 in row 1"),
        ({"ids": [[1, 2], [3, -1]]}, {}, "id -1 in row 1 .*: expected 0 to 16777215"),
        ({"ids": [[1, 2], [3, None]]}, {}, "in row 1 of the training rows: expected 0 to "),
        ({"ids": [[1, 2], [3, 2**24]]}, {}, "id 16777216 in row 1 .*: expected 0 to 16777215. Map the ids"),
        ({"ids": ["1 2", f"3 {2**63}"]}, {}, f"'3 {2**63}' in row 1: expected integers below"),
        ({"ids": ["1 2", f"3 {2**63}"]}, {"vocab_size": 9}, f"'3 {2**63}' in row 1"),
        ({"ids": ["1 2", "1_000"]}, {}, "'1_000' in row 1"),
        ({"ids": ["1 2", "\uff11\uff12"]}, {}, "'\uff11\uff12' in row 1"),
        ({"ids": ROWS}, {"vocab_size": 0}, "vocab_size=0: expected 1 to"),
        ({"ids": ROWS}, {"vocab_size": 2**24 + 1}, "vocab_size=16777217"),
        ({"ids": ROWS}, {"seed": -1}, "seed=-1"),
        ({"ids": ROWS}, {"ids_column": "ids", "prompt_column": "ids"}, "expected two different columns"),
        ({"ids": [[1, 2], None]}, {}, "no value .* in row 1"),
        ({"ids": [[1.5], [2.0]]}, {}, "lists of integers"),
        ({"ids": [[1.5], [2.0]]}, {"ids_column": "ids"}, "column 'ids' of type list<.*double>"),
        ({"ids": [[1]], "other": [[2]], "third": ["x"]}, {"ids_column": "idz"}, r"\['ids', 'other', 'third'\]"),
        ({"one": [[1]], "two": [[2]]}, {}, "no ids_column.* Name it"),
        ({"words": [["a"], ["b"]]}, {}, "no ids_column.* Write ids for the words of each list, or join them"),
        ({"words": [["a"]]}, {"ids_column": "words"}, "'words' of type list.* Write ids for the words of each list"),
        ({"ids": ["1 2", "3 x"]}, {}, "'3 x' in row 1"),
        ({"ids": ROWS}, {"bos_token_id": 5}, "bos_token_id=5: expected an id of the data, 0 to 4"),
        ({"ids": ROWS}, {"eos_token_id": -1}, "eos_token_id=-1"),
        ({"ids": ROWS}, {"max_length": 0}, "max_length=0"),
        (
            {"ids": ROWS, "p": [[1], [99], [2]]},
            {"ids_column": "ids", "prompt_column": "p", "vocab_size": 5},
            "id 99",
        ),
    ],
)
def test_mistakes_name_the_row(columns, arguments, message):
    with pytest.raises(DataError, match=message):
        load(dataset=rows_of(**columns), **arguments)


def test_the_largest_id():
    assert load(dataset=rows_of(ids=[[0], [99_999]])).vocab_size == 100_003


def test_row_number_far_into_the_data():
    rows = [[1, 2]] * 25_000
    rows[23_456] = [1, 7]
    with pytest.raises(DataError, match="id 7 in row 23456 of the held-out rows"):
        good = Dataset.from_dict({"ids": [[1, 2]] * 3})
        load(dataset=DatasetDict(train=good, test=Dataset.from_dict({"ids": rows})), vocab_size=5)


def test_empty_split():
    empty = Dataset.from_dict({"ids": []}, features=Features({"ids": List(Value("int64"))}))
    with pytest.raises(DataError, match="0 training rows"):
        load(dataset=DatasetDict(train=empty, test=empty))


@pytest.mark.parametrize("column", ["notes", None])
def test_lists_of_ids_are_read_as_a_generator_of_ids_writes_them(column, tmp_path):
    """References and prompts of `evaluate`, and prompts of `generate`."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"notes": {row}, "n": 1}}\n' for row in [*ROWS, []]))
    for read in (read_texts, read_prompts):
        assert read(str(path), column) == ["3 1 2", "0 0", "4", ""]
    path.write_text('{"notes": [1]}\n{"notes": null}\n')
    with pytest.raises(DataError, match="no value .* in row 1"):
        read_texts(str(path), "notes")


def test_prompts_may_be_labels_or_integers(tmp_path):
    features = Features({"label": ClassLabel(names=["neg", "pos"]), "n": Value("int64"), "prompt": Value("string")})
    rows = Dataset.from_dict({"label": [1, 0], "n": [3, 7], "prompt": ["a", "b"]}, features=features)
    rows.to_parquet(tmp_path / "a.parquet")
    read = {column: read_prompts(str(tmp_path / "a.parquet"), column) for column in ("label", "n", None)}
    assert read == {"label": ["pos", "neg"], "n": ["3", "7"], None: ["a", "b"]}
