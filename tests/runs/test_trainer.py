"""The adversarial trainer: Algorithm 1, repeatable bit for bit, resumable, and honest about bad numbers."""

from __future__ import annotations

import signal
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    EarlyStoppingCallback,
    TrainerCallback,
    pipeline,
)

from seqgan_hf.errors import DataError, TrainingError
from seqgan_hf.functional import masked_mean
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.objectives import DPG, MLE, ConstantReward, Loss, Reinforce, SeqGAN
from seqgan_hf.runs.folder import RunFolderError
from seqgan_hf.training import AdversarialTrainer, Interrupted
from seqgan_hf.training.arguments import AdversarialTrainingArguments
from seqgan_hf.training.checkpoint import checkpoints, fault
from seqgan_hf.training.player import MAX_BAD_STEPS
from tests.tools.small_runs import SHORT, StopAfter, build, cut_and_resumed, metrics, same, small_corpus, weights
from tests.tools.tiny import build_discriminator, build_generator


@pytest.fixture(scope="module")
def corpus():
    return small_corpus()


def test_a_run_goes_through_the_phases_and_leaves_models_that_anyone_can_load(corpus, tmp_path):
    trainer = build(corpus, tmp_path / "run")
    before = weights(trainer)
    trainer.train()
    moved = [not torch.equal(old, new) for old, new in zip(before, weights(trainer), strict=False)]
    assert all(moved), "a parameter was not trained"
    lines = metrics(tmp_path / "run")
    phases = [line["phase"] for line in lines]
    assert phases == ["pretrain_generator"] * 2 + ["pretrain_discriminator"] * 2 + ["adversarial"] * 2
    # 2 epochs x 3 batches; 2 d-steps x 6 batches of 8 + 8; 2 rounds of 1 g-step and 2 d-steps
    assert [line["global_step"] for line in lines] == [3, 6, 12, 18, 31, 44]
    for name in ("nll_oracle", "nll_test", "jsd_oracle", "reward", "discriminator_accuracy", "discriminator_loss"):
        assert name in lines[-1], name
    run = tmp_path / "run"
    generator = AutoModelForCausalLM.from_pretrained(run / "generator")
    discriminator = AutoModelForSequenceClassification.from_pretrained(run / "discriminator")
    players = [*trainer.models.generator.parameters(), *trainer.models.discriminator.parameters()]
    assert same([*generator.parameters(), *discriminator.parameters()], players)
    assert (run / "generator" / "learning_curve.png").read_bytes() == (
        run / "figures" / "learning_curve.png"
    ).read_bytes()
    assert len((run / "samples" / "adversarial-2.txt").read_text().splitlines()) == 20
    text = pipeline("text-generation", model=str(run / "generator"))("", num_return_sequences=2)
    assert all(len(row["generated_text"].split()) == 5 for row in text)


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """Folder and weights of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    trainer = build(corpus, folder)
    trainer.train()
    return folder, weights(trainer)


def test_the_same_seed_gives_the_same_run_bit_for_bit(corpus, whole, tmp_path):
    runs = {"one": whole[1]}
    for name, settings in {
        "two": {},
        "no evaluation": {"eval_epochs": 0, "eval_rounds": 0},
        "other seed": {"seed": 1},
    }.items():
        trainer = build(corpus, tmp_path / name, **settings)
        trainer.train()
        runs[name] = weights(trainer)
    assert same(runs["one"], runs["two"])
    assert metrics(whole[0]) == metrics(tmp_path / "two")
    assert same(runs["one"], runs["no evaluation"]), "measuring changed the training"
    assert not same(runs["one"], runs["other seed"])


@pytest.mark.parametrize("step", [2, 9, 19, 25, 33])
def test_an_interrupted_run_ends_with_the_weights_of_one_that_was_not(corpus, whole, tmp_path, step):
    """Interrupted in every phase: pretraining of G and of D, a g-step, the first and the second d-step of a round."""
    _, resumed = cut_and_resumed(dict, corpus, tmp_path / "cut", step)
    assert same(whole[1], weights(resumed)) and metrics(whole[0]) == metrics(tmp_path / "cut")


@pytest.mark.parametrize(
    ("step", "again", "saved"),
    [(2, "start again, as there is no checkpoint yet", 3), (9, "resume from checkpoint-6", 12)],
)
def test_a_signal_is_answered_with_what_holds_if_the_run_is_killed_before_its_unit_ends(
    corpus, tmp_path, caplog, step, again, saved
):
    class Terminate(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == step:
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match=f"checkpoint-{saved}"):
        build(corpus, tmp_path / "run", callbacks=[Terminate()], save_every=1).train()
    line = next(line for line in caplog.messages if "Stopping after this unit" in line)
    assert f"if it is killed before, {again}. " in line


def test_an_interrupted_run_saves_one_checkpoint_where_one_is_due_anyway(corpus, tmp_path):
    saved = []

    class Saves(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            saved.append(state.global_step)

    stop = StopAfter(2)
    stop.trainer = build(corpus, tmp_path / "run", callbacks=[stop, Saves()], save_every=1)
    with pytest.raises(Interrupted):
        stop.trainer.train()
    assert saved == [3]


def test_checkpoints_are_whole_and_rotated(corpus, tmp_path):
    build(corpus, tmp_path / "run", save_every=1, save_total_limit=2).train()
    kept = checkpoints(tmp_path / "run" / "checkpoints")
    assert [path.name for path in kept] == ["checkpoint-31", "checkpoint-44"]
    assert not list((tmp_path / "run" / "checkpoints").glob(".*partial"))
    assert [fault(path) for path in kept] == [None, None]


def test_the_best_checkpoint_is_kept_and_can_be_the_result(corpus, tmp_path):
    trainer = build(
        corpus,
        tmp_path / "run",
        metric_for_best_model="nll_test",
        greater_is_better=False,
        load_best_model_at_end=True,
        save_total_limit=1,
        pretrain_epochs=4,
        generator_learning_rate=1.0,
    )
    trainer.train()
    values = {line["global_step"]: line["nll_test"] for line in metrics(tmp_path / "run") if "nll_test" in line}
    best = min(values, key=values.get)
    assert (trainer.parts.best.value, trainer.parts.best.checkpoint) == (values[best], f"checkpoint-{best}")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "checkpoints" / f"checkpoint-{best}" / "generator")
    final = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "generator")
    assert same(list(saved.parameters()), list(final.parameters()))


def test_accumulated_gradients_are_those_of_the_large_batch(corpus, tmp_path):
    """48 sequences of one length: three batches of 16 accumulated are one batch of 48."""
    only_mle = {"pretrain_epochs": 2, "discriminator_pretrain_steps": 0, "rounds": 0}
    large = build(corpus, tmp_path / "large", per_device_train_batch_size=48, **only_mle)
    small = build(corpus, tmp_path / "small", gradient_accumulation_steps=3, **only_mle)
    large.train(), small.train()
    for one, other in zip(weights(large), weights(small), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_pretraining_may_have_batches_of_its_own(corpus, tmp_path):
    seen = []

    class Recorded(MLE):
        def generator_loss(self, models, samples, real):
            seen.append(samples.batch_size)
            return super().generator_loss(models, samples, real)

    sizes = {"pretrain_batch_size": 12, "per_device_train_batch_size": 48}
    trainer = build(corpus, tmp_path / "run", **sizes)
    trainer.pretraining = Recorded()
    trainer.pretrain_generator(0)
    assert seen == [12] * 4
    with pytest.raises(ValueError, match="at least one batch of 4000"):
        build(corpus, tmp_path / "other", pretrain_batch_size=4000)


def test_the_discriminator_is_frozen_in_g_steps_and_the_generator_in_d_steps(corpus, tmp_path):
    trainer = build(corpus, tmp_path / "run")
    trainer.models.begin()
    before = weights(trainer)[: -len(list(trainer.models["rollout_policy"].parameters()))]
    size = len(before)
    trainer.train_generator(0, 1)
    count = len(list(trainer.models.generator.parameters()))
    after = weights(trainer)[:size]
    assert not same(before[:count], after[:count]) and same(before[count:], after[count:])
    trainer.train_discriminator(0)
    last = weights(trainer)[:size]
    assert same(after[:count], last[:count]) and not same(after[count:], last[count:])
    assert all(parameter.requires_grad for parameter in trainer.models.discriminator.parameters())


class RecordDropout(ConstantReward):
    """Whether the generator's dropout is on while its loss is taken, and what the policy said of its own samples."""

    def generator_loss(self, models, real, fake):
        loss = super().generator_loss(models, real, fake)
        expected = -masked_mean(token_logprobs(deepcopy(models.generator).eval(), fake), fake.mask)
        torch.testing.assert_close(loss.metrics["nll_policy"], expected.detach())
        return loss


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_the_policy_gradient_is_that_of_the_policy_that_wrote_the_samples(corpus, tmp_path, kind):
    """Without dropout, as they were drawn; maximum likelihood has it."""
    generator = build_generator(kind, eos=None)
    dropouts = [module for module in generator.modules() if isinstance(module, torch.nn.Dropout)]
    for dropout in dropouts:
        dropout.p = 0.9
    trainer = build(corpus, tmp_path / "run", objective=RecordDropout(), generator=generator)
    trainer.train_generator(0, 1)
    assert not any(dropout.training for dropout in dropouts)
    trainer.pretrain_generator(0)
    assert all(dropout.training for dropout in dropouts)


def test_what_another_model_wrote_is_learnt_as_real_text_is(corpus, tmp_path):
    """With dropout, which the copy that writes it has not."""
    generator = build_generator("lstm", eos=None)
    generator.model.dropout.p = 0.5
    trainer = build(corpus, tmp_path / "run", objective=DPG(), generator=generator)
    trainer.train_generator(0, 1)
    assert generator.model.dropout.training and not trainer.models["reference"].model.dropout.training


def test_as_many_are_generated_as_were_asked_for(corpus, tmp_path):
    """More than there are training sequences, too."""
    trainer = build(corpus, tmp_path / "run", num_fakes=100, eval_samples=70, pretrain_epochs=1, rounds=0)
    assert trainer.draw_fakes(0)[1].samples.batch_size == 100
    trainer.train()
    assert "samples:70" in trainer.parts.evaluation.last["results"]["nll_div"]["signature"].split("|")
    assert trainer.session.state.global_step == 3 + 2 * 13  # 100 in batches of 8


def test_maximum_likelihood_needs_no_discriminator(corpus, tmp_path):
    trainer = build(corpus, tmp_path / "run", objective=MLE(), pretrain_epochs=1)
    trainer.train()
    assert trainer.models.discriminator is None and not (tmp_path / "run" / "discriminator").exists()
    assert [line["phase"] for line in metrics(tmp_path / "run")] == [
        "pretrain_generator",
        "adversarial",
        "adversarial",
    ]


class NotANumber(Reinforce):
    """Finite twice, then not."""

    calls = 0

    def generator_loss(self, models, real, fake) -> Loss:
        loss = super().generator_loss(models, real, fake)
        self.calls += 1
        return loss if self.calls < 3 else Loss(loss.value * float("nan"))


def test_steps_with_bad_numbers_are_skipped_and_end_the_run(corpus, tmp_path, caplog):
    trainer = build(corpus, tmp_path / "run", objective=NotANumber(), generator_steps=20)
    with pytest.raises(TrainingError, match=f"{MAX_BAD_STEPS} times in a row.* resume from checkpoint-18"):
        trainer.train()
    assert all(parameter.isfinite().all() for parameter in trainer.models.generator.parameters())
    message = (
        "The loss or gradient of the generator at step 21 (adversarial, round 1) is not finite; skipping this step"
    )
    assert message in caplog.messages
    assert fault(checkpoints(tmp_path / "run" / "checkpoints")[-1]) is None, "there is one to go back to"


class AlwaysNaN(Reinforce):
    def generator_loss(self, models, real, fake) -> Loss:
        loss = super().generator_loss(models, real, fake)
        return Loss(loss.value * float("nan"))


def test_bad_steps_are_counted_for_each_model(corpus, tmp_path):
    """The good steps of D between them do not excuse those of G; a checkpoint keeps the count."""
    with pytest.raises(TrainingError, match=f"generator .* {MAX_BAD_STEPS} times in a row"):
        build(corpus, tmp_path / "run", objective=AlwaysNaN(), rounds=MAX_BAD_STEPS).train()
    trainer = build(corpus, tmp_path / "cut", objective=AlwaysNaN(), rounds=MAX_BAD_STEPS - 1)
    trainer.train()
    bad = {name: player.bad_steps for name, player in trainer.parts.players.items()}
    assert bad == {"pretrained": 0, "generator": MAX_BAD_STEPS - 1, "discriminator": 0}
    with pytest.raises(TrainingError, match=f"generator .* {MAX_BAD_STEPS} times in a row"):
        build(
            corpus, tmp_path / "cut", objective=AlwaysNaN(), rounds=MAX_BAD_STEPS, resume_from_checkpoint=True
        ).train()


class InfiniteLoss(Reinforce):
    """Of D every third time, with a gradient as always."""

    calls = 0

    def discriminator_loss(self, models, real, fake) -> Loss:
        loss = super().discriminator_loss(models, real, fake)
        self.calls += 1
        return Loss(loss.value + (float("inf") if self.calls % 3 == 0 else 0.0), loss.metrics)


@pytest.mark.parametrize("accumulated", [1, 3])
def test_a_bad_loss_is_found_though_its_gradient_is_finite(corpus, tmp_path, caplog, accumulated):
    kept = []

    class Weights(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            kept.append(weights(trainer))

    settings = {"pretrain_epochs": 0, "rounds": 0, "discriminator_pretrain_steps": 1}
    settings["gradient_accumulation_steps"] = accumulated
    trainer = build(corpus, tmp_path / "run", objective=InfiniteLoss(), callbacks=[Weights()], **settings)
    kept.append(weights(trainer))
    trainer.train()
    left_out = [same(old, new) for old, new in zip(kept[:-1], kept[1:], strict=True)]
    assert left_out == ([False, False, True] * 2 if accumulated == 1 else [True] * 2)
    assert caplog.text.count("loss or gradient of the discriminator") == left_out.count(True)


class Spoil(TrainerCallback):
    """One weight of a model is no number any more after a step; a file of an old checkpoint is lost meanwhile."""

    def __init__(self, step: int, model: str, bad: float, lost: Path):
        self.step, self.model, self.bad, self.lost, self.trainer = step, model, bad, lost, None

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.lost.unlink(missing_ok=True)
            with torch.no_grad():
                list(getattr(self.trainer.models, self.model).parameters())[-1].view(-1)[0] = self.bad


@pytest.mark.parametrize(
    ("model", "step", "bad", "again"),
    [
        ("generator", 3, float("nan"), "start again"),
        ("generator", 6, float("inf"), "resume from checkpoint-3 "),
        ("discriminator", 18, float("nan"), "resume from checkpoint-6 "),
    ],
)
def test_no_checkpoint_is_made_of_weights_that_are_not_finite(corpus, tmp_path, model, step, bad, again):
    spoil = Spoil(step, model, bad, lost=tmp_path / "run" / "checkpoints" / "checkpoint-12" / "shared.pt")
    quiet = {"eval_epochs": 0, "eval_rounds": 0}
    spoil.trainer = build(corpus, tmp_path / "run", callbacks=[spoil], save_every=1, **quiet)
    with pytest.raises(TrainingError, match=rf"not finite \({model}\..* at step {step}; .*, and {again}"):
        spoil.trainer.train()
    kept = checkpoints(tmp_path / "run" / "checkpoints")
    assert f"checkpoint-{step}" not in [path.name for path in kept]
    for path in kept:
        saved = AutoModelForCausalLM.from_pretrained(path / "generator")
        assert all(parameter.isfinite().all() for parameter in saved.parameters())


def test_callbacks_are_called_and_obeyed(corpus, tmp_path):
    seen = []

    class Recorder(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            seen.append(("begin", type(model).__name__))

        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(("log", "reward" in logs))

        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            seen.append(("evaluate", "nll_oracle" in metrics))

        def on_epoch_end(self, args, state, control, **kwargs):
            if state.log_history[-1]["phase"] == "adversarial":
                control.should_training_stop = True
            return control

        def on_train_end(self, args, state, control, **kwargs):
            seen.append(("end", None))

    build(corpus, tmp_path / "run", callbacks=[Recorder()], rounds=9).train()
    assert seen[0] == ("begin", "RNNGeneratorForCausalLM") and seen[-1] == ("end", None)
    assert seen.count(("log", True)) == 1, "the run went on after a callback had ended it"
    assert ("evaluate", True) in seen


def test_a_callback_ends_a_run_at_the_step_and_leaves_a_checkpoint(corpus, tmp_path):
    events = []

    class Stop(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            events.append("epoch")

        def on_step_begin(self, args, state, control, **kwargs):
            events.append("begin")

        def on_optimizer_step(self, args, state, control, **kwargs):
            events.append("step")

        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 2
            return control

    build(corpus, tmp_path / "run", callbacks=[Stop()]).train()
    assert events == ["epoch", "begin", "step", "begin", "step"]
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["checkpoint-2"]


def test_early_stopping_of_transformers_works(corpus, tmp_path):
    trainer = build(
        corpus,
        tmp_path / "run",
        callbacks=[EarlyStoppingCallback(early_stopping_patience=1)],
        metric_for_best_model="nll_test",
        load_best_model_at_end=True,
        pretrain_epochs=30,
        pretrain_learning_rate=1.0,
    )
    trainer.train()
    assert trainer.args.greater_is_better is False
    values = [line["nll_test"] for line in metrics(tmp_path / "run")]
    assert len(values) < 30 and values[-1] >= min(values)


def test_a_checkpoint_of_another_objective_or_size_is_refused(corpus, tmp_path):
    short = {"pretrain_epochs": 1, "discriminator_pretrain_steps": 0, "rounds": 1}
    build(corpus, tmp_path / "run", **short).train()
    for change in ({"objective": MLE()}, {"generator": build_generator("gru", eos=None)}):
        with pytest.raises(RunFolderError, match="does not fit this run or is damaged"):
            build(corpus, tmp_path / "run", resume_from_checkpoint=True, **short, **change).train()


def test_text_batches_of_unequal_length_train(tmp_path):
    from datasets import Dataset

    rows = [{"input_ids": [3 + i % 9, 4, 1][: 1 + i % 3] + [1]} for i in range(40)]
    dataset = Dataset.from_list(rows)
    trainer = AdversarialTrainer(
        build_generator("gpt2"),
        build_discriminator("per_token"),
        SeqGAN(rollouts=2),
        AdversarialTrainingArguments(output_dir=str(tmp_path / "run"), **SHORT),
        dataset,
        dataset,
    )
    trainer.train()
    # by hand, row by row, without padding
    generator = trainer.models.generator.eval()
    start, total, tokens = start_prompt(generator, 1)[0].tolist(), 0.0, 0
    for row in rows:
        ids = torch.tensor([start + row["input_ids"]])
        total += len(row["input_ids"]) * generator(ids, labels=ids).loss.item()
        tokens += len(row["input_ids"])
    assert metrics(tmp_path / "run")[-1]["nll_test"] == pytest.approx(total / tokens)


# --- Mistakes --------------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_another_run_is_not_touched(corpus, tmp_path):
    build(corpus, tmp_path / "run", rounds=0, discriminator_pretrain_steps=0).train()
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    with pytest.raises(RunFolderError, match="holds a run"):
        build(corpus, tmp_path / "run").train()
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before
    build(corpus, tmp_path / "run", overwrite_run=True, rounds=0, pretrain_epochs=1).train()
    assert metrics(tmp_path / "run")[0]["epoch"] == 1


def test_nothing_but_a_run_is_ever_replaced(corpus, tmp_path):
    """Otherwise a stranger's recipe could name somebody's home."""
    (tmp_path / "home" / "figures").mkdir(parents=True)
    (tmp_path / "home" / "figures" / "mine.png").touch()
    with pytest.raises(RunFolderError, match="holds figures"):
        build(corpus, tmp_path / "home", overwrite_run=True).train()
    assert (tmp_path / "home" / "figures" / "mine.png").exists()


def test_a_step_that_wants_more_lines_than_there_are_takes_all(corpus, tmp_path, caplog):
    trainer = build(corpus, tmp_path, per_device_train_batch_size=64, pretrain_batch_size=16)
    assert "a step of the rounds would take 64 training sequences, and takes all 48" in caplog.text
    sizes = []
    trainer.generator_step = lambda objective, batches, player: sizes.append([each.batch_size for each in batches])
    trainer.train_generator(0, 3)
    assert sizes == [[48]] * 3


def test_nothing_to_resume_from_is_said(corpus, tmp_path):
    with pytest.raises(RunFolderError, match="No complete checkpoint in .* to resume from"):
        build(corpus, tmp_path / "run", resume_from_checkpoint=True).train()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"per_device_train_batch_size": 64},
            DataError,
            "48 training sequences: expected at least one batch of 64",
        ),
        (
            {"generator": build_generator("gpt2", None), "max_new_tokens": 40},
            ValueError,
            "the generator has 32 positions",
        ),
        (
            {"generator": build_generator("lstm", None, 5)},
            ValueError,
            "expected ids below 5",
        ),
        (
            {"discriminator": build_discriminator("cnn", 7)},
            ValueError,
            "the discriminator knows 7 token ids: expected 13",
        ),
        (
            {"generator": build_generator("lstm", None).requires_grad_(False)},
            ValueError,
            "All parameters of the generator are frozen",
        ),
        (
            {"discriminator": build_discriminator("cnn").requires_grad_(False)},
            ValueError,
            "All parameters of the discriminator are frozen",
        ),
    ],
)
def test_models_that_do_not_fit_are_refused(corpus, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        build(corpus, tmp_path / "run", **change)


def test_recurrent_models_have_no_layers_to_compute_again(corpus, tmp_path):
    with pytest.raises(ValueError, match="activation_checkpointing for RNNGeneratorForCausalLM and CNN.*transformer"):
        build(corpus, tmp_path / "run", activation_checkpointing=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 1e-3}, "learning_rate=0.001: it has no meaning .*. Set pretrain_learning_rate"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing=True: it has no meaning .*. Set activation_check"),
        ({"save_steps": 10}, "save_steps=10: it has no meaning .*. Set save_every"),
        ({"lr_scheduler_type": "cosine"}, "lr_scheduler_type='cosine': it has no meaning"),
        ({"max_new_tokens": 0}, "max_new_tokens=0: expected at least 1"),
        ({"rounds": -1}, "rounds=-1: expected 0 or more"),
        ({"discriminator_batch_size": 3}, "discriminator_batch_size=3: expected an even number"),
        ({"generator_learning_rate": 0.0}, "generator_learning_rate=0.0: expected a positive number"),
    ],
)
def test_settings_without_meaning_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AdversarialTrainingArguments(**settings)
