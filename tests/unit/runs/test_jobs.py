"""A queue of runs, each a process: order, what runs at the same time, interruption. The runs here only write files."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from threading import Thread

import pytest
import yaml

from seqgan_hf.errors import Interrupted
from seqgan_hf.runs.jobs import INTERRUPTED, Job, Queue


def run(command: list[str]) -> int:
    """In place of `seqgan-hf train`: tells when it begins, waits for others, and is done or interrupted."""
    path = Path(command[1]).with_suffix("")
    recipe = yaml.safe_load(Path(command[1]).read_text())
    place, stopped = Path(recipe["place"]), []
    signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
    with open(place / "began", "a") as file:
        file.write(path.parent.name + "\n")
    deadline = time.monotonic() + 60
    while len(began(place)) < recipe["until"] and not (place / "go").exists() and time.monotonic() < deadline:
        if stopped:
            return INTERRUPTED
        time.sleep(0.05)
    (path / "evaluation").mkdir(parents=True)
    (path / "evaluation/metrics.json").write_text("{}")
    return 0


def began(place: Path) -> list[str]:
    return (place / "began").read_text().split() if (place / "began").exists() else []


def jobs(place: Path, until: int) -> list[Job]:
    """Two starts, which wait until so many runs have begun, each with one that needs it."""
    made: list[Job] = []
    for name, number, seed in (("start", until, 1), ("next", 0, 1), ("start", until, 2), ("next", 0, 2)):
        recipe = {"place": str(place), "until": number}
        needs = made[-1:] if name == "next" else []
        made.append(Job(name, "likelihood", seed, place / f"{name}-{seed}" / "run", lambda r=recipe: r, needs))
    return made


def test_one_that_waits_keeps_no_other_from_running(tmp_path):
    made = jobs(tmp_path, until=2)
    Queue(made, 2, run, "seqgan_hf.runs.jobs").run()
    assert all(job.done for job in made) and set(began(tmp_path)[:2]) == {"start-1", "start-2"}


def test_one_at_a_time_they_run_in_order(tmp_path):
    Queue(jobs(tmp_path, until=1), 1, run, "seqgan_hf.runs.jobs").run()
    assert began(tmp_path) == ["start-1", "next-1", "start-2", "next-2"]


def test_an_interruption_ends_all_that_run_and_begins_no_other(tmp_path):
    made = jobs(tmp_path, until=99)

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while len(began(tmp_path)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=interrupt).start()
    with pytest.raises(Interrupted, match="run the same command again"):
        Queue(made, 2, run, "seqgan_hf.runs.jobs").run()
    assert set(began(tmp_path)) == {"start-1", "start-2"}
    assert not any(job.done or job.failure for job in made)
    (tmp_path / "go").touch()
    Queue(made, 2, run, "seqgan_hf.runs.jobs").run()
    assert all(job.done for job in made)
