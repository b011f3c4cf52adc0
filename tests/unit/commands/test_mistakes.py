"""Mistakes in recipes and on command lines: one line that names the setting, what was given and what is allowed."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgan_hf.commands import main
from seqgan_hf.commands.mistakes import in_words
from seqgan_hf.commands.recipe import instantiate, load_evaluation, load_recipe, recipe_parser
from seqgan_hf.errors import UserError
from seqgan_hf.training import AdversarialTrainingArguments


ROOT = Path(__file__).parents[3]
RECIPE = str(ROOT / "recipes/text/seqgan.yaml")
WORDS = "a the cat dog sits runs on under mat table".split()
OWN = """
from seqgan_hf import SeqGAN


class Mine(SeqGAN):
    def __init__(self, power: float = 2.0):
        super().__init__()
        if power < 0:
            raise ValueError(f"power={power} is negative")
"""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder of files and folders that may be named by mistake; the working directory."""
    monkeypatch.chdir(tmp_path)
    lines = [" ".join(WORDS[(i * j + j) % 10] for j in range(1, 3 + i % 5)) for i in range(80)]
    lists = [{"ids": [1, 2, 3], "words": ["a", "b"], "number": 4}] * 10
    files = {
        "lines.txt": "\n".join(lines) + "\n",
        "empty.txt": "",
        "ids.jsonl": "\n".join(json.dumps({"ids": row["ids"]}) for row in lists),
        "lists.jsonl": "\n".join(map(json.dumps, lists)),
        "empty.yaml": "# nothing\n",
        "list.yaml": "- a\n",
        "words.yaml": "just words\n",
        "broken.yaml": "a: [1\n",
        "e.yaml": "metrics: [bleu]\n",
        "own_words.py": OWN,
        "lorra.yaml": "generator: {lorra: {r: 16}}\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "folder").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"phase": "adversarial", "round": 1, "reward": 1.0}\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def answer(call: list[str], capsys) -> str:
    """The only line of a call that ends in a mistake of the user."""
    assert main([str(part) for part in call]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("seqgan-hf: ") and len(line) < 1_500
    for internal in ("Traceback", "Unexpected", "Union", "<class", "typing.", "Namespace", "NestedArg", "Parser key"):
        assert internal not in line, line
    return line


COMMANDS = [
    # what stands beside a named evaluation recipe
    ("train R --evaluation.recipe e.yaml --training.rouns 3", "unknown key 'rouns' in training"),
    ("train R --evaluation.recipe e.yaml --training.rounds x", "training.rounds=x: expected a whole"),
    ("train R --evaluation.recipe R --data.train_file lines.txt", "is a recipe of `seqgan-hf train`"),
    # something else in the place of a recipe
    ("train lines.txt", "'lines.txt' holds text, no settings: expected a recipe.*--data.train_file lines.txt`"),
    ("train folder", "'folder' is a folder: expected a recipe"),
    ("train run", "'run' is a folder: .*Name its recipe, 'run/recipe.yaml'"),
    ("train empty.yaml", "'empty.yaml' is empty: expected a recipe"),
    ("train empty.txt", "'empty.txt' is empty: expected a recipe"),
    ("train list.yaml", "'list.yaml' holds a list, no settings"),
    ("train words.yaml", "'words.yaml' holds text, no settings"),
    ("train broken.yaml", "recipe 'broken.yaml' is no YAML .*line 1, column 4"),
    ("train R --config none.yaml", "recipe 'none.yaml' does not exist"),
    ("train --data.train_file lines.txt", "data without a class: expected one of .*TextData.*Give a recipe"),
    ("evaluate lines.txt lines.txt", "'lines.txt' holds text.*`--samples lines.txt --references FILE`"),
    ("evaluate run", "'run' is a folder.*`--model run`"),
    ("evaluate broken.yaml", "recipe 'broken.yaml' is no YAML"),
    ("evaluate --config=none.yaml", "recipe 'none.yaml' does not exist"),
    ("data empty.yaml", "'empty.yaml' is empty"),
    ("data broken.yaml", "recipe 'broken.yaml' is no YAML"),
    ("data e.yaml", "recipe 'e.yaml' has no section `data`: expected one that names a corpus"),
    ("data none.yaml", "recipe 'none.yaml' does not exist"),
    # options
    ("train R extra", "'extra' is no option: expected options such as `--name value`"),
    ("train R data.train_file=lines.txt", "'data.train_file=lines.txt' is no option"),
    ("train R -data.train_file lines.txt", "'-data.train_file' is no option"),
    (
        "train R --objective ORGAN",
        "ORGAN without functions: expected .*Set `--objective.functions`, or name it",
    ),
    ("train --objective ORGAN", "ORGAN without functions"),
    ("train R --generator gpt2", "generator=gpt2: expected settings by name .model_type, config, pretrained"),
    ("train R --data.train_file", "--data.train_file without a value: expected one"),
    ("train R --data.tokenizer.levl word", "unknown key 'levl' in TokenizerConfig.*mean 'level'"),
    ("evaluate --samples lines.txt --metrics", "--metrics without a value"),
    ("evaluate --samples lines.txt extra", "'extra' is no option"),
    ("evaluate --model m --references r --temperatures hot", "temperatures=hot: expected a number"),
    ("data lines.txt --outptu x", "unknown key '--outptu' in the options.*mean '--output'"),
    ("data lines.txt --data.max_length many", "data.max_length=many: expected a whole number, or null"),
    ("generate", "no `model`: expected one"),
    ("generate m other", "'other' is no option"),
    ("generate m --num_sampels 3", "unknown key 'num_sampels' in the options.*mean 'num_samples'"),
    ("generate m --num_samples many", "num_samples=many: expected a whole number"),
    ("generate m --max_new_tokens many", "max_new_tokens=many: expected a whole number, or null"),
    ("generate m --temperature nan", "temperature=nan: expected a number"),
    # names of options are never shortened
    ("generate m --top 3", "unknown key 'top' in the options.*Did you mean 'top_k' or 'top_p'"),
    ("generate m --num=5", "unknown key 'num' in the options.*Did you mean 'num_samples'"),
    ("train R --data.train_file lines.txt --training.round 3", "unknown key 'round' in training.*mean 'rounds'"),
    ("train R --data.train lines.txt", "unknown key 'train' in TextData.*mean 'train_file' or 'train_split'"),
    ("train R --data.train_file lines.txt --objective.rollout 3", "unknown key 'rollout' in SeqGAN.*mean 'rollouts'"),
    ("evaluate --ref lines.txt", "unknown key 'ref' in the recipe.*mean 'references'"),
    ("data lines.txt --data.text text", "unknown key 'text' in TextData.*mean 'text_column'"),
    ("data lines.txt --out x", "unknown key '--out' in the options.*mean '--output'"),
    ("demo run --por 80", "unknown key '--por' in the options of `seqgan-hf demo`.*mean '--port'"),
    ("curves run --outpu a.png", "unknown key '--outpu' in the options of `seqgan-hf curves`.*mean '--output'"),
    ("benchmark R --output o --seed 1", "unknown key '--seed' in the options.*mean '--seeds'"),
    # the first name that does not exist, not one below it
    ("train R --config lorra.yaml", "unknown key 'lorra' in generator: .*mean 'lora'"),
    ("train R --generator.lorra.r 16", "unknown key 'lorra' in generator: .*mean 'lora'"),
    ("train R --generater.lora.r 16", "unknown key 'generater' in the recipe: .*mean 'generator'"),
    ("train R --data.tokenizr.level word", "unknown key 'tokenizr' in TextData: .*mean 'tokenizer'"),
    ("train R --training.rounds.x 3", "training.rounds.x=3: expected nothing below training.rounds, .*a whole number"),
    # arguments of commands without recipes
    ("completion fish", "'fish' as shell: expected one of bash, zsh"),
    ("completion", "`seqgan-hf completion` without shell: expected bash or zsh.*Write `.*completion .bash | zsh.`"),
    (
        "curves run",
        "`seqgan-hf curves` without --output: expected the picture: .*Write `seqgan-hf curves RUN ... --o",
    ),
    ("curves run --output a.png --axis time", "--axis 'time': expected one of rounds, seconds, epochs"),
    ("curves run --output", "--output without a value: expected one. Write `--output VALUE`"),
    ("curves run --output a.png --labels", "--labels without a value"),
    ("demo A B C D", "one word too many, 'C': expected `seqgan-hf demo RUN .RUN. .--port N.`. Leave it out"),
    ("demo", "`seqgan-hf demo` without run: expected a run's folder"),
    ("demo A --port x", "--port x: expected a whole number"),
    ("env x", "one word too many, 'x': expected `seqgan-hf env`"),
    ("recipes cop", "'cop' as COMMAND: expected one of copy"),
    ("recipes copy", "`seqgan-hf recipes copy` without name: expected the name of a recipe"),
    ("push run me/x --private=1", "--private with a value: expected none. Write `--private`"),
    ("push none", "'none' does not exist: expected the folder of a run"),
    ("push none --space noslash", "'none' does not exist: expected the folder of a run"),
    ("generate m --seed", "--seed without a value"),
    # columns that hold no text
    ("data ids.jsonl", "no column of text among {'ids': 'list of int64'}.*IdsData"),
    ("data lists.jsonl --data.text_column words", "'words' of type list of string: expected text. Join the"),
    ("data lists.jsonl --data.text_column number", "'number' of type int64: expected text. Name a column"),
    (
        "data lists.jsonl --data IdsData --data.ids_column words",
        "'words' .*Write ids for the words of each list, or join them",
    ),
    ("data R --data.dataset lines.txt", "dataset='lines.txt', which is a file.*Name it as train_file"),
    ("data R --data.dataset folder", "the folder dataset='folder' holds no data"),
    # benchmarks that could not begin, or would never end
    ("benchmark R --output o --jobs 0", "--jobs 0: expected at least 1"),
    ("benchmark R --output o", "train_file=None and dataset=None: expected exactly one of them"),
    ("benchmark R --output o --data.train_file lines.txt --objective.rollouts -3", "rollouts=-3: expected"),
    ("benchmark R --output o --data.train_file none.txt", "the file 'none.txt' does not exist in .*: expected a path"),
    ("benchmark R --output o --data.train_file lines.txt --data.eval_size 900", "80 lines to train on, .* 900"),
    ("benchmark R --output o --num_samples -1", "--num_samples -1: expected at least 1"),
    (
        "benchmark R --output lines.txt --data.train_file lines.txt",
        "--output 'lines.txt' .File exists.: expected a fold",
    ),
    # no runs, no models
    ("push none me/x", "'none' does not exist: expected the folder of a run"),
    ("push lines.txt me/x", "'lines.txt' holds no metrics.jsonl: expected the folder of a run"),
    ("push run me/x", "The run in 'run' has not ended"),
    ("compare run --output lines.txt", "--output 'lines.txt' .*: expected a folder"),
    ("compare run --metrics reward,blue", "metric 'blue': expected one that a run measured"),
    ("generate run", "The run in 'run' has not ended, so it holds no generator yet. Train it to the end"),
    ("generate lines.txt", "'lines.txt' is a file: expected a run's folder"),
    ("generate folder", "the folder 'folder' holds no model"),
    ("generate no/such", "no folder 'no/such' here, and no such model from the Hub"),
    ("evaluate --model run --references lines.txt", "The run in 'run' has not ended"),
    ("evaluate --model folder --references lines.txt", "the folder 'folder' holds no model"),
    ("evaluate --model m --references r --accepts os.path.sep", "accepts 'os.path.sep' is a str"),
]


@pytest.mark.parametrize(("call", "message"), COMMANDS, ids=[call for call, _ in COMMANDS])
def test_a_wrong_call_is_answered_by_what_is_wrong_with_it(call, message, place, capsys):
    line = answer([RECIPE if word == "R" else word for word in call.split()], capsys)
    assert re.search(message, line), line
    assert not (place / "runs").exists()


RECIPES = [
    ("data.init_args.tokenizer.level", "wrd", "data.tokenizer.level=wrd: expected one of word, char, bpe, unigram."),
    ("data.init_args.too_long", "cut", "data.too_long=cut: expected one of truncate, drop."),
    ("data.init_args.train_file", {"a": 1}, "data.train_file={'a': 1}: expected a text, or a list of texts, or null."),
    ("data.init_args.eval_size", [1], r"data.eval_size=\[1\]: expected a whole number, or null."),
    ("data.init_args.tokenizer", "bpe", "data.tokenizer=bpe: expected settings by name .level, pretrained"),
    ("data.init_args.tokenizer", ["bpe"], "data.tokenizer=.*: expected settings by name .level, pretrained"),
    ("data.class_path", "TextDta", "data=TextDta: expected one of .*TextData.*, or the dotted path"),
    ("data.train_file", "lines.txt", "data.train_file stands beside class_path: .*Put train_file into init_args"),
    ("data", None, "no `data`: expected a recipe that names it"),
    (
        "objective.init_args.baseline",
        "x",
        "objective.baseline=x: expected one of none, moving_average, batch",
    ),
    ("objective.init_args.rollouts", None, "objective.rollouts=null: expected a whole number. Give it a value"),
    ("objective.init_args.rolouts", 2, "unknown key 'rolouts' in SeqGAN.*mean 'rollouts'"),
    ("objective.class_path", "seqgan_hf.data.TextData", "objective=seqgan_hf.data.TextData: expected one of .*SeqGAN"),
    ("objective.rollouts", 3, "objective.rollouts stands beside class_path"),
    ("objective", "seqgan", "objective=seqgan: expected one of .*SeqGAN"),
    ("objective", [1], r"objective=\[1\]: expected one of .*SeqGAN"),
    (
        "objective",
        {"class_path": "own_words.Mine", "init_args": {"power": -1}},
        "own_words.Mine refuses .*power=-1",
    ),
    ("generator", "gpt2", "generator='gpt2' in .*: expected settings by name"),
    ("generator.config", "big", "generator.config=big: expected settings by name"),
    ("generator.model_type", 3, "generator.model_type=3: expected a text"),
    ("generator.pretrained", "lines.txt", "generator.pretrained='lines.txt' cannot be loaded"),
    ("evaluation", {"metrics": [1]}, "evaluation.metrics=1: expected a text, or a list of texts"),
    ("evaluation", {"metrics": "blue"}, "metric 'blue': expected one of bleu"),
    ("evaluation", {"tokenization": "nltkk"}, "tokenization='nltkk': expected one of white_space"),
    ("training", [1, 2], r"training=\[1, 2\] in .*: expected settings by name"),
    ("training.rounds", 2.5, "training.rounds=2.5: expected a whole number"),
    ("training.rounds", None, "training.rounds=null: expected a whole number"),
    ("training.resume_from_checkpoint", [1], "training.resume_from_checkpoint=.*: expected (a text|true or false)"),
    ("training.push_to_hub", "maybe", "training.push_to_hub=maybe: expected true or false"),
    ("training.weight_decay", -1, "weight_decay=-1.0: expected 0 or more"),
    ("training.adam_beta1", 2, "adam_beta1=2.0: expected a number from 0 to below 1"),
    ("training.adam_epsilon", -1, "adam_epsilon=-1.0: expected 0 or more"),
    ("training.seed", -1, "seed=-1: expected a number from 0 to"),
    ("training.seed", 2**40, "seed=1099511627776: expected a number from 0 to"),
    ("training.save_total_limit", 0, "save_total_limit=0: expected at least 1, or nothing"),
    ("training.report_to", "tensorbord", "report_to='tensorbord': expected one of none, all.*Check the spelling"),
    ("training.report_to", "mlflow", "report_to='mlflow': expected one of none, all.*pip install mlflow"),
    ("training.optim", "adam", "optim='adam': expected one of adamw_torch, "),
    ("training.optim", "lomo", "cannot be used .*pip install lomo-optim"),
    ("training.optim_args", "a", "optim_args='a': expected settings of the optimizer, name=value"),
    ("training.load_best_model_at_end", True, "load_best_model_at_end=true: expected a metric"),
    ("training.output_dir", None, "output_dir=None: expected a folder for the run"),
    ("training.output_dir", "", "output_dir='': expected a folder for the run"),
]


@pytest.mark.parametrize(("path", "value", "message"), RECIPES, ids=[f"{path}={value}" for path, value, _ in RECIPES])
def test_a_wrong_value_in_a_recipe_is_named_with_what_is_allowed(path, value, message, place, capsys):
    recipe = yaml.safe_load(Path(RECIPE).read_text())
    recipe["data"]["init_args"]["train_file"] = "lines.txt"
    node = recipe
    *sections, last = path.split(".")
    for section in sections:
        node = node[section] if section in node else node.setdefault(section, {})
    node[last] = copy.deepcopy(value)
    Path("mine.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    line = answer(["train", "mine.yaml"], capsys)
    assert re.search(message, line), line
    assert not (place / "runs").exists()


LEAVES = st.none() | st.integers() | st.text(max_size=5)


@settings(max_examples=20, deadline=None)
@given(LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(st.text(max_size=3), LEAVES, max_size=2))
def test_whatever_stands_in_a_choice_is_answered_in_words(value):
    """Of any value that the setting does not take."""
    try:
        load_recipe([RECIPE, f"--data.tokenizer.level={json.dumps(value)}"])
    except UserError as error:
        assert "expected one of word, char, bpe, unigram" in str(error), str(error)
    else:
        assert value in ("word", "char", "bpe", "unigram")


@pytest.mark.parametrize("form", ["bleu", "bleu,length", " bleu, length", "[bleu]", "[bleu, length]"])
def test_metrics_are_named_alone_or_with_commas(form, tmp_path):
    expected = ["bleu", "length"] if "length" in form else ["bleu"]
    recipe, _ = load_recipe([RECIPE, "--data.train_file", "x", "--evaluation.metrics", form])
    assert instantiate(recipe_parser(), recipe).evaluation.metrics == expected
    assert load_evaluation(["--model", "m", "--references", "r", "--metrics", form]).metrics == expected
    (tmp_path / "e.yaml").write_text(f"metrics: {form}\nreferences: r\n")
    assert load_evaluation([str(tmp_path / "e.yaml"), "--model", "m"]).metrics == expected


def test_no_tracker_is_asked_for_by_null(tmp_path):
    assert AdversarialTrainingArguments(str(tmp_path), report_to=None).report_to == []


@pytest.mark.parametrize(
    ("types", "words"),
    [
        ("<class 'int'>, <class 'NoneType'>", "a whole number, or null"),
        ("typing.Literal['a b', 'c']", "one of a b, c"),
        ("<class 'str'>, list[float], <class 'bool'>", "a text, or true or false, or a list of numbers"),
        ("dict[str, typing.Any]", "settings by name"),
        ("int", "a whole number"),
    ],
)
def test_types_have_words(types, words):
    assert in_words(types) == words
