"""Distinct-1..4: different n-grams as a share of all n-grams of the predictions.

Source: Li et al. (2016), https://arxiv.org/abs/1510.03055.
Definition and limits: `seqgan_hf.evaluation`, and `docs/evaluation.md`.

Example:
    >>> import evaluate
    >>> from importlib.resources import files
    >>> metric = evaluate.load(str(files("seqgan_hf.metrics") / "distinct"))
    >>> metric.compute(predictions=["a cat", "a dog"])["distinct_1"]
    0.75
"""

from seqgan_hf import metrics


CITATION = """@inproceedings{li2016diversity,
  title={A diversity-promoting objective function for neural conversation models},
  author={Li, Jiwei and Galley, Michel and Brockett, Chris and Gao, Jianfeng and Dolan, Bill},
  booktitle={NAACL},
  year={2016}
}"""


class Distinct(metrics.TextMetric):
    metric = "distinct"
    citation = CITATION
