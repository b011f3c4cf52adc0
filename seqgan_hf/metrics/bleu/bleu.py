"""BLEU-2..5: mean sentence BLEU against all references, smoothing method 1, closest-length brevity penalty.

Source: Papineni et al. (2002), https://aclanthology.org/P02-1040;
Chen and Cherry (2014), https://aclanthology.org/W14-3346.
Definition and limits: `seqgan_hf.evaluation`, and `docs/evaluation.md`.

Example:
    >>> import evaluate
    >>> from importlib.resources import files
    >>> metric = evaluate.load(str(files("seqgan_hf.metrics") / "bleu"))
    >>> metric.compute(predictions=["a cat sat"], references=["a cat sat down", "a dog"])["bleu_2"]
    1.0
"""

from seqgan_hf import metrics


CITATION = """@inproceedings{papineni2002bleu,
  title={{BLEU}: a method for automatic evaluation of machine translation},
  author={Papineni, Kishore and Roukos, Salim and Ward, Todd and Zhu, Wei-Jing},
  booktitle={ACL},
  year={2002}
}"""


class Bleu(metrics.TextMetric):
    metric = "bleu"
    citation = CITATION
