"""Runs of a second: what their tests share."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import PreTrainedModel, TrainerCallback

from seqgan_hf.data import Corpus, OracleData
from seqgan_hf.evaluation.likelihood import OracleNLL
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.models import CNNDiscriminatorConfig
from seqgan_hf.objectives import Copy, SeqGAN
from seqgan_hf.runs.record import COST
from seqgan_hf.samples import Samples
from seqgan_hf.training import AdversarialTrainer, AdversarialTrainingArguments, Interrupted
from tests.tools.tiny import BOS, EOS, PAD, build_discriminator, build_generator


ROOT = Path(__file__).parents[2]
SHORT = {
    "per_device_train_batch_size": 16,
    "discriminator_batch_size": 16,
    "pretrain_epochs": 2,
    "discriminator_pretrain_steps": 2,
    "rounds": 2,
    "discriminator_steps": 2,
    "discriminator_epochs": 1,
    "eval_epochs": 1,
    "eval_rounds": 1,
    "eval_samples": 20,
    "disable_tqdm": True,
    "estimate_time": False,
    "use_cpu": True,
}
# One unit of each phase; nothing is measured.
BRIEF = {"pretrain_epochs": 1, "discriminator_pretrain_steps": 1, "rounds": 1, "eval_epochs": 0, "eval_rounds": 0}
# `SHORT` on each of two processes, with a checkpoint after every unit.
HALVES = SHORT | {"per_device_train_batch_size": 8, "discriminator_batch_size": 8, "eval_samples": 21, "save_every": 1}


def small_corpus() -> Corpus:
    """48 sequences of 5 tokens, and 20 held out."""
    return OracleData(vocab_size=13, length=5, hidden_size=8, num_train=48, num_eval=20).load()


def build(corpus, folder, objective=None, callbacks=None, generator=None, discriminator=None, **settings):
    """A trainer of tiny models on `small_corpus`."""
    return AdversarialTrainer(
        generator or build_generator("lstm", eos=None),
        discriminator or build_discriminator("cnn"),
        objective or SeqGAN(rollouts=2, baseline="moving_average", rollout_lag=0.5),
        AdversarialTrainingArguments(output_dir=str(folder), **(SHORT | settings)),
        corpus.train,
        corpus.eval,
        corpus.tokenizer,
        callbacks=callbacks,
        evaluators=[OracleNLL(corpus.oracle, corpus.eval)],
    )


def build_on_two(
    folder, objective=None, data=None, callbacks=None, models=("lstm", "cnn"), seed=0, **settings
) -> AdversarialTrainer:
    """A trainer of tiny models for one of two processes, on `data` or on sequences of one length."""
    corpus = None if data is not None else OracleData(vocab_size=13, length=5, hidden_size=8, num_train=48).load()
    evaluators = [] if corpus is None else [OracleNLL(corpus.oracle, text(8))]
    return AdversarialTrainer(
        build_generator(models[0], eos=None if data is None else EOS, seed=seed),
        build_discriminator(models[1]),
        objective or SeqGAN(rollouts=2, baseline="moving_average", rollout_lag=0.5),
        AdversarialTrainingArguments(output_dir=str(folder), **(HALVES | settings)),
        corpus.train if data is None else data,
        text(8) if data is None else data.select(slice(0, 8)),
        None if corpus is None else corpus.tokenizer,
        callbacks=callbacks,
        evaluators=evaluators,
    )


class StopAfter(TrainerCallback):
    """A signal at the given optimizer step of `trainer`, which is set once it is built."""

    def __init__(self, step: int, number: int = signal.SIGINT):
        self.step, self.number, self.trainer = step, number, None

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.trainer.parts.units.interrupt(self.number)


def finished(make, corpus, folder, **settings) -> AdversarialTrainer:
    """A run to its end; `make` gives the objective and models of one."""
    trainer = build(corpus, folder, **make(), **settings)
    trainer.train()
    return trainer


def cut_and_resumed(make, corpus, folder, step: int, **settings) -> tuple[AdversarialTrainer, AdversarialTrainer]:
    """The same run, interrupted after `step` optimizer steps, and resumed to its end."""
    stop = StopAfter(step)
    stop.trainer = build(corpus, folder, callbacks=[stop], **make(), **settings)
    with pytest.raises(Interrupted, match="resume_from_checkpoint true"):
        stop.trainer.train()
    torch.manual_seed(123)  # resuming must not depend on what happened since
    return stop.trainer, finished(make, corpus, folder, resume_from_checkpoint=True, **settings)


class TwoCopies(SeqGAN):
    """The rollout policy is an average; and what a snapshot, taken at every second g-step, finds likely earns less."""

    def __init__(self):
        super().__init__(rollouts=2, baseline="moving_average", rollout_lag=0.5)
        self.steps = 0

    def copies(self):
        return super().copies() | {"snapshot": Copy()}

    def reward(self, models, samples, real):
        return super().reward(models, samples, real) - token_logprobs(models["snapshot"], samples).sum(dim=1)

    def after_step(self, player, models):
        if player == "generator":
            self.steps += 1
            if self.steps % 2 == 0:
                models.refresh("snapshot")

    def state_dict(self):
        return super().state_dict() | {"steps": self.steps}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.steps = state["steps"]


def text(count: int, seed: int = 0) -> Samples:
    """Sequences of 1 to 5 tokens."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 6, (count, 1), generator=rng)
    mask = torch.arange(5) < lengths
    ids = torch.randint(3, 13, (count, 5), generator=rng)
    ids = torch.where(torch.arange(5) == lengths - 1, EOS, ids).masked_fill(~mask, PAD)
    return Samples(torch.full((count, 1), BOS), ids, mask)


def weights(trainer: AdversarialTrainer) -> list[torch.Tensor]:
    """Of all models, copies included."""
    return [parameter for model in trainer.models.named().values() for parameter in parameters(model)]


def parameters(model: PreTrainedModel) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def kept_twice(checkpoint: Path, *names: str) -> bool:
    """Whether a file of a checkpoint holds a matrix of these models, each of which has a folder."""
    own = [tensor for name in names for tensor in load_file(checkpoint / name / "model.safetensors").values()]
    states = [file.read_bytes() for file in checkpoint.glob("*.pt")]  # tensors are not compressed there
    return any(tensor.numpy().tobytes() in state for tensor in own if tensor.dim() == 2 for state in states)


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(left, right, strict=True))


def metrics(folder: Path) -> list[dict]:
    """The record of a run without times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", *COST)} for line in lines]


# --- By the command line ---------------------------------------------------------------------------------------------

TINY = {
    "data.num_train": 64,
    "data.num_eval": 32,
    "data.vocab_size": 20,
    "data.length": 6,
    "generator.config.hidden_size": 8,
    "generator.config.embedding_size": 8,
    "training.per_device_train_batch_size": 32,
    "training.discriminator_batch_size": 32,
    "training.pretrain_epochs": 1,
    "training.discriminator_pretrain_steps": 1,
    "training.rounds": 2,
    "training.generator_steps": 1,
    "training.discriminator_steps": 1,
    "training.discriminator_epochs": 1,
    "training.num_fakes": 64,
    "training.eval_samples": 16,
    "training.eval_rounds": 2,
    "training.disable_tqdm": "true",
    "training.estimate_time": "false",
    "training.use_cpu": "true",
}


def options(settings: dict) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def short_settings(content: dict, chosen: Iterable[str] = ()) -> dict:
    """What makes a recipe's run a second long; `chosen` are settings that the caller has for himself."""
    source = content["data"]["class_path"].rpartition(".")[2]
    settings = {name: value for name, value in TINY.items() if source == "OracleData" or name[:5] != "data."}
    if "pretrained" in content["generator"]:
        settings = {name: value for name, value in settings.items() if not name.startswith("generator.config")}
    if content["generator"].get("model_type") == "relational_memory":
        settings |= {"generator.config.head_size": settings.pop("generator.config.hidden_size")}
    judge = content.get("discriminator", {})
    shared = content["generator"].get("model_type") == "leak_generator"  # which holds the discriminator's layers
    if not shared and not any(name.startswith("discriminator.") for name in chosen):
        if judge.get("model_type") == "cnn_discriminator":
            filters = judge.get("config", {}).get("num_filters", CNNDiscriminatorConfig().num_filters)
            settings["discriminator.config.num_filters"] = [4] * len(filters)
        elif judge.get("model_type") == "rnn_discriminator":
            settings["discriminator.config.hidden_size"] = 8
    if "pretrain_batch_size" in content["training"]:
        settings["training.pretrain_batch_size"] = 32
    if source == "TextData":
        settings["data.eval_size"] = 10
    if source.endswith("GrammarData"):
        settings |= {"data.num_train": 64, "data.num_eval": 32}
    return settings


def short_run(recipe: Path, folder: Path, lines: Path, **more) -> list[str]:
    settings = short_settings(yaml.safe_load(recipe.read_text()), more)
    if "data.eval_size" in settings:
        settings["data.train_file"] = lines
    return ["train", str(recipe), *options(settings | {"training.output_dir": folder} | more)]


def quickstart(folder: Path, *more: str) -> list[str]:
    return [*short_run(ROOT / "recipes/oracle/quickstart.yaml", folder, Path()), *more]
