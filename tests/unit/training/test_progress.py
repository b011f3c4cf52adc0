"""What is reported of a run: its work, and what it took a second."""

from __future__ import annotations

import json

import pytest
import torch

from seqgan_hf.objectives import SeqGAN
from seqgan_hf.runs.record import COST
from seqgan_hf.samples import Samples
from seqgan_hf.training.progress import Meter, rates
from tests.tools.small_runs import build, small_corpus


@pytest.fixture(scope="module")
def corpus():
    return small_corpus()


def test_work_is_counted(corpus, tmp_path, monkeypatch):
    trainer = build(corpus, tmp_path / "run", objective=SeqGAN(rollouts=3), rounds=1, discriminator_steps=1)
    work, read = [], Meter.work

    def recorded(meter):
        work.append(read(meter))
        return work[-1]

    monkeypatch.setattr(Meter, "work", recorded)
    trainer.train()
    counted = [(own["sequences"], own["tokens"], own["rollouts"]) for own in work]
    # 2 epochs of 48 sequences; 2 d-steps of 48 real and 48 generated; a g-step of 16, each 3 x 4 times completed
    assert counted == [(48, 240, 0)] * 2 + [(96, 480, 0)] * 2 + [(112, 560, 192)]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert 0 < line["sequences_per_second"] * 4.9 < line["tokens_per_second"]
        assert 0.05 < line["peak_memory_gib"] < 100
        assert ("rollouts_per_second" in line) == (line["phase"] == "adversarial")
    assert all(line["seconds_left_at_least"] >= 0 for line in lines[:-1]) and lines[-1]["seconds_left"] == 0
    assert set(lines[-1]) & COST == COST - {"peak_gpu_memory_gib", "seconds_left_at_least"}


def test_evaluations_are_no_training_time(corpus, tmp_path, monkeypatch):
    events, clock = [], Meter.resume_clock
    trainer = build(corpus, tmp_path / "run", rounds=0, discriminator_pretrain_steps=0)
    monkeypatch.setattr(trainer.parts.evaluation, "run", lambda name: events.append("evaluation") or {})
    monkeypatch.setattr(Meter, "resume_clock", lambda meter: events.append("clock") or clock(meter))
    trainer.train()
    assert events == ["evaluation", "clock"] * 2


def test_rates_are_those_of_all_processes():
    one = {"sequences": 30, "tokens": 100, "rollouts": 0, "seconds": 2.0, "peak_memory_gib": 1.0}
    other = {"sequences": 50, "tokens": 100, "rollouts": 0, "seconds": 4.0, "peak_memory_gib": 0.5}
    assert rates([one, other]) == {"sequences_per_second": 20.0, "tokens_per_second": 50.0, "peak_memory_gib": 1.0}


def test_padding_is_not_counted():
    meter = Meter(torch.device("cpu"))
    mask = torch.tensor([[True, True, False], [True, False, False]])
    meter.count(Samples(torch.zeros(2, 1).long(), mask.long(), mask))
    work = meter.work()
    assert (work["sequences"], work["tokens"]) == (2, 3)
    assert meter.work()["sequences"] == 0
