"""Token ids of lines and prompts: lengths, what is known, where prompts begin."""

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from seqgan_hf.data import (
    OracleData,
    TextData,
    TokenizerConfig,
    corpus_report,
)
from seqgan_hf.data.corpus_report import corpus_lines
from seqgan_hf.errors import DataError
from tests.tools.lines import RAGGED, texts


# -- length -----------------------------------------------------------------------------------------------------------


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
