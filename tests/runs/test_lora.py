"""A pretrained generator that trains an adapter alone, by the command line."""

from __future__ import annotations

import json
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GPT2Config, GPT2LMHeadModel, pipeline
from transformers.integrations.peft import MIN_PEFT_VERSION

from seqgan_hf.commands import main
from seqgan_hf.commands.build_models import build_generator
from seqgan_hf.commands.recipe import GeneratorSettings
from seqgan_hf.data.tokenization import TokenizerConfig, build_tokenizer
from seqgan_hf.evaluation.loading import load_generator
from seqgan_hf.objectives import Copy
from seqgan_hf.objectives.base import Models
from seqgan_hf.training.checkpoint import load_weights
from tests.tools.small_language import sentences
from tests.tools.small_runs import options
from tests.tools.two_processes import on_two


pytestmark = pytest.mark.usefixtures("without_pictures")
peft = pytest.importorskip("peft", minversion=MIN_PEFT_VERSION)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Lines, and a pretrained GPT-2 of their words, whose end token is not its tokenizer's, as of many chat models."""
    folder = tmp_path_factory.mktemp("lora")
    lines = sentences(0, 60)
    (folder / "lines.txt").write_text("\n".join(lines) + "\n")
    tokenizer = build_tokenizer(TokenizerConfig(), lambda: [lines])
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    tokens["eos_token_id"] = tokenizer.unk_token_id
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer), "n_positions": 32, "n_embd": 8, "n_layer": 2, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(initializer_range=0.3, **sizes, **tokens)).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    return folder


def call(place, folder, *more: str) -> list[str]:
    (place / "recipe.yaml").write_text("data: {class_path: seqgan_hf.data.TextData}\n")
    settings = {
        "data.train_file": place / "lines.txt",
        "data.eval_size": 10,
        "data.tokenizer.pretrained": place / "base",
        "generator.pretrained": place / "base",
        "generator.lora": "{r: 2, lora_alpha: 4}",
        "objective": "seqgan_hf.objectives.GRPO",
        "objective.group_size": 4,
        "objective.kl": 0.1,
        "discriminator.config.embedding_size": 4,
        "training.output_dir": folder,
        "training.per_device_train_batch_size": 8,
        "training.pretrain_epochs": 1,
        "training.pretrain_learning_rate": 1e-2,
        "training.generator_learning_rate": 1e-2,
        "training.discriminator_pretrain_steps": 1,
        "training.discriminator_steps": 1,
        "training.discriminator_epochs": 1,
        "training.rounds": 2,
        "training.num_fakes": 32,
        "training.eval_samples": 16,
        "training.save_every": 1,
        "training.disable_tqdm": "true",
        "training.use_cpu": "true",
    }
    return ["train", str(place / "recipe.yaml"), *options(settings), *more]


@pytest.fixture(scope="module")
def run(place):
    assert main(call(place, place / "run")) == 0
    return place / "run"


def test_the_run_holds_the_adapter_alone_and_it_is_used_like_any_generator(run, place, capsys):
    config = json.loads((run / "generator/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(place / "base") and config["r"] == 2
    assert not (run / "generator/model.safetensors").exists()
    (pipeline("text-generation", model=str(run / "generator"))("a", max_new_tokens=3))
    assert main(["generate", str(run), "--num_samples", "3", "--seed", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    (place / "references.txt").write_text("\n".join(sentences(1, 20)))
    output = place / "evaluation"
    assert (
        main(["evaluate", "--model", str(run), "--references", str(place / "references.txt"), "--output", str(output)])
        == 0
    )


def test_sequences_end_with_the_token_of_the_tokenizer_that_the_run_was_trained_with(run, place):
    """Not with that of the adapted model: in evaluations, in `generate` of transformers, and in the checkpoints."""
    end = AutoTokenizer.from_pretrained(run / "generator").eos_token_id
    assert end != AutoModelForCausalLM.from_pretrained(place / "base").config.eos_token_id
    loaded = load_generator(str(run / "generator"), "cpu").model
    assert loaded.config.eos_token_id == loaded.generation_config.eos_token_id == end
    for folder in (run, max((run / "checkpoints").iterdir())):
        settings = GenerationConfig.from_pretrained(folder / "generator")
        assert settings.eos_token_id == end and end not in settings.suppress_tokens


def test_only_the_adapter_moves(run, place):
    base = load_file(place / "base/model.safetensors")
    whole = AutoModelForCausalLM.from_pretrained(run / "generator").state_dict()
    same = {name: value for name, value in whole.items() if "lora" not in name}
    for name, value in same.items():
        old = base.get(name.replace(".base_layer", ""))
        assert old is None or torch.equal(value, old), name
    assert any(value.abs().max() > 0 for name, value in whole.items() if "lora_B" in name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_interrupted_run_ends_with_the_same_adapter(dtype, run, place):
    """Its weights are float32, and stay exact, whatever lies below them."""
    folder, whole = place / f"again-{dtype}", run if dtype == "float32" else place / "whole-halves"
    given = ("--generator.dtype", dtype)
    if whole != run:
        assert main(call(place, whole, *given)) == 0
    assert main(call(place, folder, *given, "--training.rounds", "1")) == 0
    assert main(call(place, folder, *given, "--training.resume_from_checkpoint", "true")) == 0
    one, other = (load_file(path / "generator/adapter_model.safetensors") for path in (whole, folder))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def _train_on_two(rank, commands):
    """Each process checks that its adapter is the other's."""
    for command in commands:
        assert main(command) == 0


def test_two_processes_train_one_adapter_and_resume(place):
    """A run of two rounds; and one of a round that goes on."""
    resume = ("--training.resume_from_checkpoint", "true")
    runs = (("whole", ("2",)), ("resumed", ("1",)), ("resumed", ("2", *resume)))
    on_two(_train_on_two, [call(place, place / f"two-{name}", "--training.rounds", *more) for name, more in runs])
    one, other = (
        load_file(place / f"two-{name}/generator/adapter_model.safetensors") for name in ("whole", "resumed")
    )
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_checkpoint_of_an_adapter_is_loaded_without_its_base(run, place, tmp_path, monkeypatch):
    model = AutoModelForCausalLM.from_pretrained(run / "generator", dtype=torch.bfloat16)
    for name, parameter in model.named_parameters():
        if "lora" in name:
            parameter.data = torch.zeros_like(parameter, dtype=torch.float32)
    with monkeypatch.context() as patch:
        patch.setattr(type(model), "from_pretrained", mock.Mock(side_effect=AssertionError("a second base")))
        load_weights(model, run / "generator")
    saved, again = load_file(run / "generator/adapter_model.safetensors"), tmp_path / "again"
    model.save_pretrained(again)
    found = load_file(again / "adapter_model.safetensors")
    assert found.keys() == saved.keys() and all(torch.equal(found[name], saved[name]) for name in saved)
    saved.pop(next(iter(saved)))
    save_file(saved, again / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="the adapter in again has no transformer.h.0"):
        load_weights(model, again)


def test_activations_computed_again_give_the_same_adapter(run, place):
    folder = place / "checkpointing"
    recomputed = mock.Mock(side_effect=checkpoint)
    with mock.patch("transformers.modeling_utils.checkpoint", recomputed):
        assert main(call(place, folder, "--training.activation_checkpointing", "true")) == 0
    one, other = (load_file(path / "generator/adapter_model.safetensors") for path in (run, folder))
    assert recomputed.called and one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key])


def test_weights_below_the_adapter_may_be_held_in_bfloat16(place):
    folder = place / "halves"
    assert main(call(place, folder, "--generator.dtype", "bfloat16")) == 0
    adapter = load_file(folder / "generator/adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    whole = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    first, other = (next(line["nll_train"] for line in each if "nll_train" in line) for each in (lines, whole))
    assert first != other and first == pytest.approx(other, rel=0.01)


def test_what_is_trained_is_float32_however_it_was_saved(place):
    AutoModelForCausalLM.from_pretrained(place / "base", dtype=torch.bfloat16).save_pretrained(place / "short")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (place / "short" / name).write_bytes((place / "base" / name).read_bytes())
    folder = place / "from-short"
    more = ("--generator.pretrained", str(place / "short"), "--generator.lora", "null", "--training.rounds", "0")
    assert main(call(place, folder, *more)) == 0
    assert {tensor.dtype for tensor in load_file(folder / "generator/model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize("decay", [None, 0.5])
def test_copies_share_what_is_not_trained(place, decay):
    generator = AutoModelForCausalLM.from_pretrained(place / "base")
    generator.add_adapter(peft.LoraConfig(task_type="CAUSAL_LM", r=2))
    models = Models(generator, copies={"reference": Copy(decay)})
    models.begin()
    reference = models["reference"]
    own, shared = [], []
    for name, parameter in generator.named_parameters():
        (shared if parameter is reference.get_parameter(name) else own).append(name)
    assert own and all("lora" in name for name in own) and len(shared) > len(own)
    before = {name: reference.get_parameter(name).clone() for name, _ in generator.named_parameters()}
    with torch.no_grad():
        for name in own:
            generator.get_parameter(name).add_(1.0)
    models.follow()
    for name in shared:
        assert torch.equal(reference.get_parameter(name), before[name]), "no rounding where nothing moves"
    for name in own:
        moved = 0.0 if decay is None else 1 - decay
        torch.testing.assert_close(reference.get_parameter(name), before[name] + moved)
    assert all(generator.get_parameter(name).requires_grad for name in own)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--generator.pretrained", "null"], "generator.lora without `generator.pretrained`"),
        (["--generator.lora", "{rank: 2}"], "rank"),
        (["--generator.lora", "null", "--generator.dtype", "bfloat16"], "generator.dtype=bfloat16 without"),
        (["--generator.lora", "{target_modules: [nothing]}"], "no adapter can be added to GPT2LMHeadModel"),
        (["--generator.lora", "{r: 2, bias: no}"], "no adapter can be added to GPT2LMHeadModel"),
        (["--generator.lora", "{use_dora: true}"], "use_dora=True, which transformers does not load again"),
        (["--generator.lora", "{trainable_token_indices: [1]}"], "generator.lora.trainable_token_indices=[1], which"),
        (["--generator.lora", "{init_lora_weights: olora}"], "no adapter can be added to GPT2LMHeadModel"),
        (["--generator.lora", "{init_lora_weights: loftq}"], "no adapter can be added to GPT2LMHeadModel"),
        (["--generator.lora", "{task_type: SEQ_CLS}"], "generator.lora.task_type='SEQ_CLS': expected CAUSAL_LM"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(more, words, place, tmp_path, capsys):
    assert main(call(place, tmp_path / "run", *more)) == 1
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


def test_without_peft_a_line_says_what_to_install(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("seqgan_hf.commands.build_models.is_peft_available", lambda: False)
    assert main(call(place, tmp_path / "run")) == 1
    assert 'generator.lora needs peft. Run `pip install "seqgan-hf[lora]"`' in capsys.readouterr().err


# --- Sharing it ------------------------------------------------------------------------------------------------------


def test_peft_loads_it_as_it_lies(run, place):
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained(run / "generator").eval()
    own = load_generator(str(run), "cpu").model.eval()
    ids = torch.tensor([[1, 4, 5, 6]])
    torch.testing.assert_close(loaded(ids).logits, own(ids).logits)


def test_an_adapter_is_pushed_with_a_base_that_others_can_load(run, place, hub, tmp_path, capsys):
    assert main(["push", str(run), "someone/adapted"]) == 1
    said = capsys.readouterr().err
    assert f"an adapter to the model in the folder '{place / 'base'}': expected one to a model with an id" in said
    assert not hub.commits
    assert main(call(place, tmp_path / "early", "--training.push_to_hub", "true")) == 1
    assert "an adapter to the model in the folder" in capsys.readouterr().err
    assert not hub.commits and not (tmp_path / "early/generator").exists()
    AutoModelForCausalLM.from_pretrained(place / "base").push_to_hub("someone/base")
    AutoTokenizer.from_pretrained(place / "base").push_to_hub("someone/base")
    shared = ("--generator.pretrained", "someone/base", "--training.rounds", "0")
    assert main(call(place, tmp_path / "run", *shared)) == 0
    assert main(["push", str(tmp_path / "run"), "someone/adapted"]) == 0
    held = hub.files("someone/adapted")
    assert "model.safetensors" not in held and str(place) not in held["adapter_config.json"].decode()
    own = AutoModelForCausalLM.from_pretrained(tmp_path / "run/generator").eval()
    ids = torch.tensor([[1, 4, 5, 6]])
    for auto in (AutoModelForCausalLM, peft.AutoPeftModelForCausalLM):
        torch.testing.assert_close(auto.from_pretrained("someone/adapted").eval()(ids).logits, own(ids).logits)
    assert pipeline("text-generation", model="someone/adapted")("a", max_new_tokens=3)
    assert "base_model: someone/base" in held["README.md"].decode()
    whole = ("--generator.pretrained", "someone/base", "--generator.lora", "null", "--training.rounds", "0")
    assert main(call(place, tmp_path / "whole", *whole)) == 0
    assert main(["push", str(tmp_path / "whole"), "someone/adapted"]) == 0
    assert not [name for name in hub.files("someone/adapted") if "adapter" in name], "the adapter is gone"


# --- Going on from an adapter ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", ["{r: 2, lora_alpha: 4}", "null"])
def test_a_game_goes_on_with_the_adapter_of_an_earlier_run(lora, run, place, tmp_path):
    """With the settings of the recipe that made it, or none."""
    start = load_file(run / "generator/adapter_model.safetensors")
    more = [
        "--generator.pretrained",
        str(run / "generator"),
        "--generator.lora",
        lora,
        "--training.pretrain_epochs",
        "0",
    ]
    rounds = ["--training.rounds", "0", "--training.discriminator_pretrain_steps", "0"]
    assert main(call(place, tmp_path / "same", *more, *rounds)) == 0
    assert main(call(place, tmp_path / "on", *more)) == 0
    same, on = (load_file(tmp_path / name / "generator/adapter_model.safetensors") for name in ("same", "on"))
    assert start.keys() == same.keys() == on.keys()
    assert all(torch.equal(start[key], same[key]) for key in start)
    assert any(not torch.equal(start[key], on[key]) for key in start)
    config = json.loads((tmp_path / "on/generator/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(place / "base")
    base, whole = (load_file(place / "base/model.safetensors"), load_generator(str(tmp_path / "on"), "cpu").model)
    for name, value in whole.state_dict().items():
        if "lora" not in name and name.replace(".base_layer", "") in base:
            assert torch.equal(value, base[name.replace(".base_layer", "")]), name


def test_weights_below_an_earlier_adapter_may_be_held_in_bfloat16(run, place):
    corpus = SimpleNamespace(vocab_size=8, max_prompt_length=None, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    corpus.tokenizer = AutoTokenizer.from_pretrained(place / "base")
    model = build_generator(corpus, GeneratorSettings(pretrained=str(run / "generator"), dtype="bfloat16"))
    types = {parameter.requires_grad: parameter.dtype for parameter in model.parameters()}
    assert types == {True: torch.float32, False: torch.bfloat16}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--generator.lora", "{r: 4}"], "generator.lora.r=4 for the adapter"),
        (["--discriminator.pretrained", "RUN"], "is an adapter: expected a whole model. Merge it into its model"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_in_a_line(more, words, run, place, tmp_path, capsys):
    adapter = str(run / "generator")
    given = [adapter if word == "RUN" else word for word in more]
    assert main(call(place, tmp_path / "run", "--generator.pretrained", adapter, *given)) == 1
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
