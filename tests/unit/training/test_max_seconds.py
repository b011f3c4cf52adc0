"""A limit in seconds of work: what counts, where a run stops, and that a resumed one does not begin anew."""

from __future__ import annotations

import time

import pytest

from seqgan_hf.errors import UserError
from seqgan_hf.training import AdversarialTrainingArguments
from tests.tools.small_runs import BRIEF, build, finished, metrics, small_corpus


MANY = BRIEF | {"rounds": 1000, "discriminator_pretrain_steps": 0}


def slowly(trainer, name, seconds):
    """Let a method of the trainer take more processor time, and wait, which does not count."""
    plain = getattr(trainer, name)

    def slow(*args, **kwargs):
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass
        time.sleep(0.25)
        return plain(*args, **kwargs)

    setattr(trainer, name, slow)


def test_rounds_end_with_the_time_and_what_is_no_work_does_not_count(tmp_path):
    trainer = build(small_corpus(), tmp_path, max_seconds=0.35, **MANY | {"eval_rounds": 1, "pretrain_epochs": 2})
    slowly(trainer, "pretrain_generator", 0.4)
    slowly(trainer, "evaluate", 0.25)
    slowly(trainer, "train_generator", 0.15)
    trainer.train()
    rounds = [line["round"] for line in metrics(tmp_path) if line["phase"] == "adversarial"]
    assert 2 <= len(rounds) <= 3 and rounds == list(range(1, len(rounds) + 1))
    assert trainer.parts.units.seconds >= 0.35
    assert len([line for line in metrics(tmp_path) if line["phase"] == "pretrain_generator"]) == 2


def test_the_pretraining_of_the_discriminator_counts(tmp_path):
    trainer = build(small_corpus(), tmp_path, max_seconds=0.2, **MANY | {"discriminator_pretrain_steps": 50})
    slowly(trainer, "train_discriminator", 0.15)
    trainer.train()
    phases = [line["phase"] for line in metrics(tmp_path)]
    assert 1 <= phases.count("pretrain_discriminator") <= 2 and "adversarial" not in phases


def test_a_run_that_has_used_its_time_is_not_trained_again(tmp_path):
    first = finished(dict, small_corpus(), tmp_path, max_seconds=0.05, **MANY)
    again = finished(dict, small_corpus(), tmp_path, max_seconds=0.05, resume_from_checkpoint=True, **MANY)
    assert again.parts.units.seconds == first.parts.units.seconds
    assert again.parts.units.done == first.parts.units.done


def test_learning_rates_fall_with_the_time(tmp_path):
    trainer = build(small_corpus(), tmp_path, max_seconds=10.0, **MANY, generator_lr_scheduler="linear")
    player, totals = trainer.parts.players["generator"], {"pretrain_generator": 1, "adversarial": 1000}
    rates = []
    for seconds in (0.0, 5.0, 20.0):
        trainer.parts.units.seconds = seconds
        trainer.parts.anneal("adversarial", totals | {"discriminator_steps": 1})
        rates.append(player.optimizer.param_groups[0]["lr"] / trainer.args.generator_learning_rate)
    assert rates == pytest.approx([1.0, 0.5, 0.0])


def test_no_time_at_all_is_refused():
    with pytest.raises(UserError, match=r"max_seconds=0: expected a positive number"):
        AdversarialTrainingArguments(max_seconds=0)
