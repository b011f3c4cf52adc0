"""A reward that learns inside TRL's trainers: what it learns, its state, several processes."""

from __future__ import annotations

import json
import logging
import re
from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate import PartialState
from datasets import Dataset
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from seqgan_hf.commands import main
from seqgan_hf.data.tokenization import TokenizerConfig, build_tokenizer
from seqgan_hf.errors import RunFolderError, UserError
from seqgan_hf.integrations.trl import FOLDER, AdversarialReward, Pair
from seqgan_hf.models import CNNDiscriminatorConfig, CNNDiscriminatorForSequenceClassification
from seqgan_hf.runs.hub import classifier_tokenizer
from tests.tools.judges import letter_tokenizer, save_judge
from tests.tools.small_runs import ROOT
from tests.tools.two_processes import on_two


trl = pytest.importorskip("trl")
PROMPTS = ["a", "b c", "dog", "the", "o", "old"]
ANSWERS = ["one two", "three", "four", "five six", "seven", "eight"]


def reward(folder, kind="bert", num_labels=1, **settings) -> AdversarialReward:
    judge = save_judge(folder / "judge", kind, num_labels)
    model = AutoModelForSequenceClassification.from_pretrained(judge)
    return AdversarialReward(model, letter_tokenizer(kind), **({"learning_rate": 1e-2} | settings))


def trainer(folder, learnt, kind="GRPO", **settings):
    """A policy of letters, 4 answers to each prompt."""
    torch.manual_seed(0)
    tokenizer = letter_tokenizer("gpt2")
    tokenizer.pad_token = "<pad>"
    tokenizer.padding_side = "left"
    sizes = {"n_positions": 64, "n_embd": 8, "n_layer": 1, "n_head": 2}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **special))
    args = getattr(trl, f"{kind}Config")(
        output_dir=str(folder),
        **{
            "per_device_train_batch_size": 4,
            "num_generations": 4,
            "max_completion_length": 5,
            "max_steps": 4,
            "logging_steps": 1,
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "save_strategy": "steps",
            "save_steps": 2,
            "learning_rate": 1e-3,
            "disable_tqdm": True,
            "gradient_checkpointing": False,
            "beta": 0.0,
        }
        | settings,
    )
    data = Dataset.from_dict({"prompt": PROMPTS, "answer": ANSWERS})
    callbacks = [learnt] if isinstance(learnt, AdversarialReward) else []
    known = {"args": args, "train_dataset": data, "processing_class": tokenizer, "callbacks": callbacks}
    return getattr(trl, f"{kind}Trainer")(model, learnt, **known)


def test_a_discriminator_of_one_logit_is_a_reward_model_as_it_is(tmp_path):
    """That of a run: a model of this package with its tokenizer, named by its folder."""
    tokenizer = build_tokenizer(TokenizerConfig(), lambda: [ANSWERS])
    config = CNNDiscriminatorConfig(vocab_size=len(tokenizer), embedding_size=4, num_labels=1)
    CNNDiscriminatorForSequenceClassification(config).save_pretrained(tmp_path / "judge")
    classifier_tokenizer(tokenizer, tokenizer.eos_token_id).save_pretrained(tmp_path / "judge")
    training = trainer(tmp_path / "run", str(tmp_path / "judge"), max_steps=1)
    training.train()
    assert "rewards/judge/mean" in training.state.log_history[0]


def test_a_discriminator_that_was_pushed_is_a_reward_model_by_its_name(hub, tmp_path, monkeypatch):
    """It scores prompt and completion by its own tokenizer, but without special tokens: so TRL reads."""
    (tmp_path / "lines.txt").write_text("\n".join(ANSWERS * 4))
    judge, folder = save_judge(tmp_path / "judge", num_labels=1), tmp_path / "run"
    sizes = {"per_device_train_batch_size": 8, "num_fakes": 8, "pretrain_epochs": 0, "rounds": 0}
    recipe = {
        "data": {"class_path": "TextData", "init_args": {"train_file": str(tmp_path / "lines.txt")}},
        "generator": {"config": {"hidden_size": 4}},
        "discriminator": {"pretrained": judge, "reads": "text"},
        "objective": {"class_path": "Reinforce"},
        "training": {**sizes, "discriminator_pretrain_steps": 1, "output_dir": str(folder), "use_cpu": True},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["train", str(tmp_path / "recipe.yaml")]) == 0
    assert main(["push", str(folder), "someone/letters", "--discriminator", "repository"]) == 0
    training = trainer(tmp_path / "policy", "someone/letters-discriminator", max_steps=1)
    texts, model = [], training.reward_funcs[0]
    read = training.reward_processing_classes[0]
    monkeypatch.setattr(type(read), "__call__", noted(type(read).__call__, texts))
    training.train()
    own = AutoModelForSequenceClassification.from_pretrained(folder / "discriminator").eval()
    assert same(weights(own), weights(model))
    tokenizer = AutoTokenizer.from_pretrained(folder / "discriminator")
    inputs = tokenizer(texts, padding=True, padding_side="right", add_special_tokens=False, return_tensors="pt")
    (logged,) = [row for row in training.state.log_history if "rewards/letters-discriminator/mean" in row]
    assert logged["rewards/letters-discriminator/mean"] == pytest.approx(own(**inputs).logits.mean().item(), abs=1e-5)


def noted(encode, texts: list[str]):
    """A tokenizer's call that keeps the texts which TRL scores."""

    def call(self, text=None, *others, add_special_tokens=True, **how):
        if not add_special_tokens and how.get("padding"):
            texts.extend(text)
        return encode(self, text, *others, add_special_tokens=add_special_tokens, **how)

    return call


def test_the_script_of_the_docs_runs(tmp_path, monkeypatch):
    page = (ROOT / "docs/how-to/trl.md").read_text()
    (script,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    judge, policy = save_judge(tmp_path / "judge"), tmp_path / "policy"
    training = trainer(tmp_path / "unused", reward(tmp_path))
    training.model.save_pretrained(policy)
    training.processing_class.save_pretrained(policy)
    for named, tiny in (("answerdotai/ModernBERT-base", judge), ("HuggingFaceTB/SmolLM2-135M-Instruct", str(policy))):
        assert named in script
        script = script.replace(named, tiny)
    for long, short in (
        ("max_completion_length=128", "max_completion_length=4, max_steps=2, use_cpu=True, bf16=False"),
        ("warmup=20", "warmup=1"),
    ):
        assert long in script
        script = script.replace(long, short)
    rows = [{"prompt": prompt, "answer": answer} for prompt, answer in zip(PROMPTS * 3, ANSWERS * 3, strict=True)]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "adversarial_grpo.py", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "runs/adversarial-grpo" / FOLDER / "model.safetensors").exists()


def weights(model) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(left, right) -> bool:
    return all(torch.equal(one, other) for one, other in zip(left, right, strict=True))


@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
def test_it_learns_while_the_policy_trains_and_is_left_as_a_classifier(kind, tmp_path):
    learnt = reward(tmp_path, held_out=[("dog", "nine"), ("a", "ten")])
    start = weights(learnt.discriminator)
    training = trainer(tmp_path / "run", learnt, kind)
    training.train()
    assert learnt.batches == 4 and not same(start, weights(learnt.discriminator))
    logs = [row for row in training.state.log_history if f"{FOLDER}/loss" in row]
    assert len(logs) == 4
    for name in ("margin", "pair_accuracy", "auc_held_out", "drift"):
        assert all(f"{FOLDER}/{name}" in row for row in logs), name
    assert logs[0][f"{FOLDER}/drift"] == 0 != logs[-1][f"{FOLDER}/drift"]
    assert f"rewards/{FOLDER}/mean" in logs[0]
    left = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / FOLDER)
    assert same(weights(left), weights(learnt.discriminator))


def test_a_resumed_run_ends_like_one_that_was_not_interrupted(tmp_path):
    settings = {"warmup": 1, "replay": 6, "held_out": [("dog", "nine")]}
    whole = reward(tmp_path, **settings)
    trainer(tmp_path / "whole", whole).train()
    first = reward(tmp_path, **settings)
    trainer(tmp_path / "run", first).train()
    again = reward(tmp_path, **settings)
    torch.manual_seed(5)
    resumed = trainer(tmp_path / "run", again)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert again.batches == 4
    assert same(weights(whole.discriminator), weights(again.discriminator))
    assert list(whole.replay) == list(again.replay)


def test_a_checkpoint_without_its_state_is_refused(tmp_path):
    learnt = reward(tmp_path)
    with pytest.raises(RunFolderError, match="no state of the adversarial reward"):
        learnt.load(tmp_path / "nothing")


def test_a_policy_is_not_resumed_with_the_discriminator_of_another_run(tmp_path):
    """TRL names no checkpoint to its callbacks, so the state is looked for in `output_dir`."""
    for name, rate in (("run", 1e-3), ("other", 1e-2)):
        trainer(tmp_path / name, reward(tmp_path), max_steps=2, learning_rate=rate).train()
    resumed = trainer(tmp_path / "other", reward(tmp_path))
    with pytest.raises(RunFolderError, match="is of another run than the policy's"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


def test_weights_that_learn_are_float32_however_they_were_loaded(tmp_path):
    judge = save_judge(tmp_path / "judge", num_labels=1)
    for updates, dtype in ((1, torch.float32), (0, torch.bfloat16)):
        model = AutoModelForSequenceClassification.from_pretrained(judge, dtype=torch.bfloat16)
        AdversarialReward(model, letter_tokenizer("bert"), updates=updates)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_a_prompt_without_an_answer_is_scored_and_not_learnt_from(tmp_path):
    learnt = reward(tmp_path, replay=9, held_out=[("dog", "nine")])
    values = scored(learnt, PROMPTS[:3], ["xx", "yy", "zz"], answer=["one", None, "two"])
    assert len(values) == 3 and [(pair.completion, pair.answer) for pair in learnt.replay] == [
        ("xx", "one"),
        ("zz", "two"),
    ]
    fixed = weights(learnt.discriminator)
    assert len(scored(learnt, PROMPTS[:2], ["xx", "yy"], answer=[None, None])) == 2
    assert same(fixed, weights(learnt.discriminator)) and learnt.batches == 1
    assert learnt.logged.keys() == {"auc_held_out", "drift"}
    learnt = reward(tmp_path, replay=9)  # margin and pair accuracy are of those that have one
    learnt.scores = lambda texts: torch.tensor([{"xx": 5.0, "yy": 0.0, "one": 1.0}[text] for _, text in texts])
    measured = learnt._measure([Pair("b", "yy", "one")], torch.tensor([5.0, 0.0]), torch.tensor([False, True]))
    assert measured == {"margin": 1.0, "pair_accuracy": 1.0}


def test_the_drift_of_a_discriminator_that_stays_is_zero(tmp_path):
    held_out = [(prompt, answer) for prompt in PROMPTS for answer in ANSWERS]
    learnt = reward(tmp_path, learning_rate=0.0, held_out=held_out)
    for _ in range(3):
        scored(learnt, PROMPTS[:2], ["xx", "yy"], answer=ANSWERS[:2])
        assert learnt.logged["drift"] == 0 and len(learnt.shown) == 8


def test_a_reward_that_no_trainer_tells_of_goes_to_the_device_of_the_process(tmp_path, monkeypatch):
    learnt = reward(tmp_path, updates=0)
    state = SimpleNamespace(device=torch.device("meta"))
    monkeypatch.setattr("seqgan_hf.integrations.trl.PartialState", lambda: state)
    monkeypatch.setattr(learnt, "scores", lambda texts: torch.zeros(len(texts)))
    learnt(PROMPTS, ANSWERS)
    assert learnt.discriminator.device.type == "meta"


def scored(learnt, prompts, completions, **columns):
    learnt.on_step_begin(None, None, None)
    values = learnt(prompts, completions, **columns)
    learnt.on_step_end(None, None, None)
    return values


@pytest.mark.parametrize("loss", ["bradley_terry", "cross_entropy"])
@pytest.mark.parametrize("num_labels", [1, 2])
def test_it_learns_to_tell_answers_from_completions(loss, num_labels, tmp_path):
    learnt = reward(tmp_path, loss=loss, num_labels=num_labels, updates=20)
    for _ in range(3):
        before = scored(learnt, PROMPTS, ["xx"] * 6, answer=ANSWERS)
    assert learnt.logged["pair_accuracy"] == 1 and learnt.logged["margin"] > 1
    assert max(before) < 0, "the answers, not the completions, are real"
    fixed = weights(learnt.discriminator)
    learnt(PROMPTS, ["xx"] * 6)
    assert learnt.batches == 3 and same(fixed, weights(learnt.discriminator)), "an evaluation only scores"


def test_the_losses_are_those_of_their_papers(tmp_path):
    for loss in ("bradley_terry", "cross_entropy"):
        learnt = plain(tmp_path, loss=loss)
        real = learnt.scores([("a", "one"), ("b", "two")]).double()
        fake = learnt.scores([("a", "xx"), ("b", "yy")]).double()
        expected = {
            "bradley_terry": -(real - fake).sigmoid().log().mean(),
            "cross_entropy": -(real.sigmoid().log() + (1 - fake.sigmoid()).log()).mean() / 2,
        }
        scored(learnt, ["a", "b"], ["xx", "yy"], answer=["one", "two"])
        assert learnt.logged["loss"] == pytest.approx(float(expected[loss]), abs=1e-6)


def test_rewards_are_zero_while_it_warms_up_and_cut_off_afterwards(tmp_path):
    learnt = reward(tmp_path, warmup=2, limit=0.01)
    for _ in range(2):
        assert scored(learnt, PROMPTS, ["xx"] * 6, answer=ANSWERS) == [0.0] * 6
    values = scored(learnt, PROMPTS, ["xx"] * 6, answer=ANSWERS)
    assert all(0 < abs(value) <= 0.0101 for value in values)


def test_earlier_pairs_come_back(tmp_path, monkeypatch):
    learnt = reward(tmp_path, replay=3, batch_size=4)
    seen, encode = [], type(learnt.tokenizer).__call__

    def noted(self, prompts, texts, **how):
        if learnt.discriminator.training:  # answers, then completions
            seen.append(texts[len(texts) // 2 :])
        return encode(self, prompts, texts, **how)

    monkeypatch.setattr(type(learnt.tokenizer), "__call__", noted)
    scored(learnt, PROMPTS, ["x"] * 6, answer=ANSWERS)
    scored(learnt, PROMPTS, ["y"] * 6, answer=ANSWERS)
    assert seen == [["x"] * 4, ["x", "x", "y", "y"]] and [p.completion for p in learnt.replay] == ["y"] * 3


def test_what_it_knows_is_measured_on_text_that_it_does_not_learn_from(tmp_path, monkeypatch):
    learnt = reward(tmp_path, held_out=[("a", "unseen")])
    scores = {"one two": 1.0, "xx": 0.0, "unseen": -1.0}
    monkeypatch.setattr(learnt, "scores", lambda texts: torch.tensor([scores[text] for _, text in texts]))
    scored(learnt, ["a"], ["xx"], answer=["one two"])
    assert learnt.logged["pair_accuracy"] == 1 and learnt.logged["auc_held_out"] == 0


@pytest.mark.parametrize(("kind", "limit"), [("bert", 12), ("roberta", 11)])
def test_a_text_longer_than_its_positions_is_cut_with_one_warning(kind, limit, tmp_path, caplog):
    """RoBERTa counts positions from behind the padding token."""
    model = AutoModelForSequenceClassification.from_pretrained(save_judge(tmp_path, kind, 1, positions=12))
    learnt = AdversarialReward(model, letter_tokenizer(kind), reads_prompt=False)
    one, other = (learnt.scores([("", "o" * length)]) for length in (30, 40))
    assert torch.equal(one, other)
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "seqgan_hf.data.reading"]
    assert f"which reads {limit};" in warning


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2"])
def test_empty_prompts_and_completions_are_read_whatever_stands_beside_them(kind, tmp_path):
    learnt = reward(tmp_path, kind)
    texts = [("", "one"), ("a", "one"), ("a", ""), ("", "")]
    together = learnt.scores(texts)
    for text, score in zip(texts, together, strict=True):
        torch.testing.assert_close(learnt.scores([text])[0], score)
    assert together[0] != together[1] and together.isfinite().all()


def test_a_discriminator_of_this_package_learns_on_in_trl(tmp_path):
    tokenizer = build_tokenizer(TokenizerConfig(), lambda: [[*ANSWERS, *PROMPTS]])
    config = CNNDiscriminatorConfig(vocab_size=len(tokenizer), embedding_size=4, num_labels=1)
    own = classifier_tokenizer(tokenizer, tokenizer.eos_token_id)
    learnt = AdversarialReward(CNNDiscriminatorForSequenceClassification(config), own, reads_prompt=False)
    scored(learnt, PROMPTS, ["three", "", *ANSWERS[:4]], answer=ANSWERS)
    assert learnt.batches == 1 and learnt.logged["loss"] > 0


def test_its_gradient_is_clipped(tmp_path):
    moved = []
    for largest in (0.0, 1e-3):
        learnt = plain(tmp_path, max_grad_norm=largest)
        start = weights(learnt.discriminator)
        scored(learnt, PROMPTS, ["xx"] * 6, answer=ANSWERS)
        pairs = zip(start, weights(learnt.discriminator), strict=True)
        moved.append(sum((after - before).square().sum() for before, after in pairs).sqrt().item())
    assert moved[1] == pytest.approx(1e-4, rel=1e-2) and moved[0] > 10 * moved[1]


def test_it_goes_where_the_policy_is(tmp_path):
    learnt = reward(tmp_path)
    learnt.on_train_begin(SimpleNamespace(device=torch.device("meta")), SimpleNamespace(global_step=0), None)
    assert learnt.discriminator.device.type == "meta"


@pytest.mark.parametrize("updates", [0, 1])
def test_a_reward_that_is_not_among_the_callbacks_says_that_it_learns_nothing(updates, tmp_path, caplog):
    learnt = reward(tmp_path, updates=updates)
    training = trainer(tmp_path / "run", learnt)
    training.remove_callback(learnt)
    with caplog.at_level(logging.WARNING):
        training.train()
    found = [row.getMessage() for row in caplog.records if row.name == "seqgan_hf.integrations.trl"]
    assert len(found) == updates and all("it is not among the trainer's callbacks" in text for text in found)
    assert learnt.batches == 0


def test_answers_may_be_any_real_text_and_prompts_conversations(tmp_path):
    learnt = reward(tmp_path, answers=["real text"], loss="cross_entropy", held_out=["more text"])
    assert not learnt.reads_prompt, "what fits its prompt would be a fake"
    chat = [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]]
    said = [[{"role": "assistant", "content": "xx"}], [{"role": "assistant", "content": "yy"}]]
    values = scored(learnt, chat, said)
    assert len(values) == 2 and "auc_held_out" in learnt.logged
    assert learnt(chat, said) == pytest.approx(learnt(["a", "other"], ["xx", "yy"]))


def test_messages_without_text_are_read_as_nothing_and_parts_as_their_text(tmp_path):
    """A call of a tool has no content; that of several media is in parts."""
    learnt = reward(tmp_path, held_out=[([{"role": "user", "content": "a"}], "one")])
    parts = [{"type": "image"}, {"type": "text", "text": "xx"}]
    said = [[{"role": "assistant", "content": text}] for text in (None, parts)] + [[{"role": "assistant"}]]
    assert learnt(PROMPTS[:3], said) == pytest.approx(learnt(PROMPTS[:3], ["", "xx", ""]))
    assert learnt.held_out == [("a", "one")]
    with pytest.raises(UserError, match="an answer that is 7, a int: expected text, or a list of messages"):
        scored(learnt, ["a"], ["xx"], answer=[7])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss": "hinge"}, "loss='hinge': expected one of bradley_terry, cross_entropy"),
        ({"updates": -1}, "updates=-1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"answers": []}, "no real answers"),
        ({"num_labels": 3}, "a discriminator of 3 labels"),
        ({"held_out": ["text"]}, "held-out texts without prompts"),
        ({"answers": ["text"], "reads_prompt": True}, "reads_prompt=True with texts that answer no prompt"),
        ({"replay": -1}, "replay=-1: expected a whole number from 0 on"),
        ({"warmup": 1.5}, "warmup=1.5: expected a whole number"),
        ({"learning_rate": -1}, "learning_rate=-1: expected a number from 0 on"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm=nan"),
        ({"limit": "high"}, "limit='high'"),
    ],
)
def test_bad_settings_are_refused(settings, words, tmp_path):
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        reward(tmp_path, **settings)


def test_a_discriminator_that_cannot_read_or_learn_is_refused(tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(save_judge(tmp_path / "judge", num_labels=1))
    with pytest.raises(UserError, match="None for the tokenizer of a discriminator"):
        AdversarialReward(model, None)
    bare = letter_tokenizer("gpt2")
    bare.eos_token = None
    with pytest.raises(UserError, match="has no end, separator or padding token"):
        AdversarialReward(model, bare)
    larger = letter_tokenizer("bert")
    larger.add_tokens(["new"])
    with pytest.raises(UserError, match="tokens with a tokenizer of"):
        AdversarialReward(model, larger)
    with pytest.raises(UserError, match="a BertModel, which gives no logits"):
        AdversarialReward(AutoModel.from_pretrained(tmp_path / "judge", num_labels=1), letter_tokenizer("bert"))
    model.requires_grad_(False)
    with pytest.raises(UserError, match="of which no weight is trained"):
        AdversarialReward(model, letter_tokenizer("bert"))
    fixed = AdversarialReward(model, letter_tokenizer("bert"), updates=0)
    assert len(fixed(PROMPTS, ANSWERS)) == 6


def test_a_missing_column_is_named(tmp_path):
    learnt = reward(tmp_path, answers="reply")
    with pytest.raises(UserError, match="no column 'reply': expected one of answer"):
        scored(learnt, PROMPTS, ["xx"] * 6, answer=ANSWERS)


def plain(folder, **settings) -> AdversarialReward:
    """Without dropout, and with an optimizer that does not blow up gradients that are zero but for rounding."""
    learnt = reward(folder, **settings)
    learnt.optimizer = torch.optim.SGD(learnt.discriminator.parameters(), lr=0.1)
    for module in learnt.discriminator.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return learnt


def _learn_half(rank, folder):
    state = PartialState(cpu=True)
    learnt = plain(folder / str(rank))
    rows = slice(3 * rank, 3 * rank + 3)
    scored(learnt, PROMPTS[rows], ["xx", "yy", "zz"], answer=ANSWERS[rows])
    state.wait_for_everyone()
    return weights(learnt.discriminator)


def test_two_processes_follow_one_gradient(tmp_path):
    for rank in (0, 1):
        save_judge(tmp_path / str(rank) / "judge", num_labels=1)  # only the first process writes models
    one, other = on_two(_learn_half, tmp_path)
    assert same(one, other)
    whole = plain(tmp_path / "0")
    scored(whole, PROMPTS, ["xx", "yy", "zz"] * 2, answer=ANSWERS)
    for mine, theirs in zip(weights(whole.discriminator), one, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def _train_in_trl(rank, folder, resumed):
    """A run of four steps, or its last two; the discriminators differ until the run begins."""
    torch.manual_seed(rank)
    learnt = reward(folder / str(rank), replay=6, held_out=[("dog", "nine"), ("a", "ten")])
    with torch.no_grad():
        learnt.discriminator.classifier.weight += rank
    training = trainer(folder / "run", learnt, per_device_train_batch_size=2, ddp_backend="gloo")
    training.train(resume_from_checkpoint=str(folder / "run" / "checkpoint-2") if resumed else None)
    logs = [row for row in training.state.log_history if f"{FOLDER}/loss" in row]
    return weights(learnt.discriminator), list(learnt.replay), learnt.random.getstate(), len(logs), learnt.batches


def test_two_processes_train_one_discriminator_in_trl_and_resume(tmp_path):
    for rank in (0, 1):
        save_judge(tmp_path / str(rank) / "judge", num_labels=1)  # only the first process writes models
    one, other = on_two(_train_in_trl, tmp_path, False)
    assert same(one[0], other[0]) and one[3:] == (4, 4)
    assert one[1] != other[1] and one[2] != other[2], "each has completions and random numbers of its own"
    again = on_two(_train_in_trl, tmp_path, True)
    for whole, resumed in zip((one, other), again, strict=True):
        assert same(whole[0], resumed[0]) and whole[1:3] == resumed[1:3]
