"""The `evaluate` module: loadable by path, offline, and equal to the plain functions it stands for."""

import copy
import socket
from dataclasses import replace

import evaluate
import numpy as np
import pytest
import torch

from seqgan_hf.data import TokenizerConfig, integer_tokenizer
from seqgan_hf.data.oracle import build_oracle, draw
from seqgan_hf.data.tokenization import build_tokenizer, decode
from seqgan_hf.errors import UserError
from seqgan_hf.evaluation import MODULE
from seqgan_hf.evaluation.catalog import METRICS
from seqgan_hf.evaluation.likelihood import LIKELIHOODS, calibration, divergences, nll
from seqgan_hf.evaluation.loading import LoadedGenerator, encode_texts
from seqgan_hf.evaluation.record import Estimate
from seqgan_hf.evaluation.tokenization import tokenize
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.models import RNNGeneratorConfig, RNNGeneratorForCausalLM


SAMPLES = ["a man rides a horse .", "a man rides a wave .", "", "two dogs run", "a man rides a horse ."]
REFERENCES = ["a man rides a horse .", "a cat sleeps .", "two dogs run fast", "a man sits", "the sky is blue ."]
TRAIN = ["a man rides a wave .", "the cat sits"]
NEEDS = {
    "nll_test": {"references", "model"},
    "calibration": {"references", "model"},
    "nll_gen": {"train", "model"},
    "nll_div": {"predictions", "model"},
    "nll_oracle": {"predictions", "oracle"},
    "oracle_divergence": {"predictions", "references", "model", "oracle"},
}


def lengths(texts):
    return np.array([[len(text), text.count(" ")] for text in texts], dtype=float)


def word_counts(texts):
    return np.array([text.count(" ") + 1.0 for text in texts])


def compute(module):
    return module.compute(
        predictions=SAMPLES,
        references=REFERENCES,
        train=TRAIN,
        encoder=lengths,
        accepts=lambda text: "a" in text,
        judge_lm=word_counts,
    )


def plain(found):
    """Values and intervals of what a metric's function returns, as a module gives them."""
    estimates = {name: value for name, value in found.items() if isinstance(value, Estimate)}
    intervals = {name: [e.low, e.high] for name, e in estimates.items() if e.low is not None}
    values = {name: value.value if name in estimates else value for name, value in found.items()}
    return values, intervals


def test_likelihoods_are_known_to_this_test():
    assert NEEDS.keys() == LIKELIHOODS.keys()


@pytest.mark.parametrize("name", [name for name in METRICS if name != "mauve"])
def test_module_equals_the_plain_function(name):
    found = compute(evaluate.load(MODULE, name))
    inputs = {
        "samples": tokenize(SAMPLES),
        "references": tokenize(REFERENCES),
        "train": tokenize(TRAIN),
        "sample_texts": SAMPLES,
        "reference_texts": REFERENCES,
        "sample_features": lengths(SAMPLES),
        "reference_features": lengths(REFERENCES),
        "accepts": lambda text: "a" in text,
        "sample_nlls": word_counts(SAMPLES),
        "seed": 0,
    }
    expected = METRICS[name](**{key: inputs[key] for key in METRICS[name].inputs})
    values, intervals = plain(expected)
    assert found.pop("intervals", {}) == intervals
    assert found == pytest.approx(values, nan_ok=True) and found


@pytest.mark.parametrize("name", [*METRICS, *LIKELIHOODS])
def test_module_documents_its_metric(name):
    module = evaluate.load(MODULE, name)
    assert module.name == name and len(module.description) > 60
    assert module.citation.startswith("@") or name in ("copy_rate", "length", "judge_lm")
    for given in NEEDS.get(name, ()):
        assert f"(`{given}`)" in module.inputs_description and f"(`{given}`)" in module.compute.__doc__


@pytest.mark.parametrize("name", [None, "blue"])
def test_an_unknown_metric_is_refused(name):
    with pytest.raises(UserError, match=f"metric '{name or 'default'}': expected one of .*nll_test.*, bleu, "):
        evaluate.load(MODULE, name)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """An oracle and a generator in folders, and texts of both."""
    folder = tmp_path_factory.mktemp("synthetic")
    oracle = build_oracle(vocab_size=7, embedding_size=4, hidden_size=4, seed=0)
    torch.manual_seed(1)
    generator = RNNGeneratorForCausalLM(RNNGeneratorConfig(vocab_size=7, embedding_size=4, hidden_size=4)).eval()
    samples = {"real": draw(oracle, 40, 6, seed=1), "learnt": draw(oracle, 30, 6, seed=2)}
    samples["fake"] = sample(generator, start_prompt(generator, 50), 6, rng=torch.Generator().manual_seed(3))
    tokenizer = integer_tokenizer(7)
    for name, model in (("oracle", oracle), ("generator", generator)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    texts = {name: decode(rows, tokenizer) for name, rows in samples.items()}
    return folder, oracle, generator, samples, texts


def compute_likelihood(name, synthetic, without=()):
    folder, _, _, _, texts = synthetic
    given = {
        "predictions": texts["fake"],
        "references": texts["real"],
        "train": texts["learnt"],
        "model": str(folder / "generator"),
        "oracle": str(folder / "oracle"),
    }
    kept = {key: value for key, value in given.items() if key in NEEDS[name] and key not in without}
    return evaluate.load(MODULE, name).compute(**kept)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihood_module_equals_the_plain_function(name, synthetic):
    _, oracle, generator, samples, _ = synthetic
    expected = {
        "nll_test": lambda: nll(generator, samples["real"], "test"),
        "calibration": lambda: calibration(generator, samples["real"]),
        "nll_gen": lambda: nll(generator, samples["learnt"], "gen"),
        "nll_div": lambda: nll(generator, samples["fake"], "div"),
        "nll_oracle": lambda: nll(oracle, samples["fake"], "oracle"),
        "oracle_divergence": lambda: divergences(generator, oracle, samples["fake"], samples["real"]),
    }[name]()
    found = compute_likelihood(name, synthetic)
    values, intervals = plain(expected)
    for key, interval in found.pop("intervals").items():
        assert interval == pytest.approx(intervals.pop(key), rel=1e-5, abs=1e-6)
    assert found == pytest.approx(values, rel=1e-5, abs=1e-6) and not intervals


@pytest.mark.parametrize(("name", "missing"), [(n, m) for n, needed in NEEDS.items() for m in sorted(needed)])
def test_a_likelihood_without_an_input_names_it(name, missing, synthetic):
    message = "add" if missing == "predictions" else rf"Metric '{name}' needs .*\(`{missing}`\)\. Give it to `compute`"
    with pytest.raises(ValueError, match=message):  # without predictions, the message of `evaluate` itself
        compute_likelihood(name, synthetic, without=[missing])


def test_divergence_of_other_vocabularies_is_refused(synthetic):
    folder, _, _, _, texts = synthetic
    words = build_tokenizer(TokenizerConfig(level="word"), lambda: [texts["real"]])
    other = LoadedGenerator("other", build_oracle(len(words), 4, 4, seed=0), words)
    module = evaluate.load(MODULE, "oracle_divergence")
    with pytest.raises(UserError, match="read the same text as different tokens: expected one vocabulary"):
        module.compute(
            predictions=texts["fake"], references=texts["real"], model=str(folder / "generator"), oracle=other
        )


def test_likelihoods_of_a_generator_that_continues_prompts_are_those_of_continuations(generator):
    model = copy.deepcopy(generator.model)
    model.config.conditional = True
    prompted, nll_test = replace(generator, model=model), evaluate.load(MODULE, "nll_test")
    with pytest.raises(UserError, match="tiny without prompts, which it was trained to continue"):
        nll_test.compute(references=["a boy", "the man"], model=prompted)
    found = nll_test.compute(references=["a boy", "the man"], prompts=["the red kite", ""], model=prompted)
    held_out = encode_texts(generator, ["a boy", "the man"], ["the red kite", ""])
    assert found["nll_test"] == nll(model, held_out, "test")["nll_test"].value


def test_likelihoods_can_be_combined_with_text_metrics(synthetic):
    folder, _, _, _, texts = synthetic
    combined = evaluate.combine([evaluate.load(MODULE, name) for name in ("bleu", "nll_test", "nll_oracle")])
    result = combined.compute(
        predictions=texts["fake"],
        references=texts["real"],
        model=str(folder / "generator"),
        oracle=str(folder / "oracle"),
    )
    assert {"bleu_2", "nll_test", "nll_oracle"} <= result.keys()
    assert result["nll_oracle"] == compute_likelihood("nll_oracle", synthetic)["nll_oracle"]


def test_modules_can_be_combined():
    combined = evaluate.combine([evaluate.load(MODULE, name) for name in ("bleu", "self_bleu", "copy_rate")])
    result = combined.compute(predictions=SAMPLES, references=REFERENCES, train=TRAIN)
    alone = evaluate.load(MODULE, "bleu").compute(predictions=SAMPLES, references=REFERENCES)
    assert result["bleu_2"] == alone["bleu_2"]
    assert {"bleu_5", "self_bleu_2", "copy_rate"} <= result.keys()


def test_predictions_can_be_added_batch_by_batch():
    module = evaluate.load(MODULE, "self_bleu")
    whole = module.compute(predictions=SAMPLES)
    module.add_batch(predictions=SAMPLES[:2])
    module.add_batch(predictions=SAMPLES[2:])
    assert module.compute() == whole


def test_references_need_not_be_as_many_as_predictions():
    module = evaluate.load(MODULE, "bleu")
    one = module.compute(predictions=SAMPLES, references=REFERENCES[:1])["bleu_2"]
    assert 0 < one == module.compute(predictions=SAMPLES, references=REFERENCES[:1] * 9)["bleu_2"]
    assert one < module.compute(predictions=SAMPLES, references=REFERENCES * 2)["bleu_2"]


def test_tokenization_is_the_callers_choice():
    module = evaluate.load(MODULE, "length")
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
    module = evaluate.load(MODULE, name)
    with pytest.raises(UserError, match=rf"Metric '{name}' needs .*\(`{message}`\)\. Give it"):
        module.compute(predictions=SAMPLES)


def test_modules_load_without_network(monkeypatch):
    def refuse(*arguments):
        raise ConnectionRefusedError(111, "Connection refused")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    assert evaluate.load(MODULE, "distinct").compute(predictions=["a a"])["distinct_1"] == 0.5
