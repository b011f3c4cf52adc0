"""The settings of an evaluation, checked before any work is done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from ..data.delimited import FileFormat
from ..data.sources import file_kind
from ..errors import UserError, import_by_path
from .catalog import TextSettings, get_metric
from .encoders import check_encoder
from .tokenization import tokenize


# In place of a discriminator's name: that of each model's own run.
OWN = "own"


def split_names(names: list[str] | str | None) -> list[str] | None:
    """The names in a text with commas between them; a list, or `None`, as it is."""
    return [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else names


def check_names(metrics: Sequence[str] | None, settings: TextSettings) -> None:
    """Raise a `UserError` for metrics, a tokenization, models or functions that do not exist, or lack a library."""
    for name in metrics or ():
        get_metric(name)
    if settings.tokenization is not None:
        tokenize([], settings.tokenization)
    if isinstance(settings.accepts, str):
        import_by_path(settings.accepts, "accepts")
    for what in ("encoder", "judge_lm"):
        path = getattr(settings, what)
        if isinstance(path, str) and path.startswith(("/", "./", "../")) and not Path(path).exists():
            expected = "a folder with a model, or an id on the Hub"
            raise UserError(f"{what}={path!r} does not exist", expected, "check the path")
    if isinstance(settings.encoder, str):
        check_encoder(settings.encoder)


@dataclass
class SuiteSettings(TextSettings):
    """What to measure, and how generators write their samples.

    Attributes:
        metrics: names or dotted paths of functions, as a list or with commas between them; by default all that can be
            computed from what is given (in a sweep BLEU, Self-BLEU, distinct-n and both LM scores).
        encoder: sentence encoder for `fed` and `mauve`, an id or a path.
        judge_lm: independent language model for `judge_lm`, an id or a path.
        accepts: dotted path of a function that says whether a text is valid, for `grammar`.
        num_samples: samples to draw; by default as many as there are references, at most 10,000.
        max_new_tokens: longest sample, end token included; by default what the generator was trained to write, or else
            the longest reference.
        temperatures: of sampling; with several, or several models, quality is drawn against diversity.
        exponents: with a discriminator: how much it is believed; 0 is the generator alone. With several, likewise.
        proposals: with a discriminator: of how many each sample is one, at least 2.
        method: with a discriminator: how samples are drawn, by `resample` or by `reject`; see `generation.reject`.
        percentile: of log-odds, the bound of `reject`; 100 is the largest, less accepts more.
        mixtures: with several temperatures: measure what a coin between two of them gives, for the (first) generator.
        device: where generators and encoders run; the accelerator by default, if there is one.
    """

    encoder: str | None = None
    judge_lm: str | None = None
    accepts: str | None = None
    device: str | None = None
    metrics: list[str] | str | None = None
    num_samples: int | None = None
    max_new_tokens: int | None = None
    temperatures: list[float] = field(default_factory=lambda: [1.0])
    exponents: list[float] = field(default_factory=lambda: [1.0])
    proposals: int = 16
    method: Literal["resample", "reject"] = "resample"
    percentile: float = 100.0
    mixtures: bool = True

    def __post_init__(self):
        self.metrics = split_names(self.metrics)
        usable = {temperature for temperature in self.temperatures if 0 < temperature < math.inf}
        if not usable or len(usable) != len(self.temperatures):
            raise UserError(f"temperatures={self.temperatures}", "different finite numbers above 0", "set 0.8,1.0")
        usable = {exponent for exponent in self.exponents if 0 <= exponent < math.inf}
        if not usable or len(usable) != len(self.exponents):
            raise UserError(f"exponents={self.exponents}", "different finite numbers of at least 0", "set 0,0.5,1")
        for name, least in {"num_samples": 1, "max_new_tokens": 1, "proposals": 2, "seed": 0}.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise UserError(f"{name}={value}", f"at least {least}", "raise it, or leave it out")
        if self.method not in ("resample", "reject"):
            raise UserError(f"method={self.method!r}", "resample or reject", "choose one")
        if not 0 < self.percentile <= 100:
            raise UserError(f"percentile={self.percentile:g}", "a number above 0, at most 100", "leave it out for 100")
        if self.percentile != 100 and self.method != "reject":
            raise UserError(f"percentile={self.percentile:g} with method=resample", None, "set `method` to `reject`")
        if self.device is None:
            available = torch.accelerator.is_available()
            self.device = str(torch.accelerator.current_accelerator()) if available else "cpu"
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            problem = f"device {self.device!r} cannot be used ({str(error).splitlines()[0]})"
            raise UserError(problem, None, "set device=cpu, or leave it out") from error
        if self.metrics is not None and not self.metrics:
            raise UserError("metrics=[]", "at least one", "name some, or leave it out for all")
        check_names(self.metrics, self)

    @property
    def sweeps(self) -> bool:
        """Whether there is more than one point, so that quality is drawn against diversity."""
        return len(self.temperatures) > 1 or len(self.exponents) > 1

    def check_exponents(self, discriminator: bool) -> None:
        """Raise a `UserError` for settings that would do nothing without a discriminator."""
        changed = self.exponents != [1.0] or self.proposals != SuiteSettings.proposals or self.method != "resample"
        if not discriminator and changed:
            problem = "exponents, proposals or method without a discriminator"
            raise UserError(problem, "these with one", "set `discriminator`")


@dataclass
class EvaluationArguments(SuiteSettings, FileFormat):
    """What to evaluate, against what, and how. Besides these attributes, those of `FileFormat` hold for all files.

    Attributes:
        samples: file of generated texts: one per line, or a table. Give this or `model`.
        model: folders, run folders or Hub ids of generators, which then write the samples themselves.
        references: file of real texts on which nothing was trained, likewise.
        discriminator: with which samples are drawn, by `method`: a run's folder, a saved discriminator or a Hub id;
            `own`, or nothing behind the option, is that of each model's run.
        prompts: file of what the references continue, likewise; for a generator that was trained to continue prompts,
            whose samples then continue the same.
        prompt_column: column with the prompts in that file, or else in that of the references; by default `prompt`, or
            the only column of text.
        tokenizer: run or generator that wrote `samples`: real texts are then compared as it writes them, not as they
            are in their files. A `model` always uses its own.
        train: file of the training texts, likewise; needed for copying, the LM score and NLL_gen.
        text_column: column with the text in files that are tables; by default `text`, or the only column of text.
        oracle: model that wrote the data (a folder, or a `.safetensors` file in the layout of the SeqGAN code);
            held-out text is then drawn from it.
        output: folder for `metrics.json`, `report.md` and pictures.
    """

    samples: str | None = None
    model: list[str] = field(default_factory=list)
    discriminator: str | None = None
    references: str | None = None
    prompts: str | None = None
    prompt_column: str | None = None
    tokenizer: str | None = None
    train: str | None = None
    text_column: str | None = None
    oracle: str | None = None
    output: str = "evaluation"

    def __post_init__(self):
        FileFormat.__post_init__(self)
        if bool(self.samples) == bool(self.model):
            given = "both" if self.samples else "neither"
            raise UserError(f"{given} of samples and model", "exactly one of them", "give a file or a generator")
        if self.samples and (self.oracle or self.temperatures != [1.0] or self.num_samples is not None):
            problem = "samples from a file with oracle, temperatures or num_samples"
            raise UserError(problem, "these only with `model`, which draws samples", "give `model`, or drop them")
        if self.samples and self.discriminator:
            raise UserError("samples from a file with a discriminator", "it only with `model`", "drop it")
        self.check_exponents(self.discriminator is not None)
        if (self.prompts or self.prompt_column) and (self.samples or self.oracle):
            problem = f"prompts with {'samples from a file' if self.samples else 'an oracle'}"
            raise UserError(problem, "these only with `model` and `references`", "drop them")
        if self.tokenizer and self.model:
            raise UserError("tokenizer with `model`, which has its own", "it only with `samples`", "drop it")
        if not self.references and not self.oracle:
            expected = "`references`, or with a model `oracle`"
            raise UserError("nothing real to compare with", expected, "give one of them")
        files = [file for file in (self.samples, self.references, self.train, self.prompts) if file]
        columns = {name: getattr(self, name) for name in ("text_column", "prompt_column") if getattr(self, name)}
        settings = self.of_tables | columns
        if settings and all(file_kind(file) == "text" for file in files):
            problem = f"{settings} with {files}"
            raise UserError(problem, "these only with tables, such as .csv files", "leave them out")
        super().__post_init__()

    @property
    def sweeps(self) -> bool:
        return super().sweeps or len(self.model) > 1
