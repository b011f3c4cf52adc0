"""What a corpus tells of itself."""

import dataclasses

import torch
from datasets import Dataset

from seqgan_hf.data import (
    OracleData,
    TextData,
)


def test_a_corpus_gives_its_texts_and_tells_whether_they_continue_prompts():
    rows = Dataset.from_dict({"text": ["fine thanks", "bye"], "turn": ["how are you", ""]})
    corpus = TextData(dataset=rows, eval_split="train", prompt_column="turn", text_column="text").load()
    assert corpus.conditional and corpus.texts("train") == corpus.texts("eval") == ["fine thanks", "bye"]
    streamed = TextData(dataset=rows, eval_size=1, text_column="text", streaming=True, max_length=5).load()
    assert not streamed.conditional
    assert (streamed.texts("train"), streamed.texts("eval")) == (["bye"], ["<unk> <unk>"])
    drawn = OracleData(vocab_size=5, length=3, num_train=4, num_eval=2).load()
    assert not drawn.conditional
    assert drawn.texts("eval") == [" ".join(map(str, row)) for row in drawn.eval.ids.tolist()]
    assert dataclasses.replace(drawn, eval=drawn.eval._replace(prompt=torch.zeros(2, 2).long())).conditional
