"""Length statistics of the predictions, in tokens.

Source: no paper: descriptive statistics.
Definition and limits: `seqgan_hf.evaluation`, and `docs/evaluation.md`.

Example:
    >>> import evaluate
    >>> from importlib.resources import files
    >>> metric = evaluate.load(str(files("seqgan_hf.metrics") / "length"))
    >>> metric.compute(predictions=["a b", "c d e f"])["length_mean"]
    3.0
"""

from seqgan_hf import metrics


CITATION = ""


class Length(metrics.TextMetric):
    metric = "length"
    citation = CITATION
