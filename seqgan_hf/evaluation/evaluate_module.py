"""All metrics as one module of the `evaluate` library, loadable offline; the configuration is the metric's name.

`predictions` are generated texts; `references` are real texts, *all* of them for every prediction, so the two lists
need not be equally long. Likelihoods are those of `model` or `oracle`, in the tokens of its own tokenizer, of whole
texts: where a model has an end token, it counts as the last token of every text.

>>> import evaluate
>>> from seqgan_hf.evaluation import MODULE
>>> both = evaluate.combine([evaluate.load(MODULE, "bleu"), evaluate.load(MODULE, "length")])
>>> both.compute(predictions=["a cat sat"], references=["a cat sat down", "a dog"])["bleu_2"]
1.0

With a model that throws a fair coin:

>>> from seqgan_hf.data import integer_tokenizer
>>> from seqgan_hf.evaluation.loading import LoadedGenerator
>>> from seqgan_hf.models import RNNGeneratorConfig, RNNGeneratorForCausalLM
>>> coin = RNNGeneratorForCausalLM(RNNGeneratorConfig(vocab_size=2, initializer="uniform", initializer_range=1e-9))
>>> model = LoadedGenerator("coin", coin.eval(), integer_tokenizer(2))
>>> nll_test = evaluate.load(MODULE, "nll_test")
>>> round(nll_test.compute(references=["1 0", "1 1"], model=model)["nll_test"], 4)
0.6931
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate

from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.catalog import ALL_INPUTS, METRICS, Measurement, TextSettings, get_metric
from seqgan_hf.evaluation.citations import CITATIONS
from seqgan_hf.evaluation.likelihood import LIKELIHOODS
from seqgan_hf.evaluation.loading import (
    LoadedGenerator,
    check_prompts,
    encode_texts,
    load_generator,
    load_oracle_generator,
)
from seqgan_hf.evaluation.record import Estimate


class SuiteMetric(evaluate.Metric):
    """The metric of `seqgan_hf.evaluation` that the configuration names."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.info.module_name = self.config_name  # names the metric in `evaluate.combine`

    def _info(self) -> evaluate.MetricInfo:
        self.metric = get_metric(self.config_name, LIKELIHOODS | METRICS)
        return evaluate.MetricInfo(
            description=inspect.cleandoc(self.metric.function.__doc__ or ""),
            citation=CITATIONS.get(self.config_name, ""),
            inputs_description=f"\nThis metric uses {', '.join(map(ALL_INPUTS.get, self.metric.inputs))}.",
            features=datasets.Features({"predictions": datasets.Value("string")}),
            module_type="metric",
        )

    def compute(
        self,
        *,
        predictions: Sequence[str] | None = None,
        references: Sequence[str] | None = None,
        train: Sequence[str] | None = None,
        tokenization: str = "white_space",
        lowercase: bool = False,
        encoder=None,
        accepts=None,
        judge_lm=None,
        seed: int = 0,
        model: str | LoadedGenerator | None = None,
        oracle: str | LoadedGenerator | None = None,
        prompts: Sequence[str] | None = None,
    ) -> dict | None:
        """Measure; all metrics take the same arguments, so that they can be combined, and each uses what it needs.

        Args:
            predictions: generated texts; `None` for those added before.
            references: real texts on which nothing was trained, any number of them.
            train: the training texts.
            tokenization, lowercase, encoder, accepts, judge_lm, seed: how texts are read, see `TextSettings`.
            model: the generator, for likelihoods: a folder, a run's folder, an id on the Hub, or a loaded one.
            oracle: the model that wrote the data: a folder or a `.safetensors` file, or a loaded one.
            prompts: what each text continues whose likelihood is asked for, where the generator continues prompts.

        Returns:
            Values by name, and under `intervals` the [low, high] of those that have a 95% interval of their own.

        Raises:
            UserError: something that the metric needs is not given.
        """
        settings = TextSettings(tokenization, lowercase, encoder, judge_lm, accepts, seed)
        given = {"held_out": references, "train": train, "generator": model, "oracle": oracle, "prompts": prompts}
        # a call without predictions must still reach `_compute` by way of those added batch by batch
        if predictions is None and not self.metric.uses("sample") and self.writer is None:
            return self._compute([], settings, given)
        return super().compute(predictions=predictions, settings=settings, given=given)

    def _compute(self, predictions: Sequence[str], settings: TextSettings, given: dict[str, Any]) -> dict:
        if self.config_name in LIKELIHOODS:
            found = self._likelihood({"samples": predictions} | given)
        else:
            measurement = Measurement.of(predictions, given["held_out"], given["train"], settings=settings)
            found = measurement.measure(self.config_name)
        estimates = {k: v if isinstance(v, Estimate) else Estimate(v) for k, v in found.items()}
        intervals = {name: [e.low, e.high] for name, e in estimates.items() if e.low is not None}
        return {name: e.value for name, e in estimates.items()} | ({"intervals": intervals} if intervals else {})

    def _likelihood(self, given: dict[str, Any]) -> Mapping[str, Any]:
        prompts, models, texts = given["prompts"], {}, {}
        loaders = {"generator": load_generator, "oracle": load_oracle_generator}
        for name in self.metric.inputs:
            if (value := given[name]) is None:
                raise UserError(f"metric {self.config_name!r} needs {ALL_INPUTS[name]}", None, "give it to `compute`")
            if name in loaders:
                models[name] = loaders[name](value, "cpu") if isinstance(value, str) else value
                check_prompts(models[name], prompts is not None)
            else:
                texts[name] = value
        readings = [{name: encode_texts(m, value, prompts) for name, value in texts.items()} for m in models.values()]
        if any(not other[name].ids.equal(readings[0][name].ids) for other in readings for name in texts):
            fix = "give the oracle that wrote the model's training data"
            raise UserError("model and oracle read the same text as different tokens", "one vocabulary", fix)
        return self.metric(**{name: m.model for name, m in models.items()}, **readings[0])
