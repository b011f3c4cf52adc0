"""Files that are read as lines of text, and look like something else, by their first lines."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from itertools import pairwise

from ..errors import DataError


logger = logging.getLogger(__name__)

MOST_NULS = 0.3  # of the characters; half of them are in English as UTF-16 that is read as UTF-8
# A line of a FASTA sequence: amino acids, or nucleotides in either case (small ones are masked), perhaps in blocks.
ACIDS, NUCLEOTIDES = "[A-IK-NP-TV-Z*.-]+", "[ACGTUNacgtun*.-]+"  # most words of a shouting chat have another letter
RESIDUES = re.compile(rf"{ACIDS}(\s+{ACIDS})*|{NUCLEOTIDES}(\s+{NUCLEOTIDES})*")
LETTERS = re.compile(r"[A-Za-z*.-]+")
ACCESSION = re.compile(r">\s*[^\s\d>]*[\d|]|;")  # a sequence's name, with a number or a bar in it; or a comment


def check_encoded(path: str, lines: list[str]) -> None:
    """Raise a `DataError` for UTF-16 without a byte-order mark, which is valid UTF-8 where a text is English."""
    text = "".join(lines)
    if text.count("\0") > MOST_NULS * len(text):
        problem = f"{text.count(chr(0)) / len(text):.0%} of the first characters of {path!r} are NUL"
        name = "utf-16-be" if text.startswith("\0") else "utf-16-le"
        raise DataError(problem, "text", f"set encoding={name} if it is UTF-16")


def check_lines(path: str, lines: Iterable[str]) -> None:
    """Warn of JSON and tables, which can be meant as text. Raise a `DataError` for FASTA, which cannot."""
    lines = [line for line in map(str.strip, lines) if line]
    if _is_fasta(lines):
        headers = sum(line[0] in ">;" for line in lines)
        problem = f"FASTA in {path!r}: {headers} of its first {len(lines)} lines are headers such as {lines[0][:40]!r}"
        script = '/^[>;]/ {if (s) print s; s = ""; next} {gsub(/[ \\t\\r]/, ""); s = s $0} END {if (s) print s}'
        raise DataError(problem, "one sequence a line", f"convert it: awk '{script}' FILE > sequences.txt")
    if len(lines) < 2:
        return
    if all(map(_is_object, lines)):
        told = "%s: all of the first %d lines are JSON objects; give the file the ending .jsonl to read their values"
        logger.warning(told, path, len(lines))
    tabs = {line.count("\t") for line in lines}
    if len(tabs) == 1 and tabs != {0} and not all(word.isdecimal() for line in lines for word in line.split()):
        told = "%s: all of the first %d lines have %d fields between tabs; give the file the ending .tsv for columns"
        logger.warning(told, path, len(lines), tabs.pop() + 1)


def _is_fasta(lines: list[str]) -> bool:
    """Whether headers (`>name`, or `;` and a comment) stand before sequences of letters, and nothing else is there.

    Lines of quoted mail, Markdown and chats begin likewise, but what stands between them are words.
    """
    headers = [line[0] in ">;" for line in lines]
    sequences = [line for line, header in zip(lines, headers, strict=True) if not header]
    if not sequences or not headers[0] or not any(line[0] == ">" for line in lines):
        return False
    with_sequence = sum(header and not following for header, following in pairwise(headers))
    if sum(headers) > 2 * with_sequence:  # some sequences may be empty
        return False
    certain = all(ACCESSION.match(line) for line, header in zip(lines, headers, strict=True) if header)
    return all(map(RESIDUES.fullmatch, sequences)) or (certain and all(map(LETTERS.fullmatch, sequences)))


def _is_object(line: str) -> bool:
    try:
        return line.startswith("{") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
