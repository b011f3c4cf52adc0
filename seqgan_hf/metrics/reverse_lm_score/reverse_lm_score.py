"""Reverse LM score: cross-entropy of the references under a Kneser-Ney model of the predictions.

Source: Semeniuta et al. (2018), https://arxiv.org/abs/1806.04936.
Definition and limits: `seqgan_hf.evaluation`, and `docs/evaluation.md`.

Example:
    >>> import evaluate
    >>> from importlib.resources import files
    >>> metric = evaluate.load(str(files("seqgan_hf.metrics") / "reverse_lm_score"))
    >>> round(metric.compute(predictions=["a b", "a b"], references=["a b"])["reverse_lm_score"], 3)
    0.225
"""

from seqgan_hf import metrics


CITATION = """@article{semeniuta2018accurate,
  title={On accurate evaluation of {GANs} for language generation},
  author={Semeniuta, Stanislau and Severyn, Aliaksei and Gelly, Sylvain},
  journal={arXiv:1806.04936},
  year={2018}
}"""


class ReverseLmScore(metrics.TextMetric):
    metric = "reverse_lm_score"
    citation = CITATION
