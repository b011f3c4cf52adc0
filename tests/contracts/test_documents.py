"""Snippets of the documents: Python runs; pieces of recipes, and commands that test_commands.py does not run, are
understood by the real command line."""

from __future__ import annotations

import argparse
import importlib.util
import re
import runpy
import sys
from collections import Counter
from pathlib import Path

import jsonargparse
import pytest
import transformers
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from seqgan_hf.commands import COMMANDS, main
from seqgan_hf.commands.command_parser import CommandParser
from seqgan_hf.commands.recipe import KEYS, load_evaluation, load_recipe, load_source
from seqgan_hf.data import GrammarData, OracleData, TextData
from seqgan_hf.data.grammar import is_english_sentence
from seqgan_hf.runs.record import read_run
from tests.tools.documents import ROOT, Command, Snippet, commands, commands_of, recipe_pieces, snippets, write_modules
from tests.tools.shorter import is_run


# --- Commands --------------------------------------------------------------------------------------------------------

# What is no program of ours: not looked at any further. (`.` is the shell's own.)
FOREIGN = {"", "eval", "head", "hf", "pytest", "sed", "wc"}


class Understood(BaseException):
    """The command line was read; what would be done now takes minutes, or a network."""


def stop(*arguments: object) -> None:
    raise Understood


def read_only(parser: type) -> object:
    """`parse_args` that does not let the command begin."""
    parse = parser.parse_args

    def parse_args(self, *args, **kwargs):
        parse(self, *args, **kwargs)
        raise Understood

    return parse_args


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the recipes, and the files and modules of the reader that the documents name."""
    for name in ("recipes", "Makefile", "docs", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_modules(tmp_path)
    for copied in [
        *ROOT.glob("recipes/tunes/*.py"),
        *ROOT.glob("recipes/*/c*.py"),
        *ROOT.glob("recipes/accelerate/*"),
    ]:
        if not (tmp_path / copied.name).exists():  # as `seqgan-hf recipes copy` writes them
            (tmp_path / copied.name).symlink_to(copied)
    (tmp_path / "mine.yaml").symlink_to(ROOT / "recipes/text/seqgan.yaml")
    (tmp_path / "RECIPE").symlink_to(ROOT / "recipes/text/grammar.yaml")
    (tmp_path / "grammar-demo").mkdir()
    (tmp_path / "grammar-demo/app.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def check(command: Command, monkeypatch) -> None:
    """Raise unless the command would be understood."""
    for folder in filter(None, command.variables.get("PYTHONPATH", "").split(":")):
        monkeypatch.syspath_prepend(str(Path(folder).resolve()))
        for module in Path(folder).glob("*.py"):  # others have modules of one name
            monkeypatch.delitem(sys.modules, module.stem, raising=False)
    program, *arguments = command.words
    program = Path(program).name
    if program in ("torchrun", "accelerate"):
        if "--config_file" in arguments:
            assert Path(arguments[arguments.index("--config_file") + 1]).exists()
        start = arguments.index("-m") if "-m" in arguments else None
        program, arguments = ("python", arguments[start:]) if start is not None else ("accelerate", [])
    if program.startswith("python"):
        check_python(arguments, monkeypatch)
    elif program == "seqgan-hf":
        check_ours(arguments, monkeypatch)
    elif program == "pip":
        check_extras(arguments)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", Path("Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets)
    else:
        assert program in FOREIGN | {"accelerate"}, f"{program}: a program that no check knows"


def check_ours(arguments: list[str], monkeypatch) -> None:
    name, *rest = arguments
    if name.startswith("-"):
        return
    assert name in COMMANDS
    if name == "train":
        load_recipe(rest)
    elif name == "evaluate":
        load_evaluation(rest)
    elif name == "data":
        (corpus, *overrides) = rest
        if "--output" in overrides:
            at = overrides.index("--output")
            del overrides[at : at + 2]
        load_source(corpus, overrides)
    elif name == "benchmark":
        with monkeypatch.context() as patch, pytest.raises(Understood):
            for source in (GrammarData, OracleData, TextData):  # their files need not be here
                patch.setattr(source, "load", lambda self: None)
            patch.setattr("seqgan_hf.commands.benchmark.Plan", stop)
            main([name, *rest])
    else:
        with monkeypatch.context() as patch:
            for parser in (argparse.ArgumentParser, CommandParser, jsonargparse.ArgumentParser):
                patch.setattr(parser, "parse_args", read_only(parser))
            with pytest.raises(Understood):
                main([name, *rest])


def check_python(arguments: list[str], monkeypatch) -> None:
    """A module or a script that exists; the options of scripts beside recipes are read."""
    if arguments[0] == "-c":
        compile(arguments[1], "-c", "exec")
        return
    if arguments[0] == "-m":
        if arguments[1] in ("pip", "venv"):
            return
        if arguments[1] == "seqgan_hf":
            check_ours(arguments[2:], monkeypatch)
        else:
            assert importlib.util.find_spec(arguments[1])
        return
    script = Path(arguments[0])
    assert script.exists(), script
    if script.parts[0] == "recipes" and "argparse" in script.read_text():
        with monkeypatch.context() as patch, pytest.raises(Understood):
            patch.setattr(sys, "argv", arguments)
            patch.syspath_prepend(str(script.parent.resolve()))
            patch.setattr(argparse.ArgumentParser, "parse_args", read_only(argparse.ArgumentParser))
            runpy.run_path(str(script), run_name="__main__")


def check_extras(arguments: list[str]) -> None:
    known = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    for argument in arguments:
        if ours := re.fullmatch(r"(?:seqgan-hf|\.|dist/\S+\.whl)\[([\w,]+)\]", argument):
            assert set(ours[1].split(",")) <= set(known), argument


def test_every_command_that_is_not_run_is_understood(workplace, monkeypatch):
    """All others are run by test_commands.py, but those at the head of recipes, which are understood here, too."""
    found = [each for each in commands() if each.where.startswith("recipes/") or not is_run(each.words)]
    wrong, path = [], [str(workplace), *sys.path]
    for command in {(*command.words, *sorted(command.variables.items())): command for command in found}.values():
        monkeypatch.setattr(sys, "path", list(path))
        monkeypatch.chdir(workplace / command.folder)
        command = command._replace(words=["text/seqgan" if word == "$R" else word for word in command.words])
        try:
            check(command, monkeypatch)
        except (Exception, SystemExit, pytest.fail.Exception) as error:
            wrong.append(f"{command.where}: {' '.join(command.words)}\n    {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)
    assert len(found) > 100


def test_no_command_is_overlooked():
    """As often as a subcommand stands in the text of a snippet, remarks apart, it is among the commands."""
    seen = Counter(command.where for command in commands() if "seqgan-hf" in command.words[0])
    ours = rf"seqgan-hf (?:--version|{'|'.join(COMMANDS)})\b"
    for snippet in snippets():
        text = re.sub(r"(?m)(^|\s)#.*", "", snippet.text)
        assert len(re.findall(ours, text)) == seen[str(snippet)], snippet


def test_commands_behind_others_in_lists_pipes_and_substitutions_are_found():
    text = """$ cd recipes && X=1 Y= seqgan-hf train a \\
        --b 'c d' > log; head -n 1 log | wc -l   # a remark
    cd oracle
    eval "$(seqgan-hf completion bash)"
    taskset -c 0 python -m x
    """
    found = [(each.folder, each.variables, each.words) for each in commands_of("", text)]
    assert found == [
        ("recipes", {"X": "1", "Y": ""}, ["seqgan-hf", "train", "a", "--b", "c d"]),
        ("recipes", {}, ["head", "-n", "1", "log"]),
        ("recipes", {}, ["wc", "-l"]),
        ("recipes/oracle", {}, ["seqgan-hf", "completion", "bash"]),
        ("recipes/oracle", {}, ["eval", "$(seqgan-hf completion bash)"]),
        ("recipes/oracle", {}, ["python", "-m", "x"]),
    ]


@pytest.mark.parametrize(
    "line",
    [
        ["seqgan-hf", "train", "recipes/text/grammar.yaml", "--objective.rolouts", "4"],
        ["seqgan-hf", "generate", "run", "--temprature", "1"],
        ["seqgan-hf", "curves", "run"],
        ["python", "recipes/nothing.py"],
        ["pip", "install", "seqgan-hf[nothing]"],
        ["make", "nothing"],
        ["curl", "x"],
    ],
)
def test_a_wrong_command_is_noticed(line, workplace, monkeypatch, capsys):
    with pytest.raises((Exception, SystemExit, pytest.fail.Exception)):
        check(Command("here", {}, line), monkeypatch)


# --- Recipes ---------------------------------------------------------------------------------------------------------


def test_no_piece_of_a_recipe_is_overlooked():
    """Whatever begins with a section of a recipe; test_commands.py trains with each."""
    for snippet in snippets():
        if re.search(rf"^({'|'.join(KEYS['train'])}):$", snippet.text, re.MULTILINE):
            assert snippet in recipe_pieces(), snippet


# --- Counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "role, names",
    [
        ("generators", MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
        ("classifiers", MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
    ],
)
def test_types_of_models_are_counted_for_the_version_that_is_named(role, names):
    page = (ROOT / "docs/how-to/models.md").read_text()
    text, table = re.search(rf"tests\.tools\.survey {role}`(.*?)\n\n(\|.*?)\n\n", page, re.DOTALL).groups()
    count, version = re.search(r"the (\d+) types\s+of\s+version (\d+\.\d+)", text).groups()
    assert sum(map(int, re.findall(r"^\|[^|]*\| (\d+) \|", table, re.MULTILINE))) == int(count)
    if transformers.__version__.startswith(f"{version}."):  # other versions have other numbers
        assert len(names) == int(count)


# --- Python ----------------------------------------------------------------------------------------------------------

# Pages whose Python another test runs, since it needs more than a tiny run.
ELSEWHERE = {
    "docs/how-to/demo.md": "unit/runs/test_space.py::test_a_space_runs_from_its_files_alone",
    "docs/how-to/hub.md": "unit/runs/test_hub.py::test_the_snippets_of_the_documentation_run",
    "docs/how-to/model_card_example/README.md": "unit/runs/test_hub.py::"
    "test_in_an_environment_without_the_package_all_of_it_works",
    "docs/how-to/models.md": "unit/commands/test_cli.py::test_the_python_about_models_runs",
    "docs/how-to/trl.md": "runs/test_trl.py::test_the_script_of_the_docs_runs",
}
PAGES = sorted({snippet.page for snippet in snippets() if snippet.language == "python"})
# In place of hours: what is written in the page, and what is run.
SHORTER = {
    "pretrain_epochs=20, rounds=50": "use_cpu=True, disable_tqdm=True, num_fakes=32, eval_samples=20, eval_epochs=0,"
    "pretrain_epochs=1, rounds=1, discriminator_pretrain_steps=1, discriminator_steps=1, discriminator_epochs=1",
    "rollouts=8": "rollouts=2",
}


def python_of(page: str) -> list[Snippet]:
    return [snippet for snippet in snippets() if snippet.page == page and snippet.language == "python"]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> Path:
    """A folder with `runs/demo`, the recipe of `make demo` in a second."""
    folder = tmp_path_factory.mktemp("finished")
    options = {
        "data.num_train": 200,
        "data.num_eval": 60,
        "generator.config": "{embedding_size: 8, hidden_size: 16}",
        "discriminator.config.hidden_size": 8,
        "objective.rollouts": 1,
        "training.discriminator_pretrain_steps": 1,
        "training.num_fakes": 60,
        "training.rounds": 2,
        "training.generator_steps": 1,
        "training.eval_samples": 60,
        "training.disable_tqdm": "true",
        "training.use_cpu": "true",
        "training.output_dir": folder / "runs/demo",
    }
    call = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    assert main(["train", str(ROOT / "recipes/text/demo.yaml"), *call]) == 0
    return folder


@pytest.fixture
def names(workplace, finished_run) -> dict:
    """What a reader has at hand where a page begins."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from seqgan_hf import GrammarData

    run = finished_run / "runs/demo"
    (workplace / "runs").mkdir()
    for name in ("coco", "answers"):
        (workplace / "runs" / name).symlink_to(run)
    corpus = GrammarData(num_train=100, num_eval=40).load()
    texts = corpus.tokenizer.batch_decode(corpus.rows("eval"), skip_special_tokens=True)
    (workplace / "my_lines.txt").write_text("\n".join(texts * 3) + "\n")
    (workplace / "my_package").mkdir()
    (workplace / "my_package/my_module.py").write_text("def rhyme(sample_texts):\n    return {'rhyme': 1.0}\n")
    (workplace / "samples.abc").write_text("X:10\nM:4/4\nL:1/4\nK:C\nC D E F | G A B c |]\n")
    return {
        "corpus": corpus,
        "model": AutoModelForCausalLM.from_pretrained(run / "generator"),
        "generator": AutoModelForCausalLM.from_pretrained(run / "generator"),
        "discriminator": AutoModelForSequenceClassification.from_pretrained(run / "discriminator"),
        "tokenizer": AutoTokenizer.from_pretrained(run / "generator"),
        "samples": texts[:20],
        "references": texts[20:],
        "train": texts,
        "real_texts": texts[20:],
        "answers": texts[:20],
        "questions": ["the"] * 20,
        "rhymes": str.islower,
    }


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE])
def test_python_of_the_documents_runs(page, names, workplace):
    """The blocks of a page one after the other, as a reader would."""
    for snippet in python_of(page):
        code = snippet.text
        for long, short in SHORTER.items():
            code = code.replace(long, short)
        exec(compile(code, str(snippet), "exec"), names)


def test_the_demo_ends_with_its_samples_numbers_and_what_to_do_next(finished_run, workplace, monkeypatch, capsys):
    (workplace / "runs").symlink_to(finished_run / "runs")
    monkeypatch.setattr(sys, "argv", ["before_and_after.py", "runs/demo"])
    runpy.run_path("recipes/text/before_and_after.py", run_name="__main__")
    said = capsys.readouterr().out
    before, between, after, numbers, following = said.strip().split("\n\n")
    lines = (finished_run / "runs/demo/samples/adversarial-2.txt").read_text().splitlines()
    assert before.startswith("After one pass") and between.startswith("After 2 passes")
    assert after.startswith("After 2 rounds against the discriminator (")
    shown = [line.strip() for line in after.splitlines()[1:]]
    assert shown == [f"{'ok' if is_english_sentence(text) else 'x'}  {text}".strip() for text in lines[:6]]
    last = [line for line in read_run("runs/demo").lines if "grammar_acceptance" in line][-1]
    for name in ("grammar_acceptance", "nll_test_sequence", "distinct_2"):
        assert re.search(rf"{name}  \S+, \S+, {re.escape(f'{last[name]:.3g}')}\n +\w+", numbers)
    assert "16.51" in numbers
    ours = [line.split() for line in following.splitlines() if line.strip().startswith("seqgan-hf")]
    assert len(ours) == 4
    for words in ours:
        check(Command("the demo", {}, words), monkeypatch)
    (workplace / "other").mkdir()
    (workplace / "other" / "metrics.jsonl").write_text('{"phase": "adversarial", "round": 1, "reward": 0.5}\n')
    for other, problem in (
        ("none", "cannot read 'none/metrics.jsonl'"),
        ("other", "'other' did not measure `grammar`"),
    ):
        monkeypatch.setattr(sys, "argv", ["before_and_after.py", other])
        with pytest.raises(SystemExit, match=f"before_and_after.py: .*{problem}"):
            runpy.run_path("recipes/text/before_and_after.py", run_name="__main__")


def test_what_is_not_run_here_is_run_elsewhere():
    assert set(PAGES) > ELSEWHERE.keys()
    for file, name in (place.split("::") for place in ELSEWHERE.values()):
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), name
