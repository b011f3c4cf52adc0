"""`kill -9` in the middle of a run, without a launcher: the short version of kill_resume.py."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.tools.small_runs import build_on_two, metrics, same, weights
from tests.tools.two_processes import forked, on_two, wait_until


def _run(rank, folder):
    resume = any((folder / "checkpoints").glob("checkpoint-*"))
    trainer = build_on_two(folder, resume_from_checkpoint=resume, overwrite_run=not resume)
    begin = time.monotonic()
    trainer.train()
    return weights(trainer), time.monotonic() - begin


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_ends_with_the_weights_of_one_that_was_left_alone(processes, tmp_path):
    """Killed again while it is resumed, and again, before it may end."""

    def to_the_end(folder):
        return on_two(_run, folder)[0] if processes == 2 else _run(0, folder)

    expected, seconds = to_the_end(tmp_path / "whole")
    rng, places = random.Random(processes), set()
    for share in (0.25, 0.5, 0.8):
        with forked(_run, tmp_path / "cut", processes=processes) as pids:
            wait_until((tmp_path / "cut" / "metrics.jsonl").exists)
            time.sleep(share * rng.uniform(0.5, 1) * seconds)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        places.add(max((path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()), default="none"))
    end, _ = to_the_end(tmp_path / "cut")
    assert same(expected, end), f"killed at {places}"
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
