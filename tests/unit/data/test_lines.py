"""Files of texts: whatever a text holds, it is one line, and comes back as it was."""

import gzip
import logging

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seqgan_hf.data import TextData, TokenizerConfig, from_one_line, one_line
from seqgan_hf.data.text import read_texts


BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
TEXT = st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from(BREAKS + "\ufeff␛␊␍␜NLPB\\n"), max_size=12)


def test_line_breaks_are_written_as_signs():
    text = "an old pond\na frog\r\nin\x85to\u2028water"
    assert one_line(text) == "an old pond␊a frog␍␊in␛Nto␛Lwater"
    assert len(one_line("".join(f"{c} x " for c in BREAKS)).splitlines()) == 1


def test_every_other_text_stays_as_it_is():
    for text in ("  a \t é ", r"print('a\n')", r"C/C=C\nn1", r"C:\new \\ \alpha", ""):
        assert one_line(text) == from_one_line(text) == text


@given(TEXT)
def test_a_line_is_read_as_what_was_written(text):
    assert len(one_line(text).splitlines()) <= 1
    assert from_one_line(one_line(text)) == text


@settings(max_examples=50, deadline=None)
@given(st.lists(TEXT.map(lambda text: text.replace("\0", "")), min_size=1, max_size=5))
@example(["one NUL\0 among many characters: a file of many is taken for UTF-16"])
def test_a_file_of_samples_is_read_as_what_was_written(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("samples") / "samples.txt"
    path.write_text("".join(f"{one_line(text)}\n" for text in texts), encoding="utf-8")
    assert read_texts(str(path)) == texts


POEMS = ["an old pond\n  a frog\r", "water\u2028␊", "␛ and a\u0085b"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["file", "gz", "folder"])
def test_training_reads_a_file_of_samples_as_what_was_written(kind, streaming, tmp_path, caplog):
    """Every way to it: a file, a compressed one, a folder."""
    content = "".join(f"{one_line(text)}\n" for text in POEMS)
    path = tmp_path / "poems" / ("train.txt.gz" if kind == "gz" else "train.txt")
    path.parent.mkdir()
    path.write_bytes(gzip.compress(content.encode()) if kind == "gz" else content.encode())
    where = {"dataset": str(path.parent)} if kind == "folder" else {"train_file": str(path)}
    held_out = tmp_path / "held_out.txt"
    held_out.write_text("water ␊ water\n")
    characters = TokenizerConfig("char")
    with caplog.at_level(logging.INFO, "seqgan_hf"):
        source = TextData(**where, eval_file=str(held_out), tokenizer=characters, max_length=40, streaming=streaming)
        corpus = source.load()
    assert corpus.texts("train") == POEMS and corpus.texts("eval") == ["water \n water"]
    assert (
        "train.txt" in caplog.text
        and "signs of line breaks, such as ␊, are read as what they stand for" in caplog.text
    )


def test_a_file_without_signs_is_read_without_another_step(tmp_path, caplog):
    path = tmp_path / "lines.txt"
    path.write_text("a\\n b\nc ␀ d\n")
    with caplog.at_level(logging.INFO, "seqgan_hf"):
        corpus = TextData(train_file=str(path), eval_file=str(path), tokenizer=TokenizerConfig("char")).load()
    assert corpus.texts("train") == ["a\\n b", "c ␀ d"] and not caplog.text
