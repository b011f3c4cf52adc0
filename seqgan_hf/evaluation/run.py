"""Evaluations from start to end: of files by `run_evaluation`, in memory by `evaluate_generator`, as in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ..data.oracle import draw
from ..data.text import read_texts
from ..data.tokenization import decode
from ..errors import UserError
from ..samples import Samples
from . import loading
from .arguments import EvaluationArguments, SuiteSettings
from .catalog import METRICS, Measurement, Texts
from .flags import find_flags
from .likelihood import LIKELIHOODS, measure_likelihoods, nll_oracle
from .report import write_json, write_report
from .suite import evaluate_measurement, evaluate_texts
from .sweep import SWEEP_METRICS, Point, write_sweep


LARGEST_SAMPLE = 10_000  # samples drawn by default, unless there are fewer references


def evaluate_generator(
    generator: loading.LoadedGenerator,
    settings: SuiteSettings,
    references: Sequence[str] | None = None,
    train: Sequence[str] | None = None,
    oracle: PreTrainedModel | None = None,
    held_out: Samples | None = None,
) -> list[Point]:
    """One generator at all temperatures: likelihoods and text metrics, with real text beside its samples.

    Args:
        generator: with its tokenizer; in eval mode, on the device where it is to run.
        settings: what to measure, and how samples are drawn.
        references: real texts on which nothing was trained; not needed with an oracle, which writes its own.
        train: the training texts.
        oracle: the model that wrote the data, on the generator's device.
        held_out: sequences on which nothing was trained; by default the references in the generator's tokens, or drawn
            from the oracle.

    Raises:
        UserError: nothing real to compare with, an oracle with another vocabulary, or a metric that lacks something.
    """
    settings = settings.for_texts_of(generator.tokenizer)
    held_out, notes = _held_out(generator, settings, references, oracle, held_out)
    if oracle is not None or references is None:
        references = decode(held_out, generator.tokenizer)
    count = settings.num_samples or min(len(references), LARGEST_SAMPLE)
    length = settings.max_new_tokens or generator.model.generation_config.max_new_tokens or held_out.ids.shape[1]
    learnt = loading.encode_texts(generator, train) if train else None
    metrics = settings.metrics
    if metrics is None and settings.sweeps:
        metrics = [name for name in SWEEP_METRICS if train or "train" not in METRICS[name].inputs]
    given: dict[str, Any] = {"generator": generator.model, "held_out": held_out, "train": learnt, "oracle": oracle}
    real = Measurement.of([], references, train, settings=settings)
    real_rows: dict = {}
    points = []
    for temperature in settings.temperatures:
        samples, texts = loading.draw_samples(generator, count, length, temperature, settings.seed)
        drawn = f"temperature:{temperature:g}|max_new_tokens:{length}"
        with loading.tempered(generator.model, temperature):
            found = measure_likelihoods(LIKELIHOODS, settings.seed, temperature, length, samples=samples, **given)
        if oracle is not None:  # its NLL of its own text: the least that a faithful generator can have
            own = nll_oracle(oracle, held_out)["nll_oracle"]
            found["nll_oracle"] = replace(found["nll_oracle"], real=own)
        measurement = replace(real, samples=Texts(texts, settings), drawn=drawn)
        evaluation = evaluate_measurement(measurement, metrics, real_rows)
        evaluation.results = found | evaluation.results
        evaluation.flags = find_flags(evaluation.results, evaluation.texts, evaluation.real_texts)
        evaluation.notes = notes + evaluation.notes
        points.append(Point(generator.name, temperature, evaluation))
    return points


def _held_out(
    generator: loading.LoadedGenerator,
    settings: SuiteSettings,
    references: Sequence[str] | None,
    oracle: PreTrainedModel | None,
    held_out: Samples | None,
) -> tuple[Samples, list[str]]:
    """Sequences on which nothing was trained, on the generator's device, and notes on them."""
    model = generator.model
    if oracle is not None and oracle.config.vocab_size != model.config.vocab_size:
        problem = f"the oracle has {oracle.config.vocab_size} tokens, the generator {model.config.vocab_size}"
        raise UserError(problem, "one vocabulary", "give the oracle that wrote the generator's training data")
    if held_out is not None:
        return held_out.to(model.device), []
    if oracle is None:
        if not references:
            raise UserError("nothing real to compare with", "references or an oracle", "give one of them")
        held_out = loading.encode_texts(generator, references)
        return held_out, loading.unknown_notes(generator, held_out)
    length = settings.max_new_tokens or model.generation_config.max_new_tokens
    if length is None:
        fix = "set max_new_tokens (20 in the SeqGAN paper)"
        raise UserError("an oracle without max_new_tokens", "the length of its sequences", fix)
    # a seed far from those of training data
    return draw(oracle, settings.num_samples or LARGEST_SAMPLE, length, seed=2**31 + settings.seed), []


def write_evaluation(points: Sequence[Point], output: Path, settings: Mapping[str, object]) -> dict:
    """Write `metrics.json`, `report.md` and pictures of one point; of several a sweep with a report for each.

    Args:
        points: what `evaluate_generator` returned.
        output: the folder; made if it does not exist.
        settings: of the evaluation, kept in the record.

    Returns:
        What is in `metrics.json`: `results` by name (see `Result`), `flags`, `notes` and `settings`; for a sweep, a
        list of these under `points`.
    """
    if len(points) == 1:
        return write_report(points[0].evaluation, output, f"Evaluation of {points[0].model}", settings)
    write_sweep(points, output)
    found = [{"model": p.model, "temperature": p.temperature} | p.evaluation.to_dict() for p in points]
    content = {"points": found, "settings": dict(settings)}
    write_json(output / "metrics.json", content)
    for point in points:
        name = f"{point.model}_temperature_{point.temperature:g}".replace("/", "_")
        title = f"Evaluation of {point.model} at temperature {point.temperature:g}"
        write_report(point.evaluation, output / name, title, settings)
    return content


def run_evaluation(arguments: EvaluationArguments) -> dict:
    """Evaluate, and write the report into `arguments.output`; returns what `write_evaluation` does.

    Raises:
        UserError: files that are missing, empty or not read for certain; metrics that are unknown or lack something.
    """
    output = Path(arguments.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"output={arguments.output!r} cannot be written ({error.strerror})"
        raise UserError(problem, "a folder", "choose another") from error
    notes: list[str] = []
    references = read_lines(arguments.references, "references", notes, arguments) if arguments.references else None
    train = read_lines(arguments.train, "train", notes, arguments) if arguments.train else None
    if arguments.samples:
        arguments = arguments.for_texts_of(None)
        texts = read_lines(arguments.samples, "samples", notes, arguments, blank=True)
        evaluation = evaluate_texts(texts, references, train, arguments.metrics, arguments)
        evaluation.notes[:0] = notes
        return write_report(evaluation, output, f"Evaluation of {arguments.samples}", asdict(arguments))
    names = _distinct_names(arguments.model)
    for path in arguments.model:
        loading.check_generator(path)
    oracle = loading.load_oracle_generator(arguments.oracle, arguments.device).model if arguments.oracle else None
    points = []
    for path, name in zip(arguments.model, names, strict=True):  # one in memory at a time
        generator = replace(loading.load_generator(path, arguments.device), name=name)
        arguments = arguments.for_texts_of(generator.tokenizer)  # of the first: all are compared in one picture
        points += evaluate_generator(generator, arguments, references, train, oracle)
    for point in points:
        point.evaluation.notes[:0] = notes
    return write_evaluation(points, output, asdict(arguments))


def _distinct_names(paths: Iterable[str]) -> list[str]:
    """The shortest endings of the paths that tell them apart; a run's `generator` folder is named after the run."""
    parts = [[part for part in Path(path).parts if part not in ("/", ".", "..")] for path in paths]
    parts = [p[:-1] if len(p) > 1 and p[-1] == "generator" else p for p in parts]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"the same model twice in {list(paths)}", "different ones", "drop the repeated one")


def read_lines(
    path: str, what: str, notes: list[str], settings: EvaluationArguments, blank: bool = False
) -> list[str]:
    """The texts of a file of any kind that training reads.

    Args:
        path: the file.
        what: what the texts are, for messages.
        notes: what is left out is added to these.
        settings: how the file is written, and the column with the text.
        blank: keep empty texts (an empty sample is a sample; an empty reference is a mistake in a file).

    Raises:
        UserError: no such file, one that cannot be read for certain, or no text in it.
    """
    lines = read_texts(path, settings.text_column, settings)
    kept = lines if blank else [line for line in lines if line.strip()]
    if not kept:
        raise UserError(f"{what}={path!r} has no text in it", "at least one text", "check the file")
    if dropped := len(lines) - len(kept):
        notes.append(f"{dropped} empty lines of {what} were left out")
    return kept
