"""Evaluations from start to end: of files by `run_evaluation`, in memory by `evaluate_generator`, as in training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from transformers import PreTrainedModel

from ..data.delimited import SEPARATORS, FileFormat
from ..data.oracle import draw
from ..data.sources import file_kind, find_files
from ..data.text import read_prompts, read_texts
from ..data.tokenization import UNK, decode
from ..errors import UserError
from ..samples import Samples
from . import loading
from .arguments import OWN, EvaluationArguments, SuiteSettings
from .catalog import METRICS, Measurement, Texts
from .flags import find_flags
from .likelihood import LIKELIHOODS, measure_likelihoods, nll_oracle, prompts_setting
from .mixtures import Drawn, measure_mixtures
from .record import Result
from .report import write_json, write_report
from .residual import Residual, draw_residual
from .suite import Evaluation, evaluate_measurement
from .sweep import SWEEP_METRICS, Point, note_envelope, write_sweep
from .text import as_written
from .tokenization import unknown_note, written_setting


LARGEST_SAMPLE = 10_000  # samples drawn by default, unless there are fewer references

Real: TypeAlias = Sequence[str] | Samples  # real texts, or the same as sequences of the generator's tokens


def evaluate_generator(
    generator: loading.LoadedGenerator,
    settings: SuiteSettings,
    references: Real | None = None,
    train: Real | None = None,
    oracle: PreTrainedModel | None = None,
    prompts: Sequence[str] | None = None,
    discriminator: PreTrainedModel | None = None,
) -> list[Point]:
    """One generator at all temperatures: likelihoods and text metrics, with real text beside its samples.

    With a discriminator, at all exponents as well: samples are drawn by resampling or rejection, and likelihoods are
    those of the residual model. Samples and real texts are compared as the generator's tokenizer writes them.

    Args:
        generator: with its tokenizer; in eval mode, on the device where it is to run.
        settings: what to measure, and how samples are drawn.
        references: real texts on which nothing was trained, or the same as sequences of the generator's tokens, which
            are measured as they are; not needed with an oracle, which writes its own.
        train: the training texts, likewise.
        oracle: the model that wrote the data, on the generator's device.
        prompts: what each reference continues; samples continue the same. Sequences bring their own.
        discriminator: a classifier of the generator's sequences, on its device.

    Raises:
        UserError: nothing real to compare with, an oracle with another vocabulary, no prompts for a generator that
            continues some, or a metric that lacks something.
    """
    settings.check_exponents(discriminator is not None)
    settings = settings.for_texts_of(generator.tokenizer)
    held_out, notes = _held_out(generator, settings, references, oracle, prompts)
    learnt = None if train is None or not len(train) else _sequences(generator, train, "training texts", None, notes)
    texts = [None if found is None else decode(found, generator.tokenizer) for found in (held_out, learnt)]
    written = written_setting(generator.tokenizer, held_out.ids[held_out.mask])
    real = Measurement.of([], *texts, settings=settings, written=written)
    if learnt is not None and not isinstance(train, Samples) and loading.continues_prompts(generator.model):
        learnt = None
        notes.append("not measured: nll_gen, which needs the prompts of the training texts")
    subject = _Subject(generator, settings, held_out, learnt, oracle, discriminator, real, notes)
    exponents = [0.0] if discriminator is None else settings.exponents
    points = [subject.point(*each) for each in product(exponents, settings.temperatures)]
    coins = [subject.coins[temperature] for temperature in settings.temperatures] if settings.mixtures else []
    points[0].mixtures = measure_mixtures(coins, generator.model, held_out, oracle, settings.seed)
    return points


@dataclass
class _Subject:
    """A generator, and what is measured beside it at every temperature and exponent."""

    generator: loading.LoadedGenerator
    settings: SuiteSettings
    held_out: Samples
    train: Samples | None
    oracle: PreTrainedModel | None
    discriminator: PreTrainedModel | None
    real: Measurement  # the real texts, without samples
    notes: list[str]
    real_rows: dict = field(default_factory=dict)  # of the report, measured once
    coins: dict[float, Drawn] = field(default_factory=dict)  # by temperature, at the first exponent

    def __post_init__(self) -> None:
        settings, held_out = self.settings, self.held_out
        self.count = settings.num_samples or min(held_out.batch_size, LARGEST_SAMPLE)
        trained = self.generator.model.generation_config.max_new_tokens
        self.length = settings.max_new_tokens or trained or held_out.ids.shape[1]
        self.metrics = settings.metrics
        if self.metrics is None and settings.sweeps:
            known = self.real.train is not None
            self.metrics = [name for name in SWEEP_METRICS if known or "train" not in METRICS[name].inputs]

    def point(self, exponent: float, temperature: float) -> Point:
        """Everything that is measured at one temperature and one exponent; 0 is the generator alone."""
        samples, texts, density = self._draw(exponent, temperature)
        residual = density.setting if isinstance(density, Residual) else ""
        drawn = f"temperature:{temperature:g}{residual}|max_new_tokens:{self.length}{prompts_setting(self.held_out)}"
        found, told = self._likelihoods(density, samples, temperature)
        seen = Texts(texts, self.settings, self.real.samples.written)
        measurement = replace(self.real, samples=seen, drawn=drawn)
        evaluation = evaluate_measurement(measurement, self.metrics, self.real_rows)
        evaluation.results = found | evaluation.results
        evaluation.flags = find_flags(evaluation.results, evaluation.texts, evaluation.real_texts)
        evaluation.notes = self.notes + told + evaluation.notes
        name = f"{self.generator.name} exponent {exponent:g}" if exponent else self.generator.name
        self.coins.setdefault(temperature, Drawn(temperature, density, samples, measurement, evaluation.results))
        return Point(name, temperature, evaluation)

    def _draw(self, exponent: float, temperature: float) -> tuple[Samples, list[str], PreTrainedModel | Residual]:
        """Samples as ids and as texts, and what has their density."""
        drawn = (self.count, self.length, temperature, self.settings.seed)
        if not exponent:
            return *loading.draw_samples(self.generator, self.held_out, *drawn), self.generator.model
        percentile = self.settings.percentile if self.settings.method == "reject" else None
        judging = (exponent, self.settings.proposals, percentile)
        return draw_residual(self.generator, self.discriminator, self.held_out, *drawn, *judging)

    def _likelihoods(
        self, density: PreTrainedModel | Residual, samples: Samples, temperature: float
    ) -> tuple[dict[str, Result], list[str]]:
        """Likelihoods under what drew the samples, and notes."""
        notes, held_out, train = [], self.held_out, self.train
        if isinstance(density, Residual):
            notes.append(density.note)
            if density.prompts > 1:
                if train is not None:
                    notes.append("not measured: nll_gen, which needs log Z of the training prompts")
                if density.prompts < held_out.batch_size:
                    first = f"nll_test is that of the first {density.prompts} references"
                    notes.append(f"{first}, whose prompts have a log Z")
                train, held_out = None, held_out.select(slice(density.prompts))
        given: dict[str, Any] = {"held_out": held_out, "train": train, "oracle": self.oracle}
        given |= {"samples": samples, "generator": density}
        signed = (self.settings.seed, temperature, self.length, self.generator.tokenizer)
        with loading.tempered(self.generator.model, temperature):
            found = measure_likelihoods(LIKELIHOODS, *signed, **given)
        if isinstance(density, Residual):
            found |= density.results(held_out, found["nll_test_sequence"].signature)
        if self.oracle is not None:  # its NLL of its own text: the least that a faithful generator can have
            own = nll_oracle(self.oracle, self.held_out)["nll_oracle"]
            found["nll_oracle"] = replace(found["nll_oracle"], real=own)
        return found, notes


def _held_out(
    generator: loading.LoadedGenerator,
    settings: SuiteSettings,
    references: Real | None,
    oracle: PreTrainedModel | None,
    prompts: Sequence[str] | None,
) -> tuple[Samples, list[str]]:
    """Sequences on which nothing was trained, on the generator's device, and notes on them."""
    model = generator.model
    if oracle is not None and oracle.config.vocab_size != model.config.vocab_size:
        problem = f"the oracle has {oracle.config.vocab_size} tokens, the generator {model.config.vocab_size}"
        raise UserError(problem, "one vocabulary", "give the oracle that wrote the generator's training data")
    if oracle is None or isinstance(references, Samples):
        if references is None or not len(references):
            raise UserError("nothing real to compare with", "references or an oracle", "give one of them")
        notes: list[str] = []
        held_out = _sequences(generator, references, "references", prompts, notes)
        loading.check_prompts(generator, prompts is not None or isinstance(references, Samples))
        return held_out, notes + loading.unknown_notes(generator, held_out)
    length = settings.max_new_tokens or model.generation_config.max_new_tokens
    if length is None:
        fix = "set max_new_tokens (20 in the SeqGAN paper)"
        raise UserError("an oracle without max_new_tokens", "the length of its sequences", fix)
    # a seed far from those of training data
    return draw(oracle, settings.num_samples or LARGEST_SAMPLE, length, seed=2**31 + settings.seed), []


def _sequences(
    generator: loading.LoadedGenerator, texts: Real, what: str, prompts: Sequence[str] | None, notes: list[str]
) -> Samples:
    """Real texts as training reads them: in the generator's tokens, cut to the length of what it writes."""
    if isinstance(texts, Samples):
        return texts.to(generator.model.device)
    sequences = loading.encode_texts(generator, texts, prompts)
    longest = generator.model.generation_config.max_new_tokens
    if longest is not None and (longer := int((sequences.lengths > longest).sum())):
        notes.append(f"{longer} of {len(texts)} {what} have more than {longest} tokens and are cut there")
    return sequences._replace(ids=sequences.ids[:, :longest], mask=sequences.mask[:, :longest])


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
    note_envelope(points)
    write_sweep(points, output)
    found = [{"model": p.model, "temperature": p.temperature} | p.evaluation.to_dict() for p in points]
    content = {"points": found, "settings": dict(settings)}
    write_json(output / "metrics.json", content)
    for point in points:
        name = f"{point.model}_temperature_{point.temperature:g}".replace("/", "_").replace(" ", "_")
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
    references, prompts = read_references(arguments, notes)
    train = read_lines(arguments.train, "train", notes, arguments) if arguments.train else None
    if arguments.samples:
        evaluation = _evaluate_file(arguments, references, train, notes)
        evaluation.notes[:0] = notes
        settings = asdict(evaluation.texts.settings)
        return write_report(evaluation, output, f"Evaluation of {arguments.samples}", settings)
    names = _distinct_names(arguments.model)
    for path in arguments.model:
        loading.check_generator(path)
    oracle = loading.load_oracle_generator(arguments.oracle, arguments.device).model if arguments.oracle else None
    points: list[Point] = []
    for path, name in zip(arguments.model, names, strict=True):  # one in memory at a time
        generator = replace(loading.load_generator(path, arguments.device), name=name)
        arguments = arguments.for_texts_of(generator.tokenizer)  # of the first: all are compared in one picture
        arguments = replace(arguments, mixtures=arguments.mixtures and not points)  # those of the first, likewise
        judge = load_judge(arguments, path, generator)
        points += evaluate_generator(generator, arguments, references, train, oracle, prompts, judge)
    for point in points:
        point.evaluation.notes[:0] = notes
    return write_evaluation(points, output, asdict(arguments))


def load_judge(arguments: EvaluationArguments, run: str, generator: loading.LoadedGenerator) -> PreTrainedModel | None:
    """The discriminator that the arguments name, `own` being that of a run; `None` if they name none."""
    if arguments.discriminator is None:
        return None
    return loading.load_discriminator(run if arguments.discriminator == OWN else arguments.discriminator, generator)


def _evaluate_file(
    arguments: EvaluationArguments, references: list[str], train: list[str] | None, notes: list[str]
) -> Evaluation:
    """Samples of a file, beside real texts as they are in theirs or as the tokenizer of the samples writes them."""
    texts, written = read_lines(arguments.samples, "samples", notes, arguments, blank=True), ""
    if arguments.tokenizer:
        tokenizer, longest = loading.load_writer(arguments.tokenizer)
        real = as_written(tokenizer, references, train, arguments, longest)
        written = real.samples.written
        if unknown := written.partition("unknown:")[2]:
            notes.append(unknown_note(unknown, "references", arguments.tokenizer))
    else:
        real = Measurement.of([], references, train, settings=arguments)
    if not written and any(UNK in text for text in texts) and not any(UNK in text for text in references):
        told = f"{sum(UNK in text for text in texts)} samples hold {UNK}, and no reference does"
        notes.append(f"{told}: give `tokenizer`, the run that wrote them, to have real texts written alike")
    return evaluate_measurement(replace(real, samples=Texts(texts, real.settings, written)), arguments.metrics, {})


def read_references(arguments: EvaluationArguments, notes: list[str]) -> tuple[list[str] | None, list[str] | None]:
    """References and what they continue, if files of these are named; pairs without a reference are left out.

    Raises:
        UserError: as `read_lines`, or if there are not as many prompts as references.
    """
    continued = arguments.prompts or (arguments.prompt_column and arguments.references)
    if not arguments.references:
        return None, None
    references = read_lines(arguments.references, "references", notes, arguments, blank=bool(continued))
    if not continued:
        return references, None
    prompts = _read(read_prompts, continued, arguments.prompt_column, arguments)
    if len(prompts) != len(references):
        problem = f"{len(prompts)} lines of prompts for {len(references)} of references"
        raise UserError(problem, "one prompt for each reference, in the same line", "check both files")
    kept = [(text, prompt) for text, prompt in zip(references, prompts, strict=True) if text.strip()]
    if not kept:
        problem = f"references={arguments.references!r} has no text in it"
        raise UserError(problem, "one text per line", "check the file")
    if dropped := len(references) - len(kept):
        notes.append(f"{dropped} empty lines of references were left out, with their prompts")
    return [text for text, _ in kept], [prompt for _, prompt in kept]


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
    lines = _read(read_texts, path, settings.text_column, settings)
    kept = lines if blank else [line for line in lines if line.strip()]
    if not kept:
        raise UserError(f"{what}={path!r} has no text in it", "at least one text", "check the file")
    if dropped := len(lines) - len(kept):
        notes.append(f"{dropped} empty lines of {what} were left out")
    return kept


def _read(reader: Callable[..., list[str]], path: str, column: str | None, settings: EvaluationArguments) -> list[str]:
    """What a file holds; settings of tables are for those of an evaluation's files that are tables."""
    kind = file_kind(find_files(path)[0])
    form = settings if kind in SEPARATORS else FileFormat(encoding=settings.encoding)
    return reader(path, None if kind == "text" else column, form)
