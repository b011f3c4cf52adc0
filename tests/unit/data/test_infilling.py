"""Lines with blanks: nothing is lost between line, prompt and answer, whatever the line and the tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, pipeline

from seqgan_hf.commands import main
from seqgan_hf.commands.build_models import build_generator
from seqgan_hf.commands.recipe import GeneratorSettings
from seqgan_hf.data import Blanks, GrammarData, TextData, TokenizerConfig, decode_ids
from seqgan_hf.data.infilling import add_blanks, fill_in
from seqgan_hf.data.tokenization import as_prompts, blank_token_ids, build_tokenizer, encode_batch, special_token_ids
from seqgan_hf.errors import DataError, RecipeError
from seqgan_hf.evaluation.loading import encode_prompts, load_generator
from seqgan_hf.samples import Samples
from tests.tools.small_runs import ROOT, short_run


pytestmark = pytest.mark.usefixtures("without_pictures")
LINES = ["the old dog runs near a house", "a man sleeps", "床 前 明 月 光", "go  on"] * 6
BLANK, FILL = "<blank>", "<fill>"


def source(level: str, lines: list[str] = LINES, **settings) -> TextData:
    sizes = {"vocab_size": 60} if level == "unigram" else {}
    tokenizer = TokenizerConfig(level=level, **sizes)
    return TextData(dataset=Dataset.from_dict({"text": lines}), tokenizer=tokenizer, eval_size=3, **settings)


def continuation(tokenizer, text: str) -> Samples:
    ids = torch.tensor(encode_batch(tokenizer, [text]), dtype=torch.long)
    return Samples(torch.zeros(1, 1).long(), ids, torch.ones_like(ids, dtype=torch.bool))


def filled(tokenizer, prompt: str, text: str) -> str:
    return fill_in(tokenizer, [prompt], continuation(tokenizer, text))[0]


@pytest.mark.parametrize("characters", [False, True])
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: BLANK not in text),
    share=st.floats(0.01, 1.0),
    contiguous=st.booleans(),
)
def test_what_is_missing_and_what_is_left_make_the_line(characters, text, share, contiguous):
    blanks = Blanks(share, contiguous)
    prompt, missing = blanks.leave_out(text, characters)
    if not text.strip():
        assert (prompt, missing) == ("", text)
        return
    words = list(text) if characters else text.split()
    answer = list(missing) if characters else missing.split()
    parts = prompt.split(BLANK)
    assert len(answer) == len(parts) - 1 == max(1, round(share * len(words))) and missing.strip()
    again = "".join(part + word for part, word in zip(parts, [*answer, ""], strict=True))
    assert again == (text if characters else " ".join(words))
    between = "" if characters else " "
    assert not contiguous or between.join([BLANK] * len(answer)) in prompt


def test_words_anywhere_are_not_side_by_side_and_the_choice_has_no_preference():
    lines = [f"{number} b c d" for number in range(2000)]
    for contiguous, gaps in ((True, {1}), (False, {1, 2, 3})):
        prompts = [Blanks(0.5, contiguous).leave_out(line)[0].split() for line in lines]
        places = [[place for place, word in enumerate(prompt) if word == BLANK] for prompt in prompts]
        assert {last - first for first, last in places} == gaps
        counts = torch.bincount(torch.tensor([first for first, _ in places]), minlength=3)
        expected = torch.tensor([1 / 3, 1 / 3, 1 / 3] if contiguous else [1 / 2, 1 / 3, 1 / 6]) * 2000
        assert ((counts - expected).abs() < 4 * expected.sqrt()).all()


def test_a_line_has_the_same_blanks_wherever_it_stands_and_others_by_another_seed():
    line = "the old dog runs near a house and a river"
    assert Blanks().leave_out(line) == Blanks().leave_out(line)
    assert len({Blanks(seed=seed).leave_out(line) for seed in range(20)}) > 3
    found = []
    for streaming in (False, True):
        corpus = source("word", max_length=8, streaming=streaming, blanks=Blanks()).load()
        rows = [row["prompt_ids"] for split in (corpus.train, corpus.eval) for row in split]
        found.append(set(decode_ids(corpus.tokenizer, rows)))
    assert found[0] == found[1] == {Blanks().leave_out(line)[0] for line in LINES}


@pytest.mark.parametrize("level", ["word", "char", "bpe", "unigram"])
def test_a_user_writes_prompts_as_training_reads_them(level):
    corpus = source(level, blanks=Blanks()).load()
    tokenizer, (blank, fill) = corpus.tokenizer, blank_token_ids(corpus.tokenizer)
    assert corpus.vocab_size == len(tokenizer) == fill + 1 and fill in special_token_ids(tokenizer)
    characters = level == "char"
    for row in corpus.train:
        prompt, answer = decode_ids(tokenizer, [row["prompt_ids"][1:], row["input_ids"]])
        assert row["prompt_ids"][0] == corpus.bos_token_id and row["prompt_ids"][-1] == fill
        assert row["prompt_ids"].count(blank) == prompt.count(BLANK) >= 1 and blank not in row["input_ids"]
        assert as_prompts(tokenizer, encode_batch(tokenizer, [prompt]), corpus.bos_token_id) == [row["prompt_ids"]]
        line = filled(tokenizer, prompt, answer)
        assert line in {text if characters else " ".join(text.split()) for text in LINES}
    assert corpus.report["train"]["prompt_coverage"] == corpus.report["train"]["coverage"] == 1.0


@pytest.mark.parametrize("level", ["word", "char", "bpe", "unigram"])
def test_the_tokenizer_is_that_of_whole_lines_and_survives_saving(level, tmp_path):
    plain, blanked = source(level).load().tokenizer, source(level, blanks=Blanks()).load().tokenizer
    blanked.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert plain.get_vocab() == {token: i for token, i in loaded.get_vocab().items() if token not in (BLANK, FILL)}
    assert not blank_token_ids(plain) and blank_token_ids(loaded) == blank_token_ids(blanked)
    prompt = "the <blank><blank>near <fill> a" if level == "char" else "the <blank> <blank> near <fill> a"
    ids = encode_batch(loaded, [prompt])
    assert ids == encode_batch(blanked, [prompt]) and decode_ids(loaded, ids)[0].count(BLANK) == 2
    assert blank_token_ids(loaded)[1] not in ids[0], "a <fill> in a text stays text"
    add_blanks(loaded, characters=level == "char")  # once is enough
    assert decode_ids(loaded, ids) == decode_ids(blanked, ids)
    assert loaded(prompt)["input_ids"] == as_prompts(loaded, ids, loaded.bos_token_id)[0]


def test_a_long_prompt_keeps_its_last_words_and_its_end():
    corpus = source("word", blanks=Blanks(0.2), max_prompt_length=2).load()
    assert all(len(row["prompt_ids"]) <= 4 for row in corpus.train)
    assert {row["prompt_ids"][-1] for row in corpus.train} == set(blank_token_ids(corpus.tokenizer)[1:])


@pytest.mark.parametrize(
    ("level", "prompt", "text", "expected"),
    [
        ("word", "the <blank> near <blank> house", "man a", "the man near a house"),
        ("word", "the <blank> near <blank> house", "man", "the man near <blank> house"),
        ("word", "the <blank> near <blank> house", "man a old dog", "the man near a old dog house"),
        ("word", "<blank>", "", "<blank>"),
        ("char", "m<blank><blank>", "an", "man"),
        ("char", "m<blank> a", "a n", "ma n a"),
    ],
)
def test_blanks_are_filled_in_order_and_no_word_is_lost(level, prompt, text, expected):
    assert filled(source(level, blanks=Blanks()).load().tokenizer, prompt, text) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blanks(0.0), r"blanks.share=0.0: expected a share above 0"),
        (lambda: Blanks(1.5), r"blanks.share=1.5"),
        (lambda: source("word", ["a <blank> b"] * 9, blanks=Blanks()).load(), "'<blank>' in the text 'a <blank> b'"),
        (lambda: source("word", blanks=Blanks(), prompt_column="text").load(), "blanks with prompt_column='text'"),
        (lambda: source("word", [*LINES, None], blanks=Blanks()).load(), "no value .None or NaN. in row 24"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(DataError, match=message):
        make()


def test_the_grammar_can_have_blanks_and_its_sentences_stay_grammatical():
    corpus = GrammarData(num_train=50, num_eval=20, blanks=Blanks(0.3, contiguous=False)).load()
    whole = GrammarData(num_train=50, num_eval=20).load()
    texts = [decode_ids(corpus.tokenizer, [row["prompt_ids"][1:], row["input_ids"]]) for row in corpus.train]
    assert [filled(corpus.tokenizer, *pair) for pair in texts] == whole.texts("train")


# --- A run -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("infilling")
    report = {"evaluation.recipe": ROOT / "recipes/evaluation/bleu.yaml"}
    assert main(short_run(ROOT / "recipes/text/maskgan.yaml", folder / "run", Path(), **report)) == 0
    return folder / "run"


def test_a_run_fills_blanks_and_never_writes_one(run, capsys):
    generator = load_generator(str(run), "cpu")
    assert set(blank_token_ids(generator.tokenizer)) <= set(generator.model.generation_config.suppress_tokens)
    capsys.readouterr()
    call = ["generate", str(run), "--seed", "1", "--prompt", "the <blank> runs near <blank> ."]
    assert main([*call, "--num_samples", "4"]) == 0
    written = capsys.readouterr().out.splitlines()
    assert len(set(written)) == 4 and all(line.startswith("the ") and FILL not in line for line in written)
    prompts = run / "evaluation" / "prompts.txt"
    assert main(["generate", str(run), "--prompts", str(prompts)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(prompts.read_text().splitlines()) == 32
    assert main(["generate", str(run)]) == 1
    assert "without prompts, which it was trained to continue" in capsys.readouterr().err
    assert main(["generate", str(run), "--prompt", "the dog"]) == 1
    assert "the prompt 'the dog' without '<blank>': expected at least one" in capsys.readouterr().err


def test_a_run_is_evaluated_again_from_its_own_files(run, capsys):
    own = run / "evaluation"
    files = {"references": own / "references.txt", "prompts": own / "prompts.txt", "output": run / "again"}
    call = ["evaluate", "--model", str(run), "--metrics", "bleu", "--tokenization", "treebank"]
    assert main(call + [part for name, path in files.items() for part in (f"--{name}", str(path))]) == 0
    values = [json.loads((folder / "metrics.json").read_text()) for folder in (own, run / "again")]
    assert not any("read back as other tokens" in note for note in values[0]["notes"])
    nll = [value["results"]["nll_test"] for value in values]
    assert nll[0]["value"] == pytest.approx(nll[1]["value"]) and nll[0]["signature"] == nll[1]["signature"]


def test_a_pipeline_reads_the_end_of_the_prompt(run):
    generator = load_generator(str(run), "cpu")
    write = pipeline("text-generation", model=generator.model, tokenizer=generator.tokenizer)
    prompt = "the <blank> runs ."
    ids = write.tokenizer(prompt, return_tensors="pt")["input_ids"]
    assert torch.equal(ids, encode_prompts(generator, [prompt]).prompt)
    assert write(prompt, do_sample=False)[0]["generated_text"].startswith(prompt)


def test_a_pretrained_model_gets_rows_for_the_new_tokens_and_no_others(tmp_path, capsys):
    tokenizer = build_tokenizer(TokenizerConfig(), lambda: [LINES])
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = GPT2Config(n_positions=64, n_embd=8, n_layer=1, n_head=2, vocab_size=len(tokenizer), **tokens)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    (tmp_path / "lines.txt").write_text("\n".join(LINES * 4), encoding="utf-8")
    places = ("data.tokenizer.pretrained", "generator.pretrained", "discriminator.pretrained")
    named = dict.fromkeys(places, tmp_path / "lm") | {"data.blanks.share": 0.5}
    recipe = ROOT / "recipes/text/language_model.yaml"
    call = short_run(recipe, tmp_path / "run", tmp_path / "lines.txt", **named)
    assert main(call) == 1
    assert "generator.lora with data.blanks" in capsys.readouterr().err
    assert main([*call, "--generator.lora", "null"]) == 0
    for folder, kind in (("generator", GPT2LMHeadModel), ("discriminator", GPT2ForSequenceClassification)):
        embeddings = kind.from_pretrained(tmp_path / "run" / folder).get_input_embeddings()
        assert len(embeddings.weight) == len(tokenizer) + 2
    other = source("word", [*LINES, *["three unknown words"] * 9], blanks=Blanks()).load()
    assert other.vocab_size > len(tokenizer) + 2
    with pytest.raises(RecipeError, match=f"a generator with a vocabulary of {len(tokenizer)}: expected at least"):
        build_generator(other, GeneratorSettings(pretrained=str(tmp_path / "lm")))
