"""Every shell block of the documents is run by a shell, page by page, as a reader would, with less work to do."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import pandas as pd
import pytest
import torch
from datasets import Dataset
from safetensors.torch import save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from seqgan_hf.commands import main
from seqgan_hf.data import GrammarData
from tests.tools.documents import (
    IN_THE_RECIPE,
    ROOT,
    Command,
    Snippet,
    commands_of,
    recipe_pieces,
    shell_blocks,
    write_modules,
)
from tests.tools.fake_hub import TOKEN, FakeHub, serve
from tests.tools.judges import save_judge
from tests.tools.shorter import NOT_RUN, is_run
from tests.tools.small_runs import quickstart, short_run
from tests.tools.warm import warm_commands


# A page that another test runs, command after command.
ELSEWHERE = {"docs/learn/first-hour.md": "test_first_hour.py::test_every_command_of_the_first_hour_works"}
PAGES = sorted({block.page for block in shell_blocks()} - ELSEWHERE.keys())
NEVER_RUN = ("accelerate", "hf", "make", "pip", "pytest", "torchrun")
PROGRAMS = {"seqgan-hf": "tests.tools.shorter:seqgan_hf", "python": "tests.tools.shorter:python"}
PROGRAMS |= dict.fromkeys(NEVER_RUN, "tests.tools.shorter:nothing")
SHELLS_OWN = ("", "cd", "eval", "head", "sed", "wc")

TUNE = (
    "X:{0}\nT:line {0}\nM:4/4\nL:1/8\nK:G\n{1}2 {2}2 {3}4|e2gf g4|"
    "{2}{3}ge c2de|dcde defg|e2gf g4|efge c2de|dcde defg|g8|\n\n"
)
MOLECULES = ["CCO", "CCN", "CCC", "c1ccccc1", "CC(=O)O", "CCOC", "CNC", "OCCO", "CCCl", "NCCO"]


def write_files(folder: Path) -> None:
    """The files of a reader that the documents name."""
    corpus = GrammarData(num_train=200, num_eval=200, seed=3).load()
    train, held_out = (
        sorted(corpus.tokenizer.batch_decode(corpus.rows(part), skip_special_tokens=True), key=len)[:60]
        for part in ("train", "eval")
    )
    gaps = [re.sub(r"^\S+", "<blank>", text) for text in held_out[:20]]
    texts = {
        "my_lines captions a big image_coco shi train others rest": train,
        "held_out test references known samples": held_out,
        "answers missing": held_out[:20],
        "prompts questions asked": ["the"] * 20,
        "with_blanks": gaps,
        "events": ["3 17 4 5", "4 3 3 3", "17 17 3 4"] * 20,
        "held_out_ids": ["3 17 4 5 6 7 8 9 1 2"] * 20,
    }
    for names, lines in texts.items():
        for name in names.split():
            (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (folder / "asked.txt").write_text("singular\nplural\n" * 10)
    (folder / "zinc.smi").write_text("\n".join(MOLECULES * 6) + "\n")
    (folder / "parts").mkdir()
    (folder / "parts/one.txt").write_text("\n".join(train) + "\n")
    (folder / "captions.txt.gz").write_bytes(gzip.compress((folder / "captions.txt").read_bytes()))
    tunes = [(number, *notes) for number, notes in enumerate(permutations("defgab", 3))]
    (folder / "nottingham").mkdir()
    (folder / "nottingham/some.abc").write_text("".join(TUNE.format(*each) for each in tunes))
    table = pd.DataFrame({"caption": train})
    table.to_csv(folder / "table.csv", index=False)
    table.to_csv(folder / "train.csv.gz", index=False)
    table.to_json(folder / "table.jsonl", orient="records", lines=True)
    table.to_parquet(folder / "table.parquet")
    pd.DataFrame({"caption": held_out}).to_parquet(folder / "test.parquet")
    Dataset.from_dict({"text": train}).save_to_disk(str(folder / "FOLDER"))
    with open(folder / "dialogue.jsonl", "w") as file:
        for text in train[:60]:
            print(json.dumps({"question": "the dog", "answer": text}), file=file)
    with open(folder / "events.jsonl", "w") as file:
        for number in range(60):
            print(json.dumps({"notes": [3, 4 + number % 9, 5]}), file=file)


def write_places(folder: Path) -> None:
    """What of the repository a reader has around him, as copies; and modules of his own."""
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    (folder / "tests").symlink_to(ROOT / "tests")
    figures = folder / "docs/figures"
    shutil.copytree(ROOT / "docs/figures/judge_800", figures / "judge_800")
    shutil.copy(ROOT / "docs/figures/original_seqgan.csv", figures)
    shutil.copy(ROOT / "recipes/text/grammar.yaml", folder / "RECIPE")
    save_language_model(folder / "FOLDER_OR_ID")
    parts = {"embed_tokens": nn.Embedding(20, 8), "lstm": nn.LSTM(8, 8), "lm_head": nn.Linear(8, 20)}
    save_file(nn.ModuleDict(parts).state_dict(), folder / "oracle_seqgan.safetensors")
    (folder / "grammar-demo").mkdir()
    (folder / "grammar-demo/README.md").write_text("---\nsdk_version: 6.20.0\n---\n")
    write_modules(folder)


def save_language_model(folder: Path) -> None:
    corpus = GrammarData(num_train=20, num_eval=20).load()
    torch.manual_seed(0)
    tokens = {name: getattr(corpus.tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = GPT2Config(n_positions=64, n_embd=8, n_layer=1, n_head=2, vocab_size=len(corpus.tokenizer), **tokens)
    GPT2LMHeadModel(config).save_pretrained(folder)
    corpus.tokenizer.save_pretrained(folder)


def fill(hub: FakeHub, folder: Path) -> None:
    """Tiny models by the names of those that the documents take from the Hub."""
    save_language_model(folder / "lm")
    save_judge(folder / "encoder", "encoder")
    names = {"lm": "HuggingFaceTB/SmolLM2-135M", "encoder": "sentence-transformers/all-MiniLM-L6-v2"}
    for model, name in names.items():
        files = {path.name: path.read_bytes() for path in (folder / model).iterdir()}
        hub.commits[name], hub.private[name] = [{}, files], False


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A folder with `files`, what a reader has, and `runs`, tiny ones of words and of ids."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "files").mkdir()
    write_files(folder / "files")
    write_places(folder / "files")
    assert main(short_run(ROOT / "recipes/text/grammar.yaml", folder / "runs/words", folder)) == 0
    assert main(quickstart(folder / "runs/ids")) == 0
    return folder


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with serve() as hub:
        yield hub


@pytest.fixture(scope="module")
def variables(template, hub) -> Iterator[dict[str, str]]:
    """Of a shell that finds the programs of the documents; `python` and `seqgan-hf` have been started already."""
    (template / "hub").mkdir()
    fill(hub, template / "hub")
    found = {"HOME": str(template), "HF_HOME": str(template / "home"), "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
    found |= {"HF_UPDATE_DOWNLOAD_COUNTS": "0", "OMP_NUM_THREADS": "1", "RUNS": str(template / "runs")}
    found |= {"R": "text/seqgan", "PATH": os.environ["PATH"]}
    with warm_commands(Path(sys.executable), found | {"PYTHONPATH": str(ROOT)}, PROGRAMS) as warm:
        yield found | {"PATH": f"{warm}:/usr/bin:/bin", "WARM": str(warm)}


def shell(text: str, folder: Path, variables: dict[str, str], limit_s: float) -> tuple[int, str, str]:
    """Exit status, output, errors. What takes longer is ended with all that it began, and the next has its turn."""
    with subprocess.Popen(
        ["bash", "-e", "-c", text],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as bash:
        try:
            output, errors = bash.communicate(timeout=limit_s)
            return bash.returncode, output, errors
        except subprocess.TimeoutExpired:
            pytest.fail(f"{text}\ntook over {limit_s:.0f} s: what takes minutes belongs to NOT_RUN in shorter.py")
        finally:
            if bash.poll() is None:
                os.killpg(bash.pid, signal.SIGKILL)


@pytest.fixture
def run(template, hub, variables, tmp_path) -> Callable[[str], list[str]]:
    """Runs a text of shell in the folder of a reader; gives the calls of programs as they were written down."""
    place, calls = tmp_path / "reader", tmp_path / "calls"
    shutil.copytree(template / "files", place, symlinks=True)
    for name in [name for name in hub.commits if "someone/" in name]:  # of another page
        del hub.commits[name], hub.private[name]
    (place / ".venv").mkdir()
    (place / ".venv/bin").symlink_to(variables["WARM"])

    def in_bash(text: str, limit_s: float = 100) -> list[str]:
        calls.write_text("")
        status, output, errors = shell(text, place, variables | {"CALLS": str(calls)}, limit_s)
        assert status == 0, f"{text}\n{output[-2000:]}\n{errors[-4000:]}"
        return calls.read_text().splitlines()

    return in_bash


def ours(block: Snippet) -> list[Command]:
    return [command for command in commands_of(str(block), block.text) if command.program not in SHELLS_OWN]


@pytest.mark.parametrize("page", PAGES)
def test_the_shell_blocks_of_a_page_run(page, run):
    """One after the other, as they stand; each command of theirs is run, or left out for a reason that is known."""
    for block in shell_blocks():
        if block.page == page:
            called = run(block.text)
            expected = ["run" if is_run(command.words) else "left" for command in ours(block)]
            assert sorted(line.split()[0] for line in called) == sorted(expected), (str(block), called)


@pytest.mark.parametrize("piece", recipe_pieces(), ids=str)
def test_a_piece_of_a_recipe_trains(piece, run):
    """In place of what a recipe that it fits says there."""
    text = piece.text.rpartition(IN_THE_RECIPE)[2]
    bases = {
        "data": "",
        "generator": "text/language_model",
        "discriminator": "text/pretrained_judge",
        "": "text/seqgan",
    }
    base = next(name for key, name in bases.items() if re.search(rf"^{key}", text, re.MULTILINE))
    call = f"{base} --config piece.yaml --data.train_file my_lines.txt" if base else "piece.yaml"
    (called,) = run(f"cat > piece.yaml << 'END'\n{text}\nEND\nPYTHONPATH=. seqgan-hf train {call}")
    assert called == f"run seqgan-hf train {call}"


def test_what_is_not_run_is_in_the_documents():
    """No reason stands without its command, and no test that is named has gone."""
    lines = [" ".join([each.program, *each.words[1:]]) for block in shell_blocks() for each in ours(block)]
    for pattern, reason in NOT_RUN.items():
        assert any(re.fullmatch(pattern, line) for line in lines), pattern
        for file in re.findall(r"\w+(?:/\w+)+\.py", reason):
            assert (ROOT / "tests" / file).is_file(), file


def test_a_command_that_fails_is_noticed(run):
    with pytest.raises(AssertionError, match="Did you mean text/seqgan"):
        run("seqgan-hf train text/seqgam --training.rounds 1")
    with pytest.raises(AssertionError, match="rolouts"):
        run("cd recipes && PYTHONPATH=. seqgan-hf train text/grammar --objective.rolouts 2")


def test_a_command_that_does_not_end_is_named_and_the_next_one_runs(run):
    endless = "python -c 'import time; time.sleep(3600)'"
    with pytest.raises(pytest.fail.Exception, match="NOT_RUN"):
        run(endless, limit_s=1)
    assert run("python -c 'print(1)'") == ["run python -c 'print(1)'"]
