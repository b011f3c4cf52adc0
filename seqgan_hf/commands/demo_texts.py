"""The texts of the demo: what a generator writes, and a colour for what its discriminator makes of each token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import Literal, NamedTuple

import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import UserError
from ..evaluation.loading import LoadedGenerator, check_prompts, encode_prompts, load_discriminator, load_generator
from ..evaluation.token_values import action_values, prefix_verdicts, token_texts
from ..generation.vocabulary import special_tokens
from ..samples import Samples
from .generate import Drawing, unknown_words


Colours = Literal["action values", "verdicts on prefixes", "none"]

MEANING = {
    "action values": "Mean D over {rollouts} completions of the text up to the token",
    "verdicts on prefixes": "D of the text up to the token, as if it ended there",
}
END = "∎"  # where a sample ended by itself
SCALE = colormaps["RdYlBu"]  # from what looks generated to what looks real
ENDS = 0.18, 0.78  # of it: on what lies outside, black text cannot be read


class Players(NamedTuple):
    """What a run trained; `absent` says why there is no discriminator where there is none."""

    generator: LoadedGenerator
    discriminator: PreTrainedModel | None
    absent: str = ""


class Written(NamedTuple):
    """Samples of one generator.

    Attributes:
        prompt: which all of them continue.
        pieces: the text of every token of every sample, `END` of the end token.
        values: D for every token, probabilities, shape (B, T); `None` without colours.
        notes: what a reader should know of them.
    """

    prompt: str
    pieces: list[list[str]]
    values: Tensor | None
    notes: list[str]


@lru_cache(maxsize=4)
def load_players(run: str) -> Players:
    """The models of a run's folder, of a saved generator, or of a repository on the Hub.

    Raises:
        UserError: there is no generator.
    """
    device = str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"
    generator = load_generator(run, device)
    try:
        return Players(generator, load_discriminator(run, generator))
    except UserError as error:
        return Players(generator, None, error.problem)


def write(run: str, prompt: str, number: int, drawing: Drawing, colours: Colours, rollouts: int) -> Written:
    """Continue a prompt, and judge every token of what was written.

    Args:
        run: whose generator writes, and whose discriminator judges.
        prompt: may be empty.
        rollouts: completions of every prefix, for action values.

    Raises:
        UserError: as `load_players` and `generate.generate_texts`.
    """
    generator, discriminator, absent = load_players(run)
    check_prompts(generator, bool(prompt))
    prompts = [prompt] * number
    notes = [note for note in [unknown_words(generator.tokenizer, [prompt])] if note]
    samples = Samples.concatenate(list(drawing.draw(generator.model, encode_prompts(generator, prompts), None)))
    values = None
    if colours != "none" and discriminator is None:
        notes.append(f"No colours: {absent}")
    elif colours == "action values":
        values = action_values(generator.model, discriminator, samples, rollouts, drawing.seed or 0).cpu()
    elif colours == "verdicts on prefixes":
        values = prefix_verdicts(discriminator, samples).cpu()
    pieces, (ends, _) = token_texts(generator.tokenizer, prompts, samples), special_tokens(generator.model)
    last = samples.ids.gather(1, samples.lengths[:, None] - 1).squeeze(1).tolist()
    pieces = [[*row[:-1], END] if token in ends else row for row, token in zip(pieces, last, strict=True)]
    return Written(prompt, pieces, values, notes)


def show(names: Sequence[str], results: Sequence[Written | UserError], colours: Colours, rollouts: int) -> str:
    """A column of HTML for each run, and what the colours mean."""
    columns = [
        f"<section><h3>{escape(name)}</h3>{_column(each)}</section>" for name, each in zip(names, results, strict=True)
    ]
    coloured = any(isinstance(each, Written) and each.values is not None for each in results)
    legend = _legend(MEANING[colours].format(rollouts=rollouts)) if coloured else ""
    return f'{legend}<div class="runs">{"".join(columns)}</div>'


def _column(result: Written | UserError) -> str:
    if isinstance(result, UserError):
        return f'<p class="problem" role="alert">{escape(str(result))}</p>'
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in result.notes)
    rows = (_sample(result, number) for number in range(len(result.pieces)))
    return f"{notes}<ol>{''.join(rows)}</ol>"


def _sample(written: Written, number: int) -> str:
    """One text: its prompt, its tokens on their colours, and D of the whole of it."""
    given = f'<span class="prompt">{escape(written.prompt)}</span>'
    texts = list(written.pieces[number])
    if not written.prompt:
        first = next((place for place, text in enumerate(texts) if text), 0)
        texts[first] = texts[first].removeprefix(" ")
    if written.values is None:
        return f'<li><span class="text">{given}{escape("".join(texts))}</span></li>'
    values = written.values[number, : len(texts)].tolist()
    tokens = "".join(
        f'<mark style="background:{colour(value)}" title="{value:.3f}">{escape(text)}</mark>'
        for text, value in zip(texts, values, strict=True)
    )
    return f'<li><span class="verdict">{values[-1]:.2f}</span><span class="text">{given}{tokens}</span></li>'


def colour(value: float) -> str:
    """Of a probability of being real, as CSS writes it."""
    low, high = ENDS
    return to_hex(SCALE(low + (high - low) * value))


def _legend(meaning: str) -> str:
    steps = ", ".join(colour(step / 10) for step in range(11))
    bar = f'<span class="bar" style="background:linear-gradient(to right, {steps})"></span>'
    what = (
        f"{meaning}, with D the probability of being real; in front, D of the whole text. {END}: it ended by itself."
    )
    return f'<p class="legend">0 (generated) {bar} 1 (real)</p><p class="legend">{what}</p>'
