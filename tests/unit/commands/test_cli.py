"""Recipes and the command line: what works, and that mistakes are answered in one line without a traceback."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM, BertConfig, BertForSequenceClassification
from transformers.integrations.peft import MIN_PEFT_VERSION

from seqgan_hf.commands import main
from seqgan_hf.commands.generate import Drawing, generate_texts
from seqgan_hf.commands.recipe import load_recipe, load_source
from seqgan_hf.data import TextData, TokenizerConfig
from seqgan_hf.data.oracle import OracleData
from seqgan_hf.data.text import read_texts
from seqgan_hf.evaluation.loading import load_generator
from tests.tools.judges import save_judge
from tests.tools.small_runs import quickstart, short_run
from tests.tools.tiny import build_discriminator, build_generator
from tests.tools.two_processes import forked, wait_until


pytestmark = pytest.mark.usefixtures("without_pictures")
ROOT = Path(__file__).parents[3]
FOLDERS = ("oracle", "text", "molecules", "tunes")
RECIPES = sorted(path for path in (ROOT / "recipes").rglob("*.yaml") if path.parent.name in FOLDERS)


@pytest.fixture
def lines(tmp_path) -> Path:
    words = "a the cat dog sits runs on under mat table".split()
    text = "\n".join(" ".join(words[(i * j + j) % 10] for j in range(1, 3 + i % 5)) for i in range(80))
    (tmp_path / "lines.txt").write_text(text + "\n", encoding="utf-8")
    return tmp_path / "lines.txt"


@pytest.fixture
def language_model(tmp_path, lines) -> Path:
    """A tiny model with its tokenizer, as if from the Hub."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from seqgan_hf.data.tokenization import TokenizerConfig, build_tokenizer

    tokenizer = build_tokenizer(TokenizerConfig(level="word"), lambda: [lines.read_text().splitlines()])
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = GPT2Config(n_positions=64, n_embd=8, n_layer=1, n_head=2, vocab_size=len(tokenizer), **tokens)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    return tmp_path / "lm"


def test_a_classifier_is_refused_where_the_opponent_is_a_language_model(tmp_path, lines, capsys):
    arguments = short_run(ROOT / "recipes" / "oracle" / "cot.yaml", tmp_path / "run", lines)
    assert main([*arguments, "--discriminator.model_type", "cnn_discriminator", "--discriminator.config", "{}"]) == 1
    error = capsys.readouterr().err
    assert "discriminator.model_type='cnn_discriminator'" in error and "such as rnn_generator or gpt2" in error


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_runs_and_says_how_to_be_run(recipe, tmp_path, lines, language_model, monkeypatch):
    # where the folder of a recipe goes; those that tests before this one put there have modules of the same name
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not place.startswith(str(ROOT / "recipes"))])
    for module in recipe.parent.glob("*.py"):
        monkeypatch.delitem(sys.modules, module.stem, raising=False)
    if recipe.parent.name == "tunes":
        lines.write_text(f"M:2/4 K:D {' | '.join(['d4'] * 8)}\n" * 80)
    places = ("data.tokenizer.pretrained", "generator.pretrained", "discriminator.pretrained")
    more = dict.fromkeys(places, language_model) if recipe.stem == "language_model" else {}
    if recipe.stem in ("pretrained_judge", "little_text"):
        more = {"discriminator.pretrained": save_judge(tmp_path / "judge", "encoder")}
    if recipe.stem == "distillation":
        build_generator("lstm", eos=None, vocab_size=20).save_pretrained(tmp_path / "teacher")
        more = {"objective.teacher": tmp_path / "teacher"}
    assert main(short_run(recipe, tmp_path / "run", lines, **more)) == 0
    record = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "pretrain_generator" in {line["phase"] for line in record[:2]}
    header = [line for line in recipe.read_text().splitlines() if line.startswith("#")]
    assert any(f"seqgan-hf train {recipe.parent.name}/{recipe.stem}" in line for line in header)
    resolved = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert resolved["training"]["pretrain_epochs"] == 1 and "objective" in resolved
    assert ("discriminator" in resolved) == (tmp_path / "run" / "discriminator").exists()


def test_a_run_begins_with_what_its_corpus_holds(tmp_path, lines, caplog):
    """Also when it is resumed; what is cut or unknown is said, and little coverage is a warning."""
    caplog.set_level(logging.INFO, "seqgan_hf")
    settings = {"data.max_length": 4, "data.tokenizer.vocab_size": 8, "training.save_every": 1}
    call = short_run(ROOT / "recipes/text/seqgan.yaml", tmp_path / "run", lines, **settings)
    for more in ([], ["--training.resume_from_checkpoint", "true", "--training.rounds", "3"]):
        caplog.clear()
        assert main([*call, *more]) == 0
        said = [(record.levelname, record.message) for record in caplog.records if "data: " in record.message]
        assert said[0][1].startswith("Training data: lines used: 70; tokens in the vocabulary: ")
        assert said[1][1].startswith("Held-out data: lines used: 10; tokens in the vocabulary: ")
        assert "too long, cut: " in said[0][1]
        assert said[2][1].startswith("Training data: only ")
        assert [level for level, _ in said] == ["INFO", "INFO", "WARNING", "WARNING"]


def test_no_recipe_is_forgotten():
    """Those of `train` run above; `evaluate`'s are in test_evaluation_suite.py, launchers' in test_processes.py."""
    every = list((ROOT / "recipes").rglob("*.yaml"))
    assert {path.parent.name for path in every} == {"oracle", "text", "molecules", "tunes", "evaluation", "accelerate"}


def commands_of(path: Path) -> list[str]:
    text = re.sub(r"\\\n#?\s*", " ", path.read_text()).replace("$R", "text/seqgan")
    lines = [line.lstrip("# ").split("   #")[0] for line in text.splitlines()]
    return [line for line in lines if line.startswith("seqgan-hf train")]


DATA_COMMANDS = [c for c in commands_of(ROOT / "docs/how-to/data.md") if "my_module" not in c]


@pytest.mark.parametrize(
    "command",
    DATA_COMMANDS
    + commands_of(ROOT / "recipes/text/grammar.yaml")
    + commands_of(ROOT / "recipes/text/language_model.yaml")
    + commands_of(ROOT / "docs/how-to/models.md"),
)
def test_commands_of_the_documents_are_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(command)[2:]
    recipe, _ = load_recipe(arguments)
    for name, value in zip(arguments[1::2], arguments[2::2], strict=True):
        if name.startswith("--data.") and name.count(".") == 1:
            read = vars(recipe.data.init_args)[name.partition(".")[2]]
            assert value == ("null" if read is None else str(read).lower() if isinstance(read, bool) else str(read))


def test_every_text_recipe_takes_a_file(lines):
    for name, options in {"grammar": ["--data", "TextData"], "image_coco": [], "quatrains": [], "seqgan": []}.items():
        call = [*options, "--data.train_file", str(lines), "--data.eval_size", "5"]
        source = load_source(str(ROOT / f"recipes/text/{name}.yaml"), call)
        assert type(source).__name__ == "TextData" and len(source.load().eval) == 5


def test_a_resolved_recipe_runs_again_to_the_same_end(tmp_path):
    assert main(quickstart(tmp_path / "one")) == 0
    again = ["train", str(tmp_path / "one" / "recipe.yaml"), "--training.output_dir", str(tmp_path / "two")]
    assert main(again) == 0
    files = [(tmp_path / name / "generator" / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


def test_a_training_recipe_can_name_an_evaluation_recipe(tmp_path, lines, monkeypatch):
    """The finished generator, as it is in memory, beside the run's own held-out text, with the recipe's settings."""
    evaluation = tmp_path / "mine.yaml"
    evaluation.write_text("metrics: [bleu, copy_rate]\nnum_samples: 20\ntokenization: character\noutput: elsewhere\n")
    run = tmp_path / "run"
    more = {"evaluation.recipe": evaluation}
    with monkeypatch.context() as patch:
        patch.delattr("seqgan_hf.evaluation.loading.load_generator")
        assert main(short_run(ROOT / "recipes/text/seqgan.yaml", run, lines, **more)) == 0
    found = json.loads((run / "evaluation" / "metrics.json").read_text())
    results = found["results"]
    signature = results["bleu_2"]["signature"]
    assert "samples:20|references:10|tokenization:character" in signature and results["nll_test"]["value"] > 0
    held_out = (run / "evaluation" / "references.txt").read_text().splitlines()
    train = (run / "evaluation" / "train.txt").read_text().splitlines()
    assert len(held_out) == 10 and len(train) == 70
    assert sorted(held_out + train) == sorted(lines.read_text().splitlines())
    assert not Path("elsewhere").exists()
    again = ["evaluate", str(evaluation), f"--model=[{run}]", f"--output={tmp_path / 'by_hand'}"]
    real = [f"--{name}={run / 'evaluation' / name}.txt" for name in ("references", "train")]
    assert main([*again, *real]) == 0
    by_hand = json.loads((tmp_path / "by_hand" / "metrics.json").read_text())
    assert by_hand["results"] == results
    assert by_hand["settings"] == found["settings"] | {"output": str(tmp_path / "by_hand")}


def test_a_run_on_synthetic_data_keeps_its_oracle_and_is_evaluated_with_it(tmp_path):
    run = tmp_path / "run"
    recipe = tmp_path / "oracle.yaml"
    recipe.write_text("metrics: [distinct]\nnum_samples: 200\n")
    assert main(quickstart(run, "--evaluation.recipe", str(recipe))) == 0
    corpus = OracleData(vocab_size=20, length=6, num_train=64, num_eval=32).load()
    saved = AutoModelForCausalLM.from_pretrained(run / "oracle").state_dict()
    assert all(weight.equal(saved[name]) for name, weight in corpus.oracle.state_dict().items())
    found = json.loads((run / "evaluation" / "metrics.json").read_text())
    nll, divergence = (found["results"][name] for name in ("nll_oracle", "jsd_oracle"))
    assert nll["value"] > nll["real"]["value"] > 0 and 0 < divergence["value"] < 0.7
    assert found["settings"]["oracle"] == str(run / "oracle")


@pytest.mark.parametrize("tokenization", [None, "white_space"])
def test_a_run_on_text_without_spaces_is_measured_by_its_characters(tokenization, tmp_path, lines):
    """Unless the recipe asks for words: then the card says that they show nothing."""
    lines.write_text(lines.read_text().replace(" ", ""))
    (tmp_path / "e.yaml").write_text("metrics: [bleu]\nnum_samples: 20\n")
    run, more = tmp_path / "run", {"data.tokenizer.level": "char", "evaluation.metrics": "[bleu]"}
    more |= {"evaluation.recipe": tmp_path / "e.yaml"}
    more |= {"evaluation.tokenization": tokenization} if tokenization else {}
    assert main(short_run(ROOT / "recipes/text/seqgan.yaml", run, lines, **more)) == 0
    card = (run / "generator" / "README.md").read_text()
    assert f"tokenization:{tokenization or 'character'}" in card
    why = "the median text has 1 token (tokenization white_space): set evaluation.tokenization character"
    assert (f"- bleu cannot judge: {why}" in card) is (tokenization is not None)
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    assert (last["bleu_2"] > 0) is (tokenization is None)
    found = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert found["settings"]["tokenization"] == "character" and found["results"]["bleu_2"]["value"] > 0


def test_an_evaluation_recipe_may_draw_with_the_discriminator_of_the_run(tmp_path, lines, capsys):
    (tmp_path / "e.yaml").write_text("metrics: [distinct]\nnum_samples: 20\ndiscriminator: own\nproposals: 3\n")
    run, more = tmp_path / "run", {"evaluation.recipe": tmp_path / "e.yaml"}
    assert main(short_run(ROOT / "recipes/text/seqgan.yaml", run, lines, **more)) == 0
    found = json.loads((run / "evaluation" / "metrics.json").read_text())["results"]
    assert "proposals:3|exponent:1" in found["nll_test"]["signature"] and "discriminator_auc_test" in found
    more["objective.class_path"] = "seqgan_hf.objectives.MLE"
    capsys.readouterr()
    assert main(short_run(ROOT / "recipes/text/seqgan.yaml", tmp_path / "other", lines, **more)) == 1
    assert "draws with the run's discriminator, and MLE trains none: expected" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_an_evaluation_recipe_may_name_other_real_text(tmp_path, lines):
    (tmp_path / "other.txt").write_text("the cat sits\n\na dog runs\n")
    (tmp_path / "e.yaml").write_text(f"metrics: [bleu]\nreferences: {tmp_path / 'other.txt'}\n")
    run = tmp_path / "run"
    more = {"evaluation.recipe": tmp_path / "e.yaml"}
    assert main(short_run(ROOT / "recipes/text/seqgan.yaml", run, lines, **more)) == 0
    found = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert "references:2|" in found["results"]["bleu_2"]["signature"]
    assert "1 empty lines of references were left out" in found["notes"]
    assert {path.name for path in (run / "evaluation").glob("*.txt")} == {"train.txt"}


@pytest.mark.parametrize("mistake", ["metrics: [blue]", "tokenization: nltkk", "encoder: /no/such", "seed: -1"])
def test_a_mistake_in_a_named_evaluation_recipe_is_met_before_training(mistake, tmp_path, lines, capsys):
    (tmp_path / "e.yaml").write_text(mistake + "\n")
    recipe = ROOT / "recipes/text/seqgan.yaml"
    assert main(short_run(recipe, tmp_path / "run", lines, **{"evaluation.recipe": tmp_path / "e.yaml"})) == 1
    assert mistake.split()[-1].strip("[]") in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_named_evaluation_recipe_knows_what_the_training_recipe_accepts(tmp_path):
    (tmp_path / "e.yaml").write_text("metrics: [grammar]\nnum_samples: 20\n")
    run = tmp_path / "run"
    more = {"evaluation.recipe": tmp_path / "e.yaml"}
    assert main(short_run(ROOT / "recipes/text/grammar.yaml", run, Path(), **more)) == 0
    found = json.loads((run / "evaluation" / "metrics.json").read_text())["results"]["grammar_acceptance"]
    assert "accepts:seqgan_hf.data.grammar.is_english_sentence" in found["signature"]
    assert "max_new_tokens:" in found["signature"]


def test_generate_writes_samples(tmp_path, lines, capsys):
    assert main(short_run(ROOT / "recipes/text/seqgan.yaml", tmp_path / "run", lines)) == 0
    capsys.readouterr()
    call = ["generate", str(tmp_path / "run"), "--num_samples", "3", "--seed", "1"]
    assert main(call) == 0
    first = capsys.readouterr().out
    assert len(first.splitlines()) == 3
    assert main([*call, "--output", str(tmp_path / "out.txt")]) == 0
    assert (tmp_path / "out.txt").read_text() == first
    assert main([*call, "--prompt", "the cat"]) == 0
    texts = capsys.readouterr().out.splitlines()
    assert len(texts) == 3 and all(text == "the cat" or text.startswith("the cat ") for text in texts)
    for wrong in (["--num_samples", "0"], ["--seed", "-1"], ["--top_p", "2"]):
        assert main([*call, *wrong]) == 1
        assert f"{wrong[0].strip('-')}={wrong[1]}" in capsys.readouterr().err
    assert main([*call, "--temperature", "0", "--num_samples", "2"]) == 0
    assert len(set(capsys.readouterr().out.splitlines())) == 1  # greedy
    assert main([*call, "--num_sampels", "3"]) == 1
    assert "Did you mean 'num_samples'" in capsys.readouterr().err


@pytest.fixture
def trained(tmp_path) -> callable:
    """A function that trains a tiny generator on lines and returns its run's folder."""

    def train(content: str, **more) -> Path:
        (tmp_path / "trained.txt").write_text(content, encoding="utf-8")
        folder = tmp_path / "run"
        options = {"training.rounds": 0} | more
        assert main(short_run(ROOT / "recipes/text/seqgan.yaml", folder, tmp_path / "trained.txt", **options)) == 0
        return folder

    return train


def test_generate_names_what_it_does_not_know_and_prints_the_prompt_as_it_was_given(trained, capsys, caplog):
    folder = trained("\n".join(f"a man{' rides' * (i % 3)} here" for i in range(64)))
    capsys.readouterr()
    assert main(["generate", str(folder), "--num_samples", "4", "--prompt", " a  postive man"]) == 0
    written = capsys.readouterr().out.splitlines()
    assert len(written) == 4 and all(line.startswith(" a  postive man") and "<unk>" not in line for line in written)
    assert "reads each as unknown: 'postive'" in caplog.text


def test_generate_refuses_ids_outside_the_vocabulary(trained, capsys):
    numbers = "\n".join(f"{i % 5} {i % 3} 4" for i in range(64))
    folder = trained(numbers, data="seqgan_hf.data.IdsData")
    capsys.readouterr()
    assert main(["generate", str(folder), "--num_samples", "2", "--prompt", "3  4"]) == 0
    assert all(re.fullmatch("3  4( [0-4])*", line) for line in capsys.readouterr().out.splitlines())
    assert main(["generate", str(folder), "--prompt", "3 7"]) == 1
    assert "'7' in a text of integer ids: expected ids from 0 to 4" in capsys.readouterr().err


def test_generate_can_do_without_the_unknown_token(trained, capsys):
    """A word of two is unknown in training, so that the generator writes it unless it must not."""
    folder = trained("\n".join(f"a w{i} a w{-i}" for i in range(64)), **{"data.tokenizer.min_count": 5})
    capsys.readouterr()
    call = ["generate", str(folder), "--num_samples", "50", "--seed", "1"]
    assert main(call) == 0
    assert "<unk>" in capsys.readouterr().out
    assert main([*call, "--no_unknown"]) == 0
    written = capsys.readouterr().out
    assert "<unk>" not in written and len(written.splitlines()) == 50 and set(written.split()) == {"a"}


def test_what_generate_writes_is_read_back_as_it_was_drawn(trained, tmp_path):
    """Line breaks and indentation: in each sample as in the training text, one line each in the file."""
    texts = [f"if x:\r\n    print('a\\n', {i % 3})\n" for i in range(64)]
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    tokens = {"data.tokenizer.level": "char", "training.pretrain_epochs": 40, "data.text_column": "text"}
    (tmp_path / "trained.jsonl").write_text(rows)
    path = tmp_path / "trained.jsonl"
    assert main(short_run(ROOT / "recipes/text/seqgan.yaml", tmp_path / "run", path, **tokens)) == 0
    out = tmp_path / "samples.txt"
    assert main(["generate", str(tmp_path / "run"), "--num_samples", "200", "--seed", "1", "--output", str(out)]) == 0
    generator = load_generator(str(tmp_path / "run"), "cpu")
    drawn = generate_texts(generator, 200, drawing=Drawing(seed=1))
    assert any("\n" in text for text in drawn) and any("\r" in text for text in drawn)
    assert len(out.read_text().splitlines()) == 200
    assert read_texts(str(out)) == drawn
    source = TextData(train_file=str(out), eval_file=str(out), tokenizer=TokenizerConfig("char"))
    assert source.load().texts("train") == [text for text in drawn if text.strip()]


def test_generate_with_the_discriminator_of_a_run(trained, capsys, caplog):
    folder = trained("\n".join(f"a man{' rides' * (i % 3)} here" for i in range(64)))
    capsys.readouterr()
    call = ["generate", str(folder), "--num_samples", "20", "--seed", "1"]
    caplog.set_level(logging.INFO)

    def written(*more: str) -> list[str]:
        assert main([*call, *more]) == 0
        return capsys.readouterr().out.splitlines()

    plain, judged = written(), written("--discriminator")
    assert len(judged) == 20 and judged != plain
    assert re.search(r"Kept 1 of 16 proposals for each sample; effective sample size \d+\.\d", caplog.text)
    for place in (folder, folder / "generator", folder / "discriminator"):
        assert written("--discriminator", str(place)) == judged
    call[1] = str(folder / "generator")
    assert written("--discriminator") == judged
    assert written("--discriminator", "--proposals", "1", "--exponent", "2") == plain
    assert written("--discriminator", "--prompt", "a man")[0].startswith("a man")
    assert len(written("--discriminator", "--method", "reject", "--percentile", "90", "--exponent", "0.5")) == 20
    assert re.search(r"Accepted [\d.]+% of the proposals \(log-odds up to -?\d\.\d+; [\d.]+% of the", caplog.text)


def test_generate_refuses_what_does_not_fit_a_discriminator(trained, tmp_path, capsys):
    folder = trained("\n".join(f"a man{' rides' * (i % 3)} here" for i in range(64)))
    other = tmp_path / "other"
    shutil.copytree(folder / "discriminator", other)
    vocabulary = json.loads((other / "tokenizer.json").read_text())
    words = vocabulary["model"]["vocab"]
    one, another = list(words)[-2:]
    words[one], words[another] = words[another], words[one]
    (other / "tokenizer.json").write_text(json.dumps(vocabulary))
    judge = build_discriminator("per_token", vocab_size=100)
    judge.save_pretrained(tmp_path / "per_token")
    build_discriminator("cnn", vocab_size=5).save_pretrained(tmp_path / "small")
    build_generator("gpt2", vocab_size=100).save_pretrained(tmp_path / "lm")
    build_generator("lstm", vocab_size=100).save_pretrained(tmp_path / "mediator")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForSequenceClassification(BertConfig(vocab_size=100, num_labels=3, **sizes)).save_pretrained(
        tmp_path / "classes"
    )
    (tmp_path / "alone" / "generator").mkdir(parents=True)
    capsys.readouterr()
    for options, message in (
        (["--proposals", "4"], "proposals without a discriminator: expected it with one only. Set --discriminator."),
        (["--method", "reject"], "method=reject without a discriminator"),
        (["--discriminator", "--proposals", "0"], "proposals=0: expected at least 1"),
        (
            ["--discriminator", "--temperature", "0"],
            "temperature=0 with a discriminator, which would choose among equal",
        ),
        (["--discriminator", "--exponent", "-1"], "exponent=-1: expected a number of at least 0"),
        (["--discriminator", "--percentile", "5"], "percentile with method=resample: expected it with the other"),
        (["--discriminator", "--method", "reject", "--proposals", "5"], "proposals with method=reject"),
        (["--discriminator", "--method", "reject", "--percentile", "0"], "percentile=0: expected a number above 0"),
        (["--discriminator", str(other)], "reads other tokens than"),
        (["--discriminator", str(tmp_path / "small")], "the discriminator knows 5 token ids, the generator"),
        (["--discriminator", str(tmp_path / "per_token")], "judges every token: expected a discriminator with one"),
        (["--discriminator", str(tmp_path / "lm")], "is no classifier: it lacks score.weight"),
        (
            ["--discriminator", str(tmp_path / "mediator")],
            "is no sequence classifier: expected a run",
        ),
        (["--discriminator", str(tmp_path / "classes")], "tells 3 classes apart: expected real from generated"),
        (["--discriminator", str(folder / "checkpoints")], "holds no model: expected a run's folder, a saved discrim"),
        (["--discriminator", str(tmp_path / "alone")], "holds no discriminator"),
        (["--discriminator", "./nowhere"], "no folder './nowhere': expected a run's folder, a saved discriminator"),
    ):
        assert main(["generate", str(folder), "--num_samples", "2", *options]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("seqgan-hf: ") and message in error


@pytest.mark.parametrize("objective", ["MLE", "ConstantReward"])
def test_objectives_without_an_adversary_need_no_discriminator(objective, tmp_path):
    recipe = yaml.safe_load((ROOT / "recipes/oracle/quickstart.yaml").read_text())
    del recipe["discriminator"]
    recipe["objective"] = {"class_path": f"seqgan_hf.objectives.{objective}"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    assert main(short_run(tmp_path / "mine.yaml", tmp_path / "run", Path())) == 0
    assert (tmp_path / "run" / "generator").exists() and not (tmp_path / "run" / "discriminator").exists()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["discriminator"] is None


OWN_OBJECTIVE = '''
from seqgan_hf import Loss, Reinforce


class HalfReward(Reinforce):
    """A user's own idea.

    Args:
        factor: of every reward.
    """

    def __init__(self, factor: float = 0.5):
        super().__init__()
        self.factor = factor

    def action_values(self, models, samples, real):
        return self.factor * super().action_values(models, samples, real)
'''


def test_an_objective_of_ones_own_is_named_by_its_dotted_path(tmp_path, monkeypatch):
    (tmp_path / "my_ideas.py").write_text(OWN_OBJECTIVE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_ideas", raising=False)  # that of another test
    recipe = yaml.safe_load((ROOT / "recipes/oracle/quickstart.yaml").read_text())
    recipe["objective"] = {"class_path": "my_ideas.HalfReward", "init_args": {"factor": 0.25}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    assert main(short_run(tmp_path / "mine.yaml", tmp_path / "run", Path())) == 0
    record = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert 0 < json.loads(record[-1])["reward"] < 0.25
    resolved = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert resolved["objective"] == {"class_path": "my_ideas.HalfReward", "init_args": {"factor": 0.25}}


@pytest.mark.parametrize("page", ["docs/methods/index.md", "docs/contributing.md"])
def test_the_objective_that_the_documents_show_trains(page, tmp_path, monkeypatch):
    text = (ROOT / page).read_text(encoding="utf-8")
    code = text[text.index("from seqgan_hf import Reinforce\n") :]
    code = textwrap.dedent(
        "    " * (page == "docs/contributing.md") + code[: code.index("** self.power") + len("** self.power")]
    )
    (tmp_path / "my_ideas.py").write_text(code + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_ideas", raising=False)
    assert main(quickstart(tmp_path / "run", "--objective", "my_ideas.Sharper", "--objective.power", "3")) == 0
    monkeypatch.delitem(sys.modules, "my_ideas")
    resolved = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert resolved["objective"] == {"class_path": "my_ideas.Sharper", "init_args": {"power": 3.0}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--objective.rolouts", "4"], "unknown key 'rolouts' in SeqGAN: expected one of rollouts, .*Did you mean"),
        (["--data.lenth", "4"], "unknown key 'lenth' in OracleData: expected one of vocab_size, length"),
        (["--data", "TextData", "--data.tokenizer.levl", "4"], "unknown key 'levl' in TokenizerConfig: expected one"),
        (
            ["--training.epoch", "4"],
            "'epoch' in training: .*mean 'eval_epochs' or 'pretrain_epochs' or 'discriminator_epochs'",
        ),
        (["--trainin.rounds", "4"], "unknown key 'trainin' in the recipe: .*Did you mean 'training'"),
        (["--generator.config.width", "4"], "unknown key 'width' in generator.config: expected one of .*hidden_size"),
        (["--training.rounds", "many"], "training.rounds=many: expected a whole number"),
        (["--objective.rollouts", "many"], "objective.rollouts=many: expected a whole number"),
        (["--training.max_new_tokens", "0"], "max_new_tokens=0: expected at least 1"),
        (["--data.length", "0"], "length=0: expected at least 1"),
        (["--training.optim", "nope"], "optim='nope': expected one of adamw_torch, "),
        (["--generator.pretrained", "no/such"], "generator.pretrained='no/such' cannot be loaded"),
        (["--data.hidden_size", "0"], "hidden_size=0: expected"),
        (["--objective", "my_plans.Mine"], "class_path 'my_plans.Mine' .*No module named 'my_plans'.*PYTHONPATH=."),
        (["--objective", "Mine"], "objective=Mine: expected one of .*SeqGAN, .*, or the dotted path"),
        (["--objective.rollouts", "-1"], "rollouts=-1: expected a number of completions"),
        (["--generator.config.hidden_size", "0"], "Invalid `generator.config`: hidden_size=0: expected"),
        (["--generator.config.vocab_size", "3"], "a generator with a vocabulary of 3: expected at least the data's"),
        (["--discriminator.config.vocab_size", "3"], "a discriminator with a vocabulary of 3: expected"),
        (["--generator.model_type", "elephant"], "generator.model_type='elephant': expected an architecture"),
        (
            ["--generator.model_type", "no.such.Config"],
            "model_type 'no.such.Config' .*expected the dotted path",
        ),
        (["--training.per_device_train_batch_size", "65"], "64 training sequences: expected at least one batch"),
    ],
)
def test_mistakes_in_a_recipe_are_answered_in_one_line(changes, message, tmp_path, capsys):
    assert main(quickstart(tmp_path / "run", *changes)) == 1
    error = capsys.readouterr().err.strip()
    assert "Traceback" not in error and error.startswith("seqgan-hf: ") and len(error.splitlines()) == 1
    assert re.search(message, error), error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing.txt"),
        (b"", "empty"),
        (b"\n \n\n", "blank"),
        (b"good line\n\xff\xfe\xfa bad\n", "line 2"),
        (b"only one line\n", "held out|1 "),
    ],
)
def test_bad_text_files_are_answered_in_one_line(content, message, tmp_path, capsys):
    path = tmp_path / ("missing.txt" if content is None else "lines.txt")
    if content is not None:
        path.write_bytes(content)
    call = ["train", str(ROOT / "recipes/text/seqgan.yaml"), "--data.train_file", str(path)]
    assert main([*call, "--training.output_dir", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err.strip()
    assert "Traceback" not in error and "->" not in error and len(error.splitlines()) == 1
    assert re.search(message, error), error


def language_model_run(folder: Path, lines: Path, generator: Path, discriminator: Path, *more: str) -> list[str]:
    places = {"data.tokenizer.pretrained": generator, "generator.pretrained": generator}
    places["discriminator.pretrained"] = discriminator
    return [*short_run(ROOT / "recipes/text/language_model.yaml", folder, lines, **places), *more]


def test_a_discriminator_of_one_logit_goes_on_as_such(tmp_path, lines, language_model):
    from transformers import AutoModelForSequenceClassification

    one = ["--discriminator.config.num_labels", "1"]
    assert main(language_model_run(tmp_path / "run", lines, language_model, language_model, *one)) == 0
    first = tmp_path / "run" / "discriminator"
    assert main(language_model_run(tmp_path / "more", lines, language_model, first)) == 0
    for folder in (first, tmp_path / "more" / "discriminator"):
        assert AutoModelForSequenceClassification.from_pretrained(folder).config.id2label == {0: "REAL"}


@pytest.mark.parametrize("number", ["0", "3", "null", "[2]"])
def test_other_numbers_of_labels_are_refused(tmp_path, lines, language_model, capsys, number):
    more = ["--discriminator.config", f"{{num_labels: {number}}}"]
    assert main(language_model_run(tmp_path / "run", lines, language_model, language_model, *more)) == 1
    assert ": expected 2 (fake and real) or 1 (the logit of real)" in capsys.readouterr().err.splitlines()[-1]


def test_labels_have_the_names_that_they_are_given(tmp_path, lines, language_model):
    from transformers import AutoConfig

    more = ["--discriminator.config", "{id2label: {0: made, 1: found}}"]
    assert main(language_model_run(tmp_path / "run", lines, language_model, language_model, *more)) == 0
    config = AutoConfig.from_pretrained(tmp_path / "run" / "discriminator")
    assert config.id2label == {0: "made", 1: "found"} and config.label2id == {"made": 0, "found": 1}


def test_the_python_about_models_runs(tmp_path, lines, language_model, monkeypatch):
    """Members write together; a discriminator rewards."""
    run = tmp_path / "runs" / "language-model"
    whole = ["--generator.lora", "null"]  # members are no adapters
    assert main(language_model_run(run, lines, language_model, language_model, *whole)) == 0
    page = (ROOT / "docs/how-to/models.md").read_text(encoding="utf-8")
    ensemble, judging = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2, 3):
        Path(f"runs/seed-{seed}").symlink_to(run)
    exec(ensemble, {})
    assert len(load_generator("runs/ensemble", "cpu").model.config.members) == 3
    names: dict = {}
    exec(judging, names)
    found = names["realness"](completions=["a cat sits", "table runs a under", "the"], prompts=["", "", ""])
    assert len(set(found)) == 3 and all(0 < value < 1 for value in found)


def test_a_classifier_of_other_labels_is_refused(tmp_path, lines, language_model, capsys):
    from transformers import AutoModelForSequenceClassification

    three = AutoModelForSequenceClassification.from_pretrained(language_model, num_labels=3)
    three.save_pretrained(tmp_path / "three")
    capsys.readouterr()
    assert main(language_model_run(tmp_path / "run", lines, language_model, tmp_path / "three")) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the weights of discriminator.pretrained=" in error and "name the model that it was made from" in error


def test_a_recipe_cannot_say_whose_code_is_run(tmp_path, capsys):
    """Not even through the settings of a pretrained model."""
    assert main(quickstart(tmp_path / "run")) == 0
    start = ["--generator.pretrained", str(tmp_path / "run" / "generator"), "--data.vocab_size", "20"]
    recipe = yaml.safe_load((ROOT / "recipes/oracle/quickstart.yaml").read_text())
    for key, value in {"trust_remote_code": True, "use_safetensors": False, "weights_only": False}.items():
        recipe["generator"] = {"config": {key: value}}
        (tmp_path / "evil.yaml").write_text(yaml.safe_dump(recipe))
        call = short_run(tmp_path / "evil.yaml", tmp_path / "evil", Path())
        del call[call.index("--generator.config.hidden_size") : call.index("--generator.config.hidden_size") + 4]
        assert main([*call, *start]) == 1
        assert f"unknown key {key!r} in generator.config: expected one of" in capsys.readouterr().err


def test_pickled_weights_are_not_loaded(tmp_path, capsys):
    import torch

    assert main(quickstart(tmp_path / "run")) == 0
    (tmp_path / "run" / "generator" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "run" / "generator" / "pytorch_model.bin")
    assert main(["generate", str(tmp_path / "run")]) == 1
    assert "the model in " in capsys.readouterr().err.splitlines()[-1]


def test_an_existing_run_and_a_folder_without_permission(tmp_path, capsys):
    assert main(quickstart(tmp_path / "run")) == 0
    assert main(quickstart(tmp_path / "run")) == 1
    assert "holds a run" in capsys.readouterr().err
    (tmp_path / "file").write_text("a file where a folder is expected")
    assert main(quickstart(tmp_path / "file" / "run")) == 1
    assert "Cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "status", "message"),
    [
        ([], 2, ""),
        (["--help"], 0, ""),
        (["trian"], 2, "seqgan-hf: unknown command 'trian': expected one of train"),
        (["trian"], 2, "Did you mean 'train'?"),
        (["help"], 2, "Did you mean '--help'?"),
        (["--verison"], 2, "Did you mean '--version'?"),
        (["train"], 1, "no recipe: expected the name or path of one"),
        (
            ["train", "no/such.yaml"],
            1,
            "seqgan-hf: recipe 'no/such.yaml' does not exist: expected the path of one, or a name.",
        ),
        (["train", "--config", "no/such.yaml"], 1, "no/such.yaml"),
        (["train", f"{ROOT}/recipes/evaluation/full.yaml"], 1, "is a recipe of `seqgan-hf evaluate`: expected "),
        (["evaluate", f"{ROOT}/recipes/oracle/mle.yaml"], 1, "is a recipe of `seqgan-hf train`: expected "),
        (
            ["train", "accelerate/cpu"],
            1,
            "cpu.yaml' is a configuration of accelerate, no recipe: expected one of `seqgan-hf train`. Start "
            f"`accelerate launch --config_file {ROOT}/recipes/accelerate/cpu.yaml -m seqgan_hf train RECIPE`.",
        ),
        (["evaluate", f"{ROOT}/recipes/accelerate/one_gpu.yaml"], 1, "is a configuration of accelerate, no recipe: "),
        (["evaluate", "--metrix", "bleu"], 1, "unknown key 'metrix' in the recipe: expected one of "),
        (["data"], 1, "no corpus: expected a recipe or a file."),
        (["data", "no/such.yaml"], 1, "recipe 'no/such.yaml' does not exist"),
        (["generate", "no/such/model"], 1, "no folder 'no/such/model': expected a run's folder"),
        (["generate", "no/such/model", "--output", "no/such/folder/file"], 1, "--output 'no/such/folder/file'"),
    ],
)
def test_wrong_calls(call, status, message, capsys):
    assert main(call) == status
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err


def test_print_config_shows_every_setting(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        main(quickstart(tmp_path / "run", "--print_config"))
    assert exit.value.code in (0, None)
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["training"]["generator_learning_rate"] == 0.002 and shown["objective"]["init_args"]["rollouts"] == 8


def test_the_command_line_and_the_package_import_nothing_heavy():
    heavy = "{'torch', 'transformers', 'datasets', 'jsonargparse', 'matplotlib'} & sys.modules.keys()"
    calls = "for call in ('--help', '--version', 'recipes'): main([call])"
    code = f"import sys, seqgan_hf\nfrom seqgan_hf.commands import main\n{calls}\nprint({heavy})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    "call",
    [
        ["--help"],  # little text: it stays in the buffer until the end
        ["recipes", "--help"],  # argparse ends the process
        ["recipes"],  # more text than a pipe holds, in the middle of the command
    ],
)
def test_a_reader_that_leaves_ends_a_command_silently(call):
    """As with `seqgan-hf ... | head`."""
    long = "recipes.recipe_names = lambda: ['line' * 100_000]; recipes.summary = str"
    code = f"import sys; from seqgan_hf.commands import main, recipes; {long}; sys.exit(main({call!r}))"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, env=buffered, **streams)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(60) == 141
    process.stderr.close()


def test_other_broken_pipes_are_reported(monkeypatch, capsys):
    """One to a process or a server, for example."""

    def command(arguments):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("seqgan_hf.commands.env.run", command)
    assert main(["env"]) == 1
    assert "BrokenPipeError" in capsys.readouterr().err


def _train(rank: int, call: list[str], folder: Path) -> None:
    with (folder / "error").open("w") as file, contextlib.redirect_stderr(file):
        status = main(call)
    (folder / "status").write_text(str(status))


def test_interrupting_saves_a_checkpoint_and_says_how_to_go_on(tmp_path):
    """Ctrl-C in a process of its own."""
    call = quickstart(tmp_path / "run", "--training.rounds", "100000", "--training.disable_tqdm", "false")
    record = tmp_path / "run" / "metrics.jsonl"
    with forked(_train, call, tmp_path, processes=1) as [process]:
        wait_until(lambda: record.exists() and "adversarial" in record.read_text())
        os.kill(process, signal.SIGINT)
    assert (tmp_path / "status").read_text() == "130"
    error = (tmp_path / "error").read_text()
    assert "Traceback" not in error
    assert "--training.resume_from_checkpoint true" in error.splitlines()[-1]
    assert list((tmp_path / "run" / "checkpoints").glob("checkpoint-*/complete.json"))


@pytest.mark.parametrize(("command", "said"), [("train", "; no checkpoint was saved"), ("generate", "")])
def test_an_interrupt_is_answered_in_one_line(command, said, monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"seqgan_hf.commands.{command}.run", interrupted)
    assert main([command]) == 130
    assert capsys.readouterr().err == f"seqgan-hf: interrupted{said}\n"


def test_an_interrupt_in_the_first_seconds_is_answered_in_one_line():
    """While libraries are imported."""
    code = """
import sys


class Interrupt:
    def find_spec(self, name, *rest):
        if name == "datasets":
            raise KeyboardInterrupt


sys.meta_path.insert(0, Interrupt())
from seqgan_hf.commands import main

sys.exit(main(["evaluate"]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "seqgan-hf: interrupted\n")


def resumed_from(run: Path, *more: str) -> list[str]:
    return quickstart(run, "--training.resume_from_checkpoint", "true", *more)


def test_a_run_resumed_with_more_rounds_is_a_run_of_more_rounds(tmp_path, capsys):
    """In its recipe, in its card, and for `compare`."""
    assert main(quickstart(tmp_path / "short")) == main(quickstart(tmp_path / "long")) == 0
    recipe = tmp_path / "long" / "recipe.yaml"
    before = recipe.read_text()
    assert (
        main(resumed_from(tmp_path / "long", "--training.generator_learning_rate", "0.1")) == 0
    )  # nothing is left to do
    assert recipe.read_text() == before
    assert main(resumed_from(tmp_path / "long", "--training.rounds", "3")) == 0
    assert recipe.read_text() == before.replace("rounds: 2\n", "rounds: 3\n", 1).replace(
        "eval_rounds: 3", "eval_rounds: 2"
    )
    assert (
        yaml.safe_load(json.loads((tmp_path / "long" / "summary.json").read_text())["recipe"])["training"]["rounds"]
        == 3
    )
    assert "rounds: 3" in (tmp_path / "long" / "generator" / "README.md").read_text()
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "short"), str(tmp_path / "long"), "--metrics", "nll_test"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[:2] for row in rows] == [["| short", "1"], ["| long", "1"]]


@pytest.fixture
def unfinished(tmp_path, lines, monkeypatch) -> Path:
    """A run of text that ended after its pretraining."""
    from seqgan_hf.training import AdversarialTrainer

    def stop(self, unit, steps):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AdversarialTrainer, "train_generator", stop)
        assert main(short_run(ROOT / "recipes/text/seqgan.yaml", tmp_path / "cut", lines)) == 130
    return tmp_path / "cut"


def test_an_unfinished_run_is_called_so_and_its_checkpoints_write_text(
    unfinished, lines, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)  # `evaluate` makes its folder there
    capsys.readouterr()
    checkpoint = max((unfinished / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    for call in (["generate", unfinished], ["evaluate", "--model", unfinished, "--references", lines]):
        assert main(list(map(str, call))) == 1
        (error,) = capsys.readouterr().err.splitlines()
        assert "has not ended" in error and f"Name its checkpoint {str(checkpoint)!r}, or go on with" in error
    assert main(["generate", str(checkpoint), "--num_samples", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_an_adapter_is_evaluated_as_it_is_sampled_and_its_missing_model_named(tmp_path, lines, language_model, capsys):
    peft = pytest.importorskip("peft", minversion=MIN_PEFT_VERSION)
    model = AutoModelForCausalLM.from_pretrained(language_model)
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    adapter = tmp_path / "adapter"
    peft.get_peft_model(model, lora).save_pretrained(adapter)
    for file in language_model.glob("tokenizer*"):
        (adapter / file.name).write_bytes(file.read_bytes())
    generate = ["generate", str(adapter), "--max_new_tokens", "5"]
    evaluate = ["evaluate", "--model", str(adapter), "--references", str(lines), "--metrics", "length"]
    evaluate += ["--output", str(tmp_path / "out")]
    assert main(generate) == main(evaluate) == 0
    language_model.rename(tmp_path / "moved")
    capsys.readouterr()
    for call in (generate, evaluate):
        assert main(call) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"the adapter {str(adapter)!r} is of the model {str(language_model)!r}, which cannot be loaded" in error


def test_env_prints_what_a_report_of_a_bug_needs(capsys, monkeypatch):
    from importlib import metadata

    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert main(["env"]) == 0
    shown = capsys.readouterr().out
    for name in ("torch", "transformers", "accelerate", "datasets", "huggingface_hub"):
        assert f"{name} {metadata.version(name)}\n" in shown
    for part in ("Python 3.", "GPUs: ", "CPU cores: ", "OMP_NUM_THREADS=7", "CUDA of torch: ", "distributed: gloo"):
        assert part in shown, part
    assert "secret" not in shown


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_world_without_ranks_is_reported_in_one_line(command, tmp_path, monkeypatch, capsys):
    for name in ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments = quickstart(tmp_path / "run")[1:] if command == "train" else [str(tmp_path / "none.yaml")]
    assert main([command, *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("seqgan-hf: ")
    assert command != "train" or "WORLD_SIZE=2 and no RANK in the environment: expected both" in line
