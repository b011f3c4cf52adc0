"""LM score: cross-entropy of the predictions under a Kneser-Ney model of the training text, nats per token.

Source: de Masson d'Autume et al. (2019), https://arxiv.org/abs/1905.09922.
Definition and limits: `seqgan_hf.evaluation`, and `docs/evaluation.md`.

Example:
    >>> import evaluate
    >>> from importlib.resources import files
    >>> metric = evaluate.load(str(files("seqgan_hf.metrics") / "lm_score"))
    >>> round(metric.compute(predictions=["a b"], train=["a b", "a b"])["lm_score"], 3)
    0.225
"""

from seqgan_hf import metrics


CITATION = """@inproceedings{demasson2019training,
  title={Training language {GANs} from scratch},
  author={de Masson d'Autume, Cyprien and Mohamed, Shakir and Rosca, Mihaela and Rae, Jack},
  booktitle={NeurIPS},
  year={2019}
}"""


class LmScore(metrics.TextMetric):
    metric = "lm_score"
    citation = CITATION
