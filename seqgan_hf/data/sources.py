"""Rows from files, folders and the Hub, all through `datasets`, with errors that name the file and the line."""

from __future__ import annotations

import codecs
import glob
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    IterableDataset,
    IterableDatasetDict,
    Value,
    load_dataset,
    load_from_disk,
)
from datasets.arrow_writer import SchemaInferenceError
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from ..errors import DataError


Rows = Dataset | IterableDataset

KINDS = {".csv": "csv", ".tsv": "tsv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
COMPRESSIONS = {".gz", ".bz2", ".xz", ".zst"}
CONTAINERS = {".zip", ".tar", ".tgz", ".7z", ".rar", ".xlsx", ".docx", ".pdf"}


def check_source(
    train_file: Any, eval_file: Any, dataset: Any, dataset_config: str | None, train_split: str, eval_split: str | None
) -> None:
    """Raise a `DataError` unless training lines are named once, held-out lines at most once, and all of it is used."""
    if (train_file is None) == (dataset is None):
        raise DataError(
            f"train_file={train_file!r} and dataset={dataset!r}",
            "exactly one of them",
            "name your data, and set the other to null where a recipe names it",
        )
    if eval_split is not None and (dataset is None or eval_file is not None):
        raise DataError(
            f"eval_split={eval_split!r} with train_file={train_file!r} and eval_file={eval_file!r}",
            "a split of a dataset, or a file",
            "set one of eval_split and eval_file to null",
        )
    if dataset is None and (dataset_config is not None or train_split != "train"):
        raise DataError(
            f"dataset_config={dataset_config!r} and train_split={train_split!r} with train_file={train_file!r}",
            "them with a dataset only",
            "leave them out",
        )
    if isinstance(dataset, str) and Path(dataset).is_file():
        raise DataError(f"dataset={dataset!r}, which is a file", "a Hub id or a folder", "name it as train_file")


def check_columns_differ(column: str, prompt_column: str | None) -> None:
    """Raise a `DataError` if sequence and prompt are one column."""
    if column == prompt_column:
        raise DataError(
            f"{column!r} as the column of sequences and as prompt_column",
            "two columns",
            "name another, or leave prompt_column out",
        )


def find_files(files: str | list[str]) -> list[str]:
    """Expand patterns such as `data/*.txt`; addresses with a scheme (`https://`) are left as they are.

    Raises:
        DataError: if a file does not exist, is a folder, or is empty.
    """
    found = []
    for name in [files] if isinstance(files, str) else files:
        if "://" in name:
            found.append(name)
            continue
        matches = [name] if Path(name).exists() else sorted(glob.glob(name, recursive=True))
        if not matches:
            raise DataError(
                f"the file {name!r}, which does not exist (looked in {Path.cwd()})",
                "a path or a pattern such as 'data/*.txt'",
                "check the spelling",
            )
        found.extend(matches)
    for path in found:
        if "://" not in path and Path(path).is_dir():
            raise DataError(f"the folder {path!r} as a file", "a file", "name it as `dataset` instead")
        if "://" not in path and Path(path).stat().st_size == 0:
            raise DataError(f"the empty file {path!r}", "at least one line", "leave it out")
        if _plain_suffix(path) in CONTAINERS:
            raise DataError(
                f"{path!r}, an archive or a document",
                "text, .csv, .tsv, .json, .jsonl or .parquet, each perhaps compressed (.gz)",
                "unpack or export it",
            )
    if not found:
        raise DataError("an empty list of files", "at least one", "name a file")
    return found


def read_files(files: list[str], text_columns: list[str], encoding: str, streaming: bool) -> Rows:
    """Text (one row a line, column `text`), CSV, TSV, JSON lines or Parquet files, by their ending.

    Args:
        files: paths of one kind; anything of another ending than those named is text.
        text_columns: columns of CSV files that are to be read as text, even where they look like numbers.
        encoding: of text and CSV files.
        streaming: read while iterating instead of up front.
    """
    kinds = {_kind(path) for path in files}
    if len(kinds) > 1:
        raise DataError(f"files of several kinds, {sorted(kinds)}", "one kind", "convert the others")
    kind = kinds.pop()
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise DataError(f"encoding={encoding!r}", "a codec of Python", "utf-8, for example") from error
    if streaming or kind == "json":  # the latter are read as they are, the former would fail while training
        check_encoding(files, encoding)
    options: dict[str, Any] = {}
    if kind in ("text", "csv", "tsv"):
        # "utf-8-sig" is UTF-8 that leaves out a byte-order mark at the start of a file.
        options["encoding"] = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    if kind in ("csv", "tsv"):
        # "NA", "null" and "007" are text; an empty line is a blank line, to be counted as one.
        options |= {"na_filter": False, "skip_blank_lines": False, "converters": dict.fromkeys(text_columns, str)}
        options["sep"] = "\t" if kind == "tsv" else ","
    patterns = [path if "://" in path else glob.escape(str(Path(path).resolve())) for path in files]
    builder = "csv" if kind == "tsv" else kind
    try:
        for path in files if builder == "csv" else ():
            _check_header(path, options)
        return load_dataset(builder, data_files={"train": patterns}, split="train", streaming=streaming, **options)
    except DataError:
        raise
    except (DatasetGenerationError, UnicodeDecodeError, OSError, ValueError, LookupError) as error:
        check_encoding(files, encoding)
        if isinstance(_root(error), SchemaInferenceError) or _holds_no_row(files, kind):
            raise DataError(f"{_listed(files)} without a line", "at least one", "name another file") from error
        expected, remedy = EXPECTED[kind]
        raise DataError(
            f"{_listed(files)}, which cannot be read as {kind} ({_cause(error)})",
            f"{expected}",
            f"{remedy}, or give the file the ending of what it is",
        ) from error


QUOTES = "put quotes around text that holds the separator"
EXPECTED = {
    "text": ("lines of text", "correct the file"),
    "csv": ("a header line, and as many fields in every line", QUOTES),
    "tsv": ("a header line, and as many fields in every line", QUOTES),
    "json": ("one JSON object a line", "correct the file"),
    "parquet": ("a Parquet file", "correct the file"),
}


def _check_header(path: str, options: dict[str, Any]) -> None:
    """Raise a `DataError` for a table without a row, or whose first row has more fields than the header.

    pandas takes the first fields of such rows for row names, and shifts all columns; later rows of more fields than
    those before them are an error of pandas itself.
    """
    with fsspec.open(path, compression="infer") as file:
        first = pd.read_csv(file, nrows=1, **options)
    if first.empty:
        raise DataError(f"{path!r} with a header and no more", "at least one line", "leave it out")
    if not isinstance(first.index, pd.RangeIndex):
        width, extra = len(first.columns), first.index.nlevels
        raise DataError(
            f"{width + extra} fields in the first line after the header of {path!r}",
            f"{width}, the columns {list(first.columns)}",
            f"{QUOTES}",
        )


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


def _kind(path: str) -> str:
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
        suffix, kind = Path(path).suffix.lower(), _kind(path)
        if "://" in path or kind == "parquet" or (suffix in COMPRESSIONS and suffix != ".gz"):
            continue
        try:
            with gzip.open(path, "rb") if suffix == ".gz" else open(path, "rb") as file:
                for number, line in enumerate(file, start=1):
                    _check_line(line, path, number, "utf-8" if kind == "json" else encoding)
        except (OSError, EOFError) as error:
            raise DataError(f"{path!r}, which is damaged ({error})", "a gzip file", "write it anew") from error


@contextmanager
def reading_stream() -> Iterator[None]:
    """Say in one line that a stream cannot be read any further.

    Raises:
        DataError: instead of what the reader of the files raises.
    """
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError, DatasetGenerationError) as error:
        raise DataError(
            f"a stream that cannot be read to its end ({_cause(error)})",
            "rows like those before",
            "correct the data; the file, where there is one, is named in the lines above",
        ) from error


def _check_line(line: bytes, path: str, number: int, encoding: str) -> None:
    if codecs.lookup(encoding).name != "utf-8":
        return  # an encoding of several bytes a character cannot be cut at line feeds
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        utf_16 = line[:2] in (b"\xff\xfe", b"\xfe\xff")
        hint = "UTF-16" if utf_16 else "another encoding or no text at all"
        name = (
            ""
            if _kind(path) == "json"
            else f", or name its encoding, e.g. encoding={'utf-16' if utf_16 else 'latin-1'}"
        )
        raise DataError(
            f"byte 0x{line[error.start]:02x} in line {number} of {path!r} ({hint})", "UTF-8", f"convert the file{name}"
        ) from error


def read_dataset(name: str | Dataset | DatasetDict, config: str | None, split: str, streaming: bool) -> Rows:
    """A split of a Hub dataset, of a folder laid out like one or written by `save_to_disk`, or of one in memory.

    Raises:
        DataError: if it cannot be found or reached, or has no such configuration or split, or is a stream and must not
            be one.
    """
    if not isinstance(name, str):
        if isinstance(name, (IterableDataset, IterableDatasetDict)):
            if not streaming:
                raise DataError(
                    f"an {type(name).__name__} without streaming=true",
                    "a Dataset, or streaming",
                    "set streaming=true and a max_length, or make a Dataset of it",
                )
            return _split_of(name, "the dataset", split)
        return _split_of(_streamed(name) if streaming else name, "the dataset", split)
    folder = Path(name)
    if not folder.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise DataError(_not_found(name))
    saved = any((folder / file).is_file() for file in ("dataset_dict.json", "state.json"))
    try:
        if saved:
            dataset = load_from_disk(name)
            if streaming:
                dataset = _streamed(dataset)
        else:
            dataset = load_dataset(name, config, streaming=streaming)
    except (DatasetNotFoundError, FileNotFoundError) as error:
        raise DataError(_not_found(name)) from error
    except ConnectionError as error:
        raise DataError(
            f"dataset={name!r}, and the Hub could not be reached ({_cause(error)})",
            "a network, or a local copy",
            f"where there is one, run `hf download {name} --repo-type dataset --local-dir FOLDER`, "
            "copy the folder here and set dataset=FOLDER",
        ) from error
    except (OSError, ValueError, RuntimeError, DatasetGenerationError) as error:  # RuntimeError: it is a script
        raise DataError(
            f"dataset={name!r} with dataset_config={config!r}, which cannot be loaded ({_cause(error)})",
            "a Hub id, a folder laid out like a Hub dataset, or one written by save_to_disk",
            "correct it",
        ) from error
    return _split_of(dataset, name, split)


def _not_found(name: str) -> str:
    return (
        f"got dataset={name!r}, which is neither a folder here nor a dataset that the Hub shows you -> expected a Hub "
        "id or a folder -> check the spelling, or run `hf auth login` if it is private"
    )


def _streamed(dataset: Dataset | DatasetDict):
    if isinstance(dataset, Dataset):
        return dataset.to_iterable_dataset()
    return IterableDatasetDict({name: rows.to_iterable_dataset() for name, rows in dataset.items()})


def _split_of(dataset, name: str, split: str) -> Rows:
    if not isinstance(dataset, dict):
        if split != "train":
            raise DataError(
                f"split={split!r} of {name!r}, which has no splits",
                "none to be named",
                "leave it out, or give a DatasetDict",
            )
        return dataset
    if split not in dataset:
        raise DataError(f"split={split!r} of {name!r}", f"one of {list(dataset)}", "name one of these")
    return dataset[split]


def text_rows(rows: Rows, text_column: str | None, prompt_column: str | None) -> Rows:
    """Keep the text, as column `text`, and the prompt, as column `prompt`.

    Raises:
        DataError: if a column does not exist (the message names those that do), is named twice or holds no text.
    """
    features = rows.features
    if features is None:  # a stream that has to be read to be known
        with reading_stream():
            rows = rows._resolve_features()
        features = rows.features
    if features is None:
        raise DataError("no row at all", "at least one line", "look at the file or split")
    if text_column is None:
        strings = [name for name, feature in features.items() if _is_text(feature) and name != prompt_column]
        text_column = "text" if "text" in features else strings[0] if len(strings) == 1 else None
        if text_column is None:
            raise DataError("no text_column", f"one of the columns {strings or list(features)}", "name it")
    check_columns_differ(text_column, prompt_column)
    for column in filter(None, (text_column, prompt_column)):
        if column not in features:
            raise DataError(f"column {column!r}", f"one of {list(features)}", "name one of these")
    if not _is_text(features[text_column]):
        raise DataError(
            f"column {text_column!r} of type {_type_name(features[text_column])}",
            "text",
            "name another text_column, or use IdsData for columns of integer ids",
        )
    kept = {text_column: "text"} | ({prompt_column: "prompt"} if prompt_column else {})
    rows = rows.select_columns(list(kept))
    rows = rows.rename_columns({old: new for old, new in kept.items() if old != new})
    if prompt_column:
        rows = _prompt_as_text(rows, features[prompt_column])
    if isinstance(rows, IterableDataset):  # a stream may take a run of missing values for another type
        rows = rows.cast(Features({column: Value("string") for column in kept.values()}))
    return rows


def _is_text(feature) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string", "string_view")


def _type_name(feature) -> str:
    return getattr(feature, "dtype", None) or type(feature).__name__


def _prompt_as_text(rows: Rows, feature) -> Rows:
    if _is_text(feature):
        return rows
    if isinstance(feature, ClassLabel):
        features = Features({"text": Value("string"), "prompt": Value("string")})
        return rows.map(_label_names, batched=True, fn_kwargs={"names": feature.names}, features=features)
    if isinstance(feature, Value) and feature.dtype.startswith(("int", "uint", "bool")):
        return rows.cast_column("prompt", Value("string"))
    raise DataError(
        f"a prompt column of type {_type_name(feature)}", "text, labels or integers", "name another column"
    )


def _label_names(batch: dict, names: list[str]) -> dict:
    return {"prompt": [None if label is None or label < 0 else names[label] for label in batch["prompt"]]}
