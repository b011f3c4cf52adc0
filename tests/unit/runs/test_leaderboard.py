"""The results of a benchmark: verdicts against the envelope, the table, and what is drawn."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.envelope import PLANES
from seqgan_hf.runs.jobs import Job
from seqgan_hf.runs.leaderboard import Method, collect, read_board, table
from seqgan_hf.runs.planes import draw_plane, write_leaderboard


KLS = PLANES[0]
SEEDS, TEMPERATURES = (1, 2, 3), (0.8, 1.0)
NOISE = dict(zip(SEEDS, (-0.1, 0.0, 0.1), strict=True))
# Where maximum likelihood lies at each temperature, (coverage, quality), and a coin between both.
LIKELIHOOD, COIN = {0.8: (12.0, 6.0), 1.0: (10.0, 9.0)}, (10.5, 7.0)
# Methods: what they add to maximum likelihood, at each temperature.
METHODS = {
    "both": {0.8: (-1.5, -1.5), 1.0: (-1.5, -1.5)},
    "quality": {0.8: (-0.055, -1.0), 1.0: (0.5, 0.5)},  # at .8; its gain in coverage is 1.9 standard errors
    "coverage": {0.8: (9.0, 3.0), 1.0: (-1.0, 0.05)},
    "inside": {0.8: (0.5, 0.5), 1.0: (0.5, 0.5)},
    "off": {0.8: (8.0, -1.0), 1.0: (8.0, -1.0)},  # covers less than every temperature
}


def write(path, rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)


def measured(name, kind, seed, temperature, place):
    position = {"name": name, "kind": kind, "seed": seed, "temperature": temperature}
    played = "yes" if kind == "objective" else ""
    position |= {"budget": "60s", "seconds": 60 + seed, "rounds": 10, "played": played, "failed": ""}
    coverage = {"metric": "kl_oracle_generator", "value": place[0], "standard_error": ""}
    quality = {"metric": "kl_generator_oracle", "value": place[1], "standard_error": 0.25}
    return [position | coverage, position | quality]


def folder(path, seeds=SEEDS, idle=()):
    rows, coins = [], []
    for seed in seeds:
        for temperature, place in LIKELIHOOD.items():
            base = np.array(place) + NOISE[seed]
            rows += measured("maximum likelihood", "likelihood", seed, temperature, base)
            for name, moved in METHODS.items():
                # the noise of a method is its own
                own = base + np.array(moved[temperature]) + NOISE[seed] / 2
                rows += [
                    row | ({"rounds": 0, "played": "no"} if (name, seed) in idle else {})
                    for row in measured(name, "objective", seed, temperature, own)
                ]
        coin = np.array(COIN) + NOISE[seed]
        values = {"kl_oracle_generator": coin[0], "kl_generator_oracle": coin[1]}
        place = {"name": "maximum likelihood", "seed": seed, "temperature": 0.8, "other": 1.0, "weight": 0.5}
        coins.append(place | values)
    failed = {"name": "broken", "kind": "objective", "seed": 2, "failed": "numbers went bad | twice"}
    write(path / "leaderboard.csv", [*rows, failed])
    write(path / "mixtures.csv", coins)
    return read_board(path)


@pytest.fixture
def board(tmp_path):
    return folder(tmp_path)


def test_the_envelope_holds_temperatures_and_coins_of_a_seed(board):
    np.testing.assert_allclose(board.curve(2, KLS), [(10.0, 9.0), (10.5, 7.0), (12.0, 6.0)])
    np.testing.assert_allclose(board.curve(3, KLS), np.array([(10.0, 9.0), (10.5, 7.0), (12.0, 6.0)]) + 0.1)


@pytest.mark.parametrize("name", ["both", "quality", "coverage", "inside", "off"])
def test_a_verdict_says_in_which_axis_a_method_is_beyond_the_envelope(board, name):
    verdict = board.verdict(board.methods[name], KLS)
    expected = {"inside": "neither (quality -", "off": "neither (coverage -"}
    assert verdict.startswith(expected.get(name, f"**{name}** ("))
    if name == "off":  # nothing is known of quality there
        assert "quality" not in verdict


def test_gaps_are_means_over_seeds_with_their_standard_error(board):
    quality, coverage = board.gaps(board.methods["both"], KLS)
    at = next(gap for gap in coverage if gap.temperature == 1.0)
    # a method at (8.5, 7.5) + 1.5 noise, an envelope moved by the noise: at its quality the envelope is at 10.375
    expected = [np.interp(7.5 + n / 2, [7.0, 9.0], [10.5, 10.0]) - (8.5 + n / 2) for n in NOISE.values()]
    assert at.mean == pytest.approx(np.mean(expected))
    assert at.error == pytest.approx(np.std(expected, ddof=1) / np.sqrt(3))
    assert at.certain and not at._replace(error=at.mean).certain


def test_a_method_whose_budget_was_used_up_before_its_first_round_did_not_play(tmp_path):
    board = folder(tmp_path, idle=[("both", 1), ("both", 2), ("both", 3), ("quality", 2)])
    assert board.verdict(board.methods["both"], KLS) == "did not play"
    told = board.verdict(board.methods["quality"], KLS)
    assert told.startswith("**quality** (") and told.endswith("; did not play with seed 2")
    objectives = [method.name for method in board.order() if method.kind == "objective"]
    assert objectives[0] == "coverage" and objectives[-1] == "both"
    page = write_leaderboard(tmp_path)
    assert "| both | did not play |" in page
    assert "Did not play, or not with every seed: quality, both." in page
    assert "`--budget`, or fewer `--training.discriminator_pretrain_steps`" in page


def test_where_all_have_played_nothing_is_said_of_it(board, tmp_path):
    assert "id not play" not in write_leaderboard(tmp_path)


@pytest.mark.parametrize("seeds", [(2,), (1, 2)])
def test_few_seeds_have_no_verdict(tmp_path, seeds):
    board = folder(tmp_path, seeds)
    assert board.verdict(board.methods["both"], KLS).startswith("no verdict of fewer than 3 seeds (quality +")


def test_one_seed_is_shown_with_its_error_over_samples(tmp_path):
    board = folder(tmp_path, seeds=(2,))
    assert board.methods["both"].over_seeds(1.0, "kl_generator_oracle") == (7.5, 0.25, 1)


def test_the_table_has_the_best_first_and_a_row_for_what_failed(board):
    lines = table(board)
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names[:2] == ["both", "coverage"] and names[-2:] == ["maximum likelihood", "broken"]
    assert lines[-1].startswith("| broken | seed 2 failed: numbers went bad / twice |")
    assert "| both | 3 | 62 | 10 | 7.500 ± 0.087 | 8.500 ± 0.087 |" in lines


def test_a_picture_has_a_panel_for_each_method_beside_likelihood_and_its_envelope(board, tmp_path):
    figure = draw_plane(board, KLS)
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert set(panels) == set(METHODS)
    lines = {line.get_label(): line for line in panels["both"].lines}
    np.testing.assert_allclose(lines["both"].get_xydata(), [(10.5, 4.5), (8.5, 7.5)])
    np.testing.assert_allclose(lines["maximum likelihood"].get_xydata(), [(12.0, 6.0), (10.0, 9.0)])
    dashed = [line for line in panels["both"].lines if line.get_linestyle() == "--"]
    assert len(dashed) == 3
    write_leaderboard(tmp_path)
    page = (tmp_path / "leaderboard.md").read_text()
    assert "Budget after the generator's pretraining: 60 s." in page and "At temperature 1: mean" in page
    assert (tmp_path / "kl_generator_oracle_kl_oracle_generator.png").exists()
    assert "(kl_generator_oracle_kl_oracle_generator.png)" in page


def test_a_folder_without_a_benchmark_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read .*leaderboard.csv.*: expected the folder of a benchmark"):
        read_board(tmp_path)


def test_a_file_without_the_columns_is_refused(tmp_path):
    write(tmp_path / "leaderboard.csv", [{"name": "both", "kind": "objective", "seed": 1, "bleu_4_se": 0.1}])
    with pytest.raises(UserError, match="leaderboard.csv' has no column temperature, .*metric.*: expected a file as"):
        read_board(tmp_path)


def test_what_runs_left_is_collected_with_errors_and_what_is_known_of_a_grammar(tmp_path):
    def found(value, error, real=None):
        low, high = (value - 1.96 * error, value + 1.96 * error) if error else (None, None)
        return {"value": value, "low": low, "high": high, "real": real and found(real, error)}

    job = Job("pg", "objective", 1, tmp_path / "runs/pg/seed-1", dict)
    job.folder.evaluation.mkdir(parents=True)
    results = {"nll_test_sequence": found(18.0, 0.5), "bleu_4": found(0.3, None, 0.4), "x_se": found(1.0, None)}
    results["mauve"] = found(0.9, None) | {"value": None}
    point = {"temperature": 1.0, "results": results}
    (job.folder.evaluation / "metrics.json").write_text(json.dumps({"points": [point]}))
    job.folder.generator.mkdir()
    job.folder.metrics.touch()
    job.folder.write_summary({"seconds_after_pretraining": 61.04, "progress": {"adversarial": 7}})
    failed = Job("broken", "objective", 1, tmp_path / "runs/broken/seed-1", dict)
    failed.path.mkdir(parents=True)
    failed.fail("numbers went bad")
    collect([job, failed], tmp_path, "60s", entropy=16.5)
    board = read_board(tmp_path)
    method, real = board.methods["pg"], board.methods["real text"]
    values = {"nll_test_sequence": 18.0, "nll_above_entropy": 1.5, "bleu_4": 0.3, "x_se": 1.0}
    assert method.values == {(1, 1.0): values} and method.cost == {1: (61.0, 7.0)}
    assert method.errors[1, 1.0] == pytest.approx({"nll_test_sequence": 0.5, "nll_above_entropy": 0.5}, rel=1e-3)
    assert real.values == {(1, 1.0): {"bleu_4": 0.4, "nll_above_entropy": 0.0, "grammar_acceptance": 1.0}}
    assert board.methods["broken"].failed == {1: "numbers went bad"} and board.budget == "60s"


@pytest.mark.parametrize(
    ("kind", "budget", "seconds", "rounds", "played"),
    [
        ("objective", "60s", 60.3, 0, "no"),
        ("control", "60 seconds", 60.3, 0, "no"),
        ("objective", "60s", 60.3, 1, "yes"),
        ("objective", "60s", 12.0, 0, "yes"),  # it has no rounds: all that it does was done in time
        ("objective", "5rounds", 60.3, 5, "yes"),
        ("likelihood", "60s", 0.0, 0, ""),
    ],
)
def test_whether_an_objective_has_played_is_collected(kind, budget, seconds, rounds, played, tmp_path):
    job = Job("pg", kind, 1, tmp_path / "runs/pg/seed-1", dict)
    job.folder.evaluation.mkdir(parents=True)
    point = {"temperature": 1.0, "results": {"bleu_4": {"value": 0.3, "low": None, "high": None, "real": None}}}
    (job.folder.evaluation / "metrics.json").write_text(json.dumps({"points": [point]}))
    job.folder.generator.mkdir()
    job.folder.metrics.touch()
    progress = {"adversarial": rounds} if rounds else {}
    job.folder.write_summary({"seconds_after_pretraining": seconds, "progress": progress})
    collect([job], tmp_path, budget, entropy=None)
    with (tmp_path / "leaderboard.csv").open() as file:
        assert [row["played"] for row in csv.DictReader(file)] == [played]
    assert read_board(tmp_path).methods["pg"].idle == ({1} if played == "no" else set())


def test_the_temperature_of_the_table_is_named_where_it_is_not_1(tmp_path):
    write(tmp_path / "leaderboard.csv", measured("some", "objective", 1, 0.8, (1.0, 2.0)))
    (tmp_path / "mixtures.csv").write_text("name,seed,temperature,other,weight\n")
    assert "At temperature 0.8, the nearest to 1: mean" in write_leaderboard(tmp_path)


def test_what_an_oracle_wrote_has_no_divergence_from_it(tmp_path):
    job = Job("pg", "objective", 1, tmp_path / "runs/pg/seed-1", dict)
    job.folder.evaluation.mkdir(parents=True)
    result = {"value": 3.0, "low": 2.9, "high": 3.1, "real": {"value": 2.5, "low": 2.4, "high": 2.6}}
    point = {"temperature": 1.0, "results": {"nll_oracle": result}}
    (job.folder.evaluation / "metrics.json").write_text(json.dumps({"points": [point]}))
    job.folder.generator.mkdir()
    job.folder.metrics.touch()
    job.folder.write_summary({"seconds_after_pretraining": 61.04, "progress": {"adversarial": 7}})
    collect([job], tmp_path, "60s", entropy=None)
    real = read_board(tmp_path).methods["real text"]
    known = {"kl_generator_oracle": 0.0, "kl_oracle_generator": 0.0}
    assert real.values == {(1, 1.0): {"nll_oracle": 2.5, "nll_test": 2.5} | known}
    assert real.errors[1, 1.0].keys() == {"nll_oracle", "nll_test"}


@pytest.mark.parametrize(("place", "near"), [((9.0, 4.0), True), ((0.0, 0.0), False)])
def test_real_text_is_a_star_or_where_it_is_too_far_away_a_word(board, place, near):
    values = dict(zip((KLS.x, KLS.y), place, strict=True))
    board.methods["real text"] = Method("real text", "real", {(1, 1.0): values})
    figure = draw_plane(board, KLS)
    panel = next(axes for axes in figure.axes if axes.get_title() == "inside")
    stars = [tuple(line.get_xydata()[0]) for line in panel.lines if line.get_marker() == "*"]
    words = [text.get_text() for text in panel.texts if "real" in text.get_text()]
    assert (stars, words) == (([place], []) if near else ([], ["real text: 0, 0"]))
    assert (panel.get_xlim()[0] < place[0]) == near
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named.count("the method") == 1 and not METHODS.keys() & set(named) and ("real text" in named) == near
