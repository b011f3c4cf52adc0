"""How text is split before n-grams are counted."""

import pytest

from seqgan_hf.data.tokenization import TokenizerConfig, build_tokenizer, integer_tokenizer
from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.tokenization import default_tokenization, tokenize


def test_tokenizations():
    assert tokenize(["A man's dog."]) == [["A", "man's", "dog."]]
    assert tokenize(["A man's dog."], "treebank", lowercase=True) == [["a", "man", "'s", "dog", "."]]
    assert tokenize(["白日 依"], "character") == [["白", "日", " ", "依"]]


def test_tokenization_by_dotted_path():
    assert tokenize(["1+1"], "builtins.list") == [["1", "+", "1"]]


@pytest.mark.parametrize("name", ["words", "no.such.module", "builtins.nothing"])
def test_unknown_tokenization_is_refused(name):
    with pytest.raises(UserError, match=f"'{name}'.*: expected .*Check the spelling"):
        tokenize(["a"], name)


@pytest.mark.parametrize(
    ("level", "expected"),
    [("char", "character"), ("word", "white_space"), ("bpe", "white_space"), ("unigram", "white_space")],
)
def test_texts_are_read_as_the_generator_writes_them(level, expected):
    lines = ["abc def abc <unk>", "abd x abc", "x abc def"] * 5
    tokenizer = build_tokenizer(TokenizerConfig(level=level), lambda: [lines])
    assert default_tokenization(tokenizer) == expected


def test_without_a_tokenizer_of_text_words_are_read():
    assert default_tokenization(None) == default_tokenization(integer_tokenizer(5)) == "white_space"
