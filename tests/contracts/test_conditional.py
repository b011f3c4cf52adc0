"""Conditional generation, end to end: the generator continues prompts, and only the continuation counts."""

from __future__ import annotations

import json

import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig

from seqgan_hf.data import materialize
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.verdicts import judged_tokens
from seqgan_hf.objectives import MLE, Models, SeqGAN
from seqgan_hf.training.arguments import AdversarialTrainingArguments
from seqgan_hf.training.trainer import AdversarialTrainer
from tests.tools.tiny import build_discriminator, build_generator


BOS, EOS, PAD = 0, 1, 2
# the continuation repeats the last token of the prompt, which nobody can know without having read it
ROWS = [{"prompt_ids": [BOS, *[5] * (i % 3), 4 + i % 6], "input_ids": [4 + i % 6, EOS]} for i in range(60)]
SETTINGS = {
    "per_device_train_batch_size": 12,
    "discriminator_batch_size": 24,
    "eval_samples": 12,
    "discriminator_epochs": 1,
    "discriminator_steps": 1,
    "disable_tqdm": True,
    "use_cpu": True,
}


def build(folder, kind: str, rows, **settings) -> AdversarialTrainer:
    args = AdversarialTrainingArguments(output_dir=str(folder), **(SETTINGS | settings))
    return AdversarialTrainer(
        build_generator(kind), build_discriminator("cnn"), SeqGAN(rollouts=2), args, rows, Dataset.from_list(ROWS)
    )


def train(folder, kind: str, **settings) -> AdversarialTrainer:
    trainer = build(folder, kind, Dataset.from_list(ROWS), **settings)
    trainer.train()
    return trainer


@pytest.mark.parametrize("prompts", [True, False])
@pytest.mark.parametrize("streamed", [True, False])
def test_a_generator_knows_whether_it_continues_prompts(prompts, streamed, tmp_path):
    rows = Dataset.from_list([row if prompts else {"input_ids": row["input_ids"]} for row in ROWS])
    rows = rows.to_iterable_dataset() if streamed else rows
    trainer = build(tmp_path / "run", "lstm", rows, num_fakes=12, max_new_tokens=2)
    trainer.models.generator.save_pretrained(tmp_path / "saved")
    assert AutoConfig.from_pretrained(tmp_path / "saved").conditional is prompts


def test_the_generator_learns_to_heed_its_prompt(tmp_path):
    trainer = train(tmp_path / "run", "gpt2", pretrain_epochs=25, discriminator_pretrain_steps=1, rounds=1)
    real = materialize(Dataset.from_list(ROWS), BOS, PAD)
    assert real.prompt_mask is not None and not real.prompt_mask.all()
    drawn = sample(
        trainer.models.generator, real.prompt, 2, rng=torch.Generator().manual_seed(0), prompt_mask=real.prompt_mask
    )
    assert (drawn.ids[:, 0] == real.prompt[:, -1]).float().mean() > 0.8
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["phase"] == "adversarial" and 0 <= last["reward"] <= 1


def test_losses_count_the_continuation_only():
    generator = build_generator("lstm").eval()
    real = materialize(Dataset.from_list(ROWS), BOS, PAD)
    loss = MLE().generator_loss(Models(generator), real, None).value
    torch.testing.assert_close(loss, -token_logprobs(generator, real).sum() / 120)


def test_the_discriminator_reads_prompt_and_continuation():
    real = materialize(Dataset.from_list(ROWS[:3]), BOS, PAD)
    ids, mask, _ = judged_tokens(real, 0)
    assert [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)] == [
        [4, 4, EOS],
        [5, 5, 5, EOS],
        [5, 5, 6, 6, EOS],
    ]
