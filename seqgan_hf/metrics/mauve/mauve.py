"""MAUVE over sentence embeddings, by its authors' library; `encoder` is asked for.

Source: Pillutla et al. (2021), https://arxiv.org/abs/2102.01454.
Definition and limits: `seqgan_hf.evaluation`, and `docs/evaluation.md`.

Example, which needs that library (`pip install "seqgan-hf[mauve]"`):
    >>> import evaluate
    >>> from importlib.resources import files
    >>> metric = evaluate.load(str(files("seqgan_hf.metrics") / "mauve"))
    >>> import numpy as np
    >>> encoder = lambda texts: np.array([[float(len(text)), 1.0] for text in texts])
    >>> texts = ["a" * length for length in range(1, 41)]
    >>> metric.compute(predictions=texts, references=texts, encoder=encoder)["mauve"] > 0.99
    True
"""

from seqgan_hf import metrics


CITATION = """@inproceedings{pillutla2021mauve,
  title={{MAUVE}: Measuring the gap between neural text and human text using divergence frontiers},
  author={Pillutla, Krishna and Swayamdipta, Swabha and Zellers, Rowan and others},
  booktitle={NeurIPS},
  year={2021}
}"""


class Mauve(metrics.TextMetric):
    metric = "mauve"
    citation = CITATION
