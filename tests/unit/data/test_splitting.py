"""Held-out lines: cut, repeated, overlapping."""

from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from seqgan_hf.data import (
    TextData,
    TokenizerConfig,
)
from tests.tools.lines import texts


def everything(corpus) -> list[str]:
    return sorted(texts(corpus, corpus.train) + texts(corpus, corpus.eval))


def test_cut_is_the_same_for_the_same_seed_only(write):
    path = write("a.txt", "".join(f"w{i}\n" for i in range(200)))
    first, again, other = (TextData(train_file=path, seed=seed).load() for seed in (0, 0, 1))
    assert first.eval["input_ids"][:] == again.eval["input_ids"][:] and len(first.eval) == 20
    examples = [{row["text"] for row in corpus.report["examples"]} for corpus in (first, other)]
    assert examples[0] != examples[1]


def test_every_line_is_on_one_side_of_the_cut():
    lines = [f"w{i}" for i in range(100)]
    chars = TokenizerConfig(level="char")
    corpus = TextData(dataset=Dataset.from_dict({"text": lines}), eval_fraction=0.25, tokenizer=chars).load()
    assert (len(corpus.train), len(corpus.eval)) == (75, 25)
    assert everything(corpus) == sorted(lines)
    assert corpus.report["overlap"] == {"held_out_lines": 0, "different": 0}


def test_repeated_and_overlapping_lines_are_counted_and_left_out_on_request():
    train = Dataset.from_dict({"text": ["a", "b", "a", "c", "a", " ", "b"]})
    test = Dataset.from_dict({"text": ["a", "a", "d", "b"]})
    splits = DatasetDict(train=train, test=test)
    report = TextData(dataset=splits, eval_split="test").load().report
    assert report["overlap"] == {"held_out_lines": 3, "different": 2}
    assert [report["train"][key] for key in ("read", "blank", "duplicates", "lines")] == [7, 1, 3, 6]
    corpus = TextData(dataset=splits, eval_split="test", deduplicate=True).load()
    assert texts(corpus, corpus.train) == ["a", "b", "c"]
    assert corpus.report["train"]["removed_duplicates"] == 3
    assert corpus.report["eval"]["removed_duplicates"] == 1


def test_coco_overlap():
    """The captions that the literature trains on and tests with are not disjoint."""
    folder = Path(__file__).parents[4] / "shared/data/image_coco"
    if not folder.exists():
        pytest.skip("needs the COCO captions")
    report = TextData(train_file=str(folder / "train.txt"), eval_file=str(folder / "test.txt")).load().report
    assert report["overlap"] == {"held_out_lines": 15, "different": 7}
