"""Sharing a run: the card, the push to a Hub, and what a stranger can do with what was pushed."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import pickle
import re
import shlex
import shutil
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import torch
import yaml
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from seqgan_hf import objectives
from seqgan_hf.commands import main
from seqgan_hf.commands.recipe import load_recipe
from seqgan_hf.data.tokenization import TokenizerConfig, build_tokenizer, integer_tokenizer
from seqgan_hf.errors import HubError, RunFolderError
from seqgan_hf.evaluation.encoders import load_encoder
from seqgan_hf.generation.verdicts import rewards
from seqgan_hf.models import RNNGeneratorForCausalLM
from seqgan_hf.runs import hub as hub_module
from seqgan_hf.runs.card import model_card, public_recipe
from seqgan_hf.runs.folder import RunFolder
from seqgan_hf.runs.hub import classifier_tokenizer, generator_files, push_run
from seqgan_hf.runs.record import read_lines
from seqgan_hf.runs.space import space_files
from seqgan_hf.samples import Samples
from seqgan_hf.training.callbacks.sharing import PushToHub
from tests.tools.fake_hub import TOKEN
from tests.tools.objectives import OBJECTIVES
from tests.tools.tiny import build_generator


ROOT = Path(__file__).parents[3]
RECIPE = {
    "data": {"class_path": "seqgan_hf.data.GrammarData", "init_args": {"num_train": 200, "num_eval": 50}},
    "generator": {"config": {"embedding_size": 16, "hidden_size": 24, "initializer": "uniform"}},
    "discriminator": {"config": {"embedding_size": 8, "filter_sizes": [1, 2, 3], "num_filters": [4, 4, 4]}},
    "objective": {"class_path": "seqgan_hf.objectives.SeqGAN", "init_args": {"rollouts": 1}},
    "evaluation": {"metrics": ["bleu", "self_bleu", "copy_rate"]},
    "training": {
        "per_device_train_batch_size": 32,
        "pretrain_epochs": 4,
        "discriminator_pretrain_steps": 2,
        "discriminator_epochs": 1,
        "discriminator_learning_rate": 0.01,
        "rounds": 1,
        "discriminator_steps": 1,
        "eval_epochs": 4,
        "eval_rounds": 1,
        "eval_samples": 40,
        "disable_tqdm": True,
        "use_cpu": True,
        "hub_license": "cc-by-4.0",
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    """A short run on the built-in grammar."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    assert main(["train", str(folder / "recipe.yaml"), "--training.output_dir", str(folder / "grammar")]) == 0
    return RunFolder(folder / "grammar")


def card_of(server, repo_id: str) -> ModelCard:
    return ModelCard(server.files(repo_id)["README.md"].decode())


# --- Push ------------------------------------------------------------------------------------------------------------


def test_push_uploads_all_that_belongs_to_a_run_in_one_commit(run, hub, capsys):
    assert main(["push", str(run.path), "someone/grammar", "--private"]) == 0
    assert capsys.readouterr().out.strip() == f"{hub.url}/someone/grammar"
    assert hub.private == {"someone/grammar": True} and len(hub.commits["someone/grammar"]) == 2
    files = hub.files("someone/grammar")
    model = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "modeling_base.py"}
    expected = {"README.md", "recipe.yaml", "metrics.jsonl", "samples.txt", "learning_curve.png"}
    imported = {"modeling_products.py", "modeling_sums.py", "modeling_threads.py"}
    classifier = {"modeling_cnn_discriminator.py"} | imported
    expected |= model | {"generation_config.json", "modeling_rnn_generator.py"} | classifier
    expected |= {f"discriminator/{name}" for name in model | classifier}
    assert set(files) == expected
    assert files["model.safetensors"] == (run.generator / "model.safetensors").read_bytes()
    assert files["metrics.jsonl"] == run.metrics.read_bytes()


def test_pushing_again_updates_and_leaves_other_files_alone(run, hub):
    push_run(run, "grammar")
    hub.files("someone/grammar")["notes.md"] = b"somebody else's"
    push_run(run, "grammar", license="mit")
    assert hub.files("someone/grammar")["notes.md"] == b"somebody else's"
    assert card_of(hub, "someone/grammar").data.license == "mit"
    assert len(hub.commits["someone/grammar"]) == 3


@pytest.mark.parametrize("place", ["repository", "none"])
def test_the_discriminator_goes_where_it_is_told(place, run, hub):
    push_run(run, "someone/grammar", discriminator=place)
    assert not any(name.startswith("discriminator/") for name in hub.files("someone/grammar"))
    text = str(card_of(hub, "someone/grammar"))
    if place == "none":
        assert set(hub.commits) == {"someone/grammar"} and "text-classification" not in text
    else:
        other = "someone/grammar-discriminator"
        assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(hub.files(other))
        assert card_of(hub, other).data.pipeline_tag == "text-classification" and f'"{other}"' in text


@pytest.mark.parametrize("first", ["subfolder", "none"])
@pytest.mark.parametrize("second", ["subfolder", "repository", "none"])
def test_a_discriminator_that_has_moved_leaves_nothing_behind(first, second, run, hub):
    push_run(run, "someone/grammar", discriminator=first)
    hub.files("someone/grammar").update({"notes.md": b"", "modeling_mine.py": b"", "discriminator.md": b""})
    push_run(run, "someone/grammar", discriminator=second)
    push_run(run, "someone/afresh", discriminator=second)
    assert set(hub.files("someone/grammar")) - set(hub.files("someone/afresh")) == {
        "notes.md",
        "modeling_mine.py",
        "discriminator.md",
    }
    assert len(hub.commits["someone/grammar"]) == 3  # in the same commit


def test_records_and_weights_of_another_run_do_not_stay(run, hub, tmp_path):
    push_run(run, "someone/grammar")
    old = {"model-00001-of-00002.safetensors": b"", "model.safetensors.index.json": b"{}", "model.md": b"mine"}
    hub.files("someone/grammar").update(old)
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    summary = copy.read_summary()
    copy.write_summary(summary | {"recipe": None, "evaluation": {}})
    (copy.generator / "learning_curve.png").unlink()
    push_run(copy, "someone/grammar")
    gone = {"recipe.yaml", "samples.txt", "learning_curve.png", *old} - {"model.md"}
    assert not gone & set(hub.files("someone/grammar")) and "model.md" in hub.files("someone/grammar")


@pytest.mark.parametrize("name", ["x" * 90, f"someone/{'x' * 90}"])
def test_both_names_are_looked_at_before_anything_is_made(name, run, hub, tmp_path):
    with pytest.raises(HubError, match="repository name '.*-discriminator': expected .* of at most 96 letters"):
        push_run(run, name, discriminator="repository")
    assert hub.requests == []
    options = ["--training.push_to_hub", "true", "--training.hub_model_id", name]
    assert train(tmp_path, *options, "--training.hub_discriminator", "repository") == 1
    assert hub.requests == [] and (tmp_path / "mine" / "metrics.jsonl").read_text() == ""


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_a_push_ends_soon(offline, monkeypatch):
    """Where nothing answers at the address, after one more attempt."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    waited = []
    monkeypatch.setattr(hub_module.time, "sleep", waited.append)
    with pytest.raises(HubError, match="The Hub cannot be reached .*unset HF_HUB_OFFLINE where it is set"):
        hub_module.open_repositories("someone/grammar", token=TOKEN)
    assert waited == ([] if offline else [1.0])


@pytest.mark.parametrize("failure", [503, 500, 429, "cut"])
@pytest.mark.parametrize("route", ["/api/repos/create", "/tree/", "/commit/"])
def test_a_passing_failure_is_tried_again(failure, route, run, hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client's own attempts
    hub.failures = [(route, failure)]
    push_run(run, "someone/grammar")
    assert not hub.failures and "model.safetensors" in hub.files("someone/grammar")


def test_an_interrupted_push_leaves_nothing_by_half_and_can_be_repeated(run, hub):
    hub.failures = [("/commit/", "cut")] * 3
    with pytest.raises(HubError, match="The Hub failed 3 times for .* push again"):
        push_run(run, "someone/grammar")
    assert hub.files("someone/grammar") == {}
    push_run(run, "someone/grammar")
    assert "model.safetensors" in hub.files("someone/grammar")


@pytest.fixture
def large_files(hub, monkeypatch):
    """The Hub stores weights apart, as the real one does, by the protocol of LFS."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client's own attempts
    hub.large_files = True
    return hub


@pytest.mark.parametrize("failure", [None, 503, "cut"])
@pytest.mark.parametrize("route", ["POST /someone/grammar.git/info/lfs/objects/batch", "PUT /store/"])
def test_weights_go_to_the_store_of_large_files_and_come_from_there(failure, route, run, large_files):
    large_files.failures = [] if failure is None else [(route, failure)]
    push_run(run, "someone/grammar")
    push_run(run, "someone/grammar")  # nothing is sent twice
    assert not large_files.failures
    sent = [path for method, path in large_files.requests if method == "PUT"]
    assert len(set(sent)) == len(large_files.stored) == 2 and len(sent) <= 2 + (failure is not None)
    model = AutoModelForCausalLM.from_pretrained("someone/grammar")
    own = AutoModelForCausalLM.from_pretrained(run.generator)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), own.parameters(), strict=True))
    assert f"/store/{sha256_of(run.generator)}" in [path for method, path in large_files.requests if method == "GET"]


def sha256_of(model: Path) -> str:
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


def test_a_store_that_refuses_is_not_asked_again(run, large_files):
    large_files.failures = [("PUT /store/", 403)] * 2
    with pytest.raises(HubError, match="status 403: expected .*hf auth login"):
        push_run(run, "someone/grammar")
    assert len([path for method, path in large_files.requests if method == "PUT"]) == 2


def test_a_store_that_stays_away_leaves_nothing_by_half(run, large_files):
    large_files.failures = [("PUT /store/", 503)] * 36  # of two files, in six attempts of the client in three of ours
    with pytest.raises(HubError, match="The Hub failed 3 times for .* push again"):
        push_run(run, "someone/grammar")
    assert not large_files.failures and large_files.files("someone/grammar") == {}
    push_run(run, "someone/grammar")
    assert "model.safetensors" in large_files.files("someone/grammar")


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("failure", ["HEAD 503", "GET 429", "GET cut"])
def test_a_download_that_fails_in_passing_is_tried_again(failure, large, run, large_files):
    large_files.large_files = large
    push_run(run, "someone/grammar")
    method, how = failure.split()
    where = f"/store/{sha256_of(run.generator)}" if large and method == "GET" else "/resolve/.*/model.safetensors"
    large_files.failures = [(f"{method} .*{where}", int(how) if how.isdigit() else how)]
    model = AutoModelForCausalLM.from_pretrained("someone/grammar")
    own = AutoModelForCausalLM.from_pretrained(run.generator)
    assert not large_files.failures
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), own.parameters(), strict=True))


@pytest.mark.parametrize("failure", ["GET 503", "HEAD cut"])
def test_a_download_that_the_client_gives_up_can_be_repeated(failure, run, large_files, capsys):
    push_run(run, "someone/grammar")
    method, how = failure.split()
    large_files.failures = [
        (f"{method} .*(/store/|/resolve/.*/model.safetensors)", int(how) if how.isdigit() else how)
    ]
    assert main(["generate", "someone/grammar", "--num_samples", "2"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert not large_files.failures and error.startswith("seqgan-hf: ") and "Unexpected" not in error
    assert main(["generate", "someone/grammar", "--num_samples", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_without_a_token_the_error_says_how_to_log_in(run, hub, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(hub_module, "get_token", lambda: None)
    assert main(["push", str(run.path), "someone/grammar"]) == 1
    error = capsys.readouterr().err
    assert "hf auth login" in error and "HF_TOKEN" in error and len(error.splitlines()) == 1
    assert hub.requests == []


def test_a_refused_token_is_not_tried_again(run, hub):
    with pytest.raises(HubError, match="status 401: expected .*hf auth login"):
        push_run(run, "someone/grammar", token="hf_wrong")
    assert [path for method, path in hub.requests if method == "POST"] == ["/api/repos/create"]


@pytest.mark.parametrize(
    "name",
    ["", "../grammar", "a/../b", "a/b/c", "/etc/passwd", "..", "a b", "grammar.git", "C:\\grammar", "a//b", "a/.."],
)
def test_names_that_are_no_repositories_are_refused(name, run, hub):
    with pytest.raises(HubError, match="the repository name .*: expected `owner/name`"):
        push_run(run, name)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discriminator": "elsewhere"}, "discriminator='elsewhere': expected one of subfolder"),
        ({"license": "do what\nyou: want"}, "license=.*: expected an identifier such as apache-2.0"),
    ],
)
def test_other_mistakes(options, message, run, hub):
    with pytest.raises(HubError, match=message):
        push_run(run, "someone/grammar", **options)
    assert hub.requests == []


def test_a_run_that_has_not_ended_is_refused(tmp_path, hub):
    RunFolder(tmp_path).metrics.write_text("", encoding="utf-8")
    with pytest.raises(RunFolderError, match="has not ended: .*. Train to the end, or resume"):
        push_run(RunFolder(tmp_path), "someone/grammar")


@pytest.mark.parametrize("kind", ["pickle", "link"])
def test_pickles_and_links_are_never_uploaded(kind, run, hub, tmp_path):
    intruder = run.generator / ("weights.bin" if kind == "pickle" else "notes.txt")
    intruder.write_bytes(b"") if kind == "pickle" else intruder.symlink_to(tmp_path / "secret")
    try:
        with pytest.raises(
            HubError, match="refusing to upload .*" + ("only .*pickles" if kind == "pickle" else "plain files")
        ):
            push_run(run, "someone/grammar")
    finally:
        intruder.unlink()
    assert hub.requests == []


# --- The card --------------------------------------------------------------------------------------------------------


def test_the_card_is_the_run_s(run, hub):
    push_run(run, "someone/grammar")
    card = card_of(hub, "someone/grammar")
    if "https://huggingface.co" not in inspect.getsource(card.validate):  # older releases ask that address alone
        card.validate()
    assert card.data.license == "cc-by-4.0" and card.data.pipeline_tag == "text-generation"
    record = read_lines(run.metrics)[-1]
    results = {result.metric_type: result for result in card.data.eval_results}
    arguments = {name: result.metric_args for name, result in results.items()}
    assert {"nll_test", "nll_div", "bleu_2", "self_bleu_2", "copy_rate", "longest_copy"} <= set(results)
    assert all(result.metric_value == record[name] for name, result in results.items())
    intervals = {name: [args["low"], args["high"]] for name, args in arguments.items() if "low" in args}
    assert intervals == record["intervals"] and {"nll_test", "copy_rate"} <= set(intervals)
    assert arguments["bleu_2"]["signature"].startswith("samples:40|references:50|tokenization:white_space|")
    assert arguments["nll_test"]["signature"].startswith("per:token|vocabulary:131|samples:40|held_out:50|")
    text = card.text
    for part in ("@inproceedings{yu2017seqgan", "![learning curve](learning_curve.png)", "GrammarData", "rollouts: 1"):
        assert part in text, part
    for sample in (run.samples / "adversarial-1.txt").read_text().splitlines()[:10]:
        assert sample in text
    assert f"copy_rate {record['copy_rate']:.3f}" in text and "torch: " in text
    assert f"| nll_test | {record['nll_test']:.3f} [{intervals['nll_test'][0]:.3f}, " in text
    assert "Done: pretrain_generator 4 epochs, pretrain_discriminator 2 steps, adversarial 1 rounds; " in text
    assert "of_these_weights" not in text and "with these weights" in text
    assert str(run.path.parent) not in text


def test_the_card_lies_beside_the_generator_too(run):
    card = ModelCard.load(run.generator / "README.md")
    assert card.data.model_name == "grammar" and (run.generator / "learning_curve.png").exists()
    assert f'model="{run.generator}"' in card.text


@pytest.mark.parametrize(
    ("key", "value", "published"),
    [
        ("train_file", "/home/me/secret/lines.txt", "lines.txt"),
        ("train_file", ["/a/b", "c/d e.txt", "*.txt"], ["b", "d e.txt", "*.txt"]),
        ("dataset", "~/secret/corpus/", "corpus"),
        ("dataset", "~me", "~"),
        ("dataset", "file:///home/me/secret/corpus", "corpus"),
        ("dataset", "../../secret/corpus", "corpus"),
        ("dataset", "./secret", "secret"),
        ("dataset", "secret/folders/corpus", "corpus"),
        ("dataset", "here/corpus", "corpus"),  # it exists
        ("dataset", "someone/corpus", "someone/corpus"),
        ("dataset", "https://me:password@example.org/a/b.txt?c=d", "https://example.org/a/b.txt?c=d"),
        ("dataset", "hf://datasets/someone/corpus/a.txt", "hf://datasets/someone/corpus/a.txt"),
        ("pretrained", "C:\\Users\\me\\model", "model"),
        ("pretrained", "c:/Users/me/model", "model"),
        ("pretrained", "\\\\server\\share\\model", "model"),
        ("pretrained", "\\Users\\me\\model", "model"),
        ("pretrained", "..\\secret\\model", "model"),
        ("output_dir", "runs/grammar", "grammar"),
        ("eval_file", "mine\\lines.txt", "lines.txt"),
        ("instruction", "is it real and/or good?", "is it real and/or good?"),
        ("pattern", r"\d+", r"\d+"),
        ("class_path", "seqgan_hf.TextData", "seqgan_hf.TextData"),
        ("length", 3, 3),
        ("long", "x" * 5000, "x" * 5000),
    ],
)
def test_a_recipe_is_published_without_the_machine_s_paths(key, value, published, tmp_path, monkeypatch):
    (tmp_path / "here" / "corpus").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    recipe = {"data": {"init_args": {key: value, "nested": {key: value}}}}
    expected = {"data": {"init_args": {key: published, "nested": {key: published}}}}
    assert yaml.safe_load(public_recipe(yaml.safe_dump(recipe))) == expected


def test_no_path_of_the_machine_is_pushed(hub, tmp_path, monkeypatch):
    """Of a corpus, a tokenizer and weights that all lie in a folder, which is not there when the run is pushed."""
    secret = tmp_path / "secret" / "things"
    secret.mkdir(parents=True)
    tokenizer = tokenizer_of("word")
    tokenizer.save_pretrained(secret / "words")
    build_generator("gpt2", vocab_size=len(tokenizer)).save_pretrained(secret / "weights")
    (secret / "lines.txt").write_text("the cat sits .\na dog runs\n" * 30)
    monkeypatch.chdir(tmp_path)
    data = {"train_file": "secret/things/lines.txt", "tokenizer": {"pretrained": str(secret / "words")}}
    recipe = RECIPE | {"data": {"class_path": "seqgan_hf.TextData", "init_args": data}, "evaluation": {}}
    recipe |= {"generator": {"pretrained": "secret/things/weights"}, "objective": {"class_path": "seqgan_hf.MLE"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    options = ["--training.pretrain_epochs", "1", "--training.output_dir", "secret/runs/mine"]
    assert main(["train", "recipe.yaml", *options]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "secret").rename(tmp_path / "moved")
    push_run(RunFolder(tmp_path / "moved" / "runs" / "mine"), "someone/mine")
    files = hub.files("someone/mine")
    published = yaml.safe_load(files["recipe.yaml"])
    assert published["data"]["init_args"]["train_file"] == "lines.txt"
    assert published["generator"]["pretrained"] == "weights" and published["training"]["output_dir"] == "mine"
    for name, content in files.items():
        for part in ("secret", "things", "moved", str(tmp_path)):
            assert part.encode() not in content, (name, part)


@pytest.mark.parametrize(("dataset", "tagged"), [("someone/corpus", ["someone/corpus"]), ("corpus", None)])
def test_only_a_dataset_of_the_hub_is_linked(dataset, tagged, run, tmp_path):
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    data = {"class_path": "seqgan_hf.TextData", "init_args": {"dataset": dataset}}
    copy.write_summary(copy.read_summary() | {"recipe": yaml.safe_dump({"data": data})})
    card = model_card(copy, "someone/grammar")
    assert card.data.datasets == tagged
    assert card.data.eval_results[0].dataset_name == (dataset if tagged else "TextData")


def test_the_citation_of_every_objective_is_in_its_card(run, tmp_path):
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    summary = copy.read_summary()
    for name in OBJECTIVES:
        citation = getattr(objectives, name).citation
        copy.write_summary(summary | {"objective": summary["objective"] | {"name": name, "citation": citation}})
        text = model_card(copy).text
        assert f"```bibtex\n{citation}\n```" in text if citation else "```bibtex" not in text


def test_a_discriminator_that_is_a_language_model_is_used_as_one(run, hub, tmp_path, capsys):
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    shutil.rmtree(copy.discriminator)
    shutil.copytree(copy.generator, copy.discriminator, ignore=shutil.ignore_patterns("README.md", "*.png"))
    summary = copy.read_summary()
    copy.write_summary(summary | {"discriminator": summary["generator"] | {"kind": "language_model"}})
    push_run(copy, "someone/both")
    push_run(copy, "someone/cot", discriminator="repository")
    card, other = card_of(hub, "someone/cot"), card_of(hub, "someone/cot-discriminator")
    assert other.data.pipeline_tag == "text-generation" and "It is a language model" in other.text
    assert "text-classification" not in card.text + other.text and "How likely a text is to the disc" in card.text
    tokenizer = AutoTokenizer.from_pretrained(run.generator)
    inputs = tokenizer("a text to judge", return_tensors="pt")
    ids = inputs["input_ids"][0, 1:]
    logits = AutoModelForCausalLM.from_pretrained(run.generator)(**inputs).logits[0, :-1]
    for repository in ("both", "cot", "cot-discriminator"):
        code = re.findall(r"```python\n(.*?)```", card_of(hub, f"someone/{repository}").text, re.DOTALL)[-1]
        exec(code, {})
        expected = logits.log_softmax(-1)[range(len(ids)), ids].mean().item()
        assert float(capsys.readouterr().out) == pytest.approx(expected, abs=1e-5)
    push_run(copy, "someone/both", discriminator="none")
    assert not any(name.startswith("discriminator/") for name in hub.files("someone/both"))


def test_what_a_generator_began_as_is_linked(run, hub, tmp_path):
    push_run(run, "someone/grammar")
    short = [
        "--training.pretrain_epochs",
        "1",
        "--training.rounds",
        "0",
        "--training.discriminator_pretrain_steps",
        "0",
    ]
    call = ["train", str(run.path.parent / "recipe.yaml"), *short, "--training.output_dir", str(tmp_path / "more")]
    assert main([*call, "--generator.pretrained", "someone/grammar"]) == 0
    card = model_card(RunFolder(tmp_path / "more"), "someone/more")
    assert card.data.base_model == "someone/grammar"
    assert "begun as [someone/grammar](https://huggingface.co/someone/grammar), trained" in card.text
    again = [*call, "--training.overwrite_run", "true", "--generator.pretrained", str(run.generator)]
    assert main(again) == 0
    assert model_card(RunFolder(tmp_path / "more"), "someone/more").data.base_model is None


def test_no_path_of_the_machine_is_in_a_signature(run, tmp_path):
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    summary = copy.read_summary()
    summary["evaluation"]["results"]["bleu_2"]["signature"] = "samples:40|encoder:/home/me/encoder|seed:0"
    copy.write_summary(summary)
    card = model_card(copy, "someone/grammar")
    assert "samples:40|encoder:encoder|seed:0" in str(card) and "/home/me" not in str(card)


def test_no_path_of_the_machine_is_in_the_log_that_is_pushed(run, tmp_path):
    """A run that measures with an encoder or a judge of this machine, and then says so in every line."""
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    lines = [json.loads(line) for line in copy.metrics.read_text().splitlines()]
    lines[-1]["signatures"] = {"fed": "samples:40|encoder:/home/me/encoder", "judge_lm": "seed:0|judge_lm:C:\\lm\\a"}
    copy.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    lines[-1]["signatures"] = {"fed": "samples:40|encoder:encoder", "judge_lm": "seed:0|judge_lm:a"}
    for files in (generator_files(copy, with_discriminator=False), space_files(copy, with_discriminator=False)):
        (log,) = (content for name, content in files.items() if name.endswith("metrics.jsonl"))
        assert [json.loads(line) for line in log.decode().splitlines()] == lines


def test_a_run_of_before_prompts_were_recorded_is_shared_without_one(run, tmp_path):
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    summary = copy.read_summary()
    del summary["data"]["prompt"]
    copy.write_summary(summary)
    assert 'generator("", num_return_sequences=3)' in str(model_card(copy, "someone/grammar"))


# --- During training, and by transformers' own method ----------------------------------------------------------------


def train(folder: Path, *options: str) -> int:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    call = ["train", str(folder / "recipe.yaml"), "--training.output_dir", str(folder / "mine")]
    return main([*call, "--training.pretrain_epochs", "1", "--training.eval_epochs", "0", *options])


def test_training_ends_with_a_push(hub, tmp_path):
    options = ["--training.push_to_hub", "true", "--training.hub_private_repo", "true"]
    assert train(tmp_path, *options, "--training.hub_discriminator", "repository") == 0
    assert hub.private == {"someone/mine": True, "someone/mine-discriminator": True}
    assert card_of(hub, "someone/mine").data.license == "cc-by-4.0"
    assert TOKEN.encode() not in b"".join(hub.files("someone/mine").values())


def test_a_missing_token_is_said_before_the_training(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hub_module, "get_token", lambda: None)
    assert train(tmp_path, "--training.push_to_hub", "true") == 1
    assert "hf auth login" in capsys.readouterr().err
    assert (tmp_path / "mine" / "metrics.jsonl").read_text() == ""


def test_a_failed_push_loses_nothing(hub, tmp_path, capsys):
    hub.failures = [("/commit/", 503)] * 3
    assert train(tmp_path, "--training.push_to_hub", "true") == 1
    assert "push again" in capsys.readouterr().err
    assert main(["push", str(tmp_path / "mine"), "someone/mine"]) == 0
    assert "model.safetensors" in hub.files("someone/mine")


def test_a_run_without_discriminator_and_text(hub, tmp_path):
    """Maximum likelihood on the synthetic task: token ids instead of words, and sequences that do not end."""
    options = {"num_train": 64, "num_eval": 32, "vocab_size": 20, "length": 6}
    data = {"class_path": "seqgan_hf.OracleData", "init_args": options}
    recipe = RECIPE | {"data": data, "objective": {"class_path": "seqgan_hf.MLE"}, "evaluation": {}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["train", str(tmp_path / "recipe.yaml"), "--training.output_dir", str(tmp_path / "mle")]) == 0
    push_run(RunFolder(tmp_path / "mle"), "someone/mle")
    card = card_of(hub, "someone/mle")
    assert "text-classification" not in card.text and not any("discr" in name for name in hub.files("someone/mle"))
    assert card.data.tags == ["seqgan-hf", "mle"] and "against a discriminator" not in card.text
    results = {result.metric_type: result.metric_args["signature"] for result in card.data.eval_results}
    assert results["nll_oracle"].startswith("per:token|vocabulary:20|samples:40|held_out:32|")
    assert results["jsd_oracle"].startswith("per:sequence|")
    names: dict = {}
    (code,) = re.findall(
        r"```python\n(.*?)```", ModelCard.load(tmp_path / "mle" / "generator" / "README.md").text, re.S
    )
    exec(code, names)
    assert len(names["sample"]["generated_text"].split()) >= 6


def test_only_the_main_process_pushes(hub):
    assert PushToHub(SimpleNamespace(is_main=False, args=None), True).push("mine") is None and hub.requests == []


def test_transformers_own_push_carries_the_code(run, hub):
    AutoModelForCausalLM.from_pretrained(run.generator).push_to_hub("someone/plain")
    files = hub.files("someone/plain")
    assert {"config.json", "model.safetensors", "modeling_rnn_generator.py"} <= set(files)
    assert json.loads(files["config.json"])["auto_map"]["AutoModelForCausalLM"].startswith("modeling_rnn_generator.")


@pytest.mark.parametrize("token", [None, "hf_wrong"])
@pytest.mark.parametrize("part", ["generator", "discriminator"])
def test_transformers_own_push_without_a_token_is_refused(part, token, run, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    auto = AutoModelForCausalLM if part == "generator" else AutoModelForSequenceClassification
    with pytest.raises(HfHubHTTPError, match="401"):
        auto.from_pretrained(run.path / part).push_to_hub("someone/plain", token=token)
    assert hub.commits == {}


# --- What the discriminator reads ------------------------------------------------------------------------------------


def judged(run: RunFolder, texts: list[str]) -> list[float]:
    """The rewards of texts as training computes them: from the generator's tokens and the end token."""
    generator = AutoTokenizer.from_pretrained(run.generator)
    rows = [[*row, generator.eos_token_id] for row in generator(texts, add_special_tokens=False)["input_ids"]]
    width = max(map(len, rows))
    ids = torch.tensor([row + [generator.pad_token_id] * (width - len(row)) for row in rows])
    mask = torch.arange(width) < torch.tensor([[len(row)] for row in rows])
    start = torch.full((len(rows), 1), generator.bos_token_id)
    model = AutoModelForSequenceClassification.from_pretrained(run.discriminator)
    return rewards(model, Samples(start, ids, mask)).tolist()


def real_scores(verdicts: list[list[dict]]) -> list[float]:
    assert all({entry["label"] for entry in verdict} == {"REAL", "FAKE"} for verdict in verdicts)
    return [entry["score"] for verdict in verdicts for entry in verdict if entry["label"] == "REAL"]


TEXTS = ["the small dogs sleep .", "a woman sleeps", "dog the the unheard of <eos> ."]


def test_the_classification_pipeline_gives_the_rewards_of_training(run):
    judge = pipeline("text-classification", model=str(run.discriminator))
    for batch_size in (1, 3):
        scores = real_scores(judge(TEXTS, top_k=None, batch_size=batch_size))
        assert scores == pytest.approx(judged(run, TEXTS), abs=1e-6)
    wrong = pipeline("text-classification", model=judge.model, tokenizer=AutoTokenizer.from_pretrained(run.generator))
    assert real_scores(wrong(TEXTS, top_k=None)) != pytest.approx(judged(run, TEXTS), abs=1e-4)


def tokenizer_of(kind: str):
    if kind == "numbers":
        return integer_tokenizer(50)
    if kind == "numbers that end":
        return integer_tokenizer(50, bos_token_id=50, eos_token_id=51, pad_token_id=52)
    lines = ["the cat sits .", "a dog runs on the mat", "the dogs run"] * 3
    return build_tokenizer(TokenizerConfig(level=kind), lambda: [lines])


@pytest.mark.parametrize("kind", ["word", "char", "bpe", "unigram", "numbers", "numbers that end"])
def test_a_discriminator_s_tokenizer_adds_the_end_and_no_start(kind, tmp_path):
    tokenizer = tokenizer_of(kind)
    numbers = kind.startswith("numbers")  # whose tokenizer knows nothing else
    texts = ("7 12 3", "0", "49 7") if numbers else ("7 12 3", "the cat sits .", "a <eos> b", "the")
    before = tokenizer(texts[0])["input_ids"]
    classifier_tokenizer(tokenizer, tokenizer.eos_token_id).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for text in texts:
        assert loaded(text)["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"] + end
    assert loaded.padding_side == "right" and tokenizer(texts[0])["input_ids"] == before


# --- Whoever downloads it --------------------------------------------------------------------------------------------


def bare_environment(folder: Path) -> Path:
    """A folder of packages with torch, transformers and what they need, and nothing else."""
    wanted, seen = ["torch", "transformers"], set()
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in seen:
            continue
        seen.add(name)
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():  # a folder of several packages
                (folder / top).symlink_to(distribution.locate_file(top).resolve())
        for requirement in map(Requirement, distribution.requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return folder


STRANGER = r"""
import contextlib, importlib.util, io, json, re, sys
import torch
from huggingface_hub import HfApi, ModelCard
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, pipeline

answers = {"packages": [name for name in ("seqgan_hf", "datasets", "accelerate") if importlib.util.find_spec(name)]}
repository, texts = sys.argv[1], json.loads(sys.argv[2])
try:
    AutoModelForCausalLM.from_pretrained(repository, trust_remote_code=False)
except ValueError as error:
    answers["untrusted"] = str(error)
model = AutoModelForCausalLM.from_pretrained(repository, trust_remote_code=True)
answers["module"] = type(model).__module__
answers["logits"] = model(torch.tensor([[1, 4, 5, 6]])).logits.flatten().tolist()
card = ModelCard.load(repository)
answers["license"], answers["results"] = card.data.license, len(card.data.eval_results)
names = {}
for block in re.findall(r"```python\n(.*?)```", card.text, re.DOTALL):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(block, names)
    answers.setdefault("printed", []).append(printed.getvalue())
answers["verdicts"] = names["judge"](texts, top_k=None)
print("ANSWERS" + json.dumps(answers))
"""


def test_in_an_environment_without_the_package_all_of_it_works(run, hub, tmp_path):
    push_run(run, "someone/grammar")
    site = tmp_path / "site"
    site.mkdir()
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(bare_environment(site)),
    }
    environment |= {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-S", "-c", STRANGER, "someone/grammar", json.dumps(TEXTS)]
    done = subprocess.run(
        call, capture_output=True, text=True, env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.partition("ANSWERS")[2])
    assert answers["packages"] == [] and answers["module"].startswith("transformers_modules.")
    assert "trust_remote_code=True" in answers["untrusted"]
    model = AutoModelForCausalLM.from_pretrained(run.generator)
    assert answers["logits"] == pytest.approx(model(torch.tensor([[1, 4, 5, 6]])).logits.flatten().tolist(), abs=1e-6)
    assert real_scores(answers["verdicts"]) == pytest.approx(judged(run, TEXTS), abs=1e-6)
    assert answers["license"] == "cc-by-4.0" and answers["results"] > 10
    written, verdict = answers["printed"]
    assert len(written.splitlines()) == 3 and written.strip() and "REAL" in verdict


# --- Safety ----------------------------------------------------------------------------------------------------------


def test_with_the_package_its_class_is_used_and_the_repository_s_code_is_not_run(run, tmp_path):
    copy = shutil.copytree(run.generator, tmp_path / "evil")
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    (copy / "modeling_rnn_generator.py").write_text(trap + (copy / "modeling_rnn_generator.py").read_text())
    for options in ({}, {"trust_remote_code": False}, {"trust_remote_code": True}):
        assert type(AutoModelForCausalLM.from_pretrained(copy, **options)) is RNNGeneratorForCausalLM
        AutoTokenizer.from_pretrained(copy, **options)
    assert main(["generate", str(copy), "--num_samples", "1", "--output", str(tmp_path / "out.txt")]) == 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("place", ["generate", "evaluate", "tokenizer", "generator", "encoder"])
def test_the_command_line_never_asks_whether_to_run_strange_code(place, run, tmp_path, monkeypatch, capsys):
    """Not even of somebody who would say yes: a repository of an architecture that nobody knows, with its own code."""
    copy = shutil.copytree(run.generator, tmp_path / "strange")
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    (copy / "strange.py").write_text(trap)
    autos = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM"), "strange.Model")
    autos["AutoTokenizer"] = ["strange.Tokenizer", None]
    for name in ("config.json", "tokenizer_config.json"):
        settings = json.loads((copy / name).read_text())
        settings |= {"model_type": "strange", "auto_map": autos, "tokenizer_class": "StrangeTokenizer"}
        (copy / name).write_text(json.dumps(settings))
    monkeypatch.setattr("builtins.input", lambda *args: "y")
    data = {"class_path": "seqgan_hf.TextData", "init_args": {"train_file": str(tmp_path / "lines.txt")}}
    (tmp_path / "lines.txt").write_text("a man\nthe dog\n" * 20)
    if place == "tokenizer":
        data["init_args"]["tokenizer"] = {"pretrained": str(copy)}
    settings = {"pretrained": str(copy)} if place == "generator" else RECIPE["generator"]
    recipe = RECIPE | {"data": data, "generator": settings}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    evaluate = ["evaluate", "--model", f"[{copy}]", "--references", str(tmp_path / "lines.txt")]
    calls = {"generate": ["generate", str(copy)], "evaluate": evaluate}
    train = ["train", str(tmp_path / "recipe.yaml"), "--training.output_dir", str(tmp_path / "run")]
    if place == "encoder":
        with pytest.raises(ValueError, match="contains custom code|trust_remote_code"):
            load_encoder(str(copy))
    else:
        assert main(calls.get(place, train)) == 1
        assert "custom code" in capsys.readouterr().err  # it is that which failed
    assert not (tmp_path / "ran").exists()


ORDERS = [
    "import seqgan_hf; from transformers import AutoModelForCausalLM",
    "from transformers import AutoModelForCausalLM; import seqgan_hf",
    "import transformers, seqgan_hf; AutoModelForCausalLM = transformers.AutoModelForCausalLM",
    # the module of the Auto classes is imported in the middle of another, whose names are not there yet
    "import seqgan_hf; from transformers import PreTrainedModel, AutoConfig as AutoModelForCausalLM",
]
# Each order of imports in a fork of one process that has imported what both need and what takes longest.
IMPORTER = """
import os, sys
import accelerate, datasets, matplotlib.figure, scipy.optimize, torch._dynamo, torch.distributed.tensor
for first in sys.argv[2:]:
    assert not {"transformers", "seqgan_hf"} & {*sys.modules}
    if not (child := os.fork()):
        exec(first)
        for trust in (None, False, True):
            model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=trust)
            print("CLASS", type(model).__module__, flush=True)
        os._exit(0)
    assert not os.waitpid(child, 0)[1], first
"""


def test_the_class_of_the_package_is_used_in_any_order_of_imports(run, tmp_path):
    """What docs/how-to/hub.md promises; without any import: `test_in_an_environment_without_the_package`."""
    copy = shutil.copytree(run.generator, tmp_path / "generator")
    done = subprocess.run(
        [sys.executable, "-c", IMPORTER, str(copy), *ORDERS],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    classes = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("CLASS")]
    assert classes == ["seqgan_hf.models.modeling_rnn_generator"] * 3 * len(ORDERS)


class Trap:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_nothing_is_written_as_a_pickle_and_a_pickle_runs_nothing(run, tmp_path, monkeypatch):
    for folder in (run.generator, run.discriminator):
        assert not [path for path in folder.rglob("*") if path.is_file() and path.suffix not in hub_module.UPLOADED]
    copy = shutil.copytree(run.generator, tmp_path / "pickled")
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(), protocol=2))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="no file named model.safetensors"):  # it is not even opened
        AutoModelForCausalLM.from_pretrained(copy)
    assert main(["generate", str(copy)]) == 1
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "data",
    [
        "!!python/object/apply:os.system ['touch ran']",
        "{class_path: subprocess.Popen, init_args: {args: [touch, ran]}}",
        "{class_path: os.system, init_args: {command: touch ran}}",
    ],
)
def test_a_recipe_runs_nothing_but_data_sources_objectives_and_models(data, tmp_path, monkeypatch, capsys):
    (tmp_path / "foreign.yaml").write_text(
        yaml.safe_dump(RECIPE | {"data": None}).replace("data: null", f"data: {data}")
    )
    monkeypatch.chdir(tmp_path)
    assert main(["train", "foreign.yaml"]) == 1
    error = capsys.readouterr().err
    assert "Unexpected" not in error and "Traceback" not in error and not (tmp_path / "ran").exists()


def test_a_discriminator_that_is_a_link_is_not_uploaded(run, hub, tmp_path):
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "linked"))
    shutil.move(copy.discriminator, tmp_path / "outside")
    copy.discriminator.symlink_to(tmp_path / "outside")
    for place in ("subfolder", "repository"):
        with pytest.raises(RunFolderError, match="is a link or leads out of the run's folder"):
            push_run(copy, "someone/linked", discriminator=place)
    assert not hub.commits


@pytest.mark.parametrize("place", ["subfolder", "repository"])
def test_generate_draws_with_a_discriminator_of_the_hub(place, run, hub, capsys):
    push_run(run, "someone/grammar", discriminator=place)
    judge = "someone/grammar" + ("-discriminator" if place == "repository" else "")
    call = ["generate", "someone/grammar", "--num_samples", "5", "--seed", "1", "--discriminator"]
    written = {}
    for source, named in (("hub", judge), ("here", str(run.path))):
        capsys.readouterr()
        assert main([*call, named]) == 0
        written[source] = capsys.readouterr().out
    assert written["hub"] == written["here"] and len(written["hub"].splitlines()) == 5
    if place == "subfolder":
        assert main(call) == 0
        assert capsys.readouterr().out == written["hub"]


def test_private_means_private(run, hub):
    push_run(run, "someone/open")
    with pytest.raises(HubError, match="'someone/open' exists already and is public, but private=true. Make"):
        push_run(run, "someone/open", private=True)
    assert len(hub.commits["someone/open"]) == 2  # made, and pushed once


def test_files_of_others_stay_where_they_are(run, hub):
    push_run(run, "someone/mine")
    HfApi().upload_file(path_or_fileobj=b"mine", path_in_repo="discriminator/NOTES.txt", repo_id="someone/mine")
    push_run(run, "someone/mine", discriminator="none")
    left = [name for name in HfApi().list_repo_files("someone/mine") if name.startswith("discriminator/")]
    assert left == ["discriminator/NOTES.txt"]


# --- The documentation -----------------------------------------------------------------------------------------------

DOCS = (ROOT / "docs/how-to/hub.md").read_text(encoding="utf-8")


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


def test_the_snippets_of_the_documentation_run(run, hub, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    shutil.copytree(run.path, tmp_path / "runs" / "grammar")
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line)[1:] for line in "".join(snippets("bash")).splitlines()]
    assert [command[0] for command in commands] == ["train", "push", "train"]
    for command in commands:
        if command[0] == "train":  # read, and not done: it takes minutes
            load_recipe(command[1:])
        else:
            assert main(command) == 0
    code = snippets("python")
    assert len(code) == 11
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(code)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert set(hub.commits) == {
        f"someone/{name}" for name in ("grammar", "grammar-discriminator", "only-the-generator")
    }
    assert "apache-2.0" not in done.stdout and "cc-by-4.0" in done.stdout  # the push from Python came later


def test_the_card_in_the_documentation_is_one_that_is_written_today(run):
    shown = ModelCard.load(ROOT / "docs/how-to/model_card_example" / "README.md")
    written = ModelCard.load(run.generator / "README.md")

    def headings(card: ModelCard) -> list[str]:
        return re.findall(r"^#+ .*$", card.text, re.MULTILINE)

    assert headings(shown) == headings(written) and len(headings(shown)) > 8
    assert shown.data.to_dict().keys() == written.data.to_dict().keys()


@pytest.mark.parametrize("where", ["metrics.jsonl", "samples", "summary"])
def test_nothing_from_outside_a_run_is_pushed(run, hub, tmp_path, where, capsys):
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    secret = tmp_path / "secret.txt"
    secret.write_text("top secret")
    summary = copy.read_summary()
    if where == "summary":
        summary["evaluation"]["name"] = "../../secret"
        copy.write_summary(summary)
    else:
        path = copy.samples / f"{summary['evaluation']['name']}.txt" if where == "samples" else copy.path / where
        path.unlink()
        path.symlink_to(secret)
    assert main(["push", str(copy.path), "someone/leak"]) == 1
    assert "is a link or leads out of the run's folder" in capsys.readouterr().err
    pushed = hub.commits.get("someone/leak", [])
    assert not any(b"top secret" in content for files in pushed for content in files.values())
