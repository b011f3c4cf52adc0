"""How text is split before n-grams are counted."""

import pytest

from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.tokenization import tokenize


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
