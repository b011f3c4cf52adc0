"""NLL_div: -log G of G's own samples, per token and per sequence; it falls when the generator narrows.

Source: Nie et al. (2019), https://openreview.net/forum?id=rJedV3R5tm; the name is that of TextGAN-PyTorch.
Definition and limits: `seqgan_hf.evaluation.nll`, and `docs/evaluation.md`.

Example, with a model that throws a fair coin:
    >>> import evaluate
    >>> from importlib.resources import files
    >>> metric = evaluate.load(str(files("seqgan_hf.metrics") / "nll_div"))
    >>> from seqgan_hf.data import integer_tokenizer
    >>> from seqgan_hf.evaluation.drawing import LoadedGenerator
    >>> from seqgan_hf.models import RNNGeneratorConfig, RNNGeneratorForCausalLM
    >>> coin = RNNGeneratorForCausalLM(RNNGeneratorConfig(vocab_size=2, initializer="uniform", initializer_range=1e-9))
    >>> model = LoadedGenerator("coin", coin.eval(), integer_tokenizer(2))
    >>> round(metric.compute(predictions=["1 0", "1 1"], model=model)["nll_div"], 4)
    0.6931
"""

from seqgan_hf import metrics


CITATION = """@inproceedings{nie2019relgan,
  title={{RelGAN}: Relational Generative Adversarial Networks for Text Generation},
  author={Nie, Weili and Narodytska, Nina and Patel, Ankit},
  booktitle={ICLR},
  year={2019}
}"""


class NllDiv(metrics.LikelihoodMetric):
    metric = "nll_div"
    citation = CITATION

    def _compute(self, predictions, inputs):
        return self.nll(predictions, self.need("model", inputs))
