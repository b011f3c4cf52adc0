"""KL and Jensen-Shannon divergences between a generator (`predictions` are its samples) and the oracle (`references`).

Source: both densities of Yu et al. (2017), https://arxiv.org/abs/1609.05473, are exact, so the divergences are
expectations over samples; Lin (1991), https://doi.org/10.1109/18.61115.
Definition and limits: `seqgan_hf.evaluation.nll`, and `docs/evaluation.md`.

Example, with a model that throws a fair coin:
    >>> import evaluate
    >>> from importlib.resources import files
    >>> metric = evaluate.load(str(files("seqgan_hf.metrics") / "oracle_divergence"))
    >>> from seqgan_hf.data import integer_tokenizer
    >>> from seqgan_hf.evaluation.drawing import LoadedGenerator
    >>> from seqgan_hf.models import RNNGeneratorConfig, RNNGeneratorForCausalLM
    >>> coin = RNNGeneratorForCausalLM(RNNGeneratorConfig(vocab_size=2, initializer="uniform", initializer_range=1e-9))
    >>> model = LoadedGenerator("coin", coin.eval(), integer_tokenizer(2))
    >>> texts = ["1 0", "1 1"]
    >>> metric.compute(predictions=texts, references=texts, model=model, oracle=model)["jsd_oracle"]
    0.0
"""

from seqgan_hf import metrics
from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.likelihood import divergences
from seqgan_hf.evaluation.loading import encode_texts


CITATION = """@inproceedings{yu2017seqgan,
  title={{SeqGAN}: Sequence Generative Adversarial Nets with Policy Gradient},
  author={Yu, Lantao and Zhang, Weinan and Wang, Jun and Yu, Yong},
  booktitle={AAAI},
  year={2017}
}"""


class OracleDivergence(metrics.LikelihoodMetric):
    metric = "oracle_divergence"
    citation = CITATION
    about = divergences.__doc__

    def _compute(self, predictions, inputs):
        model, oracle = self.need("model", inputs), self.need("oracle", inputs)
        fake, real = (encode_texts(model, texts) for texts in (predictions, self.need("references", inputs)))
        if not fake.ids.equal(encode_texts(oracle, predictions).ids):
            raise UserError(
                "a model and an oracle that read one text as different tokens",
                "one vocabulary",
                "give the oracle that wrote the model's training data",
            )
        return divergences(model.model, oracle.model, fake, real)
