"""Evaluations from files and generators to reports, and the settings of the command."""

import copy
import csv
import gzip
import json
import math
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import datasets
import jsonargparse
import pandas as pd
import pytest

from seqgan_hf.data import TextData
from seqgan_hf.data.oracle import draw
from seqgan_hf.data.tokenization import TokenizerConfig, build_tokenizer
from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.arguments import EvaluationArguments, SuiteSettings
from seqgan_hf.evaluation.catalog import get_metric
from seqgan_hf.evaluation.likelihood import nll_test
from seqgan_hf.evaluation.loading import draw_samples, encode_texts
from seqgan_hf.evaluation.run import evaluate_generator, run_evaluation, write_evaluation
from seqgan_hf.models.modeling_rnn_generator import RNNGeneratorConfig, RNNGeneratorForCausalLM
from tests.tools.small_language import REFERENCES, TRAIN


# --- Files -----------------------------------------------------------------------------------------------------------


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
    results = record["results"]
    assert {"bleu_2", "self_bleu_5", "distinct_3"} <= results.keys()
    real = results["bleu_3"]["real"]
    assert real["low"] < real["value"] < real["high"]
    assert results["self_bleu_5"]["low"] < results["self_bleu_5"]["value"] < results["self_bleu_5"]["high"]
    assert results["self_bleu_5"]["better"] == "real" and results["length_min"]["low"] is None
    assert record["settings"]["tokenization"] == "white_space"
    page = (files / "out" / "report.md").read_text()
    assert "| bleu_2 |" in page and "copying" in page and "bleu_2|samples:100|references:800" in page
    for picture in ("quality_diversity.png", "lengths.png"):
        assert (files / "out" / picture).exists() and f"]({picture})" in page


def test_files_are_read_as_they_are(files):
    (files / "samples.txt").write_bytes("\ufeffa man .\r\n\r\nb\u2028c\r\n".encode())
    (files / "references.txt").write_text("a man .\n\n\nb\n")
    arguments = EvaluationArguments(
        samples=str(files / "samples.txt"), references=str(files / "references.txt"), output=str(files / "out")
    )
    found = run_evaluation(arguments)
    assert found["results"]["length_mean"]["value"] == (3 + 0 + 2) / 3  # an empty sample is a sample
    assert "2 empty lines of references were left out" in found["notes"]


def lines(texts):
    return "\n".join(texts).encode()


def columns(texts, separator):
    return lines(
        [separator.join(("id", "line")), *(f"{number}{separator}{text}" for number, text in enumerate(texts))]
    )


def parquet(texts):
    file = BytesIO()
    pd.DataFrame({"id": range(len(texts)), "line": texts}).to_parquet(file)
    return file.getvalue()


KINDS = {
    "txt": lines,
    "txt.gz": lambda texts: gzip.compress(lines(texts)),
    "csv": lambda texts: columns(texts, ";"),
    "tsv.gz": lambda texts: gzip.compress(columns(texts, "\t")),
    "jsonl": lambda texts: lines([json.dumps({"line": text}) for text in texts]),
    "parquet": parquet,
}


SHORT = {"metrics": ["copy_rate", "bleu"]}


@pytest.fixture(scope="module")
def of_lines(lines_of_text, tmp_path_factory):
    """What is measured of the texts as plain files of lines."""
    named = {name: str(lines_of_text / f"{name}.txt") for name in ("samples", "references", "train")}
    return run_evaluation(EvaluationArguments(**named, **SHORT, output=str(tmp_path_factory.mktemp("out"))))["results"]


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(
    ("kind", "column"),
    [(kind, column) for kind in KINDS for column in (None, "line") if kind[:3] != "txt" or not column],
)
def test_every_kind_of_file_is_read_as_in_training(kind, column, files, of_lines, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(files / "cache"))
    for name in ("samples", "references", "train"):
        texts = (files / f"{name}.txt").read_text().splitlines()
        (files / f"{name}.{kind}").write_bytes(KINDS[kind](texts))
    named = {name: str(files / f"{name}.{kind}") for name in ("samples", "references", "train")}
    settings = SHORT | {"output": str(files / "out"), "text_column": column}
    found = run_evaluation(EvaluationArguments(**named, **settings))["results"]
    assert found == of_lines and found["copy_rate"]["value"] == 1.0
    corpus = TextData(train_file=str(files / f"train.{kind}"), text_column=column, eval_size=1).load()
    assert corpus.report["train"]["read"] == len(TRAIN)


def test_a_table_beside_lines_of_text(files):
    (files / "train.tsv").write_text("".join(f'x\t"{text}\n' for text in TRAIN))
    (files / "samples.txt").write_text("".join(f'"{text}\n' for text in TRAIN[:10]))
    arguments = {name: str(files / f"{name}.txt") for name in ("samples", "references")}
    arguments |= {"train": str(files / "train.tsv"), "output": str(files / "out"), "metrics": ["copy_rate"]}
    settings = EvaluationArguments(**arguments, header=False, text_column="column2")
    assert run_evaluation(settings)["results"]["copy_rate"]["value"] == 1.0
    with pytest.raises(UserError, match="look like data: expected names of columns|no text_column: expected one"):
        run_evaluation(EvaluationArguments(**arguments))
    arguments["train"] = str(files / "train.txt")
    with pytest.raises(UserError, match="'header': False, 'text_column': 'a'.* with .*only with tables"):
        EvaluationArguments(**arguments, header=False, text_column="a")


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\xff\xfe\xfa"])
def test_unreadable_references_are_refused(files, content):
    path = files / "broken.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="broken.txt.*: expected|has no text in it: expected"):
        run_evaluation(EvaluationArguments(samples=str(files / "samples.txt"), references=str(path)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither of samples and model"),
        ({"samples": "a", "model": ["b"]}, "both of samples and model"),
        ({"samples": "a", "temperatures": [0.5]}, "samples from a file with oracle, temperatures"),
        ({"model": ["a"]}, "nothing real to compare with"),
        ({"samples": "a", "references": "b", "prompts": "c"}, "prompts with samples from a file"),
        ({"model": ["a"], "oracle": "b", "prompts": "c"}, "prompts with an oracle"),
        ({"samples": "a", "references": "b.csv", "prompt_column": "c"}, "prompts with samples from a file"),
        ({"model": ["a"], "references": "b.txt", "prompt_column": "c"}, "'prompt_column': 'c'.* only with tables"),
        ({"model": ["a"], "references": "b", "tokenizer": "c"}, "tokenizer with `model`, which has its own"),
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
        ({"samples": "a", "references": "b", "encoder": "/no/such"}, "encoder='/no/such' does not exist"),
        ({"samples": "a", "references": "b", "device": "abacus"}, "Device 'abacus' cannot be used"),
    ],
)
def test_contradictory_arguments_are_refused(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        EvaluationArguments(**arguments)
    assert caught.value.fix


def test_an_output_that_is_a_file_is_refused_before_any_work(files):
    taken = str(files / "samples.txt")
    with pytest.raises(UserError, match="output=.*samples.txt' cannot be written .*: expected a folder."):
        run_evaluation(EvaluationArguments(samples=taken, references=taken, output=taken))


# --- Generators ------------------------------------------------------------------------------------------------------


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
    results = found["results"]
    assert {"nll_test", "nll_gen", "nll_div", "nll_test_sequence", "bleu_2", "lm_score"} <= results.keys()
    assert results["bleu_2"]["signature"].endswith("|temperature:1|max_new_tokens:12")
    assert "|samples:60|held_out:800|temperature:1|seed:0|" in results["nll_test"]["signature"]
    assert results["nll_test"]["low"] < results["nll_test"]["value"] < results["nll_test"]["high"]
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
    values = [{name: result["value"] for name, result in point["results"].items()} for point in points]
    assert values[0]["distinct_2"] < values[1]["distinct_2"] and values[0]["nll_div"] < values[1]["nll_div"]
    assert values[0]["nll_test"] != values[1]["nll_test"]  # under the tempered model
    with (files / "out" / "sweep.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "self_bleu_4"]
    assert [row["model"] for row in rows] == ["tiny", "tiny", "other", "other", "real text"]
    assert float(rows[1]["value"]) == values[1]["self_bleu_4"]
    assert float(rows[1]["low"]) == points[1]["results"]["self_bleu_4"]["low"]
    assert float(rows[4]["value"]) == points[0]["results"]["self_bleu_4"]["real"]["value"]
    assert (files / "out" / "sweep.png").exists()
    assert (files / "out" / "tiny_temperature_0.5" / "report.md").exists()


@pytest.fixture
def characters(files):
    """A generator that writes one character after another."""
    tokenizer = build_tokenizer(TokenizerConfig(level="char"), lambda: [TRAIN])
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    model = RNNGeneratorForCausalLM(RNNGeneratorConfig(vocab_size=len(tokenizer), **special))
    model.save_pretrained(files / "characters")
    tokenizer.save_pretrained(files / "characters")
    return files / "characters"


def test_texts_are_split_as_the_generator_writes_them(characters, model_path, files):
    common = {"references": str(files / "references.txt"), "num_samples": 20, "metrics": ["bleu"], "max_new_tokens": 9}
    for model, tokenization in ((characters, "character"), (model_path, "white_space")):
        found = run_evaluation(EvaluationArguments(model=[str(model)], output=str(files / "out"), **common))
        assert found["settings"]["tokenization"] == tokenization
        assert f"|tokenization:{tokenization}|" in found["results"]["bleu_2"]["signature"]
    asked = EvaluationArguments(model=[str(characters)], tokenization="treebank", output=str(files / "out"), **common)
    assert "|tokenization:treebank|" in run_evaluation(asked)["results"]["bleu_2"]["signature"]


def test_a_sweep_splits_all_texts_as_the_first_generator_does(characters, model_path, files):
    models = [str(characters), str(model_path)]
    references, output = str(files / "references.txt"), str(files / "out")
    arguments = EvaluationArguments(
        model=models, references=references, num_samples=20, metrics=["bleu"], max_new_tokens=9, output=output
    )
    found = run_evaluation(arguments)
    signatures = [point["results"]["bleu_2"]["signature"] for point in found["points"]]
    assert all("|tokenization:character|" in signature for signature in signatures)
    vocabularies = [re.findall(r"\|vocabulary:\d+", signature) for signature in signatures]
    assert vocabularies[0] != vocabularies[1]  # each is compared with the references as its own tokenizer writes them
    assert found["settings"]["tokenization"] == "character"
    with (files / "out" / "sweep.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "bleu_2"]
    assert [row["signature"] for row in rows[:2]] == signatures


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
    measured = found["points"][0]["results"].keys()
    assert {"bleu_2", "reverse_lm_score"} <= measured and "lm_score" not in measured


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
    nll, jsd = found["results"]["nll_oracle"], found["results"]["jsd_oracle"]
    assert nll["low"] - 0.2 < nll["real"]["value"] < nll["high"] + 0.2  # the generator is the oracle
    assert nll["real"]["value"] != nll["value"]  # held-out text is not the samples
    assert jsd["value"] == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(UserError, match="an oracle without max_new_tokens: expected the length of its sequences"):
        run_evaluation(EvaluationArguments(model=[str(model_path)], oracle=str(model_path / "generator")))


def test_a_generator_in_memory_is_evaluated_as_its_folder_is(generator, model_path, files):
    settings = SuiteSettings(metrics=["bleu", "copy_rate"], num_samples=45, tokenization="character")
    points = evaluate_generator(generator, settings, REFERENCES, TRAIN)
    found = write_evaluation(points, files / "memory", {"tokenization": "character"})
    assert found == json.loads((files / "memory" / "metrics.json").read_text())
    assert "# Evaluation of tiny\n" in (files / "memory" / "report.md").read_text()
    by_hand = EvaluationArguments(
        model=[str(model_path)],
        references=str(files / "references.txt"),
        train=str(files / "train.txt"),
        num_samples=45,
        metrics=["bleu", "copy_rate"],
        tokenization="character",
        output=str(files / "out"),
    )
    assert found["results"] == run_evaluation(by_hand)["results"]


def test_held_out_sequences_of_an_oracle_in_memory_are_its_references(generator):
    held_out = draw(generator.model, 50, 9, seed=3)
    settings = SuiteSettings(metrics=["length"], num_samples=20)
    [point] = evaluate_generator(generator, settings, oracle=generator.model, references=held_out)
    assert len(point.evaluation.real_texts) == 50
    assert "|held_out:50|" in point.evaluation.results["nll_oracle"].signature
    assert point.evaluation.results["nll_oracle"].real.value == point.evaluation.results["nll_test"].value
    with pytest.raises(UserError, match="nothing real to compare with"):
        evaluate_generator(generator, settings)


def test_both_sides_are_as_the_tokenizer_writes_them(generator):
    """What it never writes tells real texts from samples: here, texts of the generator stand for real ones."""
    _, written = draw_samples(generator, encode_texts(generator, ["a"]), 300, 12, 1.0, seed=7)
    references = [f"{text} zebra{number % 50}" for number, text in enumerate(written)]
    settings = SuiteSettings(metrics=["judge", "bleu"], num_samples=300, max_new_tokens=12)
    [point] = evaluate_generator(generator, settings, references, [f"{text} yak" for text in written])
    evaluation = point.evaluation
    assert all(text.endswith("<unk>") for text in evaluation.real_texts.texts)
    assert "of the references' tokens are unknown to tiny" in evaluation.notes[0]
    share = float(re.findall(r"unknown:([\d.]+)%", evaluation.results["bleu_2"].signature)[0])
    assert share > 1 and evaluation.results["nll_test"].signature.count(f"|unknown:{share:.2f}%|") == 1
    size = f"|vocabulary:{len(generator.tokenizer)}|"
    assert size in evaluation.results["bleu_2"].signature and size in evaluation.results["bleu_2"].real.signature


def test_real_texts_longer_than_the_generator_writes_are_cut(generator):
    model = copy.deepcopy(generator.model)
    model.generation_config.max_new_tokens = 3
    short = replace(generator, model=model)
    [point] = evaluate_generator(
        short, SuiteSettings(metrics=["length"]), ["the man rides a bike", "a boy"], ["a red kite ."]
    )
    assert point.evaluation.real_texts.texts == ["the man rides", "a boy"]
    notes = [note for note in point.evaluation.notes if "tokens and are cut there" in note]
    assert [note.partition(" have")[0] for note in notes] == ["1 of 2 references", "1 of 1 training texts"]
    cut = encode_texts(generator, ["the man rides", "a boy"])
    cut = cut._replace(ids=cut.ids[:, :3], mask=cut.mask[:, :3])
    assert point.evaluation.results["nll_test"].value == nll_test(model, cut)["nll_test"].value


def test_samples_of_a_file_are_compared_with_real_texts_as_their_tokenizer_writes_them(model_path, files):
    real = [f"{text} zebra{number % 50}" for number, text in enumerate(REFERENCES)]
    halves = {"samples": [text.rpartition(" ")[0] + " <unk>" for text in real[:400]], "references": real[400:]}
    for name, texts in halves.items():
        (files / f"{name}.txt").write_text("\n".join(texts) + "\n")
    given = {name: str(files / f"{name}.txt") for name in halves} | {
        "output": str(files / "out"),
        "metrics": ["judge"],
    }
    raw = run_evaluation(EvaluationArguments(**given))
    alike = run_evaluation(EvaluationArguments(**given, tokenizer=str(model_path)))
    accuracies = [found["results"]["judge_accuracy"] for found in (raw, alike)]
    assert accuracies[0]["value"] > 0.9 and accuracies[1]["low"] < 0.5 < accuracies[1]["high"] + 0.02
    assert "|vocabulary:" in accuracies[1]["signature"] and "vocabulary:" not in accuracies[0]["signature"]
    assert f"of the references' tokens are unknown to {model_path}. All are read" in alike["notes"][0]
    told = "400 samples hold <unk>, and no reference does"
    assert any(note.startswith(told) for note in raw["notes"]) and not any(
        note.startswith(told) for note in alike["notes"]
    )


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
    assert f"#   seqgan-hf evaluate evaluation/{recipe.stem} " in recipe.read_text()
    arguments = parse("--config", str(recipe), "--model", '["m"]', "--references", str(files / "references.txt"))
    for name in arguments.metrics or []:
        assert get_metric(name)


def test_a_recipe_runs_from_parsed_arguments(files):
    recipe = next(path for path in RECIPES if path.stem == "bleu")
    given = [f"--{name}={files / name}.txt" for name in ("samples", "references", "train")]
    arguments = parse("--config", str(recipe), *given, f"--output={files / 'out'}")
    assert "tokenization:treebank" in run_evaluation(arguments)["results"]["bleu_2"]["signature"]
    assert len(RECIPES) == 4


def test_a_model_that_is_not_there_is_named(files):
    arguments = EvaluationArguments(model=[str(files / "none")], references=str(files / "references.txt"))
    with pytest.raises(UserError, match="no folder '.*none': expected a run's folder"):
        run_evaluation(arguments)
