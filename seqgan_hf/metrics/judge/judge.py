"""Held-out accuracy of a freshly trained judge that tells predictions from references (two-sample test).

Source: Lopez-Paz and Oquab (2017), https://arxiv.org/abs/1610.06545.
Definition and limits: `seqgan_hf.evaluation`, and `docs/evaluation.md`.

Example:
    >>> import evaluate
    >>> from importlib.resources import files
    >>> metric = evaluate.load(str(files("seqgan_hf.metrics") / "judge"))
    >>> metric.compute(predictions=["a a"] * 40, references=["b b"] * 40)["judge_accuracy"]
    1.0
"""

from seqgan_hf import metrics


CITATION = """@inproceedings{lopezpaz2017revisiting,
  title={Revisiting classifier two-sample tests},
  author={Lopez-Paz, David and Oquab, Maxime},
  booktitle={ICLR},
  year={2017}
}"""


class Judge(metrics.TextMetric):
    metric = "judge"
    citation = CITATION
