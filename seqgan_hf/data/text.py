"""Text as a source of sequences: files and datasets in, token ids out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from datasets import Dataset

from ..errors import DataError
from .corpus import Corpus
from .delimited import FileFormat
from .encoding import Encoding, encode_corpus
from .infilling import Blanks, add_blanks
from .sources import find_files, ids_as_text, prompt_rows, read_files, text_rows
from .splitting import check_nulls
from .streaming import split_stream
from .tables import TableData
from .tokenization import TokenizerConfig, build_tokenizer


@dataclass
class TextData(TableData):
    """Lines of text. The arguments are those of `TableData`, and these:

    Args:
        text_column: column with the text; `None` takes `text`, or the only column of text.
        tokenizer: how text becomes tokens; trained on the training lines unless a pretrained one is named.
        streaming: read, tokenize and pad while training, for what does not fit on the disk; needs `max_length`.
        blanks: leave words out of every line, which then is the prompt to what is missing.
    """

    text_column: str | None = None
    tokenizer: TokenizerConfig | None = None
    streaming: bool = False
    blanks: Blanks | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tokenizer = self.tokenizer or TokenizerConfig()

    def load(self) -> Corpus:
        """Read, tokenize and split; of a stream, only the held-out lines.

        Raises:
            DataError: if the data cannot be read or used; the message names file, line or row, and the remedy.
        """
        if self.streaming and (self.max_length is None or self.deduplicate):
            problem = f"streaming=true with max_length={self.max_length} and deduplicate={self.deduplicate}"
            raise DataError(problem, "a max_length and no deduplication, as a stream is read line by line")
        if self.blanks is not None and self.prompt_column is not None:
            problem = f"blanks with prompt_column={self.prompt_column!r}"
            raise DataError(problem, "one kind of prompt", "leave one of them out")
        named = {self.text_column or "text", self.prompt_column} - {None}
        rows = self._read(named, self.streaming)
        rows = [text_rows(each, self.text_column, self.prompt_column) for each in rows]
        if self.streaming:
            stream, held_out, report, batches = split_stream(*rows, eval_size=self.eval_size, too_long=self.too_long)
            train = stream.first
        else:
            train, held_out, report = self._split(*rows)
            stream, batches = None, train.tables
        tokenizer = build_tokenizer(
            self.tokenizer, lambda: (column.to_pylist() for table in batches() for column in table.columns)
        )
        if self.blanks is not None:
            characters = self.tokenizer.pretrained is None and self.tokenizer.level == "char"
            add_blanks(tokenizer, characters)
            train, held_out = (self.blanks.of_part(part, characters) for part in (train, held_out))
            stream = stream and self.blanks.of_stream(stream, characters)
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id if self.eos else None
        encoding = Encoding(tokenizer, bos, eos, self.max_length, self.max_prompt_length, self.too_long)
        return encode_corpus(train, held_out, report, encoding, stream)


def read_texts(path: str, text_column: str | None = None, form: FileFormat | None = None) -> list[str]:
    """The texts of a file of any kind that `TextData` reads, one a row, empty ones included.

    Args:
        path: of the file, or a pattern of several.
        text_column: column with the text, or with lists of ids; `None` takes `text`, or the only column of text.
        form: how the file is written.

    Raises:
        DataError: if the file cannot be read or used; the message names file, line or row, and the remedy.
    """
    return _read(path, text_column or "text", form, lambda rows: text_rows(rows, text_column, None))


def read_prompts(path: str, prompt_column: str | None = None, form: FileFormat | None = None) -> list[str]:
    """The prompts of a file, likewise; `prompt_column` may hold text, labels or integers, as in training.

    `None` takes `prompt`, or the only column of text.
    """
    return _read(path, prompt_column or "prompt", form, lambda rows: prompt_rows(rows, prompt_column))


def _read(path: str, named: str, form: FileFormat | None, choose: Callable[[Dataset], Dataset]) -> list[str]:
    with TemporaryDirectory(ignore_cleanup_errors=True) as cache:  # a file is evaluated once
        rows = read_files(find_files(path), {named}, form or FileFormat(), streaming=False, cache=cache)
        table = choose(ids_as_text(rows)).with_format("arrow")[:]
        check_nulls(table, path, 0)
        return table.column(0).to_pylist()
