"""Tunes as lines of text: what one is, and rewards and metrics of them.

A line is one part of a tune (a strain, mostly of 8 bars) in words of ABC notation, its unit an eighth:

    M:6/8 K:D A | d2 d f e d | B d B A F D | (3 D F A B2 A c | d3 d2

A reward takes a list of lines and gives a number for each, in [0, 1]; a metric takes lists by the names of
docs/how-to/evaluation.md and gives estimates by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.record import Estimate


FEWEST_BARS = 4  # of a line
WHOLE = 8  # bars of a part that is complete: without it, rewards are earned by ending early
METRE = re.compile(r"M:([1-9]\d?)/(2|4|8|16)")
KEY = re.compile(r"K:[A-G][#b]?(m|dor|phr|lyd|mix|loc)?")
NOTE = re.compile(
    r"(?P<accidental>\^\^?|__?|=)?(?P<pitch>[A-Ga-g](,+|'+)?|z)(?P<times>[1-9]\d*)?(/(?P<parts>[1-9]\d*))?(?P<tie>-?)"
)
TRIPLET = "(3"


class Tune(NamedTuple):
    """A line as it was read; lengths are in eighths.

    Attributes:
        header: metre and key, as they stand in the line.
        metre: length of a bar.
        bars: the words of each bar.
        lengths: of each bar.
    """

    header: list[str]
    metre: Fraction
    bars: list[list[str]]
    lengths: list[Fraction]

    def filled(self) -> list[bool]:
        """Whether each bar fills the metre. The first may be an upbeat, which the last one may leave out."""
        first, last = self.lengths[0], self.lengths[-1]
        inner = [length == self.metre for length in self.lengths[1:-1]]
        return [first <= self.metre, *inner, last in (self.metre, self.metre - first)]


def read_tune(line: str) -> Tune:
    """Read a line, whose bars may have any length.

    Raises:
        ValueError: why it is no line of a tune.
    """
    words = line.split()
    metre = METRE.fullmatch(words[0]) if words else None
    if not metre or not KEY.fullmatch(" ".join(words[1:2])):
        raise ValueError("no metre and key in front")
    bars = [bar.split() for bar in " ".join(words[2:]).split("|")]
    if len(bars) < FEWEST_BARS:
        raise ValueError(f"fewer than {FEWEST_BARS} bars")
    _check_ties(NOTE.fullmatch(word) for bar in bars for word in bar if word != TRIPLET)
    return Tune(words[:2], Fraction(8 * int(metre[1]), int(metre[2])), bars, [_length(bar) for bar in bars])


def _length(bar: list[str]) -> Fraction:
    """The length of a bar, in eighths; the three notes of a triplet last as long as two."""
    total, left = Fraction(0), 0  # notes of the triplet that are still to come
    for word in bar:
        note = NOTE.fullmatch(word)
        if word == TRIPLET and not left:
            left = 3
        elif note:
            total += Fraction(int(note["times"] or 1), int(note["parts"] or 1)) * (Fraction(2, 3) if left else 1)
            left = max(0, left - 1)
        else:
            raise ValueError("a word that is no note")
    if left or not bar:
        raise ValueError("an empty bar or an unfinished triplet")
    return total


def _check_ties(notes: Iterable[re.Match | None]) -> None:
    tied = None
    for note in [*notes, None]:
        if tied and (not note or note["pitch"] != tied):
            raise ValueError("a tie that does not lead to the same note")
        tied = note["pitch"] if note and note["tie"] else None


def read_full_tune(line: str) -> Tune:
    """Read a line all of whose bars fill the metre; raises `ValueError` as `read_tune` does."""
    tune = read_tune(line)
    if not all(tune.filled()):
        raise ValueError("a bar that does not fill the metre")
    return tune


def is_whole_tune(line: str) -> bool:
    """Whether a line can be read, has 8 bars or more, and all of them fill the metre."""
    try:
        return len(read_full_tune(line).bars) >= WHOLE
    except ValueError:
        return False


def validity(texts: list[str]) -> list[float]:
    """1 for a tune of 8 bars or more all of which fill the metre, else 0."""
    return [float(is_whole_tune(line)) for line in texts]


def full_bars(texts: list[str]) -> list[float]:
    """The share of bars that fill the metre, where bars that are lacking to 8 do not; 0 for what is no tune."""
    shares = []
    for line in texts:
        try:
            filled = read_tune(line).filled()
            shares.append(sum(filled) / max(WHOLE, len(filled)))
        except ValueError:
            shares.append(0.0)
    return shares


def tunes(sample_texts: list[str], train: list[list[str]]) -> dict[str, Estimate]:
    """Shares of samples that are valid; of these, different ones; of those, ones not trained on; and means.

    `full_bars` and the number of `bars` are means over all samples, `in_key`, the share of a tune's notes that need no
    accidental, over the valid ones.

    Raises:
        UserError: no training text is a tune.
    """
    known = {" ".join(words) for words in train}
    if not any(map(is_whole_tune, known)):
        problem, expected = "no training line is a tune", "lines as convert_abc.py writes them"
        raise UserError(problem, expected, "convert files in ABC notation with its `to_lines`")
    lines = [" ".join(line.split()) for line in sample_texts]
    valid = [line for line in lines if is_whole_tune(line)]
    different = set(valid)
    bars = [read_tune(line).bars for line in valid]
    return {
        "valid": _share(len(valid), len(lines)),
        "unique": _share(len(different), len(valid)),
        "novel": _share(len(different - known), len(different)),
        "full_bars": _mean(full_bars(lines)),
        "in_key": _mean([_share_in_key([word for bar in tune for word in bar]) for tune in bars]),
        "bars": _mean([line.count("|") + 1 for line in lines]),
    }


def _share_in_key(words: list[str]) -> float:
    notes = [note for word in words if (note := NOTE.fullmatch(word))]
    return sum(not note["accidental"] for note in notes) / len(notes)


def _share(some: int, of: int) -> Estimate:
    return Estimate.of_share(some, of) if of else Estimate(0.0)


def _mean(values: list) -> Estimate:
    return Estimate.of_mean(np.array(values)) if values else Estimate(0.0)
