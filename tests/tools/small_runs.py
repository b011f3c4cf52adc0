"""Runs of a second: what their tests share."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml

from seqgan_hf.data import Corpus, OracleData
from seqgan_hf.evaluation.likelihood import OracleNLL
from seqgan_hf.objectives import SeqGAN
from seqgan_hf.runs.record import COST
from seqgan_hf.samples import Samples
from seqgan_hf.training import AdversarialTrainer, AdversarialTrainingArguments
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
    "use_cpu": True,
}


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
    models = trainer.models.named().values()
    return [parameter.detach().clone() for model in models for parameter in model.parameters()]


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
    "training.use_cpu": "true",
}


def options(settings: dict) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def short_run(recipe: Path, folder: Path, lines: Path, **more) -> list[str]:
    content = yaml.safe_load(recipe.read_text())
    source = content["data"]["class_path"].rpartition(".")[2]
    settings = {name: value for name, value in TINY.items() if source == "OracleData" or name[:5] != "data."}
    if "pretrained" in content["generator"]:
        settings = {name: value for name, value in settings.items() if not name.startswith("generator.config")}
    if source == "TextData":
        settings |= {"data.train_file": lines, "data.eval_size": 10}
    if source == "GrammarData":
        settings |= {"data.num_train": 64, "data.num_eval": 32}
    return ["train", str(recipe), *options(settings | {"training.output_dir": folder} | more)]


def quickstart(folder: Path, *more: str) -> list[str]:
    return [*short_run(ROOT / "recipes/oracle/quickstart.yaml", folder, Path()), *more]
