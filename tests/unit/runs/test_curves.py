"""`seqgan-hf curves`: what is drawn where, what stands in the CSV, and that mistakes are answered in one line."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from seqgan_hf.commands import main
from seqgan_hf.errors import UserError
from seqgan_hf.runs.curves import draw_runs, read_points, write_curves
from seqgan_hf.runs.record import read_lines, read_run
from tests.tools.logs import DISCRIMINATOR, EPOCH, ROUND, sign, write_lines, write_run


ROOT = Path(__file__).parents[3]


def numbers(path: Path) -> list[tuple]:
    with path.open(newline="") as file:
        return [tuple(row.values()) for row in csv.DictReader(file)]


def drawn(figure: Figure, panel: int = 0) -> list[list[tuple[float, float]]]:
    """Points of every line of a panel."""
    return [[(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)] for line in figure.axes[panel].lines]


def names(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_round_0_is_the_end_of_maximum_likelihood(tmp_path, figures):
    run = write_run(tmp_path / "a", epochs=2, rounds=2)
    said = write_curves([run], str(tmp_path / "out.png"))
    assert said == f"picture: {tmp_path / 'out.png'}\nnumbers: {tmp_path / 'out.csv'} (4 rows)"
    assert numbers(tmp_path / "out.csv") == [
        ("a", "nll_oracle", "0", "8.0", "7.75", "8.5", "1"),
        ("a", "nll_oracle", "1", "7.9", "", "", "1"),
        ("a", "nll_oracle", "2", "7.8", "", "", "1"),
        ("a", "nll_test", "2", "6.0", "", "", "1"),
    ]
    assert drawn(figures[0])[0] == [(0, 8.0), (1, 7.9), (2, 7.8)]
    assert [axes.get_title() for axes in figures[0].axes] == ["NLL_oracle (quality)", "NLL_test (coverage)"]
    assert figures[0].axes[0].get_xlabel() == "adversarial round (0: end of pretraining)"
    (bars,) = figures[0].axes[0].collections
    assert [segment.tolist() for segment in bars.get_segments()] == [[[0, 7.75], [0, 8.5]]]
    assert figures[0].get_supxlabel() == "bars: 95% interval over samples"


def test_a_run_whose_pretraining_was_another_runs_begins_with_its_first_round(tmp_path, figures):
    write_curves([write_run(tmp_path / "a", 0, 3, start="runs/mle/generator")], str(tmp_path / "out.png"))
    assert drawn(figures[0])[0] == [(1, 7.9), (2, 7.8), (3, 7.7)]
    assert figures[0].axes[0].get_xlabel() == "adversarial round"


def test_runs_of_one_label_are_drawn_as_their_mean(tmp_path, figures):
    runs = [write_run(tmp_path / f"s{seed}", 1, 2, shift) for seed, shift in enumerate((-0.3, 0.0, 0.3))]
    runs.append(write_run(tmp_path / "control", 1, 2))
    write_curves(runs, str(tmp_path / "out.png"), ["seqgan"] * 3 + ["control"], ["nll_oracle"])
    assert names(figures[0]) == ["seqgan (3 seeds)", "control"]
    rows = [row for row in numbers(tmp_path / "out.csv") if row[0] == "seqgan"]
    # the deviation of -.3, 0 and .3 is .3, and Student's t with 2 degrees of freedom is 4.303 at 97.5%
    half = 4.303 * 0.3 / 3**0.5
    assert [(row[2], row[6]) for row in rows] == [("0", "3"), ("1", "3"), ("2", "3")]
    for row, mean in zip(rows, (9.0, 7.9, 7.8), strict=True):
        assert [*map(float, row[3:6])] == pytest.approx([mean, mean - half, mean + half], abs=1e-3)
    band, bars = figures[0].axes[0].collections
    assert isinstance(band, PolyCollection) and isinstance(bars, LineCollection)
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(9.0 + half, abs=1e-3)
    assert "bands: 95% interval of the mean over seeds" in figures[0].get_supxlabel()


def test_without_labels_recipes_that_differ_in_seeds_are_one(tmp_path, figures):
    runs = [write_run(tmp_path / name, 1, 1) for name in ("gan-1", "gan-2")]
    runs.append(write_run(tmp_path / "control", 1, 1, reward="constant"))
    write_curves(runs, str(tmp_path / "out.png"))
    assert names(figures[0]) == ["gan (2 seeds)", "control"]


def test_where_a_seed_has_not_measured_no_mean_is_drawn_and_that_is_said(tmp_path, figures):
    runs = [write_run(tmp_path / "a", 1, 4), write_run(tmp_path / "b", 1, 2), write_run(tmp_path / "c", 1, 1, n=1)]
    said = write_curves(runs, str(tmp_path / "out.png"), ["x", "x", "y"])
    assert drawn(figures[0])[0] == [(0, 9.0), (1, 7.9), (2, 7.8)]
    assert "x: nll_oracle is drawn at 3 of 5 places, those which all of its 2 runs measured" in said.splitlines()
    assert "y: nll_test was not measured, or not over rounds" in said.splitlines()


def test_over_seconds_maximum_likelihood_that_goes_on_begins_where_the_rounds_do(tmp_path, figures):
    runs = [write_run(tmp_path / "gan", 2, 2), write_run(tmp_path / "mle", 4, 0)]
    write_curves(runs, str(tmp_path / "out.png"), metrics=["nll_oracle"], axis="seconds")
    gan, mle = drawn(figures[0])
    # the time of D's pretraining is the adversarial method's
    assert gan == [(0, 8.0), (DISCRIMINATOR + ROUND, 7.9), (DISCRIMINATOR + 2 * ROUND, 7.8)]
    assert mle == [(0, 8), (EPOCH, 7), (2 * EPOCH, 6)]


def test_over_seconds_seeds_are_joined_by_round_and_stand_at_their_mean_time(tmp_path, figures):
    runs = [write_run(tmp_path / name, 1, 2) for name in ("a", "b")]
    lines = read_lines(Path(runs[1], "metrics.jsonl"))
    write_lines(runs[1], [line | {"seconds": 2 * line["seconds"]} for line in lines])
    write_curves(runs, str(tmp_path / "out.png"), ["x", "x"], ["nll_oracle"], axis="seconds")
    first = DISCRIMINATOR + ROUND
    assert [x for x, _ in drawn(figures[0])[0]] == [0, 1.5 * first, 1.5 * (first + ROUND)]


@pytest.mark.parametrize(("factor", "unit", "last"), [(1, "seconds", 17), (60, "minutes", 17), (3600, "hours", 17)])
def test_long_times_are_drawn_in_longer_units_and_written_in_seconds(factor, unit, last, tmp_path, figures):
    run = write_run(tmp_path / "a", 1, 2)
    lines = read_lines(Path(run, "metrics.jsonl"))
    write_lines(run, [line | {"seconds": factor * line["seconds"]} for line in lines])
    write_curves([run], str(tmp_path / "out.png"), metrics=["nll_oracle"], axis="seconds")
    assert drawn(figures[0])[0][-1][0] == last
    assert figures[0].axes[0].get_xlabel() == f"{unit} since the shared pretraining"
    assert float(numbers(tmp_path / "out.csv")[-1][2]) == factor * last


def test_over_seconds_who_began_from_the_same_weights_shares_their_beginning(tmp_path, figures):
    """Both kinds of comparison in one picture: from fresh weights, and from those of a finished run."""
    runs = [
        write_run(tmp_path / "gan", 2, 1),
        write_run(tmp_path / "mle", 3, 0),
        write_run(tmp_path / "gan-from", 0, 1, start="runs/base/generator"),
        write_run(tmp_path / "mle-from", 3, 0, start="runs/base/generator"),
    ]
    write_curves(runs, str(tmp_path / "out.png"), metrics=["nll_oracle"], axis="seconds")
    xs = [[x for x, _ in line] for line in drawn(figures[0])]
    assert xs == [[0, 12], [0, EPOCH], [12], [EPOCH, 2 * EPOCH, 3 * EPOCH]]


def test_over_seconds_who_began_from_weights_of_its_own_is_timed_from_its_start(tmp_path, figures):
    runs = [write_run(tmp_path / "gan", 2, 1), write_run(tmp_path / "tuned", 1, 0, start="gpt2")]
    write_curves(runs, str(tmp_path / "out.png"), metrics=["nll_oracle"], axis="seconds")
    assert [x for x, _ in drawn(figures[0])[1]] == [EPOCH]


def test_over_seconds_maximum_likelihood_alone_is_timed_from_its_start(tmp_path, figures):
    write_curves([write_run(tmp_path / "mle", 2, 0)], str(tmp_path / "out.png"), axis="seconds")
    assert [x for x, _ in drawn(figures[0])[0]] == [EPOCH, 2 * EPOCH]


def test_over_epochs_pretraining_comes_first_and_the_switch_is_marked(tmp_path, figures):
    runs = [write_run(tmp_path / "gan", 2, 1), write_run(tmp_path / "mle", 3, 0)]
    write_curves(runs, str(tmp_path / "out.png"), metrics=["nll_oracle"], axis="epochs")
    gan, mle, mark = drawn(figures[0])
    assert gan == [(1, 9), (2, 8), (3, 7.9)] and mle == [(1, 9), (2, 8), (3, 7)]
    assert [x for x, _ in mark] == [2, 2]


def test_published_points_stand_beside_the_curves_unconnected(tmp_path, figures):
    (tmp_path / "points.csv").write_text(
        "round,metric,value,label\n0,nll_oracle,9.5,theirs\n50,nll_oracle,8.5,theirs\n1,nll_test,5,\n2,bleu_2,1,x\n"
    )
    run = write_run(tmp_path / "a", 1, 2)
    said = write_curves([run], str(tmp_path / "out.png"), points=str(tmp_path / "points.csv"))
    line, theirs = figures[0].axes[0].lines
    assert theirs.get_linestyle() == "None" and theirs.get_marker() != "None" and line.get_linestyle() == "-"
    assert drawn(figures[0])[1] == [(0, 9.5), (50, 8.5)] and drawn(figures[0], 1)[1] == [(1, 5)]
    assert names(figures[0]) == ["a", "theirs", "points"]
    assert ("theirs", "nll_oracle", "50", "8.5", "", "", "") in numbers(tmp_path / "out.csv")
    assert said.splitlines()[-1].endswith("points.csv: points of bleu_2 are not drawn, as no panel shows it")


def test_the_numbers_are_sorted(tmp_path, figures):
    runs = [write_run(tmp_path / name, 1, 12, kind=name) for name in ("b", "a")]
    write_curves(runs, str(tmp_path / "out.png"))
    keys = [(label, metric, float(x)) for label, metric, x, *_ in numbers(tmp_path / "out.csv")]
    assert keys == sorted(keys) and len({key[:2] for key in keys}) == 4


def test_the_originals_curve_is_there():
    points = read_points(str(ROOT / "docs/figures/original_seqgan.csv"))
    assert [(point.x, point.value) for point in points] == [
        (0, 9.085),
        (25, 8.939),
        (50, 8.834),
        (65, 8.778),
        (150, 8.683),
    ]
    assert {(point.metric, point.label) for point in points} == {("nll_oracle", "original (its log)")}


def test_odd_labels_are_shown_as_they_are(tmp_path, figures):
    runs = [write_run(tmp_path / name, 1, 1) for name in "abc"]
    write_curves(runs, str(tmp_path / "out.png"), ["_hidden", "$5 and $6", "both"])
    assert names(figures[0]) == [" _hidden", r"\$5 and \$6", "both"]
    assert {row[0] for row in numbers(tmp_path / "out.csv")} == {"_hidden", "$5 and $6", "both"}


def test_more_runs_than_colours_stay_apart(tmp_path, figures):
    runs = [write_run(tmp_path / f"run{chr(97 + i)}", 1, 1, shift=i / 10, kind=i) for i in range(10)]
    write_curves(runs, str(tmp_path / "out.png"), metrics=["nll_oracle"])
    assert len({(line.get_color(), line.get_linestyle()) for line in figures[0].axes[0].lines}) == 10


def test_a_long_legend_leaves_the_panels_their_room(tmp_path, figures):
    runs = [write_run(tmp_path / f"run{chr(97 + i)}", 1, 1, kind=i) for i in range(12)]
    labels = [f"an objective with quite a long name {i}" for i in range(12)]
    write_curves(runs, str(tmp_path / "out.png"), labels, metrics=["nll_oracle"])
    figures[0].draw_without_rendering()
    assert figures[0].axes[0].get_window_extent().height / figures[0].dpi > 2.4


@pytest.mark.parametrize(("panels", "grid"), [(1, (1, 1)), (3, (1, 3)), (4, (2, 2)), (5, (2, 3)), (7, (3, 3))])
def test_panels_fill_their_rows(tmp_path, figures, panels, grid):
    run = write_run(tmp_path / "a", 1, 0)
    metrics = [f"metric_{index}" for index in range(panels)]
    lines = [{"phase": "adversarial", "round": i, "seconds": 1.0, **dict.fromkeys(metrics, 1.0)} for i in (1, 2)]
    write_lines(run, lines)
    write_curves([run], str(tmp_path / "out.png"), metrics=metrics)
    assert figures[0].axes[0].get_gridspec().get_geometry() == grid


def test_a_value_at_its_bound_is_drawn_flat(tmp_path, figures):
    run = write_run(tmp_path / "a", 1, 0)
    lines = [
        {"phase": "adversarial", "round": i, "seconds": 1.0, "jsd_oracle": 0.6931471 + i * 1e-9} for i in (1, 2, 3)
    ]
    write_lines(run, lines)
    write_curves([run], str(tmp_path / "out.png"))
    low, high = figures[0].axes[0].get_ylim()
    assert high - low > 0.01


@pytest.mark.parametrize("interval", [[None, None], [8.0, None], [float("nan"), 9.5]])
def test_an_interval_that_is_none_is_not_drawn(interval, tmp_path, figures):
    run = write_run(tmp_path / "a", 1, 0)
    line = {
        "phase": "adversarial",
        "round": 1,
        "seconds": 1.0,
        "nll_oracle": 9.0,
        "intervals": {"nll_oracle": interval},
    }
    write_lines(run, [line])
    for _ in range(2):  # its own numbers are written again
        write_curves([run], str(tmp_path / "out.png"))
    assert numbers(tmp_path / "out.csv") == [("a", "nll_oracle", "1", "9.0", "", "", "1")]
    assert not figures[0].axes[0].collections and figures[0].get_supxlabel() == ""


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml"), ("PNG", b"\x89PNG")]
)
def test_pictures_are_written(suffix, start, tmp_path, capsys):
    run = write_run(tmp_path / "a", 1, 2)
    picture = tmp_path / f"picture.{suffix}"
    assert main(["curves", run, "--output", str(picture)]) == 0
    assert picture.read_bytes().startswith(start) and (tmp_path / "picture.csv").exists()
    assert capsys.readouterr().out.splitlines()[0] == f"picture: {picture}"


def test_the_picture_of_a_run_shows_all_of_it_and_marks_the_switch(tmp_path, figures):
    run = read_run(write_run(tmp_path / "a", 2, 4))
    run.label = "SeqGAN"
    assert draw_runs([run], tmp_path / "curve.png") == (True, [])
    curve, mark = drawn(figures[0])
    assert curve == [(1, 9), (2, 8), (3, 7.9), (4, 7.8), (5, 7.7), (6, 7.6)] and [x for x, _ in mark] == [2, 2]
    assert drawn(figures[0], 1)[0] == [(4, 6.0), (6, 8.0)] and names(figures[0]) == ["SeqGAN"]
    assert figures[0].get_supxlabel() == "bars: 95% interval over samples; dashed: adversarial training begins"


def test_a_run_that_measured_nothing_has_no_picture(tmp_path, figures):
    run = write_run(tmp_path / "a", 1, 1)
    write_lines(run, [{"phase": "adversarial", "round": 1, "seconds": 1.0, "reward": 0.5}])
    assert draw_runs([read_run(run)], tmp_path / "curve.png") == (False, []) and not figures


def test_seeds_that_were_measured_at_different_places_only_are_named(tmp_path, figures):
    runs = [write_run(tmp_path / "a", 1, 2), write_run(tmp_path / "b", 1, 1)]
    for run, number in zip(runs, (2, 1), strict=True):
        write_lines(run, [{"phase": "adversarial", "round": number, "nll_oracle": 8.0, "nll_test": 5.0}])
    other = write_run(tmp_path / "c", 1, 2, kind="other")
    said = write_curves([*runs, other], str(tmp_path / "out.png"), ["x", "x", "y"], ["nll_oracle"])
    assert "x: nll_oracle is not drawn, as its 2 runs share no place where it was measured" in said.splitlines()
    assert names(figures[0]) == ["y"]


def test_a_panel_of_unequal_signatures_is_named(tmp_path, figures):
    runs = [write_run(tmp_path / name, 1, 2, kind=name) for name in ("a", "b")]
    sign(runs[0], "nll_oracle", "samples:500|seed:1|version:1")
    sign(runs[1], "nll_oracle", "samples:500|seed:2|version:1")
    assert "signatures" not in write_curves(runs, str(tmp_path / "out.png"))
    sign(runs[1], "nll_oracle", "samples:900|seed:2|version:1")
    said = write_curves(runs, str(tmp_path / "out.png"))
    assert "nll_oracle was measured under unequal signatures (samples:500; samples:900)" in said.splitlines()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("no/such", "cannot read 'no/such/metrics.jsonl' .No such file.*: expected the log of a run"),
        (".", "cannot read 'metrics.jsonl' .No such file"),
        ("gan --metrics bleu_9", "metric 'bleu_9': expected one that a run measured .nll_train, nll_oracle, nll_test"),
        ("gan --metrics d", "no value of d to draw over rounds: expected .*. Choose"),
        ("train_only --axis epochs", "The runs measured none of nll_oracle, .*. Choose --metrics from nll_train"),
        ("gan mle --labels x", "1 labels for 2 runs: expected one label for each"),
        ("gan gan", "The run 'gan' is named twice. Leave one out"),
        ("gan other --labels x x", "runs with 1 and 2 epochs of pretraining share the label 'x': expected seeds"),
        ("gan mle", "No adversarial rounds in mle. Set --axis seconds"),
        ("gan other mle --axis seconds", "mle has 3 epochs .* begin after 1 and 2: expected one beginning"),
        ("other short --axis seconds", "short has 1 epochs .* begin after 2: expected .*at least as many"),
        ("later mle --axis seconds", "mle has no rounds and began from fresh weights.*: expected a common beginning"),
        ("timeless --axis seconds", "a line of timeless without `seconds`: expected a log with times"),
        ("gan --output no/such/a.png", "--output 'no/such/a.png' is in a folder that does not exist. Make"),
        ("gan --output a.gif", "--output 'a.gif': expected a file in .pdf, .png, .svg. Change"),
        ("gan --output a", "--output 'a': expected a file in .pdf, .png, .svg"),
        ("gan --output folder.png", "Cannot write 'folder.png'"),
        ("gan --points none.csv", "cannot read the points 'none.csv' .No such file.*: expected a CSV"),
        ("gan --points good.csv --axis epochs", "--points with --axis epochs: expected --axis rounds"),
        ("gan --output good.png", "would overwrite good.csv, which does not hold drawn numbers. Choose another name"),
        ("binary", "cannot read 'binary/metrics.jsonl' .*utf-8.*: expected the log of a run"),
        ("gan --points good.csv --output good.png", "would write its numbers over the points 'good.csv'. Choose"),
    ],
)
def test_mistakes_are_answered_in_one_line(call, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, units in {"gan": (1, 2), "other": (2, 2), "mle": (3, 0), "short": (1, 0), "timeless": (1, 1)}.items():
        write_run(tmp_path / name, *units)
    write_run(tmp_path / "later", 0, 2, start="runs/base/generator")
    lines = read_lines(Path("timeless/metrics.jsonl"))
    write_lines("timeless", [line | {"seconds": None} for line in lines])
    Path("train_only").mkdir()
    write_lines("train_only", [{"phase": "pretrain_generator", "epoch": 1, "nll_train": 3.0}])
    Path("good.csv").write_text("round,metric,value\n0,nll_oracle,9\n")
    Path("binary").mkdir()
    Path("binary/metrics.jsonl").write_bytes(b"\xff\xfe{}")
    Path("folder.png").mkdir()
    arguments = call.split() + ([] if "--output" in call else ["--output", "a.png"])
    assert main(["curves", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("seqgan-hf: ") and re.search(message, line), line
    assert not Path("a.png").exists() and Path("good.csv").read_text().startswith("round,")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "with the columns none: expected round,metric,value and perhaps label"),
        (b"round,value\n1,2\n", "with the columns round,value: expected"),
        (b"round,metric,value,colour\n1,a,2,red\n", "with the columns round,metric,value,colour: expected"),
        (b"round,metric,value,value\n1,a,2,3\n", "with the columns round,metric,value,value: expected"),
        (b"round,metric,value\n", "without a row: expected one row for each point"),
        (b"round,metric,value\n1,a,2\nten,a,2\n", "row 3 of the points .*ten,a,2.: expected round,metric,value"),
        (b"round,metric,value\n1,a,nan\n", "row 2 of"),
        (b"round,metric,value\n-1,a,2\n", "row 2 of"),
        (b"round,metric,value\n1,,2\n", "row 2 of"),
        (b"round,metric,value\n1,a\n", "row 2 of"),
        (b"round,metric,value\n1,a,2,3\n", "row 2 of"),
        (b"round,metric,value\n1,\xff\xfe,2\n", "cannot read the points .*utf-8.*: expected a CSV file in UTF-8"),
    ],
)
def test_malformed_points_are_refused(content, message, tmp_path):
    (tmp_path / "points.csv").write_bytes(content)
    with pytest.raises(UserError, match=message) as refused:
        read_points(str(tmp_path / "points.csv"))
    assert len(str(refused.value).splitlines()) == 1


def test_points_of_a_spreadsheet_are_read(tmp_path):
    """With a byte order mark, carriage returns, other order of columns, spaces and blank lines."""
    (tmp_path / "theirs.csv").write_bytes("\ufeffvalue, metric ,round\r\n9.5,nll_oracle, 3\r\n\r\n".encode())
    (point,) = read_points(str(tmp_path / "theirs.csv"))
    assert point[:4] == ("theirs", "nll_oracle", 3.0, 9.5) and point.n is None
