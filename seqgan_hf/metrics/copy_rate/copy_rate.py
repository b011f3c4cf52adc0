"""Copy rate: share of predictions that are training texts, and the longest runs of words they share.

Source: no paper: exact matches and longest common n-grams.
Definition and limits: `seqgan_hf.evaluation`, and `docs/evaluation.md`.

Example:
    >>> import evaluate
    >>> from importlib.resources import files
    >>> metric = evaluate.load(str(files("seqgan_hf.metrics") / "copy_rate"))
    >>> metric.compute(predictions=["a b", "c d"], train=["a b", "e f"])["copy_rate"]
    0.5
"""

from seqgan_hf import metrics


CITATION = ""


class CopyRate(metrics.TextMetric):
    metric = "copy_rate"
    citation = CITATION
