"""Training, a run's own evaluation and the command line measure the same: the same rows, read in the same way."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import Phase, given, reject, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from seqgan_hf.commands import main
from seqgan_hf.commands.build_models import build_generator
from seqgan_hf.commands.generate import Drawing, generate_texts
from seqgan_hf.commands.recipe import GeneratorSettings
from seqgan_hf.data import TextData, TokenizerConfig
from seqgan_hf.errors import DataError, UserError
from seqgan_hf.evaluation.arguments import EvaluationArguments
from seqgan_hf.evaluation.likelihood import HeldOutNLL
from seqgan_hf.evaluation.loading import load_generator
from seqgan_hf.evaluation.run import run_evaluation
from seqgan_hf.training.batches import as_samples
from seqgan_hf.training.callbacks.evaluate_at_end import EvaluateAtEnd
from tests.tools.small_runs import ROOT, short_run


pytestmark = pytest.mark.usefixtures("without_pictures")
WORDS = "a the cat dog sits runs on under mat table".split()
RECIPE = ROOT / "recipes/text/seqgan.yaml"
# Of every kind: rare words and letters, capitals, a spelled token, white space, lines that are cut.
HELD_OUT = [
    "the Zebra é sits",
    "a dog\truns on",
    "a <unk> cat 床",
    *(" ".join(WORDS[i:] + WORDS[:i]) for i in range(8)),
]


@pytest.fixture
def texts(tmp_path) -> Path:
    lines = [" ".join(WORDS[(i * j + j) % 10] for j in range(1, 3 + i % 7)) for i in range(80)]
    (tmp_path / "lines.txt").write_text("\n".join([*lines, "Ünique"]) + "\n", encoding="utf-8")
    (tmp_path / "held_out.txt").write_text("\n".join(HELD_OUT) + "\n", encoding="utf-8")
    (tmp_path / "e.yaml").write_text("metrics: [length, bleu]\nnum_samples: 20\n")
    return tmp_path


def last_line(run: Path) -> dict:
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])


def report(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


# --- Likelihoods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "more"),
    [
        ("word", {"data.tokenizer.min_count": 2, "data.tokenizer.lowercase": "true"}),
        ("char", {"data.tokenizer.min_count": 2}),
        ("bpe", {"data.tokenizer.vocab_size": 280}),
        ("unigram", {"data.tokenizer.vocab_size": 40, "data.tokenizer.min_count": 1}),
    ],
)
def test_a_run_logs_the_likelihoods_that_its_own_evaluation_finds(level, more, texts):
    run, held_out = texts / "run", texts / "held_out.txt"
    more |= {"data.tokenizer.level": level, "data.max_length": 8, "data.eval_file": held_out, "data.eval_size": "null"}
    assert main(short_run(RECIPE, run, texts / "lines.txt", **more, **{"evaluation.recipe": texts / "e.yaml"})) == 0
    logged, own = last_line(run), report(run / "evaluation")
    names = ("nll_test", "nll_test_sequence")
    assert [own["results"][name]["value"] for name in names] == [logged[name] for name in names]
    # the original file, with the finished model from the disk
    call = ["evaluate", str(texts / "e.yaml"), "--model", str(run), "--references", str(held_out)]
    assert main([*call, "--output", str(texts / "by_hand")]) == 0
    by_hand = report(texts / "by_hand")
    found = by_hand["results"]
    assert [found[name]["value"] for name in names] == pytest.approx([logged[name] for name in names], rel=1e-6)
    for name in ("bleu_2", *names):
        assert found[name]["signature"] == own["results"][name]["signature"]
        assert ("|unknown:" in found[name]["signature"]) == (level != "bpe")
    assert any("tokens and are cut there" in note for note in by_hand["notes"])
    assert any("of the references' tokens are unknown to run" in note for note in by_hand["notes"]) == (level != "bpe")


letters = st.text(alphabet="ab<>unk é床👩‍A\t", min_size=1, max_size=12)
# A text file whose lines begin with ">" is refused as FASTA.
lines = st.lists(letters.filter(lambda text: text.strip(" \t>") and text.lstrip()[0] != ">"), min_size=3, max_size=6)


@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    level=st.sampled_from(["word", "char", "bpe", "unigram"]),
    train=lines,
    held_out=lines,
    prompts=st.none() | st.lists(letters, min_size=6, max_size=6),
    min_count=st.integers(1, 3),
    max_length=st.none() | st.integers(1, 8),
    max_prompt_length=st.none() | st.integers(1, 3),
    lowercase=st.booleans(),
)
def test_training_and_evaluation_agree_on_likelihoods(
    tmp_path_factory, level, train, held_out, prompts, min_count, max_length, max_prompt_length, lowercase
):
    folder = tmp_path_factory.mktemp("agree")
    known = ["a b a b a b"] * 3  # a tokenizer that knows next to nothing is refused
    for name, part in {"train": [*train, *known], "eval": held_out}.items():
        rows = [{"text": text} | ({"prompt": prompts[i % 6]} if prompts else {}) for i, text in enumerate(part)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    source = TextData(
        train_file=str(folder / "train.jsonl"),
        eval_file=str(folder / "eval.jsonl"),
        prompt_column="prompt" if prompts else None,
        max_length=max_length,
        max_prompt_length=max_prompt_length if prompts else None,
        tokenizer=TokenizerConfig(level, min_count=1 if level == "unigram" else min_count, lowercase=lowercase),
    )
    try:
        corpus = source.load()
    except DataError as error:  # prompts of which the tokenizer knows next to nothing
        assert "tokens are in the vocabulary" in str(error)
        reject()
    generator = build_generator(corpus, GeneratorSettings(config={"hidden_size": 8, "embedding_size": 8})).eval()
    generator.generation_config.update(max_new_tokens=corpus.max_length)
    generator.config.conditional, generator.config.max_prompt_length = bool(prompts), corpus.max_prompt_length
    rows = as_samples(corpus.eval, corpus.bos_token_id, corpus.pad_token_id)
    logged = HeldOutNLL(rows, corpus.tokenizer).evaluate(generator, rows, seed=0)["nll_test"].value

    output = folder / "run" / "evaluation"
    output.parent.mkdir()
    own = {"model": [str(output.parent)], "references": str(output / "references.txt"), "output": str(output)}
    own |= {"prompts": str(output / "prompts.txt") if prompts else None, "metrics": ["length"], "num_samples": 2}
    end = EvaluateAtEnd(EvaluationArguments(**own), corpus)
    end.on_train_end(None, SimpleNamespace(is_world_process_zero=True), None, model=generator)
    assert report(output)["results"]["nll_test"]["value"] == logged

    generator.save_pretrained(folder / "run" / "generator")
    corpus.tokenizer.save_pretrained(folder / "run" / "generator")
    (folder / "references.txt").write_text("".join(f"{text}\n" for text in held_out), encoding="utf-8")
    (folder / "prompts.txt").write_text("".join(f"{text}\n" for text in (prompts or [])[: len(held_out)]))
    by_hand = own | {"references": str(folder / "references.txt"), "output": str(folder / "by_hand")}
    by_hand |= {"prompts": str(folder / "prompts.txt") if prompts else None}
    found = run_evaluation(EvaluationArguments(**by_hand))
    assert found["results"]["nll_test"]["value"] == pytest.approx(logged, rel=1e-5)


def test_texts_that_the_tokenizer_cannot_read_back_are_named(texts):
    """Unknown letters are written `<unk>`, which is read as five letters."""
    more = {"data.tokenizer.level": "char", "data.tokenizer.min_count": 2, "data.eval_file": texts / "held_out.txt"}
    more |= {"evaluation.recipe": texts / "e.yaml", "data.eval_size": "null"}
    assert main(short_run(RECIPE, texts / "run", texts / "lines.txt", **more)) == 0
    notes = report(texts / "run" / "evaluation")["notes"]
    assert any(note.startswith("3 of 11 lines of references.txt") and "by hand" in note for note in notes)
    assert any(note.startswith("1 of 81 lines of train.txt") for note in notes)


# --- Texts -----------------------------------------------------------------------------------------------------------


def test_the_signatures_of_training_and_of_its_evaluation_say_how_much_is_unknown(texts):
    more = {"data.tokenizer.min_count": 30, "evaluation.recipe": texts / "e.yaml", "evaluation.metrics": "[bleu]"}
    assert main(short_run(RECIPE, texts / "run", texts / "lines.txt", **more)) == 0
    logged = last_line(texts / "run")["signatures"]
    own = report(texts / "run" / "evaluation")["results"]
    said = {name: re.findall(r"unknown:[\d.]+%", own[name]["signature"]) for name in ("nll_test", "bleu_2")}
    assert len(said["bleu_2"]) == 1 and said["bleu_2"] == said["nll_test"] != ["unknown:0.00%"]
    for name, expected in said.items():
        assert re.findall(r"unknown:[\d.]+%", logged[name]) == expected
    real = own["bleu_2"]["real"]["signature"]
    assert re.search(r"\|vocabulary:\d+\|unknown:", real) and re.search(
        r"\|vocabulary:\d+\|unknown:", logged["bleu_2"]
    )


# --- Prompts ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conditional(tmp_path_factory) -> Path:
    """The folder of a run whose texts repeat the last word of their prompt, evaluated at its end."""
    tmp_path = tmp_path_factory.mktemp("conditional")
    rows = [{"line": f"{WORDS[i % 10]} {WORDS[(i + 3) % 10]}", "first": f"a {WORDS[i % 10]}"} for i in range(80)]
    for name, part in {"train": rows[:70], "eval": rows[70:]}.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    for name, column in {"references": "line", "prompts": "first"}.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{row[column]}\n" for row in rows[70:]))
    (tmp_path / "e.yaml").write_text("metrics: [length]\n")
    more = {"data.text_column": "line", "data.prompt_column": "first", "data.max_prompt_length": 1}
    more |= {
        "data.eval_file": tmp_path / "eval.jsonl",
        "data.eval_size": "null",
        "evaluation.recipe": tmp_path / "e.yaml",
    }
    more |= {"generator.config.hidden_size": 32, "generator.config.embedding_size": 16, "training.pretrain_epochs": 40}
    more |= {"training.pretrain_learning_rate": 0.03, "training.per_device_train_batch_size": 16}
    assert main(short_run(RECIPE, tmp_path / "run", tmp_path / "train.jsonl", **more)) == 0
    return tmp_path


def test_a_generator_that_continues_prompts_is_evaluated_with_them(conditional, capsys):
    run, logged = conditional / "run", last_line(conditional / "run")
    own = report(run / "evaluation")["results"]
    assert own["nll_test"]["value"] == logged["nll_test"]
    assert own["nll_gen"]["value"] < 0.5 and "|prompts:10|" in own["nll_test"]["signature"]
    assert (run / "evaluation" / "prompts.txt").read_text().splitlines() == WORDS  # their last words
    references = ["--references", str(conditional / "references.txt"), "--train", str(run / "evaluation/train.txt")]
    call = ["evaluate", str(conditional / "e.yaml"), "--model", str(run), "--output", str(conditional / "by_hand")]
    capsys.readouterr()
    assert main([*call, *references]) == 1
    error = capsys.readouterr().err
    assert "run without prompts, which it was trained to continue: expected" in error and "`prompts`" in error
    assert main([*call, *references, "--prompts", str(conditional / "prompts.txt")]) == 0
    by_hand = report(conditional / "by_hand")
    found = by_hand["results"]
    assert found["nll_test"]["value"] == pytest.approx(logged["nll_test"], rel=1e-6)
    assert found["nll_test"]["signature"] == own["nll_test"]["signature"]
    assert found["nll_div"] == own["nll_div"]  # the samples continue the same prompts
    assert "nll_gen" not in found
    assert "not measured: nll_gen, which needs the prompts of the training texts" in by_hand["notes"]


def test_generate_continues_prompts_of_a_file(conditional, capsys):
    run = conditional / "run"
    capsys.readouterr()
    assert main(["generate", str(run)]) == 1
    assert "without prompts, which it was trained to continue: expected" in capsys.readouterr().err
    prompts = str(conditional / "prompts.txt")
    assert main(["generate", str(run), "--prompts", prompts, "--prompt", "a"]) == 1
    assert "both a prompt and prompts" in capsys.readouterr().err
    assert main(["generate", str(run), "--prompts", prompts, "--seed", "0"]) == 0
    written = capsys.readouterr().out.splitlines()
    heeded = [text.split()[:3] == ["a", word, word] for text, word in zip(written, WORDS, strict=True)]
    assert sum(heeded) >= 8  # each continues its own prompt, whose last word it repeats
    assert main(["generate", str(run), "--prompts", prompts, "--num_samples", "13", "--seed", "0"]) == 0
    more = capsys.readouterr().out.splitlines()
    assert [text.split()[:2] for text in more] == [["a", word] for word in (*WORDS, *WORDS[:3])]
    assert len(generate_texts(load_generator(str(run), "cpu"), prompt="a dog", num_samples=2)) == 2


def test_the_card_of_a_generator_that_continues_prompts_gives_it_a_real_one(conditional):
    card = (conditional / "run" / "generator" / "README.md").read_text()
    [prompt] = re.findall(r'generator\("(.*)", num_return_sequences', card)
    assert prompt in WORDS


def test_prompts_and_references_have_to_belong_together(conditional, capsys):
    run, prompts = str(conditional / "run"), str(conditional / "prompts.txt")
    (conditional / "few.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match="10 lines of prompts for 2 of references: expected one prompt for each"):
        run_evaluation(EvaluationArguments(model=[run], references=str(conditional / "few.txt"), prompts=prompts))
    lines = (conditional / "references.txt").read_text().splitlines()
    (conditional / "gaps.txt").write_text("\n".join(["", *lines[1:]]) + "\n")
    given = {"model": [run], "prompts": prompts, "metrics": ["length"], "output": str(conditional / "gaps")}
    found = run_evaluation(EvaluationArguments(**given, references=str(conditional / "gaps.txt")))
    assert "|held_out:9|prompts:9|" in found["results"]["nll_test"]["signature"]
    assert "1 empty lines of references were left out, with their prompts" in found["notes"]


@pytest.mark.parametrize("name", ["references", "prompts"])
def test_an_evaluation_recipe_names_references_with_their_prompts(name, tmp_path, capsys):
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({"metrics": ["bleu"], name: str(tmp_path / "other.txt")}))
    rows = [{"line": "the cat sat", "first": "a dog"} for _ in range(80)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {"data.text_column": "line", "data.prompt_column": "first", "evaluation.recipe": tmp_path / "e.yaml"}
    assert main(short_run(RECIPE, tmp_path / "run", tmp_path / "rows.jsonl", **columns)) == 1
    assert f"names `{name}` alone: expected `references` with the `prompts`" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_unconditional_generator_needs_no_prompts_and_says_so(texts):
    assert main(short_run(RECIPE, texts / "run", texts / "lines.txt")) == 0
    generator = load_generator(str(texts / "run"), "cpu")
    assert generator.model.config.conditional is False
    assert len(generate_texts(generator, drawing=Drawing(seed=0))) == 10
    assert AutoTokenizer.from_pretrained(texts / "run" / "generator").bos_token == "<bos>"
