"""Recipes by name: listed, found, copied."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from seqgan_hf.commands import completion, main
from seqgan_hf.commands.recipe import load_evaluation, load_recipe, load_source
from seqgan_hf.commands.recipe_names import RECIPES, find_recipe, recipe_names


ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """In a folder of its own, with a search path of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for module in ("classes", "rewards"):
        monkeypatch.delitem(sys.modules, module, raising=False)


def test_all_recipes_are_listed_with_a_line_each(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    files = {path.relative_to(ROOT / "recipes").with_suffix("").as_posix() for path in ROOT.glob("recipes/*/*.yaml")}
    assert [line.split()[0] for line in lines] == sorted(files) == recipe_names()
    for line in lines:
        text = line.split(maxsplit=1)[1]
        assert text[0].isupper() and text.endswith(".") and len(text) < 125, line


def test_a_recipe_is_found_by_name_and_a_file_comes_first(tmp_path):
    by_name, text = load_recipe(["oracle/quickstart", "--training.rounds", "3"])
    assert by_name.training.rounds == 3
    path = ROOT / "recipes/oracle/quickstart.yaml"
    for named in ([str(path)], [f"--config={path}"], ["--config", "oracle/quickstart"]):
        assert load_recipe([*named, "--training.rounds", "3"])[1] == text
    assert (
        load_evaluation(["evaluation/bleu", "--samples", "s.txt", "--references", "r.txt"]).tokenization == "treebank"
    )
    assert load_source("text/grammar", []).num_train == 10000
    (tmp_path / "oracle").mkdir()
    (tmp_path / "oracle" / "quickstart").write_text("objective: seqgan_hf.objectives.MLE\n")
    assert find_recipe("oracle/quickstart") == Path("oracle/quickstart")


@pytest.mark.parametrize(
    "call, near",
    [
        (["train", "text/seqgam"], "Did you mean text/seqgan"),
        (["train", "seqgan"], "Did you mean text/seqgan or oracle/seqgan"),
        (["train", "recipes/text/sentigan.yaml"], "Did you mean text/sentigan or oracle/sentigan"),
        (["recipes", "copy", "recipes/text/seqgan"], "Did you mean text/seqgan or oracle/seqgan"),
        (["train", "--config", "text/segan"], "text/seqgan"),
        (["evaluate", "evaluation/blue"], "Did you mean evaluation/bleu"),
        (["data", "text/qatrains.yaml"], "Did you mean text/quatrains"),
        (["train", "./elsewhere/text/seqgam.yaml"], "Did you mean text/seqgan"),
        (["train", f"{ROOT}/recipes/text/segan.yaml"], f"Did you mean {ROOT}/recipes/text/seqgan.yaml"),
        (["train", "mine.yml"], "Did you mean mine.yaml?"),
        (["recipes", "copy", "zzzzzzz"], "`seqgan-hf recipes` lists all names"),
        (["train", "evaluation/full"], "Run `seqgan-hf evaluate"),
    ],
)
def test_a_wrong_name_is_answered_by_the_nearest(call, near, capsys):
    Path("mine.yaml").write_text("data: {}\n")
    assert main(call) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert near in line


def test_a_recipe_may_name_what_lies_beside_it():
    """Without any setting of the search path."""
    assert (
        type(load_source("text/sentigan", ["--data.num_train", "20", "--data.num_eval", "5"])).__module__ == "classes"
    )
    assert str(RECIPES / "text") in sys.path[1:], "it hides no module that is found without it"
    find_recipe("text/sentigan")
    assert sys.path.count(str(RECIPES / "text")) == 1


def test_a_copy_has_the_files_that_it_names_and_replaces_nothing(tmp_path, capsys):
    assert main(["recipes", "copy", "text/functionreward"]) == 0
    assert capsys.readouterr().out.splitlines() == ["functionreward.yaml", "rewards.py"]
    assert Path("functionreward.yaml").read_bytes() == (RECIPES / "text/functionreward.yaml").read_bytes()
    Path("rewards.py").write_text("def grammatical(texts):\n    return [0.5] * len(texts)\n")
    recipe, _ = load_recipe(["functionreward.yaml", "--training.rounds", "1"])
    assert recipe.training.rounds == 1 and str(tmp_path) in sys.path
    for again in (["text/functionreward"], ["text/functionreward", "other.yaml"]):  # the second over rewards.py
        assert main(["recipes", "copy", *again]) == 1
        assert "exists: expected a place for a new file" in capsys.readouterr().err
    assert not Path("other.yaml").exists() and "0.5" in Path("rewards.py").read_text()
    assert main(["recipes", "copy", "oracle/quickstart", "new/mine.yaml"]) == 0
    assert [path.name for path in Path("new").iterdir()] == ["mine.yaml"]
    assert yaml.safe_load(Path("new/mine.yaml").read_text())["training"]["rounds"] == 30
    assert main(["recipes", "copy", "tunes/organ", "tunes"]) == 0
    assert {path.name for path in Path("tunes").iterdir()} == {"organ.yaml", "convert_abc.py", "tune_rewards.py"}
    assert main(["recipes", "copy", "oracle/mle", "new/mine.yaml/deeper"]) == 1
    assert main(["recipes", "copy", "new/mine.yaml"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert "cannot be written" in errors[0] and "is a file: expected the name of a recipe" in errors[1]


def test_the_version_is_that_of_the_package(capsys):
    import seqgan_hf

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"seqgan-hf {seqgan_hf.__version__}\n"


# A zsh with a terminal of its own: it reads the script, and is asked to complete each line.
ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
heard() {  # what it writes, until it has written $1
  local said="" more; integer tries=0
  while (( tries++ < 100 )) && [[ "$said" != *"$1"* ]]; do
    sleep 0.1
    while zpty -rt shell more; do said+=$more; done
  done
  print -r -- "${said//$'\\b'/}"
}
zpty -w shell "autoload -U compinit; compinit -u; source $1; print read\"\"y"
heard ready
while read -r line words; do
  zpty -w -n shell "${line//+/ }"$'\t'
  heard "$words"
  zpty -w -n shell $'\x15'
done
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_completes_as_well(monkeypatch, capsys):
    monkeypatch.setattr(completion, "COMMANDS", ("evaluate", "recipes", "completion"))
    assert main(["completion", "zsh"]) == 0
    Path("script").write_text(capsys.readouterr().out)
    expected = {
        "ev": "evaluate",
        "evaluate evaluation/b": "evaluation/bleu",
        "evaluate evaluation/bleu --temp": "--temperatures",
        "recipes copy tun": "tunes/organ",
        "completion z": "zsh",
    }
    lines = "".join(f"seqgan-hf+{line.replace(' ', '+')} {words}\n" for line, words in expected.items())
    done = subprocess.run(
        ["zsh", "-fc", ZSH, "zsh", "./script"], input=lines, capture_output=True, text=True, check=True
    )
    for line, words in expected.items():
        assert f"seqgan-hf {line.rpartition(' ')[0]} {words}".replace("  ", " ") in done.stdout, done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_shell_completes_commands_options_and_recipes(monkeypatch):
    monkeypatch.setattr(completion, "COMMANDS", ("evaluate", "recipes", "env", "benchmark"))
    expected = {
        "ev": "evaluate",
        "evaluate evaluation/b": "evaluation/bleu",
        "evaluate mine evaluation/b": "",
        "evaluate evaluation/bleu --temp": "--temperatures",
        "recipes copy tun": "tunes/organ",
        "benchmark text/seqgan tunes/o": "tunes/organ",
        "benchmark text/seqgan --output tunes/o": "",
        "env --": "--help",
        "--v": "--version",
        "unknown x": "",
    }
    script = completion.script()
    for line, words in expected.items():
        ask = f"COMP_WORDS=(seqgan-hf {line}); COMP_CWORD={len(line.split())}; _seqgan_hf; echo ${{COMPREPLY[*]}}"
        done = subprocess.run(["bash", "-c", script + ask], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == words, line
