"""NLL_test: -log G of held-out texts, which no training step has seen, per token and per sequence.

Source: Zhu et al. (2018), https://arxiv.org/abs/1802.01886; Caccia et al. (2020), https://arxiv.org/abs/1811.02549.
Definition and limits: `seqgan_hf.evaluation.nll`, and `docs/evaluation.md`.

Example, with a model that throws a fair coin:
    >>> import evaluate
    >>> from importlib.resources import files
    >>> metric = evaluate.load(str(files("seqgan_hf.metrics") / "nll_test"))
    >>> from seqgan_hf.data import integer_tokenizer
    >>> from seqgan_hf.evaluation.drawing import LoadedGenerator
    >>> from seqgan_hf.models import RNNGeneratorConfig, RNNGeneratorForCausalLM
    >>> coin = RNNGeneratorForCausalLM(RNNGeneratorConfig(vocab_size=2, initializer="uniform", initializer_range=1e-9))
    >>> model = LoadedGenerator("coin", coin.eval(), integer_tokenizer(2))
    >>> round(metric.compute(references=["1 0", "1 1"], model=model)["nll_test"], 4)
    0.6931
"""

from seqgan_hf import metrics


CITATION = """@inproceedings{caccia2020language,
  title={Language {GANs} Falling Short},
  author={Caccia, Massimo and Caccia, Lucas and Fedus, William and Larochelle, Hugo and Pineau, Joelle and
          Charlin, Laurent},
  booktitle={ICLR},
  year={2020}
}"""


class NllTest(metrics.LikelihoodMetric):
    metric = "nll_test"
    citation = CITATION
    needs_predictions = False

    def _compute(self, predictions, inputs):
        return self.nll(self.need("references", inputs), self.need("model", inputs))
