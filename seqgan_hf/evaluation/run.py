"""`seqgan-hf evaluate`: samples or generators against real text, from files to a report."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from ..errors import UserError
from .catalog import METRICS, Measurement, Texts, TextSettings, get_metric
from .report import as_result, write_json, write_report
from .suite import Result, evaluate_measurement, evaluate_texts, find_flags, read_lines
from .sweep import SWEEP_METRICS, Point, write_sweep
from .tokenization import import_by_path, tokenize


LIKELIHOODS = {  # name of the value and how to read it
    "nll_oracle": "real",
    "nll_test": "lower",
    "nll_gen": "lower",
    "nll_div": "real",
    "kl_generator_oracle": "lower",
    "kl_oracle_generator": "lower",
    "jsd_oracle": "lower",
}
LARGEST_SAMPLE = 10_000  # samples drawn by default, unless there are fewer references


@dataclass
class EvaluationArguments:
    """What to evaluate, against what, and how.

    Attributes:
        samples: file of generated texts, one a line. Give this or `model`.
        model: folders, run folders or Hub ids of generators, which then write the samples themselves.
        references: file of real texts on which nothing was trained, one a line.
        train: file of the training texts, one a line; with it copying, the LM score and NLL_gen are measured.
        oracle: model that wrote the data (a folder, or a `.safetensors` file in the layout of the SeqGAN code);
            held-out text is then drawn from it.
        num_samples: samples to draw; by default as many as there are references, at most 10,000.
        max_new_tokens: longest sample, end token included; by default what the generator was trained to write, or else
            the longest reference.
        temperatures: of sampling; with several, or several models, quality is drawn against diversity.
        metrics: names or dotted paths of functions; by default all that can be computed from what is given (in a sweep
            BLEU, Self-BLEU, distinct-n and both LM scores).
        tokenization: `white_space`, `treebank`, `character`, or the dotted path of a function.
        lowercase: fold case first.
        encoder: sentence encoder for Frechet distance and MAUVE, an id or a path.
        accepts: dotted path of a function that says whether a text is valid, for `grammar`.
        seed: of sampling and of everything else drawn at random.
        device: where generators and encoders run; the accelerator by default, if there is one.
        output: folder for `metrics.json`, `report.md` and pictures.
    """

    samples: str | None = None
    model: list[str] = field(default_factory=list)
    references: str | None = None
    train: str | None = None
    oracle: str | None = None
    num_samples: int | None = None
    max_new_tokens: int | None = None
    temperatures: list[float] = field(default_factory=lambda: [1.0])
    metrics: list[str] | None = None
    tokenization: str = "white_space"
    lowercase: bool = False
    encoder: str | None = None
    accepts: str | None = None
    seed: int = 0
    device: str | None = None
    output: str = "evaluation"

    def __post_init__(self):
        if bool(self.samples) == bool(self.model):
            given = "both" if self.samples else "neither"
            raise UserError(f"{given} of samples and model", "one of them", "give a file or a generator")
        if self.samples and (self.oracle or self.temperatures != [1.0] or self.num_samples is not None):
            raise UserError(
                "samples with oracle, temperatures or num_samples",
                "these with a model that writes its own samples",
                "give `model` or drop them",
            )
        if not self.references and not self.oracle:
            raise UserError(
                "nothing real to compare with",
                "real text on which nothing was trained",
                "give `references` (a file), or with a model `oracle`",
            )
        self._check_values()
        self._check_names()

    def _check_values(self) -> None:
        """Numbers that cannot be used, before any work is done."""
        usable = [temperature for temperature in self.temperatures if 0 < temperature < math.inf]
        if not usable or len(set(usable)) != len(self.temperatures):
            raise UserError(f"temperatures={self.temperatures}", "different finite numbers above 0", "set 0.8,1.0")
        for name in ("num_samples", "max_new_tokens"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}", "at least 1", "set it, or leave it out")
        if self.seed < 0:
            raise UserError(f"seed={self.seed}", "at least 0", "set e.g. 0")
        try:
            torch.empty(0, device=self.resolved_device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"device={self.device!r}, which cannot be used ({str(error).splitlines()[0]})",
                "one that torch knows and that is there",
                "set device=cpu, or leave it out",
            ) from error

    def _check_names(self) -> None:
        """Metrics, tokenization and functions that are not there, before any work is done."""
        if self.metrics is not None and not self.metrics:
            raise UserError("metrics=[]", "at least one", "name some, or leave it out for all")
        for name in self.metrics or ():
            get_metric(name)
        tokenize([], self.tokenization)
        if self.accepts is not None:
            import_by_path(self.accepts, "accepts")
        if (
            self.encoder is not None
            and self.encoder.startswith(("/", "./", "../"))
            and not Path(self.encoder).exists()
        ):
            raise UserError(
                f"encoder={self.encoder!r}, which does not exist",
                "a folder with a model, or an id on the Hub",
                "check the path",
            )

    @property
    def text_settings(self) -> TextSettings:
        device = self.resolved_device
        return TextSettings(self.tokenization, self.lowercase, self.encoder, self.accepts, self.seed, device)

    @property
    def resolved_device(self) -> str:
        if self.device is not None:
            return self.device
        return str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"


def run_evaluation(arguments: EvaluationArguments) -> dict:
    """Evaluate, and write `metrics.json`, `report.md` and pictures into `arguments.output`.

    Returns:
        What stands in `metrics.json`: for one set of samples, values by name with intervals, signatures, real text's
        values, flags and notes; for a sweep, a list of these under `points`.

    Raises:
        ValueError: files that are missing, empty or not UTF-8; metrics that are unknown or lack what they need.
    """
    output = Path(arguments.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"output={arguments.output!r}, which cannot be written ({error.strerror})", "a folder", "name another"
        ) from error
    if arguments.samples:
        texts, _ = read_lines(arguments.samples, "samples", blank=True)
        references, train, notes = _read_real(arguments)
        evaluation = evaluate_texts(texts, references, train, arguments.metrics, arguments.text_settings)
        evaluation.notes = notes + evaluation.notes
        return write_report(evaluation, output, f"Evaluation of {arguments.samples}", asdict(arguments))
    points = _evaluate_models(arguments)
    if len(points) == 1:
        title = f"Evaluation of {points[0].model}"
        return write_report(points[0].evaluation, output, title, asdict(arguments))
    write_sweep(points, output)
    content = {
        "points": [{"model": p.model, "temperature": p.temperature} | p.evaluation.to_json() for p in points],
        "settings": asdict(arguments),
    }
    write_json(output / "metrics.json", content)
    for point in points:
        name = f"{point.model}_temperature_{point.temperature:g}".replace("/", "_")
        title = f"Evaluation of {point.model} at temperature {point.temperature:g}"
        write_report(point.evaluation, output / name, title, asdict(arguments))
    return content


def _read_real(arguments: EvaluationArguments) -> tuple[list[str] | None, list[str] | None, list[str]]:
    """References, training texts, and notes on what was left out of them."""
    references = train = None
    notes: list[str] = []
    if arguments.references:
        references, notes = read_lines(arguments.references, "references")
    if arguments.train:
        train, more = read_lines(arguments.train, "train")
        notes = notes + more
    return references, train, notes


def _evaluate_models(arguments: EvaluationArguments) -> list[Point]:
    """All generators at all temperatures; models are loaded one at a time."""
    from .loading import check_generator, load_generator

    names = _distinct_names(arguments.model)
    for path in arguments.model:
        check_generator(path)
    points = []
    for path, name in zip(arguments.model, names, strict=True):
        generator = load_generator(path, arguments.resolved_device)
        generator.name = name
        points += _evaluate_generator(generator, arguments)
    return points


def _distinct_names(paths: Iterable[str]) -> list[str]:
    """The shortest endings of the paths that tell them apart; a run's `generator` folder is named after the run."""
    parts = [[part for part in Path(path).parts if part not in ("/", ".", "..")] for path in paths]
    parts = [p[:-1] if len(p) > 1 and p[-1] == "generator" else p for p in parts]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"the same model twice in {list(paths)}", "different ones", "drop the repeated one")


def _evaluate_generator(generator, arguments: EvaluationArguments) -> list[Point]:
    """One generator at all temperatures."""
    from .likelihood import nll
    from .loading import draw_samples, encode_texts, likelihoods, load_oracle_generator, unknown_notes
    from .text import decode

    references, train, notes = _read_real(arguments)
    vocab_size = generator.model.config.vocab_size
    oracle = load_oracle_generator(arguments.oracle, arguments.resolved_device).model if arguments.oracle else None
    if oracle is None:
        held_out = encode_texts(generator, references)
        notes += unknown_notes(generator, held_out)
    elif oracle.config.vocab_size != vocab_size:
        raise UserError(
            f"an oracle of {oracle.config.vocab_size} tokens for a generator of {vocab_size}",
            "one vocabulary",
            "give the oracle that wrote the generator's training data",
        )
    else:
        held_out = _draw_held_out(oracle, generator, arguments)
        references = decode(generator.tokenizer, held_out)
    count = arguments.num_samples or min(len(references), LARGEST_SAMPLE)
    trained = generator.model.generation_config.max_new_tokens
    length = arguments.max_new_tokens or trained or held_out.ids.shape[1]
    learnt = encode_texts(generator, train) if train else None
    sweeps = len(arguments.temperatures) > 1 or len(arguments.model) > 1
    metrics = arguments.metrics
    if metrics is None and sweeps:
        metrics = [name for name in SWEEP_METRICS if train or "train" not in METRICS[name].inputs]
    settings = arguments.text_settings
    real = [Texts(texts, settings) if texts else None for texts in (references, train)]
    real_rows: dict = {}
    points = []
    for temperature in arguments.temperatures:
        samples, texts = draw_samples(generator, count, length, temperature, arguments.seed)
        values = likelihoods(generator, samples, temperature, held_out, learnt, oracle)
        evaluation = evaluate_measurement(Measurement(Texts(texts, settings), *real, settings), metrics, real_rows)
        tempered = f"|temperature:{temperature:g}|max_new_tokens:{length}"
        for result in evaluation.results.values():
            result.signature += tempered
        drawn = (count, held_out.batch_size, temperature, arguments.seed, vocab_size)
        found = _likelihood_results(values, length, *drawn)
        if oracle is not None:
            _add_real(found["nll_oracle"], nll(oracle, held_out, "oracle"))
        evaluation.results = found | evaluation.results
        evaluation.flags, evaluation.notes = find_flags(evaluation.results), notes + evaluation.notes
        points.append(Point(generator.name, temperature, evaluation))
    return points


def _likelihood_results(values: dict[str, float], length: int, *drawn: float) -> dict[str, Result]:
    """Likelihoods and divergences with their intervals; the longest sample and `drawn` go into their signatures."""
    from .likelihood import signature

    found = {}
    for name in [name for name in values if not name.endswith("_se")]:
        better = LIKELIHOODS[name.removesuffix("_sequence")]
        found[name] = as_result(values, name, better, f"{signature(name, *drawn)}|max_new_tokens:{length}")
    return found


def _draw_held_out(oracle, generator, arguments: EvaluationArguments):
    """Text of the oracle on which nothing was trained: its own seed is far from those of training data."""
    from ..data.oracle import draw

    length = arguments.max_new_tokens or generator.model.generation_config.max_new_tokens
    if length is None:
        raise UserError(
            "an oracle without max_new_tokens",
            "the length of its sequences",
            "set max_new_tokens (20 in the SeqGAN paper)",
        )
    count = arguments.num_samples or LARGEST_SAMPLE
    return draw(oracle, count, length, seed=2**31 + arguments.seed)


def _add_real(result: Result, values: dict[str, float]) -> None:
    """The oracle's NLL of its own text, the least that a faithful generator can have."""
    real = as_result(values, "nll_oracle", result.better, result.signature)
    result.real, result.real_low, result.real_high = real.value, real.low, real.high
