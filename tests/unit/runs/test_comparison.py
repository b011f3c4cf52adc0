"""`seqgan-hf compare`: what counts as one experiment, the table, the curves, and records that cannot be read."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from seqgan_hf.errors import RunFolderError, UserError
from seqgan_hf.runs.comparison import compare_runs
from tests.tools.logs import write_lines, write_run


def test_runs_of_one_recipe_are_one_experiment(tmp_path, figures):
    runs = [write_run(tmp_path / f"seqgan-{seed}", 2, 1, seed) for seed in (0, 1, 2)]
    runs.append(write_run(tmp_path / "mle", 2, 1, 3, kind="mle"))
    comparison = compare_runs(runs, ["nll_oracle"], output=str(tmp_path / "out"))
    names, values = comparison.rows["seqgan"]
    assert names == ["seqgan-0", "seqgan-1", "seqgan-2"] and values["nll_oracle"] == (pytest.approx(8.9), 1.0, 3)
    assert comparison.rows["mle"] == (["mle"], {"nll_oracle": (10.9, None, 1)})
    assert "| seqgan | 3 | 8.900 ± 1.000 (3) |" in str(comparison)
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert "| seqgan | 3 |" in page and "](comparison.png)" in page
    with (tmp_path / "out" / "comparison.csv").open() as file:
        row = next(csv.DictReader(file))
    assert float(row.pop("nll_oracle")) == pytest.approx(8.9)
    assert row == {"experiment": "seqgan", "runs": "3", "nll_oracle_sd": "1.0"}
    (axes,) = figures[0].axes
    # epochs of pretraining, then rounds; of several runs the mean
    curves = [[*zip(*map(list, line.get_data()), strict=True)] for line in axes.lines]
    assert curves[:2] == [[(1, 10), (2, 9), (3, pytest.approx(8.9))], [(1, 12), (2, 11), (3, pytest.approx(10.9))]]
    assert [x for x, _ in curves[2]] == [2, 2] and len(curves) == 3
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["seqgan (3 seeds)", "mle"]


def test_of_many_metrics_the_first_nine_with_a_curve_are_drawn(tmp_path, figures):
    run = write_run(tmp_path / "a", 1, 1)
    values = dict.fromkeys([f"metric_{index}" for index in range(12)], 1.0)
    lines = [{"phase": "adversarial", "round": number, **values} for number in (1, 2)]
    lines[0]["once"] = 1.0
    write_lines(run, lines)
    assert len(compare_runs([run], output=str(tmp_path / "out")).metrics) == 13
    assert [axes.get_title() for axes in figures[0].axes] == [f"metric_{index}" for index in range(9)]


def test_without_a_curve_there_is_no_picture(tmp_path, figures):
    compare_runs([write_run(tmp_path / "a", 1, 0)], output=str(tmp_path / "out"))
    assert not figures and "png" not in (tmp_path / "out" / "comparison.md").read_text()


def test_runs_without_recipes_are_grouped_by_name(tmp_path):
    runs = [write_run(tmp_path / name, 1, 1, kind=name) for name in ("rank_seed1", "rank_seed2", "mali")]
    for run in runs:
        Path(run, "recipe.yaml").unlink()
    comparison = compare_runs(runs)
    assert {name: len(members) for name, (members, _) in comparison.rows.items()} == {"rank": 2, "mali": 1}


def test_what_was_measured_is_neither_position_nor_cost(tmp_path):
    run = write_run(tmp_path / "a", 1, 0)
    cost = {"tokens_per_second": 9.0, "peak_memory_gib": 1.0, "phase_seconds_left": 3.0}
    line = {"phase": "adversarial", "round": 1, "global_step": 7, "seconds": 1.0, "reward": 0.5, "bad": None}
    write_lines(run, [line | cost | {"nll_test": 2.0, "intervals": {"nll_test": [1.0, 3.0]}}])
    assert compare_runs([run]).metrics == ["nll_test", "reward"]
    assert compare_runs([run], ["tokens_per_second"]).rows["a"][1] == {"tokens_per_second": (9.0, None, 1)}


def test_different_recipes_with_one_name_stay_apart(tmp_path):
    runs = [write_run(tmp_path / parent / "run", 1, 1, kind=parent) for parent in ("x", "y")]
    assert list(compare_runs(runs).rows) == ["run", "run (2)"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read '.*metrics.jsonl' .No such file.*: expected the log of a run"),
        ("", "metrics.jsonl' is empty. Train the run first"),
        ("{]\n", "(?i)line 1 of '.*metrics.jsonl' is not valid JSON .*. Fix or delete that line"),
        ("{}\n3\n", "(?i)line 2 of '.*metrics.jsonl' is not a JSON object. Fix or delete that line"),
    ],
)
def test_unreadable_runs_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(RunFolderError, match=message):
        compare_runs([str(tmp_path)])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"- training\n- 3\n", "holds a list: expected a recipe"),
        (b"", "is empty: expected a recipe"),
        (b"a: [", "is not valid YAML"),
        (b"\xff\xfe", "is not valid YAML"),
        (b"2020-13-45", "is not valid YAML"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path, content, reason):
    run = write_run(tmp_path / "a", 1, 1)
    Path(run, "recipe.yaml").write_bytes(content)
    with pytest.raises(RunFolderError, match=f"'.*recipe.yaml' {reason}"):
        compare_runs([run])


def test_an_unknown_metric_is_refused(tmp_path):
    with pytest.raises(UserError, match="metric 'bleu_9': expected one that a run measured .nll_train, nll_oracle"):
        compare_runs([write_run(tmp_path / "a", 1, 0)], ["bleu_9"])


def test_no_runs_are_refused():
    with pytest.raises(UserError, match="No runs to compare. Name at least one folder"):
        compare_runs([])


def test_a_run_that_has_not_ended_is_no_seed_of_one_that_has(tmp_path):
    runs = [write_run(tmp_path / f"seqgan-{seed}", 2, rounds, seed) for seed, rounds in enumerate((3, 3, 1))]
    for run in runs[:2]:
        Path(run, "summary.json").write_text("{}")
    rows = compare_runs(runs, ["nll_oracle"]).rows
    assert {name: members for name, (members, _) in rows.items()} == {
        "seqgan": ["seqgan-0", "seqgan-1"],
        "seqgan-2 (not ended)": ["seqgan-2"],
    }
    assert list(compare_runs(runs[2:]).rows) == ["seqgan-2"]
