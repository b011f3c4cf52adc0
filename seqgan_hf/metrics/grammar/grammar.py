"""Share of predictions that a grammar, a parser or any other check accepts; `accepts` is asked for.

Source: Kusner and Hernandez-Lobato (2016), https://arxiv.org/abs/1611.04051.
Definition and limits: `seqgan_hf.evaluation`, and `docs/evaluation.md`.

Example:
    >>> import evaluate
    >>> from importlib.resources import files
    >>> metric = evaluate.load(str(files("seqgan_hf.metrics") / "grammar"))
    >>> metric.compute(predictions=["1+1", "1+"], accepts=lambda text: text[-1].isdigit())["grammar_acceptance"]
    0.5
"""

from seqgan_hf import metrics


CITATION = r"""@article{kusner2016gans,
  title={{GANS} for sequences of discrete elements with the {Gumbel-softmax} distribution},
  author={Kusner, Matt J. and Hern{\'a}ndez-Lobato, Jos{\'e} Miguel},
  journal={arXiv:1611.04051},
  year={2016}
}"""


class Grammar(metrics.TextMetric):
    metric = "grammar"
    citation = CITATION
