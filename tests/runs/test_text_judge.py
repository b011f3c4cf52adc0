"""Runs against a pretrained discriminator that reads text, by the command line."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from seqgan_hf.commands import main
from seqgan_hf.commands.build_models import freeze
from seqgan_hf.errors import RecipeError
from seqgan_hf.objectives import Reinforce
from tests.tools.judges import save_judge
from tests.tools.small_language import sentences
from tests.tools.small_runs import ROOT, build, short_run, small_corpus
from tests.tools.tiny import build_discriminator


pytestmark = pytest.mark.usefixtures("without_pictures")
# What the embeddings and the first layers are called.
FIRST_LAYER = {
    "bert": ("bert.embeddings.", "bert.encoder.layer.0."),
    "gpt2": ("transformer.wte.", "transformer.wpe.", "transformer.h.0."),
    "bloom": ("transformer.word_embeddings", "transformer.h.0."),
    "llama": ("model.embed_tokens.", "model.layers.0."),
    "opt": ("model.decoder.embed_", "model.decoder.layers.0."),
    "t5": ("transformer.shared.", "transformer.encoder.block.0.", "transformer.decoder.block.0."),
}


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "lines.txt"
    path.write_text("\n".join(sentences(0, 60)) + "\n")
    return path


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return save_judge(tmp_path_factory.mktemp("judge"), "encoder")


def call(folder, lines, judge, *more: str) -> list[str]:
    settings = {
        "discriminator.pretrained": judge,
        "discriminator.reads": "text",
        "discriminator.config": "{}",
        "objective.class_path": "seqgan_hf.objectives.FGAN",
        "training.save_every": 1,
        "training.discriminator_pretrain_steps": 2,
        "training.eval_rounds": 1,
    }
    return [*short_run(ROOT / "recipes/text/seqgan.yaml", folder, lines, **settings), *more]


@pytest.fixture(scope="module")
def run(lines, judge, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(call(folder, lines, judge)) == 0
    return folder


def test_it_lies_in_the_run_as_a_plain_model_with_its_own_tokenizer(run, judge):
    config = json.loads((run / "discriminator" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"] and config["reads"] == "text"
    assert config["id2label"] == {"0": "FAKE", "1": "REAL"}
    (verdict,) = pipeline("text-classification", model=str(run / "discriminator"))("a boy sees a kite .")
    assert verdict["label"] in ("FAKE", "REAL")
    assert AutoTokenizer.from_pretrained(run / "discriminator").get_vocab() == (
        AutoTokenizer.from_pretrained(judge).get_vocab()
    )
    for checkpoint in (run / "checkpoints").iterdir():
        assert AutoTokenizer.from_pretrained(checkpoint / "discriminator")("a")["input_ids"]
        AutoModelForSequenceClassification.from_pretrained(checkpoint / "discriminator")


def test_what_it_knows_of_held_out_text_is_logged(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    measured = [row for row in rows if "discriminator_auc_test" in row]
    phases = ["pretrain_discriminator", "adversarial", "adversarial"]
    assert [row["phase"] for row in measured] == phases, "before it is trained there is nothing to tell"
    assert "nll_test" not in measured[0], "the generator is as it was"
    for row in measured:
        assert 0 <= row["discriminator_auc_test"] <= 1 and 0 <= row["discriminator_auc_train"] <= 1
        assert "reads:text" in row["signatures"]["discriminator_auc_test"]


def test_to_measure_the_discriminator_takes_no_time_of_the_budget(tmp_path):
    trainer = build(small_corpus(), tmp_path, Reinforce(), discriminator=build_discriminator("bert"))
    evaluation, units, times = trainer.parts.evaluation, trainer.parts.units, iter([1.0, 6.0])
    units.discriminator_steps, units.clock = 1, lambda: next(times)
    assert "discriminator_auc_test" in evaluation.after("pretrain_discriminator", 2, 2, due=False)
    assert units.seconds == -5.0, "which `of` counts with the unit"
    assert evaluation.after("pretrain_discriminator", 1, 2, due=False) == {}


def test_an_interrupted_run_ends_with_the_same_weights(run, lines, judge, tmp_path):
    folder = tmp_path / "run"
    assert main(call(folder, lines, judge, "--training.rounds", "1")) == 0
    assert main(call(folder, lines, judge, "--training.resume_from_checkpoint", "true")) == 0
    for name in ("generator", "discriminator"):
        one, other = (load_file(path / name / "model.safetensors") for path in (run, folder))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), name


def test_layers_are_frozen_by_number_and_by_pattern(run, lines, judge, tmp_path):
    pretrained = load_file(f"{judge}/model.safetensors")

    def moved(folder):
        now = load_file(folder / "discriminator" / "model.safetensors")
        return {name for name, old in pretrained.items() if not torch.equal(now[f"bert.{name}"], old)}

    everything = moved(run)
    assert any("embeddings" in name for name in everything) and any("layer.0" in name for name in everything)
    assert main(call(tmp_path / "one", lines, judge, "--discriminator.freeze", "1")) == 0
    left = moved(tmp_path / "one")
    assert any("layer.1." in name for name in left)
    assert not any("embeddings" in name or "layer.0." in name for name in left)
    assert main(call(tmp_path / "two", lines, judge, "--discriminator.freeze", "[bert.*]")) == 0
    assert not moved(tmp_path / "two")


@pytest.mark.parametrize("kind", FIRST_LAYER)
def test_embeddings_and_the_first_layer_are_found_by_any_name(kind):
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "t5":
        sizes = {"d_model": 8, "num_layers": 2, "num_heads": 2, "d_kv": 4, "d_ff": 16}
    config = CONFIG_MAPPING[kind](vocab_size=20, pad_token_id=0, **sizes)
    model = AutoModelForSequenceClassification.from_config(config)
    freeze(model, 0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    freeze(model, 1)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(FIRST_LAYER[kind])}


def test_layers_that_are_shared_cannot_be_counted():
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    albert = AutoModelForSequenceClassification.from_config(CONFIG_MAPPING["albert"](vocab_size=20, **sizes))
    with pytest.raises(RecipeError, match="freeze=1: expected patterns of names, as Albert.* has no layers that can"):
        freeze(albert, 1)


def test_it_draws_with_the_generator_of_its_run(run, capsys):
    assert (
        main(["generate", str(run), "--discriminator", "--proposals", "4", "--num_samples", "5", "--seed", "1"]) == 0
    )
    assert len(capsys.readouterr().out.splitlines()) == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--discriminator.pretrained", "null"], "discriminator.reads=text without `discriminator.pretrained`"),
        (["--discriminator.freeze", "3"], "discriminator.freeze=3: expected 0 to 2"),
        (["--discriminator.freeze", "[nothing.*]"], "no parameter of BertForSequenceClassification is called"),
        (["--training.discriminator_trunk_learning_rate", "0"], "discriminator_trunk_learning_rate=0"),
        (["--training.generator_lr_scheduler", "steps"], "generator_lr_scheduler"),
        (["--training.discriminator_share", "1"], "discriminator_share=1"),
        *(
            (
                ["--objective", name],
                "soft tokens for BertForSequenceClassification, which reads text: expected a discr",
            )
            for name in ("RelGAN", "GSGAN", "CatGAN", "TextGAN", "FMGAN")
        ),
        (
            ["--objective", "seqgan_hf.objectives.CoT"],
            "discriminator.reads=text for CoT, whose opponent is a language model",
        ),
    ],
)
def test_what_cannot_be_is_said_in_a_line_before_anything_is_trained(options, words, lines, judge, tmp_path, capsys):
    assert main(call(tmp_path / "run", lines, judge, *options)) == 1
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    assert not list(tmp_path.rglob("metrics.jsonl"))


@pytest.mark.parametrize("fault", ["tokenizer", "labels"])
def test_a_judge_that_is_none_is_refused(fault, lines, tmp_path, capsys):
    folder = tmp_path / "judge"
    save_judge(folder, num_labels=2 if fault == "tokenizer" else 3)
    if fault == "tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    assert main(call(tmp_path / "run", lines, str(folder))) == 1
    said = capsys.readouterr().err
    words = {"tokenizer": "embeddings, and its tokenizer", "labels": "instead of a classifier with other labels"}
    assert words[fault] in said and "Traceback" not in said


def test_samples_are_drawn_and_measured_with_it_when_the_run_has_ended(run, lines, tmp_path, capsys):
    capsys.readouterr()
    call = ["generate", str(run), "--num_samples", "20", "--seed", "1"]
    assert main(call) == 0
    plain = capsys.readouterr().out
    assert main([*call, "--discriminator", "--exponent", "50"]) == 0
    assert capsys.readouterr().out != plain
    settings = ["--references", str(lines), "--num_samples", "20", "--metrics", "distinct", "--output", str(tmp_path)]
    assert main(["evaluate", "--model", str(run), "--discriminator", *settings]) == 0
    found = json.loads((tmp_path / "metrics.json").read_text())["results"]
    assert {"nll_test", "discriminator_auc_test", "effective_sample_size"} <= found.keys()
