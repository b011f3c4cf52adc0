"""Sharing a run: the card, the push to a Hub, and what a stranger can do with what was pushed."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml
from fake_hub import TOKEN, serve
from huggingface_hub import ModelCard

from seqgan_hf import hub as hub_module
from seqgan_hf.cli import main
from seqgan_hf.hub import HubError, push_run
from seqgan_hf.model_card import CardError, public_recipe
from seqgan_hf.run_folder import RunFolder


ROOT = Path(__file__).parents[1]
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


@pytest.fixture
def hub(monkeypatch):
    """A Hub of its own, to which the client of this process is logged in."""
    with serve() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(hub_module, "WAITS", (0.0, 0.0))
        yield server


def card_of(server, repo_id: str) -> ModelCard:
    return ModelCard(server.files(repo_id)["README.md"].decode())


# --- Push ------------------------------------------------------------------------------------------------------------


def test_push_uploads_all_that_belongs_to_a_run_in_one_commit(run, hub, capsys):
    assert main(["push", str(run.path), "someone/grammar", "--private"]) == 0
    assert capsys.readouterr().out.strip() == f"{hub.url}/someone/grammar"
    assert hub.private == {"someone/grammar": True} and len(hub.commits["someone/grammar"]) == 2
    files = hub.files("someone/grammar")
    model = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    expected = {"README.md", "recipe.yaml", "metrics.jsonl", "samples.txt", "learning_curve.png"}
    expected |= model | {"generation_config.json", "modeling_rnn_generator.py", "modeling_cnn_discriminator.py"}
    expected |= {f"discriminator/{name}" for name in model | {"modeling_cnn_discriminator.py"}}
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


@pytest.mark.parametrize("failure", [503, 500, 429, "cut"])
@pytest.mark.parametrize("route", ["/api/repos/create", "/commit/"])
def test_a_passing_failure_is_tried_again(failure, route, run, hub):
    hub.failures = [(route, failure)]
    push_run(run, "someone/grammar")
    assert not hub.failures and "model.safetensors" in hub.files("someone/grammar")


def test_an_interrupted_push_leaves_nothing_by_half_and_can_be_repeated(run, hub):
    hub.failures = [("/commit/", "cut")] * 3
    with pytest.raises(HubError, match="3 times -> expected it to answer -> .* push again"):
        push_run(run, "someone/grammar")
    assert hub.files("someone/grammar") == {}
    push_run(run, "someone/grammar")
    assert "model.safetensors" in hub.files("someone/grammar")


def test_without_a_token_the_error_says_how_to_log_in(run, hub, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(hub_module, "get_token", lambda: None)
    assert main(["push", str(run.path), "someone/grammar"]) == 1
    error = capsys.readouterr().err
    assert "hf auth login" in error and "HF_TOKEN" in error and len(error.splitlines()) == 1
    assert hub.requests == []


def test_a_refused_token_is_not_tried_again(run, hub):
    with pytest.raises(HubError, match="got the answer 401 .*hf auth login"):
        push_run(run, "someone/grammar", token="hf_wrong")
    assert [path for method, path in hub.requests if method == "POST"] == ["/api/repos/create"]


@pytest.mark.parametrize(
    "name",
    ["", "../grammar", "a/../b", "a/b/c", "/etc/passwd", "..", "a b", "grammar.git", "C:\\grammar", "a//b", "a/.."],
)
def test_names_that_are_no_repositories_are_refused(name, run, hub):
    with pytest.raises(HubError, match="got the repository .* -> expected `owner/name`"):
        push_run(run, name)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discriminator": "elsewhere"}, "got discriminator='elsewhere' -> expected one of subfolder"),
        ({"license": "do what\nyou: want"}, "got license=.* -> expected an identifier such as apache-2.0"),
    ],
)
def test_other_mistakes(options, message, run, hub):
    with pytest.raises(HubError, match=message):
        push_run(run, "someone/grammar", **options)
    assert hub.requests == []


def test_a_run_that_has_not_ended_is_refused(tmp_path, hub):
    with pytest.raises(CardError, match="expected the folder of a run that has ended"):
        push_run(RunFolder(tmp_path), "someone/grammar")


@pytest.mark.parametrize("kind", ["pickle", "link"])
def test_pickles_and_links_are_never_uploaded(kind, run, hub, tmp_path):
    intruder = run.generator / ("weights.bin" if kind == "pickle" else "notes.txt")
    intruder.write_bytes(b"") if kind == "pickle" else intruder.symlink_to(tmp_path / "secret")
    try:
        with pytest.raises(HubError, match="safetensors only" if kind == "pickle" else "got the link"):
            push_run(run, "someone/grammar")
    finally:
        intruder.unlink()
    assert hub.requests == []


# --- The card --------------------------------------------------------------------------------------------------------


def test_the_card_is_the_run_s(run, hub):
    push_run(run, "someone/grammar")
    card = card_of(hub, "someone/grammar")
    card.validate()
    assert card.data.license == "cc-by-4.0" and card.data.pipeline_tag == "text-generation"
    record = [json.loads(line) for line in run.metrics.read_text().splitlines()][-1]
    results = {result.metric_type: result for result in card.data.eval_results}
    assert {"nll_test", "nll_div", "bleu_2", "self_bleu_2", "copy_rate", "longest_copy"} <= set(results)
    assert all(result.metric_value == record[name] for name, result in results.items())
    assert results["bleu_2"].metric_args["signature"].startswith("samples:40|references:50|tokenization:white_space|")
    assert results["nll_test"].metric_args["signature"].startswith("per:token|samples:40|held_out:50|")
    text = card.text
    for part in ("@inproceedings{yu2017seqgan", "![learning curve](learning_curve.png)", "GrammarData", "rollouts: 1"):
        assert part in text, part
    for sample in (run.samples / "adversarial-1.txt").read_text().splitlines()[:10]:
        assert sample in text
    assert f"copy_rate {record['copy_rate']:.3f}" in text and "torch: " in text
    assert "of_these_weights" not in text and "with these weights" in text
    assert str(run.path.parent) not in text


def test_the_card_lies_beside_the_generator_too(run):
    card = ModelCard.load(run.generator / "README.md")
    assert card.data.model_name == "grammar" and (run.generator / "learning_curve.png").exists()
    assert f'model="{run.generator}"' in card.text


def test_a_recipe_is_published_without_the_machine_s_paths():
    recipe = {"data": {"init_args": {"train_file": "/home/me/secret/lines.txt", "files": ["/a/b", "c/d"], "n": 3}}}
    published = yaml.safe_load(public_recipe(yaml.safe_dump(recipe)))
    assert published == {"data": {"init_args": {"train_file": "lines.txt", "files": ["b", "c/d"], "n": 3}}}
