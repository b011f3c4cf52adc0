"""The `evaluate` modules: loadable by path, offline, and equal to the plain functions they stand for."""

import doctest
import importlib
import os
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest

from seqgan_hf import metrics
from seqgan_hf.evaluation.catalog import METRICS
from seqgan_hf.evaluation.tokenization import tokenize


FOLDER = Path(metrics.__file__).parent
SAMPLES = ["a man rides a horse .", "a man rides a wave .", "", "two dogs run", "a man rides a horse ."]
REFERENCES = ["a man rides a horse .", "a cat sleeps .", "two dogs run fast", "a man sits", "the sky is blue ."]
TRAIN = ["a man rides a wave .", "the cat sits"]
NAMES = sorted(path.name for path in FOLDER.iterdir() if (path / f"{path.name}.py").exists())


def lengths(texts):
    return np.array([[len(text), text.count(" ")] for text in texts], dtype=float)


def compute(module):
    return module.compute(
        predictions=SAMPLES, references=REFERENCES, train=TRAIN, encoder=lengths, accepts=lambda text: "a" in text
    )


def test_every_text_metric_has_a_module():
    assert NAMES == sorted(METRICS)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mauve"])
def test_module_equals_the_plain_function(name):
    found = compute(evaluate.load(str(FOLDER / name)))
    inputs = {
        "samples": tokenize(SAMPLES),
        "references": tokenize(REFERENCES),
        "train": tokenize(TRAIN),
        "sample_texts": SAMPLES,
        "reference_texts": REFERENCES,
        "sample_features": lengths(SAMPLES),
        "reference_features": lengths(REFERENCES),
        "accepts": lambda text: "a" in text,
        "seed": 0,
    }
    expected = METRICS[name].function(**{key: inputs[key] for key in METRICS[name].inputs})
    assert found == pytest.approx(expected, nan_ok=True) and found


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mauve"])
def test_module_documents_itself_by_a_working_example(name):
    module = importlib.import_module(f"seqgan_hf.metrics.{name}.{name}")
    assert "Source:" in module.__doc__
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0


def test_modules_can_be_combined():
    combined = evaluate.combine([str(FOLDER / name) for name in ("bleu", "self_bleu", "copy_rate")])
    result = combined.compute(predictions=SAMPLES, references=REFERENCES, train=TRAIN)
    alone = evaluate.load(str(FOLDER / "bleu")).compute(predictions=SAMPLES, references=REFERENCES)
    assert result["bleu_2"] == alone["bleu_2"]
    assert {"bleu_5", "self_bleu_2", "copy_rate"} <= result.keys()


def test_predictions_can_be_added_batch_by_batch():
    module = evaluate.load(str(FOLDER / "self_bleu"))
    whole = module.compute(predictions=SAMPLES)
    module.add_batch(predictions=SAMPLES[:2])
    module.add_batch(predictions=SAMPLES[2:])
    assert module.compute() == whole


def test_references_need_not_be_as_many_as_predictions():
    module = evaluate.load(str(FOLDER / "bleu"))
    assert module.compute(predictions=SAMPLES, references=REFERENCES[:1])["bleu_2"] > 0


def test_tokenization_is_the_callers_choice():
    module = evaluate.load(str(FOLDER / "length"))
    assert module.compute(predictions=["白日依山尽"], tokenization="character")["length_mean"] == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bleu", "references"),
        ("copy_rate", "train"),
        ("fed", "encoder"),
        ("mauve", "encoder"),
        ("grammar", "accepts"),
    ],
)
def test_a_missing_input_is_named(name, message):
    module = evaluate.load(str(FOLDER / name))
    with pytest.raises(ValueError, match=rf"got metric '{name}' without .*{message}.* -> "):
        module.compute(predictions=SAMPLES)


def test_modules_load_without_network():
    path = str(FOLDER / "distinct")
    code = f"import evaluate; print(evaluate.load({path!r}).compute(predictions=['a a'])['distinct_1'])"
    environment = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "PYTHONPATH": str(FOLDER.parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip().endswith("0.5"), done.stderr
