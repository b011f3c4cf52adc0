"""The report of a corpus, and the grammar as one."""

import json

import pytest
from datasets import Dataset

from seqgan_hf.data import (
    GrammarData,
    IdsData,
    OracleData,
    TextData,
    corpus_report,
    write_corpus_report,
)
from seqgan_hf.data.corpus_report import draw_lengths
from seqgan_hf.errors import DataError
from tests.tools.lines import LINES, texts


def test_grammar_corpus():
    corpus, again = GrammarData(300, 50, seed=3).load(), GrammarData(300, 50, seed=3).load()
    assert corpus.train["input_ids"][:] == again.train["input_ids"][:]
    assert (len(corpus.train), len(corpus.eval)) == (300, 50)
    assert corpus.report["train"]["coverage"] == corpus.report["eval"]["coverage"] == 1.0
    from seqgan_hf.data.grammar import english_grammar

    grammar = english_grammar()
    assert all(grammar.accepts(text) for text in texts(corpus, corpus.eval))
    assert corpus.report["grammar"]["entropy"] == grammar.entropy()
    assert corpus.vocab_size == len(grammar.words) + 4


def test_corpus_report_is_a_page_and_is_saved(tmp_path):
    lines = [f"w{i} x\x1b[31m y" for i in range(30)] + ["long " * 30, "w1 x\x1b[31m y", " "]
    source = TextData(dataset=Dataset.from_dict({"text": lines}), max_length=20, eval_size=3)
    corpus = source.load()
    page = corpus_report(corpus, source)
    assert "| blank lines, left out | 1 |" in page and "| repeated lines | 1 |" in page
    assert "\x1b" not in page and r" x\x1b[31m y" in page  # examples, their control characters written out
    write_corpus_report(corpus, source, tmp_path / "report")
    assert (tmp_path / "report/corpus.md").read_text() == page
    saved = json.loads((tmp_path / "report/corpus.json").read_text())
    assert saved["train"] == corpus.report["train"] and saved["train"]["lines"] + saved["eval"]["lines"] == 32
    assert len(saved["examples"]) == 10 and saved["example"]["input_ids"] == corpus.train[0]["input_ids"]
    assert saved["source"]["class"] == "TextData" and saved["source"]["max_length"] == 20
    assert (tmp_path / "report/lengths.png").read_bytes().startswith(b"\x89PNG")


def test_lengths_are_drawn_with_the_length_to_generate():
    [axes] = draw_lengths({2: 5, 3: 1, 7: 4}, max_length=4).axes
    heights = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in axes.patches}
    assert heights == {1: 0, 2: 5, 3: 1, 4: 0, 5: 0, 6: 0, 7: 4}
    [line] = axes.lines
    assert set(line.get_xdata()) == {4.5} and "length to generate: 4" in line.get_label()
    [axes] = draw_lengths({1: 1, 1000: 2}, max_length=10).axes
    assert len(axes.patches) <= 80 and sum(bar.get_height() for bar in axes.patches) == 3


def test_report_into_a_file(write):
    corpus = GrammarData(3, 3).load()
    with pytest.raises(DataError, match="cannot be written into .*taken.* .File exists.: .* Set --output"):
        write_corpus_report(corpus, "grammar", write("taken", "x"))


def test_report_of_prompts_and_ids_shows_them():
    rows = Dataset.from_dict({"ids": [[3, 1], [0, 2]], "given": [[1], [2]]})
    source = IdsData(dataset=rows, eval_size=1, ids_column="ids", prompt_column="given")
    corpus = source.load()
    [shown] = corpus.report["examples"]
    assert set(shown) == {"ids", "prompt"}
    assert f"\n{shown['prompt'][0]} => {shown['ids'][0]} {shown['ids'][1]}\n" in corpus_report(corpus, source)


def test_report_of_a_source_that_counts_nothing():
    source = OracleData(vocab_size=5, length=2, num_train=2, num_eval=2)
    with pytest.raises(DataError, match="OracleData does not count what it reads"):
        corpus_report(source.load(), source)


def test_report_of_a_stream_says_what_was_not_counted(write):
    source = TextData(train_file=write("a.txt", "\n".join(LINES)), streaming=True, max_length=6, eval_size=2)
    page = corpus_report(source.load(), source)
    assert "also trained on: not counted" in page
    assert "| lines used | 3 | 2 |" in page and "| too long, cut | not counted | 0 |" in page
