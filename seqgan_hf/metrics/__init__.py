"""The metrics as `evaluate` modules: thin, loadable by path and offline, usable with `evaluate.combine`.

    from importlib.resources import files
    import evaluate

    bleu = evaluate.load(str(files("seqgan_hf.metrics") / "bleu"))
    bleu.compute(predictions=samples, references=real_texts)

`predictions` are generated texts; `references` are real texts, *all* of them for every prediction, so the two lists
need not be equally long. Text is tokenized by `tokenization` (see `seqgan_hf.evaluation.tokenization`); likelihoods
are those of `model`, in the tokens of its own tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import evaluate

from ..errors import UserError
from ..evaluation.catalog import METRICS, Measurement, Texts, TextSettings
from ..evaluation.likelihood import nll
from ..evaluation.loading import LoadedGenerator, encode_texts, load_generator, load_oracle_generator


@dataclass
class Inputs:
    """What modules are given besides predictions; see `SuiteMetric.compute`."""

    references: Sequence[str] | None
    train: Sequence[str] | None
    settings: TextSettings
    model: str | LoadedGenerator | None
    oracle: str | LoadedGenerator | None


class SuiteMetric(evaluate.Metric):
    """A metric of `seqgan_hf.evaluation` behind the interface of `evaluate`; subclasses say which.

    Attributes:
        metric: its name.
        citation: BibTeX.
        needs_predictions: `False` for likelihoods of real texts.
    """

    metric: str
    citation: str
    needs_predictions = True

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.about,
            citation=self.citation,
            inputs_description="predictions: generated texts; references: real texts, pooled; see `compute`.",
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
        seed: int = 0,
        model: str | LoadedGenerator | None = None,
        oracle: str | LoadedGenerator | None = None,
    ) -> dict[str, float] | None:
        """Measure.

        All modules take the same arguments, so that they can be combined; each uses what its metric asks for.

        Args:
            predictions: generated texts; `None` for those added before.
            references: real texts on which nothing was trained, any number of them.
            train: the training texts.
            tokenization: `white_space`, `treebank`, `character`, or the dotted path of a function.
            lowercase: fold case first.
            encoder: sentence encoder, an id, a path or a function from texts to (N, D).
            accepts: says whether a text is valid, a function or its dotted path.
            seed: of everything drawn at random.
            model: the generator, for likelihoods: a folder, a run's folder, an id on the Hub, or a loaded one.
            oracle: the model that wrote the data: a folder or a `.safetensors` file, or a loaded one.

        Raises:
            ValueError: something that the metric needs is not given.
        """
        settings = TextSettings(tokenization, lowercase, encoder, accepts, seed)
        inputs = Inputs(references, train, settings, model, oracle)
        if predictions is None and not self.needs_predictions and self.writer is None:
            return self._compute([], inputs)
        # a predictions-only call must still reach `_compute` when predictions were added batch by batch
        return super().compute(predictions=predictions, inputs=inputs)


class TextMetric(SuiteMetric):
    """A metric of texts, by its name in `seqgan_hf.evaluation.catalog`."""

    @property
    def about(self) -> str:
        return METRICS[self.metric].function.__doc__

    def _compute(self, predictions: Sequence[str], inputs: Inputs) -> dict[str, float]:
        settings = inputs.settings
        real = (inputs.references, inputs.train)
        references, train = (Texts(texts, settings) if texts is not None and len(texts) else None for texts in real)
        return Measurement(Texts(predictions, settings), references, train, settings).measure(self.metric)


class LikelihoodMetric(SuiteMetric):
    """A value of `seqgan_hf.evaluation.nll`, of texts under a generator or under the oracle that wrote the data.

    Texts are read as whole ones: where a model has an end token, it is counted as the last token of every text.
    """

    about = nll.__doc__

    def nll(self, texts: Sequence[str], model: LoadedGenerator) -> dict[str, float]:
        """NLL of texts under a model, named after the metric."""
        return nll(model.model, encode_texts(model, texts), self.metric.removeprefix("nll_"))

    def need(self, name: str, inputs: Inputs):
        """One of the inputs; models are loaded.

        Raises:
            ValueError: it is not given.
        """
        given = getattr(inputs, name)
        if given is None:
            raise UserError(f"metric {self.metric!r} without `{name}`", "it", "give it to `compute`")
        if not isinstance(given, str):
            return given
        return load_generator(given, "cpu") if name == "model" else load_oracle_generator(given, "cpu")
