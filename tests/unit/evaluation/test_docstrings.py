"""Examples in docstrings work, and every metric has one."""

import doctest
import importlib
import pkgutil

import pytest

from seqgan_hf.evaluation import metrics


METRICS = [f"metrics.{module.name}" for module in pkgutil.iter_modules(metrics.__path__)]


@pytest.mark.parametrize("name", [*METRICS, "record", "tokenization", "evaluate_module"])
def test_docstring_examples(name):
    if name == "metrics.mauve":
        pytest.importorskip("mauve")
    result = doctest.testmod(importlib.import_module(f"seqgan_hf.evaluation.{name}"))
    assert result.attempted > 0 and result.failed == 0
