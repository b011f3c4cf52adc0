"""`seqgan-hf generate`: where prompts are read from, and where samples are written to."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from seqgan_hf.commands import main
from seqgan_hf.commands.generate import Drawing
from seqgan_hf.data.text import read_texts
from seqgan_hf.generation.resampling import Resampled
from seqgan_hf.generation.sampling import nothing_written
from seqgan_hf.generation.vocabulary import start_prompt
from tests.tools.small_runs import short_run
from tests.tools.tiny import build_discriminator, build_generator


pytestmark = pytest.mark.usefixtures("without_pictures")
RECIPE = Path(__file__).parents[3] / "recipes/text/seqgan.yaml"


@pytest.fixture
def answering(tmp_path) -> Path:
    """A run whose generator continues prompts, beside the tables that it learnt from: `pairs` of every kind."""
    pairs = [("a, b" if i % 2 else "the cat", "sits ; runs" if i % 3 else "on a mat") for i in range(64)]
    rows = "".join(json.dumps({"q": question, "answer": answer}) + "\n" for question, answer in pairs)
    (tmp_path / "pairs.jsonl").write_text(rows)
    table = "".join(f'"{question}"|{answer}|{number}\n' for number, (question, answer) in enumerate(pairs))
    (tmp_path / "pairs.csv").write_text(f"q|answer|n\n{table}", encoding="utf-16")
    more = {"data.text_column": "answer", "data.prompt_column": "q", "training.rounds": 0}
    call = short_run(RECIPE, tmp_path / "run", tmp_path / "pairs.jsonl", **more)
    assert main(call) == 0
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("name", "form"),
    [("pairs.jsonl", []), ("pairs.csv", ["--encoding", "utf-16", "--separator", "|", "--quoting", "true"])],
)
def test_prompts_are_read_as_training_reads_them(name, form, answering, capsys):
    """From a table of any kind, with its settings; in `evaluate` also from the table of the references."""
    capsys.readouterr()
    table = str(answering.parent / name)
    assert main(["generate", str(answering), "--prompts", table, "--prompt_column", "q", "--seed", "1", *form]) == 0
    written = capsys.readouterr().out.splitlines()
    assert len(written) == 64 and written[1].startswith("a, b") and written[2].startswith("the cat")
    lines = answering.parent / "prompts.txt"
    prompts = read_texts(str(answering.parent / "pairs.jsonl"), "q")
    lines.write_text("".join(f"{prompt}\n" for prompt in prompts), encoding="utf-16" if form else "utf-8")
    assert main(["generate", str(answering), "--prompts", str(lines), "--seed", "1", *form[:2]]) == 0
    assert capsys.readouterr().out.splitlines() == written
    found = []
    for prompts in (["--prompts", table, "--prompt_column", "q"], ["--prompt_column", "q"], ["--prompts", str(lines)]):
        output = str(answering.parent / "out")
        call = ["evaluate", "--model", str(answering), "--references", table, "--text_column", "answer", *prompts]
        assert main([*call, *form, "--metrics", "length", "--output", output]) == 0
        found.append(json.loads(Path(output, "metrics.json").read_text())["results"])
    assert found[0] == found[1] == found[2] and "nll_test" in found[0]


def test_samples_are_written_as_json_and_in_batches(answering, capsys):
    capsys.readouterr()
    call = ["generate", str(answering), "--prompts", str(answering.parent / "prompts.txt"), "--seed", "1"]
    (answering.parent / "prompts.txt").write_text("the cat\na, b\nthe cat\n")
    written = {}
    for form in ([], ["--json"], ["--jsonl"], ["--jsonl", "--batch_size", "2"], ["--jsonl", "--batch_size", "3"]):
        assert main([*call, *form]) == 0
        written[tuple(form)] = capsys.readouterr().out
    rows = json.loads(written["--json",])
    assert [row["text"] for row in rows] == written[()].splitlines()
    assert [row["prompt"] for row in rows] == ["the cat", "a, b", "the cat"]
    assert [json.loads(line) for line in written["--jsonl",].splitlines()] == rows
    assert written["--jsonl", "--batch_size", "3"] == written["--jsonl",]
    halves = [json.loads(line) for line in written["--jsonl", "--batch_size", "2"].splitlines()]
    assert [row["prompt"] for row in halves] == [row["prompt"] for row in rows]
    assert all(row["text"].startswith(row["prompt"]) for row in halves)
    assert main([*call, "--json", "--jsonl"]) == 1 and main([*call, "--batch_size", "0"]) == 1
    assert re.search("both --json and --jsonl.*batch_size=0: expected at least 1", capsys.readouterr().err, re.DOTALL)


def test_a_blank_line_of_prompts_is_no_prompt(answering, capsys):
    """Its text has no space in front, and `null` for a prompt, as without `--prompts`."""
    (answering.parent / "prompts.txt").write_text("the cat\n\n  \na, b\n")
    call = ["generate", str(answering), "--prompts", str(answering.parent / "prompts.txt"), "--seed", "1"]
    capsys.readouterr()
    assert main([*call, "--jsonl", "--num_samples", "40"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prompt"] for row in rows] == ["the cat", None, None, "a, b"] * 10
    assert any(row["text"] for row in rows[1::4] + rows[2::4])
    for row in rows:
        assert row["text"].startswith(row["prompt"] or "") and not row["text"].startswith(" ")
    assert main([*call, "--num_samples", "40"]) == 0
    assert capsys.readouterr().out.splitlines() == [row["text"] for row in rows]
    assert main(["generate", str(answering), "--prompt", "", "--json", "--num_samples", "1"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["prompt"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompts", "pairs.jsonl"], r"no prompt_column: expected one of the columns \['q', 'answer'\]"),
        (["--prompts", "pairs.jsonl", "--prompt_column", "w"], r"no column 'w': expected one of \['q', 'answer'\]"),
        (["--prompts", "lines.txt", "--prompt_column", "q"], r"no column 'q': expected one of \['text'\]"),
        (["--prompts", "lines.txt", "--header", "false"], "'header': False.* only with .csv and .tsv files"),
        (["--prompt", "a", "--separator", ";"], "without --prompts: expected a file to read"),
    ],
)
def test_settings_of_prompts_that_nothing_has(options, message, answering, capsys, monkeypatch):
    monkeypatch.chdir(answering.parent)
    Path("lines.txt").write_text("a\n")
    capsys.readouterr()
    assert main(["generate", str(answering), *options]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_many_unknown_words_are_counted(answering, caplog):
    prompts = answering.parent / "prompts.txt"
    prompts.write_text(" ".join(f"x{number:02}" for number in range(25)) + "\n")
    assert main(["generate", str(answering), "--prompts", str(prompts)]) == 0
    assert "reads each as unknown: 'x00', " in caplog.text and "'x19' and 5 more" in caplog.text


def test_the_effective_sample_size_is_told_for_each_batch(caplog, monkeypatch):
    """Of the weights 3, 1, 1 and 1 it is 36 / 12 = 3, of equal ones 4: 3.5 for both samples together."""
    generator, weights = build_generator("lstm"), torch.tensor([[3.0, 1.0, 1.0, 1.0], [0.2, 0.2, 0.2, 0.2]]).double()
    start = nothing_written(start_prompt(generator, 3))
    drawn = [Resampled(start, rows.log()) for rows in (weights, weights[:1])]
    monkeypatch.setattr("seqgan_hf.commands.generate.resample", Mock(side_effect=drawn))
    caplog.set_level(logging.INFO)
    drawing = Drawing(max_new_tokens=3, batch_size=2)
    assert len(list(drawing.draw(generator, start, build_discriminator("cnn")))) == 2
    line = "Kept 1 of 4 proposals for each sample; effective sample size"
    assert caplog.messages == [f"{line} 3.5", f"{line} 3.0"]


def test_a_file_stays_as_it_is_until_all_is_written(tmp_path, capsys, monkeypatch):
    run, out = str(tmp_path / "run"), tmp_path / "out.txt"
    (tmp_path / "lines.txt").write_text("a man\nb\n" * 32)
    assert main(short_run(RECIPE, Path(run), tmp_path / "lines.txt", **{"training.rounds": 0})) == 0
    out.write_text("old\n")
    capsys.readouterr()
    for wrong in (["--num_samples", "0"], ["--prompts", "none.txt"], ["--temperature", "-1"]):
        assert main(["generate", run, "--output", str(out), *wrong]) == 1
    assert main(["generate", "no/such/run", "--output", str(out)]) == 1
    with monkeypatch.context() as patch:
        patch.setattr("seqgan_hf.commands.generate.sample", Mock(side_effect=KeyboardInterrupt))
        assert main(["generate", run, "--output", str(out)]) == 130
        assert main(["generate", run, "--output", str(tmp_path / "new.txt")]) == 130
    assert out.read_text() == "old\n" and not (tmp_path / "new.txt").exists()
    assert not list(tmp_path.glob("*.partial"))
    (tmp_path / "link.txt").symlink_to(out)
    assert main(["generate", run, "--output", str(tmp_path / "link.txt"), "--num_samples", "3"]) == 0
    assert len(out.read_text().splitlines()) == 3 and (tmp_path / "link.txt").is_symlink()
    assert main(["generate", run, "--output", "/dev/null", "--num_samples", "3"]) == 0
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.delattr("seqgan_hf.commands.generate.load_generator")  # no work is done
        for place in (tmp_path, tmp_path / "no" / "out.txt"):
            assert main(["generate", run, "--output", str(place)]) == 1
            assert "expected a file to write" in capsys.readouterr().err
