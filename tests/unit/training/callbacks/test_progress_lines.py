"""Lines of the log and bars."""

from __future__ import annotations

import itertools
import re
from unittest.mock import Mock

import pytest
from transformers import TrainerState
from transformers.utils import logging as transformers_logging

from seqgan_hf.training.callbacks import progress_lines
from seqgan_hf.training.callbacks.announcements import in_turns
from seqgan_hf.training.callbacks.progress_lines import LogLines, ProgressBar, due, log_line
from tests.tools.small_runs import build, small_corpus


TIMED = re.compile(r"(\d (s|min) left|in \d+:\d\d:\d\d)$")  # how a line of a unit ends


@pytest.fixture(scope="module")
def corpus():
    return small_corpus()


def test_a_log_without_bars_has_some_lines_of_each_phase(corpus, tmp_path, caplog):
    caplog.set_level("INFO")
    build(corpus, tmp_path / "run", pretrain_epochs=11, rounds=21, eval_rounds=2).train()
    lines = [line for line in caplog.messages if TIMED.search(line)]
    assert [line.split(":")[0] for line in lines] == [
        *(f"pretrain generator {epoch}/11" for epoch in (1, 2, 4, 6, 8, 10, 11)),
        "pretrain discriminator 1/2",
        "pretrain discriminator 2/2",
        *(f"adversarial {done}/21" for done in (1, 3, 6, 9, 12, 15, 18, 21)),
    ]
    assert "nll_oracle" in lines[6] and " sequences/s, " in lines[1] and " rollouts/s, " in lines[-1]
    samples = [line.partition(":")[0] for line in caplog.messages if "  sample" in line]
    # of pretraining, of an even round that a line speaks of, or of the last even one before it
    rounds = ("", " of round 2", "", " of round 8", "", " of round 14", "", "")
    assert samples == [f"  sample{of}" for of in rounds for _ in range(3)]


@pytest.mark.parametrize(
    ("total", "shown"), [(1, [1]), (7, [*range(1, 8)]), (10, [*range(1, 11)]), (500, [1, *range(50, 501, 50)])]
)
def test_lines_split_a_phase_into_ten_parts_by_count_alone(total, shown):
    assert [done for done in range(1, total + 1) if due(done, total)] == shown


@pytest.mark.parametrize("kind", [LogLines, ProgressBar])
def test_a_phase_that_time_ends_says_where_it_is(kind, caplog, monkeypatch):
    """As does the first unit of a session, of a bar's own line where it has samples."""
    caplog.set_level("INFO", logger="seqgan_hf")
    monkeypatch.setattr(progress_lines.time, "perf_counter", Mock(side_effect=itertools.count(0, 10)))
    lines, state = kind(), TrainerState(is_local_process_zero=True)
    units = {"pretrain_discriminator": "step", "adversarial": "round"}
    for phase, done, total in [("pretrain_discriminator", 7, 50), ("pretrain_discriminator", 8, 50)] + [
        ("adversarial", done, 1000) for done in (1, 2, 3)
    ]:
        logs = {f"{phase}/{units[phase]}": done, f"{phase}/total": total}
        lines.on_log(None, state, None, logs=logs)
    lines.on_train_end(None, state, None)
    lines.close()
    shown = [(line.partition(":")[0], line[-10:] if " in " in line else "") for line in caplog.messages]
    ends = [("pretrain discriminator 8/50", "in 0:00:20"), ("adversarial 3/1000", "in 0:00:30")]
    if kind is ProgressBar:
        assert shown == ends
    else:
        assert shown == [("pretrain discriminator 7/50", ""), ends[0], ("adversarial 1/1000", ""), ends[1]]


def test_a_run_says_what_it_will_do_and_what_comes_next(corpus, tmp_path, caplog):
    caplog.set_level("INFO")
    trainer = build(corpus, tmp_path / "run")
    trainer.models.discriminator.get_input_embeddings().requires_grad_(False)
    trainer.train()
    shown = [line for line in caplog.messages if not TIMED.search(line) and "  sample: " not in line]
    generator, discriminator = trainer.models.generator, trainer.models.discriminator
    trained = discriminator.num_parameters() - discriminator.get_input_embeddings().weight.numel()
    run = tmp_path / "run"
    assert shown[:6] == [
        f"Objective: SeqGAN; device: cpu; folder: {run}",
        f"Generator: {type(generator).__name__}, {generator.num_parameters():,} parameters",
        f"Discriminator: {type(discriminator).__name__}, {discriminator.num_parameters():,} parameters, "
        f"{trained:,} trained",
        "Data: 48 training sequences; vocabulary of 13 tokens; samples of up to 5 tokens",
        "Schedule: 2 epochs of pretrain generator, then 2 steps of pretrain discriminator, then 2 rounds of "
        "adversarial (1 generator step and 2 discriminator steps each)",
        "Time left is told from the first unit on, as `at least` until each phase and an evaluation are timed",
    ]
    assert shown[-2].startswith("Done in 0:00:") and f"in {run}; card: {run}/generator/README.md" in shown[-2]
    calls = [f"generate {run}", f"evaluate --model {run} --references FILE", f"push {run} user/name"]
    assert re.findall("`seqgan-hf (.*?)`", shown[-1]) == calls
    samples = [line.removeprefix("  sample: ") for line in caplog.messages if line.startswith("  sample: ")]
    first = (run / "samples" / "pretrain_generator-2.txt").read_text().splitlines()
    last = (run / "samples" / "adversarial-2.txt").read_text().splitlines()
    assert samples[:3] == first[:3] and samples[-3:] == last[:3] and len(samples) == 9


def test_files_that_a_run_writes_have_no_bars_and_what_was_set_stays(corpus, tmp_path, capsys):
    """Those of transformers, when the package is used without the command."""
    transformers_logging.enable_progress_bar()
    try:
        build(corpus, tmp_path / "run").train()
        assert "Writing model shards" not in capsys.readouterr().err
        assert transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()
        build(corpus, tmp_path / "again").train()
        assert not transformers_logging.is_progress_bar_enabled()
    finally:
        transformers_logging.disable_progress_bar()


def test_phases_that_alternate_are_told_once():
    d, g, play = "1 step of pretrain discriminator", "2 epochs of pretrain generator", "9 rounds of adversarial"
    assert in_turns([d, g, d, g, d, g, play]) == [f"3 times {d} and {g}", play]
    assert in_turns([g, d, g, d, g]) == [f"2 times {g} and {d}", g]
    assert in_turns([g, d, play]) == [g, d, play]
    assert in_turns([play]) == [play]


def test_where_nobody_watches_there_is_no_bar(corpus, tmp_path, monkeypatch, capsys, caplog):
    caplog.set_level("INFO")
    build(corpus, tmp_path / "file", disable_tqdm=False).train()
    assert "pretrain generator: " not in capsys.readouterr().err
    monkeypatch.setattr("seqgan_hf.training.parts.watched", lambda: True)
    caplog.clear()
    build(corpus, tmp_path / "terminal", disable_tqdm=False, rounds=12).train()
    shown = capsys.readouterr().err
    first, _, second = shown.partition("pretrain discriminator: ")
    assert "pretrain generator: " in first and second
    assert "\r  " in first  # it is gone when the phase has ended
    lines = [line.partition(":")[0] for line in caplog.messages if TIMED.search(line) or "  sample" in line]
    ends = ["pretrain generator 2/2", "pretrain discriminator 2/2"]
    rounds = [line for done in (1, 2, 4, 6, 8, 10, 12) for line in (f"adversarial {done}/12", *["  sample"] * 3)]
    assert lines == [ends[0], *["  sample"] * 3, ends[1], *rounds]


def test_a_line_of_the_log():
    metrics = {
        "nll_test": 3.14159,
        "sequences_per_second": 1234.5,
        "peak_memory_gib": 0.5,
        "seconds_left": 3725.2,
    }
    line = log_line("adversarial", 3, 200, metrics)
    assert line == "adversarial 3/200: nll_test 3.142; 1,234 sequences/s, 0.50 GiB, about 62 min left"
    bound = {"seconds_left_at_least": 40.0}
    assert log_line("pretrain_generator", 9, 9, bound, took=61.2).endswith("; in 0:01:01, at least 40 s left")
    assert log_line("adversarial", 200, 200, {"seconds_left": 0.0}, took=61.2).endswith("; in 0:01:01")
