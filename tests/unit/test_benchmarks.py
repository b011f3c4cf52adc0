"""The benchmarks of every step run, and compute what their references compute; how fast is not asked here."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
import torch

from seqgan_hf import functional
from seqgan_hf.generation import decoder, likelihood, rollouts, sampling, verdicts
from seqgan_hf.models import modeling_cnn_discriminator, modeling_sums
from tests.benchmarks import company, gpu, measuring
from tests.benchmarks.cost_growth import PANELS, PAPER, Point, complaints, exponent
from tests.benchmarks.measuring import (
    OtherWork,
    Rates,
    Turn,
    busy_neighbour,
    disturbed,
    peak_memory,
    summary,
    table,
    whole_seconds,
)
from tests.benchmarks.steps import OPERATIONS, SIZES, SMALL
from tests.tools import soak
from tests.tools.plain_paths import fast_paths


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_step_runs_beside_its_reference(operation):
    case = OPERATIONS[operation](SMALL)
    case.check()
    assert whole_seconds(case.ours) > 0 and whole_seconds(case.plain) > 0
    rates = Rates(1e9, 1e9, 1e9, 1e9, 1e9)
    row = summary(case, [Turn(rates, 2.0, 4.0), Turn(rates, 1.0, 4.0), Turn(rates, 9.0, 9.0)], [5.0, 3.0], 0.5)
    floor = case.work.floor(rates, case.low_precision)[0]
    assert (row["ours"], row["plain"], row["ours_of_plain"], row["floor"]) == (2.0, 4.0, 0.5, floor)
    assert row["ours_of_floor"] == pytest.approx(2.0 / floor) and row["ours_peak"] > row["ours_added"] >= 0
    assert row["in_company"] == 4.0 and "4 s" in table({operation: row})[2] and len(table({operation: row})) == 3
    assert f"{operation} (0.5)" in disturbed({operation: row}) and disturbed({operation: row | {"others": 0.0}}) == ""


def test_a_machine_that_changes_its_speed_is_no_quiet_one():
    """The faster of the two libraries counts, of which either may be the faster one."""
    case = OPERATIONS["MLE epoch"](SMALL)
    turns = [Turn(Rates(a, b, 1e9, 1e9, 1e9), 1.0, 1.0) for a, b in ((2e9, 1e9), (1e9, 3e9), (2.9e9, 1e9))]
    row = summary(case, turns, [1.0], 0.0)
    assert row["speeds"] == pytest.approx(1.5)
    said = disturbed({"MLE epoch": row})
    assert said.startswith("NOT STEADY") and "MLE epoch (1.5)" in said
    assert disturbed({"MLE epoch": row | {"speeds": 1.25}}) == ""


def test_editions_are_compared_with_one_thread_turn_by_turn(monkeypatch, capsys):
    """Of the same turn, and so beside a neighbour with one beside it; an edition may be missing from turns."""
    seconds = ((False, 1, 2, 4), (False, 3, 4, None), (False, 4, 10, None), (True, 6, 8, None), (True, 6, 4, None))
    turns = [
        {"step": "MLE epoch", "neighbour": n, "new, 2 threads": two}
        | ({"old, 2 threads": old} if old else {})
        | {"new, 1 threads": one}
        for n, two, one, old in seconds
    ]
    head, _, *rows = company.table(turns)
    assert head == "| step | | new, 1 threads, seconds | new, 2 threads | old, 2 threads |"
    assert rows == [
        "| MLE epoch | alone | 4 | 0.50 [0.45, 0.62] | 2.00 [2.00, 2.00] |",
        "| MLE epoch | neighbour | 6 | 1.12 [0.94, 1.31] |  |",
        "| MLE epoch | neighbour / alone | 1.50 | 2.00 |  |",
    ]
    monkeypatch.setattr(company, "SIZES", [SMALL])
    monkeypatch.setattr(company.sys, "stdin", ["1 0", "1 0.1"])
    monkeypatch.setattr(company.torch, "set_num_threads", lambda threads: None)
    company.serve("MLE epoch")
    ready, *found = capsys.readouterr().out.split()
    assert ready == "ready" and len(found) == 2 and all(float(each) > 0 for each in found)


@pytest.mark.parametrize("size", [*SIZES, SMALL], ids=lambda size: size.name)
def test_the_prefixes_that_stand_for_all_are_as_long_as_these(size):
    assert sum(size.prefix_lengths) / len(size.prefix_lengths) == size.length / 2


def test_work_is_that_of_the_paper():
    """Floating-point operations counted by hand from the filters, and from 320,000 weights of the output layer."""
    paper = SIZES[0]
    assert paper.judge_work(1).flops == pytest.approx(27e6, rel=0.01)
    head = 2 * 32 * 5000
    assert paper.generator_work(1).flops == head + 2 * 4 * 32 * 64


# What a GPU would be asked to do in a step of SMALL (6 tokens, 3 convolutions, 2 rollouts); more costs time there.
OPERATIONS_OF_A_STEP = {"sampling 10,000": 180, "rollout rewards": 363, "G update": 70, "MLE step": 65, "D step": 186}


@pytest.fixture
def as_shipped():
    with fast_paths("auto"):
        yield


@pytest.mark.usefixtures("as_shipped")
def test_what_a_gpu_would_have_to_wait_for_is_done_on_a_cpu_only():
    policies = [decoder.LEAVE_PADDING_OUT, verdicts.READ_PREFIXES_ONCE, modeling_sums.LOOK_UP]
    policies += [modeling_cnn_discriminator.GATHER_WINDOWS, modeling_cnn_discriminator.SPLIT_BY_WIDTH]
    policies += [functional.BOUND_LOGITS, functional.POWERS_OF_TWO]
    assert policies == [{"cpu"}] * 7


@pytest.mark.usefixtures("as_shipped")
def test_the_script_for_a_gpu_runs_and_few_operations_are_launched(monkeypatch):
    for module in (likelihood, rollouts, sampling):  # the policy of an accelerator
        monkeypatch.setattr(module, "LEAVE_PADDING_OUT", set())
    monkeypatch.setattr(verdicts, "READ_PREFIXES_ONCE", set())
    for policy in ("BOUND_LOGITS", "POWERS_OF_TWO"):
        monkeypatch.setattr(functional, policy, set())
    for policy in ("GATHER_WINDOWS", "SPLIT_BY_WIDTH"):
        monkeypatch.setattr(modeling_cnn_discriminator, policy, set())
    monkeypatch.setattr(modeling_sums, "LOOK_UP", set())
    rows = gpu.measure(SMALL, "cpu", repetitions=1)
    for name, most in OPERATIONS_OF_A_STEP.items():
        assert 0 < rows[name].operations <= most, name
    *_, last = gpu.table(dict.fromkeys(rows, gpu.Row(60e-3, 30e-3, {"compiled": 15e-3}, 1, 5e-3)))
    steps = 120 * 156.25 + 1050 * (3 * 312.5 + 1) + 2 * 200
    assert f"{steps * 60e-3 / 60:.3g} min | {steps * 30e-3 / 60:.3g} min" in last


def test_rollouts_share_the_windows_of_their_prefix():
    """What is left of the discriminator's products, counted by hand window by window."""
    paper, prefixes = SIZES[0], 64 * 16 * 19
    scores = paper.reward_work().flops - paper.generator_work(prefixes * 10).flops - paper.judge_work(64).flops
    assert scores / paper.judge_work(prefixes).flops == pytest.approx(0.8136, abs=1e-3)


def test_others_on_the_machine_are_seen(monkeypatch):
    """Ticks of all processes but this one and its children; those of idle cores and of waiting are none."""
    ticks = iter(["cpu 100 10 50 9000 70 3 4 5 8 8\ncpu0 1 2 3", "cpu 260 30 70 9500 99 4 6 7 9 9\ncpu0 1 2 3"])
    own, clock = iter([(1.0, 0.5, 0.2, 0.1, 7.0), (1.2, 0.6, 0.25, 0.1, 9.0)]), iter([10.0, 12.0])
    monkeypatch.setattr(measuring.Path, "read_text", lambda path: next(ticks))
    monkeypatch.setattr(measuring.os, "times", lambda: next(own))
    monkeypatch.setattr(measuring.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: next(clock))
    others = OtherWork().cores()
    monkeypatch.undo()
    # 205 ticks of 10 ms, of which 0.35 s are this process's, in 2 s
    assert others == pytest.approx((2.05 - 0.35) / 2)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_neighbour_is_busy():
    """A child of this process, which by itself uses the processor."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = set(children.read_text().split())
    with busy_neighbour():
        (child,) = set(children.read_text().split()) - before
        used = Path(f"/proc/{child}/stat")
        for _ in range(200):
            if (ticks := sum(map(int, used.read_text().rsplit(")", 1)[1].split()[11:13]))) >= 20:
                break
            time.sleep(0.05)
        assert ticks >= 20  # a start of Python that does nothing more takes a tenth of these
    assert not used.exists()


def test_peak_memory_sees_what_is_freed_before_the_end():
    held = peak_memory(lambda: torch.ones(25_000_000).sum())[1]  # 95 MiB
    assert 90 < held < 130


def grown(panel, time, memory):
    """Points of both budgets whose seconds and MiB follow the given functions of the value."""
    lines = {}
    for budget in ("default", "2048"):
        sizes = [PAPER | panel.others | {panel.name: value} for value in panel.values]
        values = zip(panel.values, sizes, strict=True)
        lines[budget] = [Point(panel.label, v, budget, **s, seconds=time(v), added_mib=memory(v)) for v, s in values]
    return lines


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.label)
def test_growth_is_judged_by_its_exponent_and_by_the_budget(panel):
    """A constant part does not hide the exponent of large values; a faster growth and unbounded memory are found."""
    as_it_should = grown(panel, lambda v: v**panel.exponent + panel.values[0], lambda v: 300.0)
    assert abs(exponent(as_it_should["default"]) - panel.exponent) < 0.1 and complaints(panel, as_it_should) == []
    assert len(complaints(panel, grown(panel, lambda v: v ** (panel.exponent + 1), lambda v: 300.0))) == 2
    leaking = complaints(panel, grown(panel, lambda v: v**panel.exponent, lambda v: 10.0 * v))
    assert len(leaking) == panel.bounded and all("beyond the budget" in complaint for complaint in leaking)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_soak_measures_what_a_run_holds(tmp_path):
    """The hour itself is run by hand: tests/tools/soak.py."""
    (tmp_path / "log.txt").write_text("x" * 2048)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "weights").write_bytes(bytes(3 * 2**20))
    (tmp_path / "metrics.jsonl").write_text('{"phase": "adversarial"}\n{"phase": "pretrain_generator"}\n')
    before = soak.measure(os.getpid(), tmp_path / "log.txt", tmp_path)
    with (tmp_path / "log.txt").open():
        row = soak.measure(os.getpid(), tmp_path / "log.txt", tmp_path)
    assert row["file_handles"] == before["file_handles"] + 1
    assert (row["log_kib"], row["checkpoints_mib"], row["round"]) == (2.0, 3.0, 1)
    assert 50 < row["memory_mib"] < 100_000 and set(row) == set(soak.COLUMNS[1:])
    axes = soak.draw([{"seconds": 60.0} | before, {"seconds": 120.0} | row]).axes[0]
    (line,) = axes.lines
    assert line.get_xdata().tolist() == [1.0, 2.0] and axes.get_ylabel() == soak.COLUMNS[1]
