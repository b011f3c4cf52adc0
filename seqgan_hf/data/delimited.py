"""Tables as text (.csv, .tsv): their separator, quotes and header, checked line by line before they are read."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from operator import itemgetter
from typing import Any

from datasets import Features, Value

from ..errors import DataError


logger = logging.getLogger(__name__)

SEPARATORS = {"csv": ",", "tsv": "\t"}  # by kind
CANDIDATES = (",", ";", "\t", "|")
FIRST_LINES = 1000
LONGEST_FIELD = 2**24  # characters; a quote that is never closed would take in the rest of the file
LONG_TEXT = 20  # lines: what a single column holds is asked for beyond
USUAL_NAMES = {"text", "ids", "input_ids"}  # of columns: a first line that has one of them is a header
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE | re.ASCII)
# What no column is called: a missing value, an amount, or a text of three words and more.
DATA = re.compile(r"\?|-|n/?a|nan|none|null|[$€£]?[\d.,]*\d ?[%$€£]?|\S+(\s+\S+){2,}", re.IGNORECASE)

csv.field_size_limit(LONGEST_FIELD)


@dataclass(kw_only=True)
class FileFormat:
    """How files of text and tables are written.

    Args:
        encoding: of text, .csv and .tsv files.
        separator: of the fields of .csv and .tsv files, one character (`\\t` for a tab); by default recognised among
            comma, semicolon, tab and bar.
        quoting: whether quotes enclose fields of .csv and .tsv files, or belong to the text; by default they enclose
            those of .csv files, unless they make one row of what looks like several.
        header: whether the first line of .csv and .tsv files names the columns; by default it does, unless it looks
            like data. Without it the only column is `text`, and several are `column1`, `column2`, ...
    """

    encoding: str = "utf-8"
    separator: str | None = None
    quoting: bool | None = None
    header: bool | None = None

    def __post_init__(self) -> None:
        if self.separator is not None:
            self.separator = self.separator.replace("\\t", "\t")
            if len(self.separator) != 1 or self.separator in '"\r\n':
                raise DataError(f"separator={self.separator!r}", "one character, such as ';' or '\\t'")

    @property
    def of_tables(self) -> dict[str, Any]:
        """The settings that only .csv and .tsv files have, where they are set."""
        values = {"separator": self.separator, "quoting": self.quoting, "header": self.header}
        return {name: value for name, value in values.items() if value is not None}


@dataclass
class Layout:
    """How a .csv or .tsv file is written, and what it holds.

    Attributes:
        separator: of fields.
        quoting: whether quotes enclose fields.
        header: whether the first line names the columns.
        columns: their names.
        numbers: the numbers of columns that hold one number in every row.
        rows: how many there are, blank lines included, the header not.
    """

    separator: str
    quoting: bool
    header: bool = True
    columns: list[str] = field(default_factory=list)
    numbers: set[int] = field(default_factory=set)
    rows: int = 0

    def features(self, named: Collection[str]) -> Features:
        """Text, but for columns of numbers that nobody named: "007" is text if it is to be text."""
        numeric = {self.columns[number] for number in self.numbers} - set(named)
        return Features({name: Value("float64" if name in numeric else "string") for name in self.columns})


def find_layout(path: str, lines: Iterable[str], kind: str, form: FileFormat, named: Collection[str]) -> Layout:
    """Read a table from beginning to end.

    Args:
        path: of the file, for messages.
        lines: the physical lines of the file, with their ends.
        kind: `csv` or `tsv`.
        form: what is known of the file.
        named: columns that settings name; a first line that has one of them is a header.

    Raises:
        DataError: if rows have unequal numbers of fields, quotes are not closed or make one row of several lines that
            look like rows, or separator or header cannot be told; the message names the line and the setting.
    """
    lines = iter(lines)
    first = list(islice(lines, FIRST_LINES))
    quoting = kind == "csv" if form.quoting is None else form.quoting
    separator = form.separator or _find_separator(path, first, SEPARATORS[kind], quoting, form.header)
    layout = Layout(separator, quoting)
    rows = _rows(path, chain(first, lines), layout)
    start, top, physical = next(rows, (1, [], []))
    if not top:
        raise DataError(f"no fields in the first line of {path!r}", "the names of the columns", "remove the line")
    if re.fullmatch("sep=.?", separator.join(top)):
        raise DataError(f"a line for Excel, {separator.join(top)!r}, in {path!r}", "a header", "remove the line")
    body = _Body(path, layout, len(top), form.quoting is None)
    layout.header = form.header is not False
    if not layout.header:
        body.add(start, top, physical, top)
    elif len(physical) > 1:
        problem = f"quotes make one header of lines 1 to {len(physical)} of {path!r}"
        raise DataError(problem, "it in one line", "set quoting=false if quotes belong to the text, or header=false")
    for start, fields, physical in rows:
        body.add(start, fields, physical, top)
    if not body.rows:
        fix = "leave it out, or set header=false if it is a row"
        raise DataError(f"{path!r} has only a header", "at least one line after it", fix)
    body.explain()
    if form.header is None:
        _check_header(path, top, body, named)
    layout.columns = _names(path, top, layout.header)
    layout.rows, layout.numbers = body.rows, body.numbers
    return layout


def _find_separator(path: str, lines: list[str], usual: str, quoting: bool, header: bool | None) -> str:
    """The one that cuts all of the first lines into the same number of fields, more than one; else the usual one.

    Raises:
        DataError: if it cannot be told: several do, or one stands in every line but the header.
    """
    cutting, below = [], []
    for separator in CANDIDATES:
        try:
            widths = [len(fields) for fields in _reader(lines, separator, quoting) if fields]
        except csv.Error:  # a field that is too long
            continue
        if len(lines) == FIRST_LINES:
            del widths[-1]  # a row that may go on
        if len(set(widths)) == 1 and widths[0] > 1:
            cutting.append(separator)
        # commas and semicolons of a text have white space behind them
        tight = separator in "\t|" or all(re.search(rf"{separator}\S", line) for line in lines[1:] if line.strip())
        if len(widths) > 1 and widths[0] == 1 < min(widths[1:]) and tight:
            below.append(separator)
    if not cutting and header is not False and usual not in lines[0] and (extra := set(below) - {usual}):
        problem = f"{' or '.join(map(repr, sorted(extra)))} in every line of {path!r} but the first"
        fix = f"set separator={usual!r} if it belongs to the text, or name all columns in the first line"
        raise DataError(problem, "as many columns in the header as in the lines below", fix)
    if cutting in ([], [usual]):
        return usual
    if len(cutting) > 1 or header is False:  # without a header, all texts of a single column may hold one semicolon
        problem = f"{' or '.join(map(repr, cutting))} may separate the fields of {path!r}"
        raise DataError(problem, f"one separator, {usual!r} where none is named", "set separator")
    logger.info("%s: fields are separated by %r", path, cutting[0])
    return cutting[0]


def _reader(lines: Iterable[str], separator: str, quoting: bool, strict: bool = False) -> Any:
    return csv.reader(
        lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE, strict=strict
    )


def _rows(path: str, lines: Iterable[str], layout: Layout) -> Iterator[tuple[int, list[str], list[str]]]:
    """The number of the line in which a row begins, its fields, and its physical lines."""
    physical: list[str] = []

    def noted() -> Iterator[str]:
        for line in lines:
            physical.append(line)
            yield line

    reader = _reader(noted(), layout.separator, layout.quoting, strict=True)
    start = 1
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fix = "set quoting=false if quotes belong to the text, or double those inside a field"
            if "limit" in str(error):
                problem = f"more than {LONGEST_FIELD:,} characters in one field from line {start} of {path!r} on"
            elif "unexpected end" in str(error):
                problem = f"a quote in line {start} of {path!r} is never closed"
            else:
                problem = f"text after a closing quote in line {reader.line_num} of {path!r}"
                problem += f" ({physical[-1].strip()[:60]!r})"
            raise DataError(problem, "quotes around a whole field", fix) from error
        if any("\0" in line for line in physical):  # pandas would cut a field there, some releases in any row
            raise DataError(f"NUL in line {start} of {path!r}", "text", "remove it")
        yield start, fields, physical
        start += len(physical)
        physical.clear()


class _Body:
    """The rows after the header: what they hold, and whether quotes make one row of what looks like several.

    Whether quotes enclose fields is a setting, or `guessed`.
    """

    def __init__(self, path: str, layout: Layout, width: int, guessed: bool):
        self.path, self.layout, self.width, self.guessed = path, layout, width, guessed
        self.rows = self.lines = 0
        self.numbers = set(range(width))  # columns in which every row holds a number,
        self.lists = set(range(width))  # or numbers with white space between them
        self.repeated: set[str] = set()  # fields of the first line that stand in their column again
        self.enclosed = 0  # fields in quotes that may be part of the text as well
        self.plain = 0  # lines without a quote
        self.spans: list[tuple[int, int]] = []  # of rows of several lines: how many lines, and the first one
        self.swallowed: list[tuple[int, int]] = []  # those of them whose every line could be a row

    def add(self, start: int, fields: list[str], physical: list[str], top: list[str]) -> None:
        """Count a row. Raises a `DataError` if it has more or fewer fields than the first line."""
        if fields and len(fields) != self.width:
            problem = f"{len(fields)} fields in line {start} of {self.path!r}"
            raise DataError(problem, f"{self.width}, as in {_shown(top)}", self._remedy(physical))
        self.rows += 1
        self.lines += len(physical)
        fields = fields or [""] * self.width
        self.numbers = {number for number in self.numbers if NUMBER.fullmatch(fields[number])}
        self.lists = {number for number in self.lists if _numbers(fields[number])}
        self.repeated |= {name for name, text in zip(top, fields, strict=True) if name == text != ""}
        if len(physical) > 1:
            self.spans.append((len(physical), start))
            if self._swallows(physical):
                self.swallowed.append((len(physical), start))
        elif not any('"' in line for line in physical):
            self.plain += 1
        elif self.layout.quoting:
            self.enclosed += sum(_needless(text, physical[0], self.layout.separator) for text in fields)
        else:
            self.enclosed += sum(map(_enclosed, fields))

    def _swallows(self, physical: list[str]) -> bool:
        """Whether each of a row's lines could be a row: it has as many separators, or more in its text."""
        if self.width == 1:
            return len(physical) > LONG_TEXT
        separator, least = self.layout.separator, self.width - 1
        counts = [line.count(separator) for line in physical if line.strip()]
        # those of a text have white space behind them
        tight = [len(re.findall(rf"{re.escape(separator)}(?!\s)", line)) for line in physical if line.strip()]
        return min(tight) >= least or (min(counts) >= least and 2 * counts.count(least) > len(counts))

    def _remedy(self, physical: list[str]) -> str:
        """What to do about a row that has more or fewer fields than the first line."""
        if self.layout.quoting:
            fix = f"put quotes around text that holds the separator {self.layout.separator!r}"
        elif self.plain < self.rows or '"' in physical[0]:  # in a row before, or in this one
            fix = "set quoting=true if quotes enclose fields"
        else:
            fix = f"remove the separator {self.layout.separator!r} from texts"
        return f"{fix}, set separator, or {'rename it to .txt' if self.width == 1 else 'correct the line'}"

    def explain(self) -> None:
        """Say why there are more lines than rows. Raises a `DataError` if stray quotes are the likely reason."""
        if not self.guessed:
            return
        if self.enclosed and not self.layout.quoting:
            told = "%s: quotes around %s fields are kept; set quoting=true if they enclose fields, or false if not"
            logger.warning(told, self.path, f"{self.enclosed:,}")
        elif self.enclosed and self.plain:  # not all fields are in quotes, which some programs write
            told = "%s: quotes around %s fields that need none are left out; set quoting=false to keep them, or true"
            logger.warning(told, self.path, f"{self.enclosed:,}")
        if not self.spans:
            return
        others = [lines for lines, _ in set(self.spans) - set(self.swallowed)]
        lines, start = max(self.swallowed, key=itemgetter(0), default=(0, 0))
        if sum(each for each, _ in self.swallowed) > sum(others) or lines > max(LONG_TEXT, 2 * max(others, default=0)):
            problem = f"quotes make one row of lines {start} to {start + lines - 1} of {self.path!r}"
            fix = "set quoting=false if quotes belong to the text, or quoting=true if this is a text of several lines"
            raise DataError(problem, "one row a line, unless a text has several", fix)
        lines, start = max(self.spans, key=itemgetter(0))
        logger.warning(
            "%s: %s lines are %s rows, since quotes enclose %s texts of several lines (up to %d, from line %d on); "
            "set quoting=false if quotes belong to the text, or quoting=true to silence this",
            *(self.path, f"{self.lines:,}", f"{self.rows:,}", f"{len(self.spans):,}", lines, start),
        )


def _numbers(text: str) -> bool:
    return bool(words := text.split()) and all(map(NUMBER.fullmatch, words))


def _enclosed(text: str) -> bool:
    """Whether quotes enclose a text, and those inside it are doubled."""
    return len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('""', "")


def _needless(text: str, line: str, separator: str) -> bool:
    """Whether quotes enclose a field that could do without."""
    return bool(text) and separator not in text and '"' not in text and f'"{text}"' in line


def _check_header(path: str, top: list[str], body: _Body, named: Collection[str]) -> None:
    """Warn of a first line that nothing proves to be a header.

    Raises:
        DataError: if it looks like data, or may be a text as well as a name.
    """
    if not (USUAL_NAMES | set(named)).isdisjoint(top):
        return
    fix = "set header=false if this is a row, or header=true if these are names"
    if any(_numbers(name) or DATA.fullmatch(name.strip()) for name in top):
        problem = f"{_shown(top)} in the first line of {path!r}, which look like data"
        raise DataError(problem, "names of columns", fix)
    if body.repeated:
        problem = f"{_shown(top)} in the first line of {path!r}, of which {min(body.repeated)!r} stands below it again"
        raise DataError(problem, "names of columns", fix)
    if len(top) == 1 and not body.lists:
        problem = f"{_shown(top)} in the first line of {path!r}, the name of a column or a text"
        expected = "the name 'text', or one given as text_column"
        raise DataError(problem, expected, f"{fix}; if there are several columns, set separator")
    told = "%s: the first line, %s, is taken for names of columns; set header=false if it is a row, else header=true"
    logger.warning(told, path, _shown(top))


def _shown(fields: list[str]) -> str:
    return f"{str(fields):.120}"


def _names(path: str, top: list[str], header: bool) -> list[str]:
    if not header:
        return ["text"] if len(top) == 1 else [f"column{number}" for number in range(1, len(top) + 1)]
    names = [name or f"column{number}" for number, name in enumerate(top, start=1)]
    if len(set(names)) < len(names):
        fix = "rename one, or set header=false if this is a row"
        raise DataError(f"the same name twice in {_shown(names)}, the first line of {path!r}", "different names", fix)
    return names
