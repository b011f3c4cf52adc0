"""MS-Jaccard-2..5: overlap of n-gram frequencies of predictions and references.

Source: Montahaei et al. (2019), https://arxiv.org/abs/1904.03971.
Definition and limits: `seqgan_hf.evaluation`, and `docs/evaluation.md`.

Example:
    >>> import evaluate
    >>> from importlib.resources import files
    >>> metric = evaluate.load(str(files("seqgan_hf.metrics") / "ms_jaccard"))
    >>> metric.compute(predictions=["a b c"], references=["a b c"])["ms_jaccard_3"]
    1.0
"""

from seqgan_hf import metrics


CITATION = """@article{montahaei2019jointly,
  title={Jointly measuring diversity and quality in text generation models},
  author={Montahaei, Ehsan and Alihosseini, Danial and Baghshah, Mahdieh Soleymani},
  journal={arXiv:1904.03971},
  year={2019}
}"""


class MsJaccard(metrics.TextMetric):
    metric = "ms_jaccard"
    citation = CITATION
