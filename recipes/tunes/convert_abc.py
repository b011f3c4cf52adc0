"""Convert tunes in ABC notation to lines to train on, and lines that a generator wrote back to ABC notation and MIDI.

    python convert_abc.py to_lines nottingham/*.abc --output tunes.txt
    python convert_abc.py to_abc samples.txt --output samples.abc --midi midi

A line is the melody of one part of a tune: see `tune_rewards.py`. What is left out is counted, by reason.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from tune_rewards import METRE, TRIPLET, read_full_tune

from seqgan_hf.errors import DataError, MissingExtraError, UserError


# Chord symbols, ornaments, comments, slurs.
BESIDE_THE_MELODY = re.compile(r'"[^"\n]*"|![^!\n]*!|\{[^}\n]*\}|%.*|\((?!\d)|[)~.\\ \t\r]')
FIELD = r"^[A-Za-z]:(?![|:]).*|\[[A-Za-z]:[^]\n]*\]"
DOUBLE_BAR = r"\|[|:\]]+|:[|:\]]*|\[\|"
DIVIDER = re.compile(f"({FIELD}|{DOUBLE_BAR})", re.MULTILINE)
FIRST_ENDING = re.compile(r"(\[|(?<![^|]))1[\d,-]*")
OTHER_ENDINGS = re.compile(r"(\[|(?<![^|]))[2-9].*")
SIGN = re.compile(
    r"\(3(?![\d:])|(?P<name>(\^\^?|__?|=)?([A-Ga-g](,+|'+)?|z))"
    r"(?P<times>\d*)(?P<slashes>/*)(?P<parts>([1-9]\d*)?)(?P<tie>-?)(?P<broken>>+|<*)"
)
METRE_SIGNS = {"C": "4/4", "C|": "2/2"}
MODES = {"maj": "", "ion": "", "min": "m", "aeo": "m"}  # as `tune_rewards.KEY` has them; others keep three letters


def parts_of(tune: str) -> Iterator[str | ValueError]:
    """The parts of a tune in ABC notation, each as a line, or as the reason why it gives none.

    A part ends at a double bar line, a sign of repetition or a field `P:`; a single bar between two is the upbeat of
    what follows. Of several endings, it has the first.
    """
    fields: dict[str, str] = {}
    music, changed = "", False
    for number, piece in enumerate([*DIVIDER.split(BESIDE_THE_MELODY.sub("", tune)), "|]"]):
        name, _, value = piece.strip("[]").partition(":")
        if number % 2 == 0:
            music += piece.replace("\n", "")
        elif name in ("M", "L", "K"):
            changed |= bool(music) and fields.get(name) != value
            fields[name] = value
            if name == "K":  # the head ends, which may leave the unit to the metre
                fields.setdefault("L", "1/8" if _length_of_bar(fields) >= 6 else "1/16")
        elif name == "P" or not name.isalpha():
            bars = [bar for bar in OTHER_ENDINGS.sub("", FIRST_ENDING.sub("", music)).split("|") if bar]
            music = f"{bars[0]}|" if len(bars) == 1 else ""  # an upbeat in front of a sign of repetition
            if len(bars) > 1:
                yield ValueError("a change of metre, unit or key") if changed else _line(fields, bars)
                changed = False


def _metre(fields: dict[str, str]) -> str:
    return METRE_SIGNS.get(fields.get("M", ""), fields.get("M", ""))


def _length_of_bar(fields: dict[str, str]) -> Fraction:
    """In eighths; 0 where it is not known."""
    metre = METRE.fullmatch("M:" + _metre(fields))
    return Fraction(8 * int(metre[1]), int(metre[2])) if metre else Fraction(0)


def _line(fields: dict[str, str], bars: list[str]) -> str | ValueError:
    key = re.match("([A-G][#b]?)(.*)", fields.get("K", ""))
    mode = key[2].lower()[:3] if key else ""
    try:
        if not re.fullmatch(r"1/[1-9]\d?", fields.get("L", "")):
            raise ValueError("an unknown unit")
        words = (" ".join(_words(bar, 8 * Fraction(fields["L"]))) for bar in bars)
        line = f"M:{_metre(fields)} K:{key[1] if key else ''}{MODES.get(mode, mode)} {' | '.join(words)}"
        read_full_tune(line)
        return line
    except ValueError as reason:
        return reason


def _words(bar: str, unit: Fraction) -> Iterator[str]:
    """The words of a bar in ABC notation; its unit in eighths."""
    signs = list(SIGN.finditer(bar))
    if "".join(sign[0] for sign in signs) != bar:
        raise ValueError("a sign that is not read, such as notes played at once")
    factor = Fraction(1)  # of the next note: of two notes with `>` between, the first takes half of the second
    for sign in signs:
        if not sign["name"]:
            yield TRIPLET
            continue
        length = factor * unit * int(sign["times"] or 1) / int(sign["parts"] or 2 ** len(sign["slashes"]))
        short = Fraction(1, 2 ** len(sign["broken"]))
        own, factor = (short, 2 - short) if "<" in sign["broken"] else (2 - short, short)
        times, parts = (own * length).as_integer_ratio()
        yield f"{sign['name']}{'' if times == 1 else times}{'' if parts == 1 else f'/{parts}'}{sign['tie']}"


def to_abc(line: str, number: int, title: str) -> str:
    """A line as a tune in ABC notation, four bars in a row; raises `ValueError` as `read_full_tune` does."""
    tune = read_full_tune(line)
    bars = ["".join(bar) for bar in tune.bars]
    rows = ["|".join(bars[start : start + 4]) for start in range(0, len(bars), 4)]
    metre, key = tune.header
    return "\n".join([f"X:{number}", f"T:{title}", metre, "L:1/8", key, "|\n".join(rows) + "|]", ""])


def convert_to_lines(sources: list[str], target: str) -> str:
    """Write the parts of all tunes to a file, one a line, equal ones once; returns what was done.

    Raises:
        DataError: a source cannot be read or holds no part of a tune, or the target cannot be written.
    """
    lines: dict[str, None] = {}
    left_out: Counter[str] = Counter()
    for source in sources:
        found = [part for tune in re.split("(?m)^(?=X:)", _read(source))[1:] for part in parts_of(tune)]
        if all(isinstance(part, ValueError) for part in found):
            raise DataError(f"{source!r} holds no tune", "ABC notation, a line `X:` above each tune", "check the file")
        for part in found:
            if isinstance(part, ValueError) or part in lines:
                left_out["written already" if part in lines else str(part)] += 1
            else:
                lines[part] = None
    _write(target, "".join(f"{line}\n" for line in lines))
    return _report(f"{len(lines):,} parts of tunes", target, left_out)


def convert_to_abc(source: str, target: str, midi: str | None) -> str:
    """Write the lines of a file whose bars fill the metre in ABC notation, and each as MIDI; returns what was done.

    Raises:
        DataError: the source cannot be read or holds no tune whose bars fill the metre, or a target cannot be written.
        MissingExtraError: MIDI without music21.
    """
    tunes: list[str] = []
    left_out: Counter[str] = Counter()
    for number, line in enumerate(_read(source).splitlines(), 1):
        try:
            tunes.append(to_abc(line, number, f"line {number}"))
        except ValueError as reason:
            left_out[str(reason)] += 1
    if not tunes:
        problem = f"{source!r} holds no tune whose bars fill the metre"
        raise DataError(problem, "lines as `to_lines` writes them", "check the file")
    if midi is not None:
        _write_midi(tunes, midi)
    _write(target, "\n".join(tunes))
    return _report(f"{len(tunes):,} tunes", target, left_out)


def _write_midi(tunes: list[str], folder: str) -> None:
    try:
        from music21 import converter
    except ImportError as error:
        problem = "--midi needs music21, which is not installed"
        raise MissingExtraError(problem, None, 'run `pip install "seqgan-hf[tunes]"`') from error
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder!r} cannot be written ({error.strerror})", "a folder", "name another") from error
    for tune in tunes:
        number = tune.partition("\n")[0].removeprefix("X:")
        converter.parse(tune, format="abc").write("midi", Path(folder) / f"{number}.mid")


def _read(source: str) -> str:
    try:
        return Path(source).read_text(encoding="utf-8-sig", errors="replace")  # notes are ASCII; titles are not read
    except OSError as error:
        raise DataError(f"{source!r} cannot be read ({error.strerror})", "a file of text", "check the path") from error


def _write(target: str, text: str) -> None:
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        problem = f"{target!r} cannot be written ({error.strerror})"
        raise DataError(problem, "a file in a folder that exists", "change --output") from error


def _report(written: str, target: str, left_out: Counter[str]) -> str:
    reasons = ", ".join(f"{count:,} ({reason})" for reason, count in left_out.most_common())
    return f"{written} written to {target}; left out: {reasons or 'none'}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Convert tunes in ABC notation to lines to train on, and back.")
    directions = parser.add_subparsers(dest="direction", required=True)
    to_lines = directions.add_parser("to_lines", help="ABC notation to lines, a part of a tune each")
    to_lines.add_argument("sources", nargs="+", help="files in ABC notation")
    back = directions.add_parser("to_abc", help="lines to ABC notation")
    back.add_argument("source", help="a file of lines, as `seqgan-hf generate` writes them")
    back.add_argument("--midi", help="a folder for MIDI files, too, each named after its line (needs music21)")
    for direction in (to_lines, back):
        direction.add_argument("--output", required=True, help="the file to write")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.direction == "to_lines":
            print(convert_to_lines(chosen.sources, chosen.output))
        else:
            print(convert_to_abc(chosen.source, chosen.output, chosen.midi))
    except UserError as error:
        print(f"convert_abc: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
