"""A causal LM as the judge of texts: NLL per token, ends of texts counted."""

import numpy as np
import pytest
import torch

from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.catalog import TextSettings
from seqgan_hf.evaluation.suite import evaluate_texts
from seqgan_hf.evaluation.text_judge import load_text_judge


def test_texts_are_judged_one_by_one_with_their_ends(model_path, generator):
    texts = ["the man rides", "", "a boy"]
    found = load_text_judge(str(model_path))(texts)
    for text, nll in zip(texts, found, strict=True):
        ids = torch.tensor([[1, *generator.tokenizer(text, add_special_tokens=False)["input_ids"], 2]])
        with torch.no_grad():
            logprobs = generator.model(ids[:, :-1]).logits.log_softmax(-1).gather(2, ids[:, 1:, None])
        assert nll == pytest.approx(-logprobs.mean().item(), rel=1e-5)


def test_the_metric_names_its_judge_and_scores_real_text_beside(model_path):
    settings = TextSettings(judge_lm=str(model_path))
    result = evaluate_texts(["the man rides", "a boy"] * 3, ["a boy"] * 6, None, ["judge_lm"], settings).results
    assert f"judge_lm:{model_path}" in result["judge_nll"].signature
    expected = load_text_judge(str(model_path))(["the man rides", "a boy"])
    assert result["judge_nll"].value == pytest.approx(np.mean(expected))
    assert result["judge_nll"].real.value == pytest.approx(expected[1])


def test_a_judge_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UserError, match="judge_lm='.*none' does not exist"):
        from seqgan_hf.evaluation.arguments import EvaluationArguments

        EvaluationArguments(samples="a.txt", references="b.txt", judge_lm=str(tmp_path / "none"))
