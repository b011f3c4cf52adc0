"""The suite, from texts, files and generators to reports; the evaluator in training; the comparison of runs."""

import csv
import json
import math
import random
import sys
from pathlib import Path

import jsonargparse
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from seqgan_hf.commands.recipe import load_evaluation
from seqgan_hf.evaluation import catalog
from seqgan_hf.evaluation.catalog import METRICS, Measurement, Texts, TextSettings, get_metric
from seqgan_hf.evaluation.encoders import load_encoder
from seqgan_hf.evaluation.loading import LoadedGenerator, draw_samples, encode_texts, tempered
from seqgan_hf.evaluation.run import EvaluationArguments, run_evaluation
from seqgan_hf.evaluation.suite import evaluate_texts, measure_with_intervals, real_text_row
from seqgan_hf.evaluation.text import TextEvaluator, decode
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.models.modeling_rnn_generator import RNNGeneratorConfig, RNNGeneratorForCausalLM
from seqgan_hf.runs.comparison import compare_runs
from seqgan_hf.samples import Samples


SUBJECTS = "the man|a woman|two dogs|a small cat|the old horse|a boy|some people|the bird".split("|")
VERBS = "rides|sees|follows|likes|paints|finds|carries|leaves".split("|")
OBJECTS = "a red ball|the wave|a big bike|an apple|the blue car|a kite|some bread|the river".split("|")
PLACES = "in the park|on the street|near a house|at the beach|by the tree|".split("|")


def sentences(seed, number):
    """Real text of a small language; different seeds give different sentences of the same language."""
    source = random.Random(seed)
    return [" ".join(map(source.choice, (SUBJECTS, VERBS, OBJECTS, PLACES))).strip() + " ." for _ in range(number)]


TRAIN, REFERENCES = sentences(0, 800), sentences(1, 800)
WORDS = sorted({word for text in TRAIN for word in text.split()})
SAMPLERS = {
    "real": sentences(2, 800),
    "untrained": [" ".join(random.Random(seed).choices(WORDS, k=8)) for seed in range(800)],
    "collapsed": [TRAIN[0]] * 800,
    "copying": random.Random(0).choices(TRAIN, k=800),
}


def encoder(texts):
    """Bags of words: an encoder that needs no download."""
    return np.array([[text.split().count(word) for word in WORDS] for text in texts], dtype=float)


@pytest.fixture(scope="module")
def evaluations():
    settings = TextSettings(encoder=encoder, accepts=lambda text: text.endswith("."))
    metrics = [name for name in METRICS if name != "mauve"]
    return {name: evaluate_texts(samples, REFERENCES, TRAIN, metrics, settings) for name, samples in SAMPLERS.items()}


# --- What the metrics see --------------------------------------------------------------------------------------------

RANKS = [  # metric, samplers from the least to the greatest value
    ("bleu_3", ["untrained", "real"]),
    ("self_bleu_3", ["untrained", "real", "collapsed"]),
    ("distinct_2", ["collapsed", "real", "untrained"]),
    ("ms_jaccard_3", ["untrained", "real"]),
    ("ms_jaccard_3", ["collapsed", "real"]),
    ("copy_rate", ["untrained", "real", "copying"]),
    ("lm_score", ["copying", "real", "untrained"]),
    ("reverse_lm_score", ["real", "untrained"]),
    ("reverse_lm_score", ["real", "collapsed"]),
    ("fed", ["real", "untrained"]),
    ("fed", ["real", "collapsed"]),
    ("judge_accuracy", ["real", "untrained"]),
    ("judge_accuracy", ["real", "collapsed"]),
    ("grammar_acceptance", ["untrained", "real"]),
]


@pytest.mark.parametrize(("metric", "order"), RANKS, ids=[f"{m}-{'<'.join(o)}" for m, o in RANKS])
def test_samplers_rank_as_they_should(evaluations, metric, order):
    results = [evaluations[name].results[metric] for name in order]
    for lower, higher in zip(results, results[1:], strict=False):
        assert lower.value < higher.value
        if None not in (lower.high, higher.low):
            assert lower.high < higher.low


def test_real_samples_raise_no_flag(evaluations):
    assert evaluations["real"].flags == []


@pytest.mark.parametrize(
    ("sampler", "words"),
    [("untrained", "not fluent"), ("collapsed", "lack of diversity"), ("copying", "copying")],
)
def test_each_failure_is_flagged(evaluations, sampler, words):
    assert any(words in flag for flag in evaluations[sampler].flags)


def test_bleu_above_real_text_is_flagged_as_mode_seeking():
    text = max(REFERENCES, key=lambda text: (REFERENCES.count(text), text))
    evaluation = evaluate_texts([text] * 100, REFERENCES, TRAIN, ["bleu"])
    assert evaluation.results["bleu_5"].value > evaluation.results["bleu_5"].real
    assert any("bleu_5" in flag and "mode seeking" in flag for flag in evaluation.flags)


# --- Real text, intervals, signatures --------------------------------------------------------------------------------


def measurement(samples, references=REFERENCES, train=TRAIN, **settings):
    settings = TextSettings(**settings)
    sets = [Texts(texts, settings) if texts is not None else None for texts in (samples, references, train)]
    return Measurement(*sets, settings)


def test_real_row_of_a_comparison_is_training_text_against_references():
    measured = measurement(SAMPLERS["untrained"])
    assert real_text_row("bleu", measured) == measure_with_intervals("bleu", measurement(TRAIN))


def test_real_row_of_samples_alone_is_that_of_the_references():
    measured = measurement(SAMPLERS["untrained"])
    for name in ("self_bleu", "copy_rate", "lm_score"):
        assert real_text_row(name, measured) == measure_with_intervals(name, measurement(REFERENCES))


def test_real_row_has_as_many_texts_as_there_are_samples():
    few, all_of_them = (real_text_row("distinct", measurement(SAMPLERS["real"][:size])) for size in (50, 800))
    assert few["unique_ngrams_3"][0] < all_of_them["unique_ngrams_3"][0]
    assert few["distinct_2"][0] > 0.2 > all_of_them["distinct_2"][0]  # 800 texts hardly have new bigrams


def test_real_row_without_training_text_leaves_each_reference_out():
    measured = measurement(SAMPLERS["untrained"], train=None)
    row, alone = real_text_row("bleu", measured), measurement(REFERENCES).measure("self_bleu")
    assert {n: row[f"bleu_{n}"][0] for n in (2, 5)} == {n: alone[f"self_bleu_{n}"] for n in (2, 5)}
    assert 0.8 < real_text_row("ms_jaccard", measured)["ms_jaccard_2"][0] < 0.99  # two halves of the references


def test_every_value_has_a_signature_and_nearly_every_one_an_interval(evaluations):
    for name, result in evaluations["untrained"].results.items():
        assert "seed:0" in result.signature and "version:" in result.signature
        assert result.real is not None
        if result.low is None:  # facts about the set at hand, and what leaving samples out does not move (all differ)
            assert name.startswith(("length_", "unique_", "distinct_", "judge_p")) or result.value in (0, 1), name
        else:
            assert result.low <= result.value <= result.high, name


def test_signature_names_the_settings():
    evaluation = evaluate_texts(["a b c"] * 3, ["a b", "c"], None, ["bleu"], TextSettings("treebank", True, seed=7))
    assert evaluation.results["bleu_3"].signature == (
        "samples:3|references:2|tokenization:treebank|case:lower|n:3|smoothing:method1|brevity:closest|seed:7|version:1"
    )


# --- Bad and odd input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], REFERENCES), "0 samples"),
        ((["a"], None, None, ["bleu"]), "metric 'bleu' without real held-out texts"),
        ((["a"], REFERENCES, None, ["lm_score"]), "metric 'lm_score' without the training texts"),
        ((["a"], REFERENCES, None, ["blue"]), "metric 'blue': expected one of bleu"),
        ((["a"], REFERENCES, None, ["fed"]), "metric 'fed' without a sentence encoder"),
        ((["a"], REFERENCES, None, ["self_bleu"]), "1 sample -> Self-BLEU"),
        ((["a"], REFERENCES, None, ["json.dumps"]), "metric 'json.dumps' with the parameters obj"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(arguments, message):
    with pytest.raises(ValueError, match=message + ".*->"):
        evaluate_texts(*arguments)


def test_one_sample_is_measured_and_what_cannot_be_is_said():
    evaluation = evaluate_texts(["a man ."], REFERENCES, TRAIN)
    assert "bleu_2" in evaluation.results and "self_bleu_2" not in evaluation.results
    assert any("self_bleu" in note and "2 texts or more" in note for note in evaluation.notes)
    assert evaluation.results["bleu_2"].low is None
    json.dumps(evaluation.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    "samples",
    [["", "", ""], ["a", "b", "c"], ["é ü", "é ü"], ["白 日 依 山 尽"] * 5],
    ids=["empty", "one_word", "unicode", "chinese"],
)
def test_odd_texts_are_measured(samples):
    evaluation = evaluate_texts(samples, [*samples, "a b"], samples)
    json.dumps(evaluation.to_json(), allow_nan=False)
    assert {"bleu_5", "self_bleu_5", "lm_score", "copy_rate"} <= evaluation.results.keys()


def test_repeated_lines_are_noted():
    evaluation = evaluate_texts(["a b", "a b", "c d"], ["a b", "c", "c"], ["a b"], ["bleu"])
    assert "1 of 3 samples repeat an earlier one" in evaluation.notes
    assert "1 of 3 references repeat an earlier one" in evaluation.notes
    assert any("1 different texts stand both" in note for note in evaluation.notes)


# --- Metrics of one's own --------------------------------------------------------------------------------------------


def ends_in_full_stop(sample_texts):
    return {"full_stop": sum(text.endswith(".") for text in sample_texts) / len(sample_texts)}


def test_a_metric_of_ones_own_by_dotted_path(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_metrics", sys.modules[__name__])
    evaluation = evaluate_texts(SAMPLERS["real"], REFERENCES, None, ["my_metrics.ends_in_full_stop"])
    assert evaluation.results["full_stop"].value == 1.0
    assert "function:my_metrics.ends_in_full_stop" in evaluation.results["full_stop"].signature


def test_every_metric_asks_for_known_inputs():
    for name in METRICS:
        assert get_metric(name).inputs and set(get_metric(name).inputs) <= set(catalog.INPUTS)


# --- Files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    for name, texts in (("samples", SAMPLERS["copying"][:100]), ("references", REFERENCES), ("train", TRAIN)):
        (tmp_path / f"{name}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return tmp_path


def test_files_to_report(files):
    arguments = EvaluationArguments(
        samples=str(files / "samples.txt"),
        references=str(files / "references.txt"),
        train=str(files / "train.txt"),
        output=str(files / "out"),
    )
    found = run_evaluation(arguments)
    record = json.loads((files / "out" / "metrics.json").read_text())
    assert record == found
    assert {"bleu_2", "self_bleu_5", "distinct_3"} <= record.keys()
    assert record["real_text"]["bleu_2"] and record["intervals"]["self_bleu_5"][0] < record["self_bleu_5"]
    assert record["settings"]["tokenization"] == "white_space"
    page = (files / "out" / "report.md").read_text()
    assert "| bleu_2 |" in page and "copying" in page and "bleu_2|samples:100|references:800" in page
    for picture in ("quality_diversity.png", "lengths.png"):
        assert (files / "out" / picture).stat().st_size > 5000 and picture in page


def test_files_are_read_as_they_are(files):
    (files / "samples.txt").write_bytes("\ufeffa man .\r\n\r\nb\u2028c\r\n".encode())
    (files / "references.txt").write_text("a man .\n\n\nb\n")
    arguments = EvaluationArguments(
        samples=str(files / "samples.txt"), references=str(files / "references.txt"), output=str(files / "out")
    )
    found = run_evaluation(arguments)
    assert found["length_mean"] == (3 + 0 + 2) / 3  # an empty sample is a sample
    assert "2 empty lines of references were left out" in found["notes"]


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\xff\xfe\xfa"])
def test_unreadable_references_are_refused(files, content):
    path = files / "broken.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="references=.*broken.txt.*-> expected"):
        run_evaluation(EvaluationArguments(samples=str(files / "samples.txt"), references=str(path)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither of samples and model"),
        ({"samples": "a", "model": ["b"]}, "both of samples and model"),
        ({"samples": "a", "temperatures": [0.5]}, "samples with oracle, temperatures"),
        ({"model": ["a"]}, "nothing real to compare with"),
        ({"samples": "a", "train": "b"}, "nothing real to compare with"),
        ({"model": ["a"], "references": "b", "temperatures": [0.0]}, r"temperatures=\[0.0\]"),
        ({"model": ["a"], "references": "b", "temperatures": [1.0, 1.0]}, r"temperatures=\[1.0, 1.0\]"),
        ({"model": ["a"], "references": "b", "temperatures": [math.inf]}, r"temperatures=\[inf\]"),
        ({"model": ["a"], "references": "b", "num_samples": 0}, "num_samples=0"),
        ({"model": ["a"], "references": "b", "max_new_tokens": 0}, "max_new_tokens=0"),
        ({"samples": "a", "references": "b", "seed": -1}, "seed=-1"),
        ({"samples": "a", "references": "b", "metrics": []}, r"metrics=\[\]"),
        ({"samples": "a", "references": "b", "metrics": ["blue"]}, "metric 'blue'"),
        ({"samples": "a", "references": "b", "tokenization": "nltkk"}, "tokenization='nltkk'"),
        ({"samples": "a", "references": "b", "accepts": "no.such"}, "accepts 'no.such'"),
        ({"samples": "a", "references": "b", "encoder": "/no/such"}, "encoder='/no/such', which does not exist"),
        ({"samples": "a", "references": "b", "device": "abacus"}, "device='abacus', which cannot be used"),
    ],
)
def test_contradictory_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=".*" + message + ".*->.*->"):
        EvaluationArguments(**arguments)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--model", "a", "b", "--seed", "1"], ["a", "b"]),
        (["--model", "a"], ["a"]),
        (["--model=a"], ["a"]),
        (["--model", "[a, b]"], ["a", "b"]),
    ],
)
def test_models_are_named_as_on_any_command_line(given, expected):
    settings = load_evaluation([*given, "--references", "r", "--temperatures", "0.7,0.8", "--metrics", "bleu,length"])
    assert settings.model == expected
    assert settings.temperatures == [0.7, 0.8] and settings.metrics == ["bleu", "length"]
    assert load_evaluation(["--model", "a", "--oracle", "o", "--temperatures=0.7", "1.1"]).temperatures == [0.7, 1.1]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("train", [None, 1, 3])
def test_few_real_texts_give_no_row_but_all_the_rest(size, train):
    evaluation = evaluate_texts(REFERENCES[10:70], REFERENCES[:size], TRAIN[:train] if train else None)
    assert "bleu_2" in evaluation.results and evaluation.results["self_bleu_2"].value > 0
    if size == 1:
        assert evaluation.results["self_bleu_2"].real is None
        assert any("no row of real text for self_bleu: too few" in note for note in evaluation.notes)


def test_an_output_that_is_a_file_is_refused_before_any_work(files):
    taken = str(files / "samples.txt")
    with pytest.raises(ValueError, match="output=.*samples.txt.*: expected a folder. Name another"):
        run_evaluation(EvaluationArguments(samples=taken, references=taken, output=taken))


def test_an_interval_ends_where_values_end_and_is_none_where_nothing_moves():
    evaluation = evaluate_texts(TRAIN[:60], REFERENCES[:60], None, ["ms_jaccard", "distinct"])
    assert all(0 <= r.low <= r.high <= 1 for n, r in evaluation.results.items() if n.startswith("ms_jaccard"))
    different = evaluate_texts([f"w{i} v{i}" for i in range(60)], None, None, ["distinct"])
    assert different.results["distinct_1"].value == 1 and different.results["distinct_1"].low is None


def test_one_string_is_no_list_of_texts():
    with pytest.raises(TypeError, match="the text 'a man rides': expected a list of texts -> "):
        evaluate_texts("a man rides", REFERENCES)


def test_texts_may_come_as_an_array():
    expected = evaluate_texts(SAMPLERS["real"][:50], REFERENCES, None, ["bleu"]).results["bleu_2"].value
    arrays = [np.array(texts) for texts in (SAMPLERS["real"][:50], REFERENCES)]
    assert evaluate_texts(*arrays, None, ["bleu"]).results["bleu_2"].value == expected


# --- Generators ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generator():
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    torch.manual_seed(0)
    config = RNNGeneratorConfig(
        vocab_size=len(vocabulary), pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=1.0
    )
    return LoadedGenerator("tiny", RNNGeneratorForCausalLM(config).eval(), wrapped)


@pytest.fixture(scope="module")
def model_path(generator, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tiny" / "generator"
    generator.model.save_pretrained(path)
    generator.tokenizer.save_pretrained(path)
    return path.parent


def test_samples_of_a_generator_depend_on_nothing_but_the_seed(generator):
    first, again, other = (draw_samples(generator, 20, 12, 0.8, seed)[1] for seed in (0, 0, 1))
    assert first == again != other
    assert not any("<eos>" in text or "<pad>" in text for text in first)


def test_real_texts_are_encoded_as_the_generator_writes(generator):
    samples = encode_texts(generator, ["the man rides", "a boy"])
    assert samples.prompt.tolist() == [[1], [1]]
    assert samples.lengths.tolist() == [4, 3]
    assert samples.ids[1].tolist() == [*generator.tokenizer.convert_tokens_to_ids(["a", "boy"]), 2, 0]


def test_tempered_likelihoods_are_those_of_scaled_logits(generator):
    samples = encode_texts(generator, REFERENCES[:5])
    with torch.no_grad():
        logits = generator.model(input_ids=samples.sequences[:, :-1]).logits / 0.7
        expected = logits.log_softmax(-1).gather(2, samples.ids[..., None])[..., 0] * samples.mask
        with tempered(generator.model, 0.7):
            found = token_logprobs(generator.model, samples)
        after = token_logprobs(generator.model, samples)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (after - found).abs().max() > 0.01  # the temperature is gone again


def test_model_to_report(model_path, files):
    found = run_evaluation(
        EvaluationArguments(
            model=[str(model_path)],
            references=str(files / "references.txt"),
            train=str(files / "train.txt"),
            num_samples=60,
            output=str(files / "out"),
        )
    )
    assert {"nll_test", "nll_gen", "nll_div", "nll_test_sequence", "bleu_2", "lm_score"} <= found.keys()
    assert "temperature:1" in found["signatures"]["bleu_2"] and "samples:60" in found["signatures"]["nll_test"]
    assert found["intervals"]["nll_test"][0] < found["nll_test"] < found["intervals"]["nll_test"][1]
    assert "# Evaluation of tiny\n" in (files / "out" / "report.md").read_text()


def test_sweep_of_two_generators(model_path, files, generator):
    other = files / "other"
    generator.model.save_pretrained(other)
    generator.tokenizer.save_pretrained(other)
    found = run_evaluation(
        EvaluationArguments(
            model=[str(model_path), str(other)],
            references=str(files / "references.txt"),
            train=str(files / "train.txt"),
            num_samples=60,
            temperatures=[0.5, 1.5],
            output=str(files / "out"),
        )
    )
    points = found["points"]
    named = [(p["model"], p["temperature"]) for p in points]
    assert named == [("tiny", 0.5), ("tiny", 1.5), ("other", 0.5), ("other", 1.5)]
    assert points[0]["distinct_2"] < points[1]["distinct_2"] and points[0]["nll_div"] < points[1]["nll_div"]
    assert points[0]["nll_test"] != points[1]["nll_test"]  # under the tempered model
    with (files / "out" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["tiny", "tiny", "other", "other", "real text"]
    assert float(rows[1]["self_bleu_4"]) == points[1]["self_bleu_4"]
    assert rows[4]["bleu_4"] == str(points[0]["real_text"]["bleu_4"])
    assert (files / "out" / "sweep.png").stat().st_size > 5000
    assert (files / "out" / "tiny_temperature_0.5" / "report.md").exists()


def test_sweep_without_training_text_measures_what_it_can(model_path, files):
    found = run_evaluation(
        EvaluationArguments(
            model=[str(model_path)],
            references=str(files / "references.txt"),
            num_samples=45,
            temperatures=[0.5, 1.0],
            output=str(files / "out"),
        )
    )
    assert {"bleu_2", "reverse_lm_score"} <= found["points"][0].keys() and "lm_score" not in found["points"][0]


def test_oracle_gives_references_and_divergences(model_path, files):
    found = run_evaluation(
        EvaluationArguments(
            model=[str(model_path)],
            oracle=str(model_path / "generator"),
            num_samples=200,
            max_new_tokens=10,
            metrics=["self_bleu"],
            output=str(files / "out"),
        )
    )
    low, high = found["intervals"]["nll_oracle"]
    assert low - 0.2 < found["real_text"]["nll_oracle"] < high + 0.2  # the generator is the oracle
    assert found["real_text"]["nll_oracle"] != found["nll_oracle"]  # held-out text is not the samples
    assert found["jsd_oracle"] == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match="oracle without max_new_tokens.*->"):
        run_evaluation(EvaluationArguments(model=[str(model_path)], oracle=str(model_path / "generator")))


# --- In training -----------------------------------------------------------------------------------------------------


def test_text_evaluator_measures_decoded_samples(generator):
    samples, texts = draw_samples(generator, 40, 12, 1.0, 0)
    evaluator = TextEvaluator(generator.tokenizer, REFERENCES, TRAIN, ["bleu", "copy_rate", "distinct"])
    found = evaluator.evaluate(generator.model, samples)
    expected = measurement(texts)
    assert found == expected.measure("bleu") | expected.measure("copy_rate") | expected.measure("distinct")


def test_text_after_the_end_is_not_read(generator):
    ids = torch.tensor([[5, 6, 7], [5, 2, 7]])
    samples = Samples(torch.ones(2, 1, dtype=torch.long), ids, torch.tensor([[True, True, True], [True, True, False]]))
    words = generator.tokenizer.convert_ids_to_tokens([5, 6, 7])
    assert decode(generator.tokenizer, samples) == [" ".join(words), words[0]]


@pytest.mark.parametrize(
    ("metrics", "message"), [(["copy_rate"], "without the training texts"), (["blue"], "expected one of")]
)
def test_text_evaluator_refuses_before_training(generator, metrics, message):
    with pytest.raises(ValueError, match=message):
        TextEvaluator(generator.tokenizer, REFERENCES, None, metrics)


def test_text_evaluator_from_a_corpus(generator):
    class Rows:
        eval = {"input_ids": [[5, 6, 2], [7, 2]]}
        train = {"input_ids": [[5, 2]]}
        tokenizer = generator.tokenizer

    evaluator = TextEvaluator.from_corpus(Rows, ["bleu", "copy_rate"])
    words = generator.tokenizer.convert_ids_to_tokens([5, 6, 7])
    assert evaluator.references.texts == [f"{words[0]} {words[1]}", words[2]]
    assert evaluator.train.texts == [words[0]]


# --- Encoders --------------------------------------------------------------------------------------------------------


def test_mean_pooling_encoder_counts_tokens_and_no_padding(tmp_path, generator):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = BertModel(config).eval()
    model.save_pretrained(tmp_path)
    generator.tokenizer.save_pretrained(tmp_path)
    texts = ["the man rides", "", "a boy", "two dogs likes the river"]
    found = load_encoder(str(tmp_path), batch_size=2)(texts)
    assert found.shape == (4, 16) and not found[1].any()
    for text, row in zip(texts, found, strict=True):
        if text:
            ids = torch.tensor([generator.tokenizer(text)["input_ids"]])
            with torch.no_grad():
                expected = model(ids).last_hidden_state.mean(dim=1)[0]
            np.testing.assert_allclose(row, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("module", "call", "extra"),
    [
        ("sentence_transformers", lambda: load_encoder("sentence-transformers/any"), "embeddings"),
        ("mauve", lambda: METRICS["mauve"].function(np.zeros((9, 2)), np.zeros((9, 2))), "mauve"),
        ("nltk.tokenize", lambda: TextMetricTokens(), "evaluation"),
    ],
)
def test_missing_libraries_are_named_with_the_line_to_type(monkeypatch, module, call, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'pip install "seqgan-hf\[{extra}\]"'):
        call()


def TextMetricTokens():
    return Texts(["a"], TextSettings("treebank")).tokens


def test_mauve_of_equal_and_of_distant_texts():
    pytest.importorskip("mauve")
    source = np.random.default_rng(0)
    near, same, far = source.normal(size=(400, 4)), source.normal(size=(400, 4)), source.normal(size=(400, 4)) + 5
    mauve = METRICS["mauve"].function
    assert mauve(near, same)["mauve"] > 0.8 > 0.1 > mauve(near, far)["mauve"]


# --- Runs ------------------------------------------------------------------------------------------------------------


def write_run(folder, final, seed=None, objective="seqgan"):
    folder.mkdir()
    lines = [
        {"step": e, "phase": "pretrain_generator", "epoch": e, "round": 0, "nll_oracle": 10 - e} for e in (0, 1, 2)
    ]
    lines += [{"step": 3, "phase": "pretrain_discriminator", "epoch": 1, "round": 0, "nll_oracle": 8.5}]
    lines += [
        {
            "step": 3 + r,
            "phase": "adversarial",
            "epoch": 0,
            "round": r,
            "nll_oracle": final + 1 - r,
            "nll_oracle_se": 0.1,
        }
        for r in (0, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if seed is not None:
        recipe = f"objective: {objective}\ntraining:\n  seed: {seed}\n  output_dir: {folder}\n"
        (folder / "recipe.yaml").write_text(recipe)
    return str(folder)


def test_runs_of_one_recipe_are_one_experiment(tmp_path):
    runs = [write_run(tmp_path / f"seqgan-{seed}", 8.0 + seed, seed) for seed in (0, 1, 2)]
    runs.append(write_run(tmp_path / "mle", 9.0, 0, "mle"))
    comparison = compare_runs(runs, ["nll_oracle"], output=str(tmp_path / "out"))
    assert comparison.rows["seqgan"] == (["seqgan-0", "seqgan-1", "seqgan-2"], {"nll_oracle": (9.0, 1.0, 3)})
    assert comparison.rows["mle"] == (["mle"], {"nll_oracle": (9.0, None, 1)})
    assert "| seqgan | 3 | 9.000 ± 1.000 (3) |" in str(comparison)
    assert "| seqgan | 3 |" in (tmp_path / "out" / "comparison.md").read_text()
    with (tmp_path / "out" / "comparison.csv").open() as file:
        assert next(csv.DictReader(file)) == {
            "experiment": "seqgan",
            "runs": "3",
            "nll_oracle": "9.0",
            "nll_oracle_sd": "1.0",
        }
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 5000


def test_curves_go_from_pretraining_into_rounds(tmp_path):
    run = compare_runs([write_run(tmp_path / "a", 7.0)], ["nll_oracle"]).runs[0]
    assert run.curve("nll_oracle") == ([0, 1, 2, 2, 3], [10, 9, 8, 8.0, 7.0])


def test_runs_without_recipes_are_grouped_by_name(tmp_path):
    runs = [write_run(tmp_path / name, 8.0) for name in ("rank_seed1", "rank_seed2", "mali")]
    assert {name: len(members) for name, (members, _) in compare_runs(runs).rows.items()} == {"rank": 2, "mali": 1}
    assert compare_runs(runs).metrics[0] == "nll_oracle" and "nll_oracle_se" not in compare_runs(runs).metrics


def test_different_recipes_with_one_name_stay_apart(tmp_path):
    for parent in ("x", "y"):
        (tmp_path / parent).mkdir()
    runs = [write_run(tmp_path / "x" / "run", 8.0, 0, "a"), write_run(tmp_path / "y" / "run", 9.0, 0, "b")]
    assert len(compare_runs(runs).rows) == 2


@pytest.mark.parametrize("content", [None, "", "{]\n", "3\n"])
def test_unreadable_runs_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(ValueError, match="metrics.jsonl.*-> expected"):
        compare_runs([str(tmp_path)])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"- training\n- 3\n", "holds a list"),
        (b"", "is empty"),
        (b"a: [", "no YAML"),
        (b"\xff\xfe", "no YAML"),
        (b"2020-13-45", "no YAML"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path, content, reason):
    run = write_run(tmp_path / "a", 7.0)
    (tmp_path / "a" / "recipe.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=f"'.*recipe.yaml', which .*{reason}.*: expected a recipe"):
        compare_runs([run])


def test_an_unknown_metric_is_refused(tmp_path):
    with pytest.raises(ValueError, match="metric 'bleu_9': expected one that a run measured .nll_oracle"):
        compare_runs([write_run(tmp_path / "a", 7.0)], ["bleu_9"])


# --- Recipes ---------------------------------------------------------------------------------------------------------

RECIPES = sorted((Path(__file__).parents[3] / "recipes" / "evaluation").glob("*.yaml"))


def parse(*arguments):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(EvaluationArguments)
    settings = parser.parse_args(list(arguments))
    return EvaluationArguments(**{name: value for name, value in vars(settings).items() if name != "config"})


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_complete_but_for_the_files(recipe, files):
    assert recipe.read_text().startswith("# seqgan-hf evaluate recipes/evaluation/")
    arguments = parse("--config", str(recipe), "--model", '["m"]', "--references", str(files / "references.txt"))
    for name in arguments.metrics or []:
        assert get_metric(name)


def test_a_recipe_runs_from_parsed_arguments(files):
    recipe = next(path for path in RECIPES if path.stem == "bleu")
    given = [f"--{name}={files / name}.txt" for name in ("samples", "references", "train")]
    arguments = parse("--config", str(recipe), *given, f"--output={files / 'out'}")
    assert "tokenization:treebank" in run_evaluation(arguments)["signatures"]["bleu_2"]
    assert len(RECIPES) == 4


def test_a_model_that_is_not_there_is_named(files):
    arguments = EvaluationArguments(model=[str(files / "none")], references=str(files / "references.txt"))
    with pytest.raises(ValueError, match="model .*none.*: expected a run's folder.*->"):
        run_evaluation(arguments)
