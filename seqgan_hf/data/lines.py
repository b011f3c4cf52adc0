"""Files of texts, one in each line: what would break a line is written as a sign, and read back as what it was."""

from __future__ import annotations

import re


ESCAPE = "␛"
# Unicode has a visible sign for each of these: a line feed is written ␊, a carriage return ␍.
_WRITTEN = {c: chr(0x2400 + ord(c)) for c in "\n\r\v\f\x1c\x1d\x1e"}
# These signs may stand in a text themselves. The last four have none; at the start of a file the last is no text.
_WRITTEN |= {sign: ESCAPE + sign for sign in (*_WRITTEN.values(), ESCAPE)}
_WRITTEN |= {"\x85": f"{ESCAPE}N", "\u2028": f"{ESCAPE}L", "\u2029": f"{ESCAPE}P", "\ufeff": f"{ESCAPE}B"}
_READ = {written: c for c, written in _WRITTEN.items()}
_SIGN = re.compile("|".join(sorted(_READ, key=len, reverse=True)))
_TABLE = str.maketrans(_WRITTEN)
SIGNS = re.compile(f"[{''.join(sorted({sign[0] for sign in _READ}))}]")  # what a line has that is not read as it is


def one_line(text: str) -> str:
    """A text without line breaks of any kind, each written as a sign (`␊`); every other text stays as it is."""
    return text.translate(_TABLE)


def from_one_line(line: str) -> str:
    """The text that `one_line` wrote."""
    return _SIGN.sub(lambda sign: _READ[sign[0]], line)
