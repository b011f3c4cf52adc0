"""NLL_oracle: -log of the oracle's density of generated sequences, per token and per sequence.

Source: Yu et al. (2017), https://arxiv.org/abs/1609.05473, equation 9.
Definition and limits: `seqgan_hf.evaluation.nll`, and `docs/evaluation.md`.

Example, with a model that throws a fair coin:
    >>> import evaluate
    >>> from importlib.resources import files
    >>> metric = evaluate.load(str(files("seqgan_hf.metrics") / "nll_oracle"))
    >>> from seqgan_hf.data import integer_tokenizer
    >>> from seqgan_hf.evaluation.drawing import LoadedGenerator
    >>> from seqgan_hf.models import RNNGeneratorConfig, RNNGeneratorForCausalLM
    >>> coin = RNNGeneratorForCausalLM(RNNGeneratorConfig(vocab_size=2, initializer="uniform", initializer_range=1e-9))
    >>> model = LoadedGenerator("coin", coin.eval(), integer_tokenizer(2))
    >>> round(metric.compute(predictions=["1 0", "1 1"], oracle=model)["nll_oracle"], 4)
    0.6931
"""

from seqgan_hf import metrics


CITATION = """@inproceedings{yu2017seqgan,
  title={{SeqGAN}: Sequence Generative Adversarial Nets with Policy Gradient},
  author={Yu, Lantao and Zhang, Weinan and Wang, Jun and Yu, Yong},
  booktitle={AAAI},
  year={2017}
}"""


class NllOracle(metrics.LikelihoodMetric):
    metric = "nll_oracle"
    citation = CITATION

    def _compute(self, predictions, inputs):
        return self.nll(predictions, self.need("oracle", inputs))
