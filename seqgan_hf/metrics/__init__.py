"""The metrics as `evaluate` modules: thin, loadable by path and offline, usable with `evaluate.combine`.

    from importlib.resources import files
    import evaluate

    bleu = evaluate.load(str(files("seqgan_hf.metrics") / "bleu"))
    bleu.compute(predictions=samples, references=real_texts)

`predictions` are generated texts; `references` are real texts, *all* of them for every prediction, so the two lists
need not be equally long. Text is tokenized by `tokenization` (see `seqgan_hf.evaluation.tokenization`).
"""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate

from ..evaluation.catalog import METRICS, Measurement, Texts, TextSettings


class TextMetric(evaluate.Metric):
    """A metric of `seqgan_hf.evaluation.catalog` behind the interface of `evaluate`; subclasses say which.

    Attributes:
        metric: its name in the catalog.
        citation: BibTeX.
    """

    metric: str
    citation: str

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=METRICS[self.metric].function.__doc__,
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

        Raises:
            ValueError: something that the metric needs is not given.
        """
        settings = TextSettings(tokenization, lowercase, encoder, accepts, seed)
        # a predictions-only call must still reach `_compute` when predictions were added batch by batch
        return super().compute(predictions=predictions, real=(references, train), settings=settings)

    def _compute(self, predictions: Sequence[str], real: tuple, settings: TextSettings) -> dict[str, float]:
        references, train = (Texts(texts, settings) if texts else None for texts in real)
        return Measurement(Texts(predictions, settings), references, train, settings).measure(self.metric)
