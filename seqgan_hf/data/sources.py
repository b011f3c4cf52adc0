"""Rows from files, folders and the Hub, all through `datasets`, with errors that name the file and the line."""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import logging
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from lzma import LZMAError
from pathlib import Path
from typing import Any, TypeAlias

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    IterableDataset,
    IterableDatasetDict,
    LargeList,
    List,
    Value,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)
from datasets import (
    config as datasets_config,
)
from datasets.arrow_writer import SchemaInferenceError
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from ..errors import DataError
from .delimited import FIRST_LINES, SEPARATORS, FileFormat, find_layout
from .lines import SIGNS, from_one_line
from .lookalikes import check_encoded, check_lines
from .network import asking_once, uncounted


logger = logging.getLogger(__name__)

Rows: TypeAlias = Dataset | IterableDataset

KINDS = {".csv": "csv", ".tsv": "tsv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
COMPRESSIONS = {".gz", ".bz2", ".xz", ".zst"}
CONTAINERS = {".zip", ".tar", ".tgz", ".7z", ".rar", ".xls", ".xlsx", ".ods", ".doc", ".docx", ".odt", ".pdf"}
DAMAGED = (OSError, EOFError, zlib.error, LZMAError)  # what reading a broken file raises


def find_files(files: str | list[str]) -> list[str]:
    """Expand patterns such as `data/*.txt`; addresses with a scheme (`https://`) are left as they are.

    Raises:
        DataError: if a file does not exist, is a folder or a pipe, or is empty.
    """
    found = []
    for name in [files] if isinstance(files, str) else files:
        if "://" in name:
            found.append(name)
            continue
        matches = [name] if Path(name).exists() else sorted(glob.glob(name, recursive=True))
        if not matches:
            problem = f"the file {name!r} does not exist in {Path.cwd()}"
            raise DataError(problem, "a path or a pattern such as 'data/*.txt'", "check the spelling")
        found.extend(matches)
    if not found:
        raise DataError("an empty list of files", "at least one file")
    for path in found:
        if "://" not in path and Path(path).is_dir():
            raise DataError(
                f"{path!r} is a folder", "a file", "name a file in it, or in a recipe the folder as `dataset`"
            )
        if "://" not in path and not Path(path).is_file():
            raise DataError(f"{path!r} is a pipe or a device", "a file, as it is read twice", "write it to one first")
        if "://" not in path and Path(path).stat().st_size == 0:
            raise DataError(f"the file {path!r} is empty", "at least one line", "name another one")
        if _plain_suffix(path) in CONTAINERS:
            expected = "text, .csv, .tsv, .json, .jsonl or .parquet, each perhaps compressed (.gz)"
            raise DataError(f"{path!r} is an archive or a document", expected, "unpack or export it")
    return found


def read_files(
    files: list[str], named: Collection[str], form: FileFormat, streaming: bool, cache: str | None = None
) -> Rows:
    """Text (one row a line, column `text`), CSV, TSV, JSON lines or Parquet files, by their ending.

    In lines of text, the signs of `one_line` are what they stand for again.

    Args:
        files: paths of one kind; anything of another ending than those named is text.
        named: columns of CSV and TSV files that settings name.
        form: how text, CSV and TSV files are written.
        streaming: read while iterating instead of up front.
        cache: folder for what is read; by default that of `datasets`.

    Raises:
        DataError: if they cannot be read, or not for certain; the message names the line.
    """
    kind, encoding = _kind_of_all(files, form), _codec(form.encoding)
    if streaming or kind == "json":  # a stream would fail while training; JSON with other bytes would be read
        check_encoding(files, form.encoding)
    counted, signed = None, []
    try:
        for path in files if kind in ("text", *SEPARATORS) else ():
            _check_first_lines(path, encoding, kind)
        signed = [path for path in files if kind == "text" and _has_signs(path, encoding)]
        options: dict[str, Any] = {"encoding": encoding} if kind == "text" else {}
        if kind in SEPARATORS:
            options, counted = _table_options(files, kind, encoding, named, form)
        options |= {"split": "train", "streaming": streaming, "cache_dir": cache}
        patterns = [path if "://" in path else glob.escape(str(Path(path).resolve())) for path in files]
        with uncounted():
            rows = load_dataset("csv" if kind == "tsv" else kind, data_files={"train": patterns}, **options)
    except DataError:
        raise
    except (DatasetGenerationError, *DAMAGED, ValueError, LookupError, RecursionError) as error:
        check_encoding(files, form.encoding)
        raise _unreadable(files, kind, error) from error
    if not streaming and counted is not None and len(rows) != counted:
        problem = f"{counted} rows in {_listed(files)}, of which {len(rows)} were read"
        raise DataError(problem, "all of them", "convert the file to .jsonl or .parquet")
    if signed:
        logger.info("%s: signs of line breaks, such as ␊, are read as what they stand for", _listed(signed))
        # not in batches: a third step in batches of a stream would join their keys without bound
        rows = rows.map(lambda row: {"text": from_one_line(row["text"])}, features=rows.features)
    return rows


def _kind_of_all(files: list[str], form: FileFormat) -> str:
    """The kind of these files.

    Raises:
        DataError: there are several kinds, or settings of tables for files that are none.
    """
    kinds = {file_kind(path) for path in files}
    if len(kinds) > 1:
        raise DataError(f"files of several kinds, {sorted(kinds)}", "one kind", "convert the others")
    kind = kinds.pop()
    if kind not in SEPARATORS and form.of_tables:
        raise DataError(f"{form.of_tables} with {_listed(files)}", "these settings only with .csv and .tsv files")
    return kind


def _codec(encoding: str) -> str:
    """The encoding to read with: of UTF-8, the one that leaves out a byte-order mark at the start of a file.

    Raises:
        DataError: Python knows none of this name.
    """
    try:
        return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    except LookupError as error:
        raise DataError(f"encoding={encoding!r}", "one that Python knows, such as utf-8") from error


def _unreadable(files: list[str], kind: str, error: Exception) -> DataError:
    """Why `datasets` cannot read these files, or write what it has read."""
    place, root = Path(datasets_config.HF_DATASETS_CACHE), _root(error)
    if isinstance(root, OSError) and root.filename and place in (own := Path(root.filename), *own.parents):
        problem = f"{_listed(files)} cannot be kept in {str(place)!r} ({root.strerror})"
        return DataError(problem, "a folder to write", "set HF_DATASETS_CACHE to one")
    if isinstance(_root(error), SchemaInferenceError) or _holds_no_row(files, kind):
        return DataError(f"no line in {_listed(files)}", "at least one", "name another file")
    problem = f"{_listed(files)} cannot be read as {kind} ({_cause(error)})"
    return DataError(problem, EXPECTED[kind], "correct the file, or give it the ending of what it is")


EXPECTED = {
    "text": "lines of text",
    "csv": "a header line, and as many fields in every line",
    "tsv": "a header line, and as many fields in every line",
    "json": "one JSON object a line",
    "parquet": "a Parquet file",
}


def _opened(path: str, encoding: str) -> Any:
    """A file of text, decompressed, with its line ends as they are."""
    return fsspec.open(path, "rt", encoding=encoding, newline="", compression="infer")


def _check_first_lines(path: str, encoding: str, kind: str) -> None:
    with _opened(path, encoding) as lines:
        first = list(islice(lines, FIRST_LINES))
    check_encoded(path, first)
    if kind == "text":
        check_lines(path, first)


def _has_signs(path: str, encoding: str) -> bool:
    with _opened(path, encoding) as file:
        return any(map(SIGNS.search, iter(lambda: file.read(2**20), "")))


def _table_options(
    files: list[str], kind: str, encoding: str, named: Collection[str], form: FileFormat
) -> tuple[dict[str, Any], int]:
    """How pandas is to read tables, all of which have the same columns, and how many rows they have."""
    layouts = []
    for path in files:
        with _opened(path, encoding) as lines:
            layouts.append(find_layout(path, lines, kind, form, named))
    first = layouts[0]
    for path, layout in zip(files, layouts, strict=True):
        for name in ("columns", "separator"):
            if getattr(layout, name) != getattr(first, name):
                problem = f"{name} {getattr(layout, name)!r} in {path!r}, {getattr(first, name)!r} in {files[0]!r}"
                raise DataError(problem, "the same in all files", "convert one of them")
        first.numbers &= layout.numbers
    # "NA", "null" and "007" are text; an empty line is a blank line, to be counted as one.
    options = {
        "sep": first.separator,
        "quoting": csv.QUOTE_MINIMAL if first.quoting else csv.QUOTE_NONE,
        "header": 0 if first.header else None,
        "column_names": first.columns,
        "features": first.features(named),
        "encoding": encoding,
        "na_filter": False,
        "skip_blank_lines": False,
    }
    return options, sum(layout.rows for layout in layouts)


def _holds_no_row(files: list[str], kind: str) -> bool:
    """Whether these are Parquet files without a row, which `datasets` cannot read."""
    local = kind == "parquet" and not any("://" in path for path in files)
    try:
        return local and not any(pq.ParquetFile(path).metadata.num_rows for path in files)
    except (pa.ArrowInvalid, OSError):
        return False


def _plain_suffix(path: str) -> str:
    """The ending of a name, in lower case, without that of a compression."""
    plain = Path(path)
    return (plain.with_suffix("") if plain.suffix.lower() in COMPRESSIONS else plain).suffix.lower()


def file_kind(path: str) -> str:
    return KINDS.get(_plain_suffix(path), "text")


def _listed(files: list[str]) -> str:
    return ", ".join(map(repr, files[:3])) + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _cause(error: BaseException) -> str:
    return (str(_root(error)).strip().splitlines() or [type(_root(error)).__name__])[0]


def check_encoding(files: list[str], encoding: str) -> None:
    """Raise a `DataError` that names the first line of a text, CSV or JSON file that cannot be decoded."""
    for path in files:
        suffix, kind = Path(path).suffix.lower(), file_kind(path)
        if "://" in path or kind == "parquet" or (suffix in COMPRESSIONS and suffix != ".gz"):
            continue
        try:
            with gzip.open(path, "rb") if suffix == ".gz" else open(path, "rb") as file:
                for number, line in enumerate(file, start=1):
                    _check_line(line, path, number, "utf-8" if kind == "json" else encoding)
        except DAMAGED as error:
            raise DataError(f"{path!r} is damaged ({error})", "a complete gzip file", "compress it again") from error


@contextmanager
def reading_stream() -> Iterator[None]:
    """Explain in one line why a stream cannot be read any further.

    Raises:
        DataError: instead of what the reader of the files raises.
    """
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError, DatasetGenerationError) as error:
        problem = f"the stream cannot be read to its end ({_cause(error)})"
        fix = "correct the data; the file, where there is one, is named in the lines above"
        raise DataError(problem, "rows like those before", fix) from error


def _check_line(line: bytes, path: str, number: int, encoding: str) -> None:
    if codecs.lookup(encoding).name != "utf-8":
        return  # an encoding of several bytes a character cannot be cut at line feeds
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        utf_16 = line[:2] in (b"\xff\xfe", b"\xfe\xff")
        hint = "UTF-16" if utf_16 else "another encoding or no text at all"
        problem = f"byte 0x{line[error.start]:02x} in line {number} of {path!r} ({hint})"
        # Windows-1252 is Latin-1 with quotes and dashes in place of control characters
        other = f", or set encoding={'utf-16' if utf_16 else 'cp1252'}, for example"
        name = "" if file_kind(path) == "json" else other
        raise DataError(problem, "UTF-8", f"convert the file{name}") from error


def read_dataset(
    dataset: str | Dataset | DatasetDict | IterableDataset | IterableDatasetDict,
    config: str | None,
    split: str,
    named: Collection[str],
    form: FileFormat,
    streaming: bool,
) -> Rows:
    """A split of a Hub dataset, of a folder laid out like one or written by `save_to_disk`, or of one in memory.

    Text, CSV and TSV files in a folder are read as by `read_files`, which explains `named` and `form`.

    Raises:
        DataError: if it cannot be found, reached or read, or has no such configuration or split, or is a stream and
            must not be one.
    """
    rows = _load(dataset, config, streaming) if isinstance(dataset, str) else dataset
    name = repr(dataset) if isinstance(dataset, str) else "the dataset"
    if isinstance(rows, dict):
        if split not in rows:
            raise DataError(f"split={split!r} of {name}", f"one of {[*map(str, rows)]}")
        rows = rows[split]
        if isinstance(rows, list):
            return read_files(rows, named, form, streaming)
    elif split != "train":
        fix = "leave it out, or give a DatasetDict"
        raise DataError(f"split={split!r} of {name}, which has no splits", "no split", fix)
    if isinstance(rows, Dataset):
        return rows.to_iterable_dataset() if streaming else rows
    if not streaming:
        raise DataError("an iterable dataset without streaming=true", "a Dataset, or streaming and a max_length")
    return rows


def _load(name: str, config: str | None, streaming: bool) -> Rows | DatasetDict | IterableDatasetDict | dict:
    """A dataset of the Hub or of a folder; of a folder with text, CSV or TSV files, these files by split."""
    folder = Path(name)
    if not folder.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise _not_found(name)
    try:
        if any((folder / file).is_file() for file in ("dataset_dict.json", "state.json")):
            return load_from_disk(name)
        if folder.is_dir() and (builder := load_dataset_builder(name, config)).name in ("csv", "text"):
            return {split: list(files) for split, files in builder.config.data_files.items()}
        with asking_once(name):
            return load_dataset(name, config, streaming=streaming)
    except (DatasetNotFoundError, FileNotFoundError) as error:
        raise _not_found(name) from error
    except ConnectionError as error:
        problem = f"the Hub could not be reached for dataset={name!r} ({_cause(error)})"
        download = f"hf download {name} --repo-type dataset --local-dir FOLDER"
        fix = f"where there is a network, run `{download}`, copy the folder here and set dataset=FOLDER"
        raise DataError(problem, "a network, or a local copy", fix) from error
    except (OSError, ValueError, RuntimeError, DatasetGenerationError) as error:  # RuntimeError: it is a script
        problem = f"dataset={name!r} with dataset_config={config!r} cannot be loaded ({_cause(error)})"
        expected = "a Hub id, a folder laid out like a Hub dataset, or one written by save_to_disk"
        raise DataError(problem, expected) from error


def _not_found(name: str) -> DataError:
    if Path(name).is_dir():
        problem, expected = f"the folder dataset={name!r} holds no data", "files of text, .csv, .jsonl or .parquet"
        return DataError(problem, expected, "check the path, or name the files themselves as train_file")
    problem = f"dataset={name!r} is neither a folder here nor a dataset that the Hub shows you"
    fix = "check the spelling, or run `hf auth login` if it is private"
    return DataError(problem, "a Hub id or a folder", fix)


def keep_columns(rows: Rows, renamed: dict[str, str], prompt_column: str | None) -> Rows:
    """The columns to be `renamed`, and the prompts, if any, as column `prompt`.

    Raises:
        DataError: if a column does not exist or is named twice.
    """
    if prompt_column in renamed:
        problem = f"{prompt_column!r} as sequence and as prompt_column"
        raise DataError(problem, "two different columns", "leave prompt_column out")
    renamed = renamed | ({prompt_column: "prompt"} if prompt_column else {})
    for column in renamed:
        if column not in rows.column_names:
            raise DataError(f"no column {column!r}", f"one of {rows.column_names}")
    return rows.select_columns(list(renamed)).rename_columns({old: new for old, new in renamed.items() if old != new})


def text_rows(rows: Rows, text_column: str | None, prompt_column: str | None) -> Rows:
    """Keep the text, as column `text`, and the prompt, as column `prompt`.

    Raises:
        DataError: if a column does not exist (the message names those that do), is named twice or holds no text.
    """
    if rows.features is None:  # a stream that has to be read to be known
        with reading_stream():
            rows = rows.cast(Dataset.from_list(list(rows.take(5))).features)
    features = rows.features
    if not features:
        raise DataError("a file or split without rows", "at least one line")
    if text_column is None:
        others = Features({name: feature for name, feature in features.items() if name != prompt_column})
        text_column = _only_column(others, "text_column", "text")
    rows = keep_columns(rows, {text_column: "text"}, prompt_column)
    if not _is_text(features[text_column]):
        problem = f"column {text_column!r} of type {_type_name(features[text_column])}"
        raise DataError(problem, "text", _instead_of_text([features[text_column]]))
    if prompt_column:
        rows = _prompt_as_text(rows, features[prompt_column])
    if isinstance(rows, IterableDataset):  # a stream may take a run of missing values for another type
        rows = rows.cast(Features(dict.fromkeys(rows.column_names, Value("string"))))
    return rows


def _only_column(features: Features, setting: str, usual: str) -> str:
    """The usual column of text, or the only one."""
    strings = [name for name, feature in features.items() if _is_text(feature)]
    if usual in features or len(strings) == 1:
        return usual if usual in features else strings[0]
    if strings:
        raise DataError(f"no {setting}", f"one of the columns {strings}", "name it")
    types = {name: _type_name(feature) for name, feature in features.items()}
    raise DataError(f"no column of text among {types}", "one", _instead_of_text(features.values()))


def prompt_rows(rows: Dataset, prompt_column: str | None) -> Dataset:
    """Keep the prompts, as column `prompt`: of `prompt_column`, of `prompt`, or of the only column of text.

    Raises:
        DataError: if the column does not exist, or is none of text, labels or integers.
    """
    features = rows.features
    prompt_column = prompt_column or _only_column(features, "prompt_column", "prompt")
    return _prompt_as_text(keep_columns(rows, {}, prompt_column), features[prompt_column])


def ids_as_text(rows: Dataset) -> Dataset:
    """Lists of integers as generators of ids write them: with spaces between."""
    lists = [
        name
        for name, feature in rows.features.items()
        if _type_name(feature).startswith(("list of int", "list of uint"))
    ]
    if not lists:
        return rows
    features = Features(rows.features | dict.fromkeys(lists, Value("string")))
    return rows.map(
        lambda row: {name: None if row[name] is None else " ".join(map(str, row[name])) for name in lists},
        features=features,
    )


def _is_text(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string", "string_view")


def _type_name(feature: Any) -> str:
    if isinstance(feature, List | LargeList):
        return f"list of {_type_name(feature.feature)}"
    return getattr(feature, "dtype", None) or type(feature).__name__


def _instead_of_text(features: Iterable[Any]) -> str:
    """What to do with columns that hold no text."""
    items = {_type_name(feature.feature) for feature in features if isinstance(feature, List | LargeList)}
    if any(item.startswith(("int", "uint")) for item in items):
        return "for lists of integer ids use IdsData (`--data IdsData --data.ids_column NAME`)"
    if any("string" in item for item in items):
        return "join the words of each list into one text, with spaces between them"
    return "name a column of text as text_column, or convert it to text"


def _prompt_as_text(rows: Rows, feature: Any) -> Rows:
    if _is_text(feature):
        return rows
    if isinstance(feature, ClassLabel):
        features = Features(dict.fromkeys(rows.column_names, Value("string")))
        names = dict(enumerate(feature.names))  # -1 is a label that is not known
        return rows.map(
            lambda batch: {"prompt": list(map(names.get, batch["prompt"]))}, batched=True, features=features
        )
    if isinstance(feature, Value) and feature.dtype.startswith(("int", "uint", "bool")):
        return rows.cast_column("prompt", Value("string"))
    raise DataError(f"prompt_column of type {_type_name(feature)}", "text, labels or integers")
