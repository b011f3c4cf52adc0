"""`seqgan-hf generate`: write text with a trained generator."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal, TextIO

import torch
from jsonargparse import ArgumentParser
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.delimited import FileFormat
from ..data.infilling import fill_in
from ..data.lines import one_line
from ..data.text import read_prompts
from ..data.tokenization import blank_token_ids, decode, decode_continuations, unknown_parts, unknown_token_id
from ..errors import UserError
from ..evaluation.arguments import OWN
from ..evaluation.loading import LoadedGenerator, check_prompts, encode_prompts, load_discriminator, load_generator
from ..generation.resampling import effective_sample_size, reject, resample
from ..generation.sampling import sample, sample_mixture
from ..generation.vocabulary import suppressing
from ..samples import Samples
from .mistakes import parse


logger = logging.getLogger(__name__)

MOST_NAMED = 20  # words of prompts that the generator does not know


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How texts are drawn from a generator, and from a discriminator where one is given.

    Args:
        max_new_tokens: longest sample, in tokens; by default as in training.
        temperature: below 1 sharper, above 1 flatter; 0 takes the most probable token, so that all samples are equal.
        other_temperature: flip a coin for each sample, and draw it at this temperature or at `temperature`.
        other_share: the probability of that other temperature.
        top_k: draw from the k most probable tokens; 0 from all.
        top_p: draw from the most probable tokens that have this probability together.
        seed: the same seed writes the same samples, with the same `batch_size`.
        batch_size: how many are drawn at once; fewer take less memory.
        method: with a discriminator: keep one of some proposals (`resample`), or draw until one passes (`reject`).
        proposals: of `resample`, for each sample; 16 by default.
        exponent: how much the discriminator is believed; 1 by default, and 0 not at all.
        percentile: of `reject`: of the log-odds, taken for the largest; 100 by default, and less rejects less.

    Raises:
        UserError: a seed or a batch size that is out of range.
    """

    max_new_tokens: int | None = None
    temperature: float = 1.0
    other_temperature: float | None = None
    other_share: float = 0.5
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    batch_size: int = 1000
    method: Literal["resample", "reject"] = "resample"
    proposals: int | None = None
    exponent: float | None = None
    percentile: float | None = None

    def __post_init__(self) -> None:
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise UserError(f"seed={self.seed}", "a number from 0 to 2**63 - 1", "choose another seed")
        if self.batch_size < 1:
            raise UserError(f"batch_size={self.batch_size}", "at least 1", "set --batch_size")

    def check(self, discriminator: PreTrainedModel | None) -> None:
        """Raise a UserError for settings that would do nothing."""
        if discriminator is None and (self._judging or self.method != "resample"):
            problem = f"{', '.join(self._judging) or f'method={self.method}'} without a discriminator"
            raise UserError(problem, "it with one only", "set --discriminator")
        foreign = "proposals" if self.method == "reject" else "percentile"
        if foreign in self._judging:
            problem = f"{foreign} with method={self.method}"
            raise UserError(problem, "it with the other method only", f"drop --{foreign}")
        other = self.other_temperature
        if other is not None and (discriminator is not None or 0 in (self.temperature, other)):
            problem = "other_temperature with a discriminator or a temperature of 0"
            expected = "it with the generator alone and temperatures above 0"
            raise UserError(problem, expected, "drop --other_temperature")
        if discriminator is not None and self.temperature == 0:
            problem = "temperature=0 with a discriminator, which would choose among equal texts"
            raise UserError(problem, "a number above 0", "set --temperature")

    def draw(self, model: PreTrainedModel, start: Samples, discriminator: PreTrainedModel | None) -> Iterator[Samples]:
        """Continuations of prompts, batch by batch, with a line in the log on what a discriminator cost.

        Raises:
            UserError: a value is out of range, or nothing says how long a sample is.
        """
        length = model.generation_config.max_new_tokens if self.max_new_tokens is None else self.max_new_tokens
        if length is None:
            raise UserError("a generator saved without the length of its texts", "a length", "set --max_new_tokens")
        rng = None if self.seed is None else torch.Generator(device=model.device).manual_seed(self.seed)
        temperature, top_k = (1.0, 1) if self.temperature == 0 else (self.temperature, self.top_k)
        options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": self.top_p, "rng": rng}
        for rows in start.split(self.batch_size):
            yield self._continue(model, rows, length, discriminator, options | {"prompt_mask": rows.prompt_mask})

    def _continue(
        self,
        model: PreTrainedModel,
        start: Samples,
        length: int,
        discriminator: PreTrainedModel | None,
        options: dict[str, Any],
    ) -> Samples:
        options = options | self._judging
        if self.other_temperature is not None:
            options |= {
                "temperatures": (options.pop("temperature"), self.other_temperature),
                "share": self.other_share,
            }
            return sample_mixture(model, start.prompt, length, **options)
        if discriminator is None:
            return sample(model, start.prompt, length, **options)
        if self.method == "reject":
            accepted = reject(model, discriminator, start.prompt, length, **options)
            line = "Accepted %.3g%% of the proposals (log-odds up to %.2f; %.3g%% of the proposals are above that)"
            logger.info(line, 100 * accepted.rate, accepted.bound, 100 * accepted.above)
            return accepted.samples
        drawn = resample(model, discriminator, start.prompt, length, **options)
        proposals, size = drawn.log_weights.shape[1], float(effective_sample_size(drawn.log_weights).mean())
        logger.info("Kept 1 of %d proposals for each sample; effective sample size %.1f", proposals, size)
        return drawn.samples

    @property
    def _judging(self) -> dict[str, float]:
        """What is set for a discriminator."""
        given = {"proposals": self.proposals, "exponent": self.exponent, "percentile": self.percentile}
        return {name: value for name, value in given.items() if value is not None}


def run(arguments: list[str]) -> None:
    """`MODEL [--output FILE]`, and the arguments of `generate_texts` and `Drawing`."""
    parser = ArgumentParser(
        prog="seqgan-hf generate",
        exit_on_error=False,
        allow_abbrev=False,
        description="Write samples of a trained generator.",
    )
    parser.add_argument("model", help="a run's folder, its `generator` folder, or an id on the Hub")
    skipped = {"generator", "discriminator", "prompts", "no_unknown", "drawing"}
    parser.add_function_arguments(generate_texts, skip=skipped)  # type: ignore[arg-type]
    parser.add_class_arguments(Drawing)
    judge = f"draw with it: a run's folder, a saved one or an id on the Hub; alone, or {OWN}: that of MODEL's run"
    parser.add_argument("--discriminator", nargs="?", const=OWN, help=judge)
    parser.add_argument(
        "--prompts", help="file of prompts, one a line (a blank one is none), or a table; each is continued once"
    )
    parser.add_argument("--prompt_column", help="column of the prompts; by default `prompt`, or the only one of text")
    parser.add_class_arguments(FileFormat)
    parser.add_argument("--no_unknown", action="store_true", help="never write the token of unknown words")
    parser.add_argument("--json", action="store_true", help="write a JSON list of objects with `text` and `prompt`")
    parser.add_argument("--jsonl", action="store_true", help="write such an object a line")
    parser.add_argument("--output", help="write to this file instead of the terminal")
    options = vars(parse(parser, arguments))
    output, model, as_list, as_lines = (options.pop(name) for name in ("output", "model", "json", "jsonl"))
    if as_list and as_lines:
        raise UserError("both --json and --jsonl", "one of them", "drop one")
    device = str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"
    form, options["drawing"] = _taken(FileFormat, options), _taken(Drawing, options)
    column = options.pop("prompt_column")
    if options["prompts"] is not None:
        given = read_prompts(options["prompts"], column, form)
        options["prompts"] = [prompt if prompt.strip() else "" for prompt in given]
    elif column is not None or form != FileFormat():
        raise UserError("a prompt column or a way of reading files without --prompts", "a file to read", "name one")
    with _opened(output) as file:
        generator = load_generator(model, device)
        if (judge := options["discriminator"]) is not None:
            options["discriminator"] = load_discriminator(model if judge == OWN else judge, generator)
        texts = generate_texts(generator, **options)
        given = [options["prompt"]] if options["prompts"] is None else options["prompts"]
        rows = [{"prompt": prompt or None, "text": text} for prompt, text in zip(cycle(given), texts, strict=False)]
        if as_list:
            lines = [json.dumps(rows, ensure_ascii=False, indent=1)]
        elif as_lines:
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        else:
            lines = [one_line(text) for text in texts]
        print("\n".join(lines), file=file)


def _taken(kind: Any, options: dict[str, Any]) -> Any:
    """A dataclass made of the options that are its fields, which are taken out."""
    return kind(**{each.name: options.pop(each.name) for each in dataclasses.fields(kind)})


@contextmanager
def _opened(output: str | None) -> Iterator[TextIO]:
    """The terminal, or a file, which is replaced when all is written; a failure leaves it as it was.

    Raises:
        UserError: it cannot be written, which is known before any work is done.
    """
    if output is None:
        yield sys.stdout
        return
    path = Path(output).resolve()
    replaced = path.is_file() or not path.exists()  # not a folder, a pipe or a terminal
    written = path.with_name(f"{path.name}.partial") if replaced else path
    try:
        if path.is_file() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        file = open(written, "w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {output!r} ({error.strerror})", "a file to write", "change it") from error
    try:
        with file:
            yield file
        if replaced:
            written.replace(path)
    except BaseException:
        if replaced:
            written.unlink(missing_ok=True)
        raise


def unknown_words(tokenizer: PreTrainedTokenizerBase, prompts: Iterable[str]) -> str | None:
    """A sentence on what the generator does not know of prompts; `None` if it knows all."""
    words = sorted({part for text in prompts for part in unknown_parts(tokenizer, text)})
    if not words:
        return None
    more = f" and {len(words) - MOST_NAMED:,} more" if len(words) > MOST_NAMED else ""
    listed = ", ".join(map(repr, words[:MOST_NAMED]))
    return f"Not known to the generator, which reads each as unknown: {listed}{more}"


def _decoded(tokenizer: PreTrainedTokenizerBase, prompts: list[str], samples: Samples) -> list[str]:
    """Each prompt with its continuation behind it; of an empty one, the continuation as if there were none."""
    alone = decode(samples, tokenizer)
    together = decode_continuations(tokenizer, prompts, samples) if any(prompts) else alone
    return [both if prompt else text for prompt, both, text in zip(prompts, together, alone, strict=True)]


def generate_texts(
    generator: LoadedGenerator,
    num_samples: int | None = None,
    prompt: str | None = None,
    prompts: Sequence[str] | None = None,
    drawing: Drawing | None = None,
    no_unknown: bool = False,
    discriminator: PreTrainedModel | None = None,
) -> list[str]:
    """Sample texts.

    Args:
        generator: what `load_generator` gave.
        num_samples: how many; by default 10, or one for each of `prompts`.
        prompt: text that every sample continues; it stands before each, as it was given. The blanks (`<blank>`) of
            one that was trained to fill them are filled.
        prompts: likewise, one text for each sample in turn, and from the first again once all are used up.
        drawing: how they are drawn; as the generator is by default.
        no_unknown: never write the token of unknown words.
        discriminator: draw from the generator's distribution times exp(exponent x its log-odds).

    Raises:
        UserError: a value is out of range, a prompt holds an id outside the vocabulary, or there is no prompt for a
            generator that was trained to continue some.
    """
    model, tokenizer, drawing = generator.model, generator.tokenizer, drawing or Drawing()
    if prompt is not None and prompts is not None:
        raise UserError("both a prompt and prompts", "one of them", "drop --prompt or --prompts")
    prompted = prompt is not None or prompts is not None
    check_prompts(generator, prompted)
    if num_samples is None:
        num_samples = 10 if prompts is None else len(prompts)
    if num_samples < 1:
        raise UserError(f"num_samples={num_samples}", "at least 1", "set --num_samples")
    drawing.check(discriminator)
    given = [prompt or ""] if prompts is None else prompts
    if note := unknown_words(tokenizer, given):
        logger.warning("%s", note)
    texts = list(islice(cycle(given), num_samples))
    start = encode_prompts(generator, texts)
    never = {unknown_token_id(tokenizer)} - {None} if no_unknown else set()
    written: list[str] = []
    with suppressing(model, never):
        for samples in drawing.draw(model, start, discriminator):
            part = texts[len(written) : len(written) + samples.batch_size]
            if blank_token_ids(tokenizer):
                written += fill_in(tokenizer, part, samples)
            else:
                written += _decoded(tokenizer, part, samples)
    return written
