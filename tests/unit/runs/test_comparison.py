"""`seqgan-hf compare`: what counts as one experiment, the table, the curves, and records that cannot be read."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from seqgan_hf.errors import RunFolderError, UserError
from seqgan_hf.runs.comparison import compare_runs
from tests.tools.logs import sign, write_lines, write_run


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


def test_beyond_nine_panels_it_is_said_what_is_left_out(tmp_path, figures):
    run = write_run(tmp_path / "a", 1, 1)
    values = dict.fromkeys([f"metric_{index}" for index in range(12)], 1.0)
    write_lines(run, [{"phase": "adversarial", "round": number, **values} for number in (1, 2)])
    comparison = compare_runs([run], output=str(tmp_path / "out"))
    assert comparison.notes == ["the picture shows the first 9 of 12 metrics; --metrics chooses others"]
    assert comparison.notes[0] in (tmp_path / "out" / "comparison.md").read_text()


def measured_once(folder, **values):
    """A run of which only the end was measured."""
    run = write_run(folder, 2, 0, kind=folder.name.rpartition("-")[0] or folder.name)
    line = {"phase": "pretrain_generator", "epoch": 2, "seconds": 1.0, **values}
    write_lines(run, [line | {"intervals": {name: [value - 0.5, value + 0.5] for name, value in values.items()}}])
    return run


def test_runs_that_were_measured_once_are_points_with_their_intervals(tmp_path, figures):
    runs = [measured_once(tmp_path / "a", nll_test=3.0), measured_once(tmp_path / "b", nll_test=4.0)]
    compare_runs(runs, output=str(tmp_path / "out"))
    (axes,) = figures[0].axes
    assert [[*map(list, line.get_data())] for line in axes.lines] == [[[2], [3.0]], [[2], [4.0]]]
    assert all(line.get_marker() == "o" and line.get_markersize() >= 6 for line in axes.lines)
    ends = [segment[:, 1].tolist() for bars in axes.collections for segment in bars.get_segments()]
    assert ends == [[2.5, 3.5], [3.5, 4.5]]


def test_a_run_that_was_measured_once_is_visible_beside_a_curve(tmp_path, figures):
    runs = [write_run(tmp_path / "a", 3, 0), measured_once(tmp_path / "b", nll_oracle=4.0)]
    compare_runs(runs, ["nll_oracle"], output=str(tmp_path / "out"))
    curve, point = figures[0].axes[0].lines
    assert list(point.get_data()[1]) == [4.0] and point.get_markersize() > 2 * curve.get_markersize()


def test_seeds_that_were_measured_once_are_a_point_with_the_interval_of_their_mean(tmp_path, figures):
    runs = [measured_once(tmp_path / f"a-{seed}", nll_test=value) for seed, value in enumerate((3.0, 4.0, 5.0))]
    runs.append(write_run(tmp_path / "other", 2, 2))
    compare_runs(runs, ["nll_test"], output=str(tmp_path / "out"))
    axes = figures[0].axes[0]
    assert list(axes.lines[0].get_data()[1]) == [4.0]
    (segment,) = axes.collections[0].get_segments()
    assert segment[:, 1] == pytest.approx([4 - 4.303 / 3**0.5, 4 + 4.303 / 3**0.5], abs=1e-3)
    assert figures[0].get_supxlabel().startswith("bars of several seeds: 95% interval of their mean (Student's t)")


def test_a_run_named_twice_is_refused(tmp_path):
    run = write_run(tmp_path / "a", 1, 1)
    with pytest.raises(UserError, match="The run '.*/a' is named twice. Leave one out"):
        compare_runs([run, str(tmp_path / "x" / ".." / "a")])


def test_runs_of_one_seed_are_no_seeds(tmp_path):
    runs = [write_run(tmp_path / name, 1, 1) for name in ("a-1", "a-2", "a-3")]
    assert compare_runs(runs).notes == []
    Path(runs[1], "recipe.yaml").write_text(Path(runs[0], "recipe.yaml").read_text())
    comparison = compare_runs(runs)
    assert comparison.notes == ["a: a-1, a-2 have the same seed: they count once"]
    values = [value for _, found in comparison.rows.values() for value in found.values()]
    assert {count for *_, count in values} == {2}
    Path(runs[2], "recipe.yaml").write_text(Path(runs[0], "recipe.yaml").read_text())
    values = [value for _, found in compare_runs(runs).rows.values() for value in found.values()]
    assert {(deviation, count) for _, deviation, count in values} == {(None, 1)}
    assert str(comparison).endswith(f"\n- {comparison.notes[0]}")


def test_unequal_signatures_have_columns_and_panels_of_their_own(tmp_path, figures):
    runs = [write_run(tmp_path / name, 2, 0, kind=name[0]) for name in ("a-1", "a-2", "b", "c")]
    for number, run in enumerate(runs[:3]):
        sign(run, "nll_oracle", f"samples:{500 if number < 2 else 900}|held_out:9|seed:{number}|version:1")
    comparison = compare_runs(runs, ["nll_oracle"], output=str(tmp_path / "out"))
    columns = ["nll_oracle (samples:500)", "nll_oracle (samples:900)", "nll_oracle (no signature)"]
    assert comparison.metrics == columns
    assert [list(values) for _, values in comparison.rows.values()] == [[column] for column in columns]
    assert comparison.rows["a"][1] == {columns[0]: (8.0, 0.0, 2)}  # seeds differ, and may
    assert [axes.get_title() for axes in figures[0].axes] == columns
    assert [len(axes.lines[0].get_data()[0]) for axes in figures[0].axes] == [2, 2, 2]
    with (tmp_path / "out" / "comparison.csv").open() as file:
        assert {*columns} < {*next(csv.reader(file))}


def test_equal_signatures_share_a_column_whatever_their_seed(tmp_path):
    runs = [write_run(tmp_path / name, 1, 0, kind=name) for name in ("a", "b")]
    for number, run in enumerate(runs):
        sign(run, "nll_oracle", f"samples:500|seed:{number}|version:1")
    assert sorted(compare_runs(runs).metrics) == ["nll_oracle", "nll_train"]


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
    cost = {"tokens_per_second": 9.0, "peak_memory_gib": 1.0, "seconds_left": 3.0, "seconds_left_at_least": 3.0}
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
