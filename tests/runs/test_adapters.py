"""A run that trains an adapter of peft: it resumes, and what it saves is the policy that it trained."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from transformers.integrations.peft import MIN_PEFT_VERSION

from seqgan_hf.data import TextData
from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.loading import check_prompts, draw_samples, encode_texts, load_generator
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.generation.rollouts import complete
from seqgan_hf.generation.vocabulary import suppressed_tokens
from seqgan_hf.models import EnsembleGeneratorForCausalLM
from seqgan_hf.objectives import SeqGAN
from seqgan_hf.training.arguments import AdversarialTrainingArguments
from seqgan_hf.training.checks import check_generator
from seqgan_hf.training.trainer import AdversarialTrainer
from tests.tools.small_runs import BRIEF, same, weights
from tests.tools.tiny import build_discriminator


peft = pytest.importorskip("peft", minversion=MIN_PEFT_VERSION)
SETTINGS = {"per_device_train_batch_size": 12, "discriminator_batch_size": 12, "discriminator_epochs": 1}
SETTINGS |= {"num_fakes": 24, "pretrain_learning_rate": 0.05, "use_cpu": True, "disable_tqdm": True}


def lora() -> peft.LoraConfig:
    return peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["c_attn"], fan_in_fan_out=True)


def run(folder, prompts: bool = False, **settings) -> AdversarialTrainer:
    """Of an adapter onto an untrained model, which would write a special token as often as any other one."""
    rows = {"text": [f"w{i % 5} w{i % 3}" for i in range(60)]} | ({"q": ["w1", "w2"] * 30} if prompts else {})
    source = TextData(dataset=Dataset.from_dict(rows), prompt_column="q" if prompts else None, eval_size=12)
    corpus = source.load()
    if not (base := folder.parent / "base").exists():
        tokens = {name: getattr(corpus, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        sizes = {"n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": corpus.vocab_size}
        GPT2LMHeadModel(GPT2Config(**sizes, **tokens)).save_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(0)
    model.add_adapter(lora())
    args = AdversarialTrainingArguments(output_dir=str(folder), **(BRIEF | SETTINGS | settings))
    others = (build_discriminator("cnn"), SeqGAN(rollouts=2), args, corpus.train, corpus.eval, corpus.tokenizer)
    trainer = AdversarialTrainer(model, *others)
    trainer.train()
    return trainer


def test_a_reloaded_adapter_is_the_policy_that_was_trained(tmp_path):
    """Samples, likelihoods and rollouts, none of which knows a special token that no text holds."""
    trained = run(tmp_path / "run").models.generator.eval()
    loaded = load_generator(str(tmp_path / "run"), "cpu")
    assert suppressed_tokens(loaded.model) == suppressed_tokens(trained) == [0, 1, 3]
    assert loaded.model.generation_config.max_new_tokens == trained.generation_config.max_new_tokens == 3
    texts = encode_texts(loaded, ["w1 w2", "w0", "w4 w1"])
    found = []
    for model in (trained, loaded.model):
        samples, written = draw_samples(replace(loaded, model=model), texts, 50, 3, 1.0, seed=0)
        rng = torch.Generator().manual_seed(0)
        rollouts = [part.samples.ids for part in complete(model, texts, 2, rng=rng)]
        found.append([samples.ids, token_logprobs(model, texts), *rollouts])
        assert "<unk>" not in " ".join(written)
    assert same(*found)


def test_a_reloaded_adapter_knows_that_it_continues_prompts(tmp_path):
    trainer = run(tmp_path / "run", prompts=True)
    trainer.models.generator.generation_config.max_prompt_length = 2  # as a recipe's corpus has it
    trainer.models.generator.save_pretrained(tmp_path / "run/generator")
    loaded = load_generator(str(tmp_path / "run"), "cpu")
    assert loaded.model.config.max_prompt_length == 2
    with pytest.raises(UserError, match="without prompts, which it was trained to continue"):
        check_prompts(loaded, False)


def test_a_run_of_an_adapter_resumes(tmp_path):
    whole = run(tmp_path / "whole", rounds=2)
    run(tmp_path / "run", rounds=1, save_every=1)
    assert same(weights(whole), weights(run(tmp_path / "run", rounds=2, resume_from_checkpoint=True)))


def test_an_ensemble_takes_no_adapters_but_what_they_are_merged_into():
    """As its message says: merged, an adapter is a member like any other."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=9, n_positions=8)).eval()
    adapted = peft.get_peft_model(copy.deepcopy(model), replace(lora(), init_lora_weights=False)).eval()
    with pytest.raises(ValueError, match=r"members\[1\] with an adapter: .* Merge it: "):
        EnsembleGeneratorForCausalLM.from_members([model, adapted])
    inside = copy.deepcopy(model)
    inside.add_adapter(lora())
    with pytest.raises(ValueError, match=r"members\[0\] with an adapter: "):
        EnsembleGeneratorForCausalLM.from_members([inside, model])
    ids = torch.arange(6)[None]
    expected = torch.stack([each(ids).logits.softmax(-1) for each in (model, adapted)]).mean(0)
    ensemble = EnsembleGeneratorForCausalLM.from_members([model, adapted.merge_and_unload()]).eval()
    torch.testing.assert_close(ensemble(ids).logits.softmax(-1), expected)


def test_a_wrapped_model_is_refused_before_the_run(tmp_path):
    model = peft.get_peft_model(GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=9)), lora())
    with pytest.raises(UserError, match=r"of the class PeftModelForCausalLM: .* `model.add_adapter\(lora\)`"):
        check_generator(model)
