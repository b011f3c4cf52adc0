"""The share of valid texts."""

import pytest

from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.metrics.grammar import grammar_acceptance


def test_grammar_acceptance_counts_valid_texts():
    result = grammar_acceptance(["()", "(", "", "(())"], lambda text: text.count("(") == text.count(")"))
    share = result["grammar_acceptance"]
    assert 0 < share.low < share.value == 0.75 < share.high < 1
    with pytest.raises(UserError, match="0 samples"):
        grammar_acceptance([], bool)
