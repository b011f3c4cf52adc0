"""The command `benchmark`: interrupted, and run again to its end, on two tiny recipes and one that fails."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import threading
import time

import pytest
import yaml

from seqgan_hf.commands import main
from tests.tools.small_runs import TINY


BUDGET = 0.8


def recipe(**changes) -> dict:
    """A run of a second, on the synthetic task."""
    settings = {name.removeprefix("training."): value for name, value in TINY.items() if name.startswith("training.")}
    settings |= {"disable_tqdm": True, "use_cpu": True}
    data = {name: TINY[f"data.{name}"] for name in ("num_train", "num_eval", "vocab_size", "length")}
    return {
        "data": {"class_path": "seqgan_hf.data.OracleData", "init_args": data},
        "generator": {"model_type": "rnn_generator", "config": {"hidden_size": 8, "embedding_size": 8}},
        "discriminator": {"config": {"filter_sizes": [1, 2], "num_filters": [4, 4]}},
        "objective": {"class_path": "seqgan_hf.objectives.RLOO", "init_args": {"group_size": 2}},
        "training": settings,
    } | changes


@pytest.fixture
def command(tmp_path) -> str:
    seqgan = {"class_path": "seqgan_hf.objectives.SeqGAN", "init_args": {"rollouts": 2}}
    wrong = {"objective": {"class_path": "seqgan_hf.objectives.CoT"}, "discriminator": {}}  # it needs a language model
    for name, changes in {"pg": {}, "seqgan": {"objective": seqgan}, "wrong": wrong}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe(**changes)))
    paths = " ".join(shlex.quote(str(tmp_path / f"{name}.yaml")) for name in ("pg", "seqgan", "wrong"))
    return f"benchmark {paths} --seeds 1 --budget {BUDGET:g}s --temperatures 0.7 1.3 --num_samples 50 --output bench"


def rows(path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(file))


def interrupt_once(begun) -> None:
    """Ctrl-C for this process, when a run is in its adversarial rounds."""
    give_up = time.monotonic() + 600
    while time.monotonic() < give_up:
        if begun.exists() and "adversarial" in begun.read_text():
            return os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)


@pytest.mark.timeout(900)  # nine runs, one after another
def test_an_interrupted_benchmark_goes_on_where_it_was(tmp_path, command, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    begun = tmp_path / "bench/runs/pg/seed-1/metrics.jsonl"
    watcher = threading.Thread(target=interrupt_once, args=[begun], daemon=True)
    watcher.start()
    assert main(shlex.split(command)) == 130 and not watcher.is_alive()
    first = [json.loads(line) for line in begun.read_text().splitlines()]
    assert list((begun.parent / "checkpoints").iterdir())
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("bench/runs/*/seed-1/evaluation/metrics.json")}
    assert len(done) == 4 and not (begun.parent / "evaluation").exists()  # three likelihoods and the constant reward

    assert main(shlex.split(command)) == 0
    assert done == {path: path.stat().st_mtime_ns for path in done}
    assert [json.loads(line) for line in begun.read_text().splitlines()][: len(first)] == first
    seconds = json.loads((begun.parent / "summary.json").read_text())["seconds_after_pretraining"]
    assert BUDGET <= seconds < BUDGET + 1
    found = rows(tmp_path / "bench/leaderboard.csv")
    names = {"maximum likelihood", "maximum likelihood, longer", "maximum likelihood, early-stopped"}
    measured = {(row["name"], row["temperature"]) for row in found if not row["failed"] and row["kind"] != "real"}
    expected = names | {"constant reward", "pg", "seqgan"}
    assert measured == {(name, temperature) for name in expected for temperature in ("0.7", "1.3")} | {
        (name, temperature) for name in names for temperature in ("0.3", "0.4", "0.5")
    }
    quality = [row for row in found if row["metric"] == "kl_generator_oracle" and row["kind"] != "real"]
    assert {(row["name"], row["temperature"]) for row in quality if float(row["standard_error"]) > 0} == measured
    [failed] = [row["failed"] for row in found if row["failed"]]
    assert "CoT" in failed and "language model" in failed
    assert {row["name"] for row in rows(tmp_path / "bench/mixtures.csv")} == names
    page = (tmp_path / "bench/leaderboard.md").read_text()
    assert "| wrong | seed 1 failed: " in page and "no verdict of fewer than 3 seeds" in page
    assert page.strip() in capsys.readouterr().out

    pictures = sorted(tmp_path.glob("bench/*.png"))
    assert len(pictures) == 2
    for picture in pictures:
        picture.unlink()
    assert main(["benchmark", "--output", "bench"]) == 0  # from the raw values alone
    assert sorted(tmp_path.glob("bench/*.png")) == pictures

    raw = (tmp_path / "bench/leaderboard.csv").read_text()
    (tmp_path / "bench/leaderboard.csv").write_text("name,kind,seed\n")
    assert main(shlex.split(command)) == 0  # from what the runs left: none is repeated
    assert (tmp_path / "bench/leaderboard.csv").read_text() == raw
    assert (
        done == {path: path.stat().st_mtime_ns for path in done}
        and "7 runs, 7 of them done" in capsys.readouterr().out
    )

    changes = {f"{BUDGET:g}s": "9s", "0.7 1.3": "0.7 1.4"}
    for (old, new), told in zip(changes.items(), ("begun", "evaluated"), strict=True):
        assert main(shlex.split(command.replace(old, new))) == 1
        assert f"{told} with other settings" in capsys.readouterr().err


def test_the_generators_of_a_pretraining_are_shared(tmp_path, command):
    """Both recipes start from the one generator that maximum likelihood left."""
    from seqgan_hf.commands.benchmark import Budget, Plan, read_recipes

    paths = [str(tmp_path / f"{name}.yaml") for name in ("pg", "seqgan")]
    recipes = read_recipes(paths, ["--training.pretrain_epochs", "3"])
    jobs = {
        job.name: job for job in Plan(recipes, [1], Budget.parse("5rounds"), tmp_path, {"temperatures": [1.0]}).jobs
    }
    start = jobs["maximum likelihood"].recipe()
    assert start["training"]["pretrain_epochs"] == 3 and start["training"]["rounds"] == 0
    for name in ("pg", "seqgan"):
        made = jobs[name].recipe()
        assert made["generator"]["pretrained"] == os.path.join(jobs["maximum likelihood"].path, "generator")
        assert made["training"]["pretrain_epochs"] == 0 and made["training"]["rounds"] == 5
    other = read_recipes(paths, [])
    other["seqgan"]["training"]["pretrain_learning_rate"] = 0.5
    names = [job.name for job in Plan(other, [1], Budget.parse("5rounds"), tmp_path, {"temperatures": [1.0]}).jobs]
    assert "maximum likelihood (seqgan)" in names
