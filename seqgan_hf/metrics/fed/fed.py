"""Frechet distance between sentence embeddings of predictions and references; `encoder` is asked for.

Source: Heusel et al. (2017), https://arxiv.org/abs/1706.08500; for text de Masson d'Autume et al. (2019).
Definition and limits: `seqgan_hf.evaluation`, and `docs/evaluation.md`.

Example:
    >>> import evaluate
    >>> from importlib.resources import files
    >>> metric = evaluate.load(str(files("seqgan_hf.metrics") / "fed"))
    >>> import numpy as np
    >>> encoder = lambda texts: np.array([[float(len(text))] for text in texts])
    >>> metric.compute(predictions=["a", "aaa"], references=["aaaa", "aaaaaa"], encoder=encoder)["fed"]
    9.0
"""

from seqgan_hf import metrics


CITATION = """@inproceedings{heusel2017gans,
  title={{GANs} trained by a two time-scale update rule converge to a local {Nash} equilibrium},
  author={Heusel, Martin and Ramsauer, Hubert and Unterthiner, Thomas and Nessler, Bernhard and Hochreiter, Sepp},
  booktitle={NeurIPS},
  year={2017}
}"""


class FrechetEmbeddingDistance(metrics.TextMetric):
    metric = "fed"
    citation = CITATION
