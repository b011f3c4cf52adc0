"""Self-BLEU-2..5: mean BLEU of each prediction against all other predictions.

Source: Zhu et al. (2018), https://arxiv.org/abs/1802.01886.
Definition and limits: `seqgan_hf.evaluation`, and `docs/evaluation.md`.

Example:
    >>> import evaluate
    >>> from importlib.resources import files
    >>> metric = evaluate.load(str(files("seqgan_hf.metrics") / "self_bleu"))
    >>> metric.compute(predictions=["a cat", "a cat"])["self_bleu_2"]
    1.0
"""

from seqgan_hf import metrics


CITATION = """@inproceedings{zhu2018texygen,
  title={Texygen: A benchmarking platform for text generation models},
  author={Zhu, Yaoming and Lu, Sidi and Zheng, Lei and Guo, Jiaxian and Zhang, Weinan and Wang, Jun and Yu, Yong},
  booktitle={SIGIR},
  year={2018}
}"""


class SelfBleu(metrics.TextMetric):
    metric = "self_bleu"
    citation = CITATION
