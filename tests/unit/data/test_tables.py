"""Tables as text: every row comes back, or the file is refused in words; what looks like something else is said."""

import gzip
import logging
import re
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgan_hf.data import IdsData, TextData
from seqgan_hf.data.delimited import FileFormat
from seqgan_hf.data.text import read_texts
from seqgan_hf.errors import DataError


@contextmanager
def catch_log():
    """What the package logs: `caplog` is not cleared between the examples of one test."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("seqgan_hf")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


@pytest.fixture
def read(tmp_path):
    def read_content(name: str, content: str | bytes, column: str | None = None, **form) -> list[str]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_texts(str(path), column, FileFormat(**form))

    return read_content


# -- quotes -----------------------------------------------------------------------------------------------------------

SPEECH = 'label,text\na,"one two\nb,three\nc,four"\nd,five six\n'
LINES = ['"one two', "three", 'four"', "five six"]
HAIKU = [
    "old pond\nfrog leaps in\nwater's sound",
    "first snow\non the bridge",
    'she said ""rain""\nand left',
    "one line",
]


def quoted(texts: list[str]) -> str:
    return "haiku\n" + "".join(f'"{text}"\n' for text in texts)


def test_tsv_has_no_quotes(read):
    assert read("a.tsv", SPEECH.replace(",", "\t")) == LINES


@pytest.mark.parametrize("between", [1, 500])
def test_stray_quotes_never_make_one_row_of_many(between, read):
    rows = [f"b,three {number}" for number in range(between)]
    content = "\n".join(["label,text", 'a,"one two', *rows, 'c,four"', "d,five six", ""])
    message = rf"quotes make one row of lines 2 to {between + 3} of .*a.csv.* Set quoting=false .* or quoting=true"
    with pytest.raises(DataError, match=message):
        read("a.csv", content)
    assert len(read("a.csv", content, quoting=False)) == between + 3
    assert len(read("a.csv", content, quoting=True)) == 2
    one_column = content.replace("label,", "").replace(",", " ")
    if between > 20:
        with pytest.raises(DataError, match="quotes make one row of lines"):
            read("a.csv", one_column.replace('a "', '"').replace("d ", ""))


@pytest.mark.parametrize("line", ["b,three, four", "b,three, four, five", "b, three", ""])
@pytest.mark.parametrize("every", [1, 3, 50])
def test_stray_quotes_around_lines_with_more_separators(line, every, read):
    """Those of a text are fewer than those of the columns, or have white space behind them."""
    rows = [line if number % every == 0 else "b,three" for number in range(100)]
    with pytest.raises(DataError, match="quotes make one row of lines 2 to 103"):
        read("a.csv", "\n".join(["label,text", 'a,"one two', *rows, 'c,four"', "d,five six", ""]))


def test_verses_with_commas_are_texts_of_several_lines(read):
    verses = (
        "I wandered lonely, as a cloud,\nThat floats, on high, o'er vales,\nAnd hills, when once, I saw,\na crowd."
    )
    content = "n,text\n" + "".join(f'{number},"{verses}"\n' for number in range(3))
    assert read("a.csv", content) == [verses] * 3


def test_stray_quotes_are_found_beside_many_texts_of_several_lines(read):
    poems = "".join(f'{number},"one\ntwo"\n' for number in range(500))
    swallowed = 'x,"he\n' + "y,said\n" * 200 + 'z,so"\n'
    with pytest.raises(DataError, match="one row of lines 1002 to 1203"):
        read("a.csv", f"n,text\n{poems}{swallowed}")


def test_stray_quotes_among_texts_of_several_lines(read):
    """They are found by the lines that they take in, however many texts of several lines are well written."""
    poems = "".join(f'{number},"one\ntwo"\n' for number in range(50))
    swallowed = 'x,"he\n' + "y,said\n" * 200 + 'z,so"\n'
    with pytest.raises(DataError, match="one row of lines 102 to 303"):
        read("a.csv", f"n,text\n{poems}{swallowed}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('text\n"hello" he said\nyes\n', r"text after a closing quote in line 2 .*'\"hello\" he said'"),
        ('text\nyes\n"hello he said\nno\n', "a quote in line 3 of .* is never closed"),
        ('"text\nyes\n"\nno\n', "quotes make one header of lines 1 to 3"),
    ],
)
def test_quotes_that_enclose_no_field_are_refused(content, message, read):
    with pytest.raises(DataError, match=f"{message}.*quoting=false if quotes belong to the text"):
        read("a.csv", content)


@pytest.mark.parametrize("content", ['n\ttext\n1\t"a\nb"\n', 'n\ttext\n1\t"a\tb"\n'])
def test_quotes_of_a_tsv_that_enclose_fields_are_named(content, read):
    with pytest.raises(DataError, match="fields in line [23] .*Set quoting=true if quotes enclose fields"):
        read("a.tsv", content)
    assert len(read("a.tsv", content, quoting=True)) == 1


def test_quotes_as_text(read):
    assert read("a.csv", 'text\n"hello" he said\n"yes"\n', quoting=False) == ['"hello" he said', '"yes"']


def test_texts_of_several_lines_are_read_and_said(read, caplog):
    with caplog.at_level(logging.INFO, "seqgan_hf"):
        texts = read("a.csv", quoted(HAIKU), "haiku")
    assert texts == [text.replace('""', '"') for text in HAIKU]
    assert "8 lines are 4 rows, since quotes enclose 3 texts of several lines (up to 3, from line 2 on)" in caplog.text
    caplog.clear()
    read("a.csv", quoted(HAIKU), "haiku", quoting=True)
    assert not caplog.text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", 'text\nyes\n"no"\n', "quotes around 1 fields that need none are left out"),
        ("a.csv", 'text\n"yes"\n"no"\n', ""),
        ("a.csv", 'text\nyes\n"no, never"\n"a ""b"""\n', ""),
        ("a.tsv", 'n\ttext\n1\t"say ""x"""\n2\ty\n', "quotes around 1 fields are kept; set quoting=true if"),
        ("a.tsv", 'n\ttext\n1\t"say" he "x"\n2\ty "z"\n', ""),
    ],
)
def test_quotes_that_can_be_meant_either_way_are_said(name, content, said, read, caplog):
    read(name, content)
    assert said in caplog.text if said else not caplog.text
    caplog.clear()
    read(name, content, quoting=name == "a.csv")
    assert not caplog.text


def test_a_field_without_end(read):
    with pytest.raises(DataError, match="more than 16,777,216 characters in one field from line 2"):
        read("a.csv", 'text\n"' + "x" * (2**24 + 10))


# -- separators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_the_separator_is_recognised(separator, ending, read, caplog):
    content = "id;text\n1;hello\n2;you there\n".replace(";", separator)
    with caplog.at_level(logging.INFO, "seqgan_hf"):
        assert read(f"a.{ending}", content) == ["hello", "you there"]
    usual = {"csv": ",", "tsv": "\t"}[ending]
    assert (f"fields are separated by {separator!r}" in caplog.text) == (separator != usual)


def test_the_separator_is_recognised_where_a_text_goes_on_after_the_first_lines(read):
    content = "text;id\n" + "".join(f"w;{number}\n" for number in range(998)) + '"a\nb";998\n'
    assert len(read("a.csv", content)) == 999


def test_a_comma_in_a_text_is_no_separator(read):
    assert read("a.csv", "id;text\n1;hello, you\n2;bye\n") == ["hello, you", "bye"]
    assert read("a.csv", 'id,text\n1,"hello; you"\n2,"bye; you"\n') == ["hello; you", "bye; you"]


@pytest.mark.parametrize(
    ("content", "form", "message"),
    [
        ("id;text\n1;hello; you\n2;bye\n", {}, "'id;text'.* if there are several columns, set separator"),
        ("id;text\n1;hello, you\n2;bye; you\n", {}, "2 fields in line 2 .*set separator"),
        ("a,b;c\n1,2;x\n3,4;y\n", {}, "',' or ';' may separate the fields .*Set separator"),
        ("1;hello\n2;you\n", {"header": False}, "';' may separate the fields .*: expected one separator, ','"),
        ("text\n1;hello\n2;you\n", {}, "';' in every line of .* but the first: .*Set separator=',' if it belongs"),
        ("text\n1|hello\n2|you | me\n", {}, "'|' in every line of .* but the first"),
        ("sep=;\nid;text\n1;hello\n", {}, "a line for Excel, 'sep=;'"),
        ("id,text\n1,a\n", {"separator": ", "}, "separator=', ': expected one character"),
        ("id,text\n1,a\n", {"separator": '"'}, "separator='\"': expected one character"),
    ],
)
def test_a_separator_that_cannot_be_told_is_asked_for(content, form, message, read):
    with pytest.raises(DataError, match=message):
        read("a.csv", content, **form)


def test_a_separator_in_every_text(read):
    assert read("a.csv", "text\n1;hello\n2;you\n", separator=",") == ["1;hello", "2;you"]
    assert read("a.csv", "text\n1;hello\nyou\n") == ["1;hello", "you"]
    assert read("a.csv", "text\nI came; I saw\nso; no\n") == ["I came; I saw", "so; no"]
    assert read("a.tsv", "text\nI came, I saw\nso, no\n") == ["I came, I saw", "so, no"]


def test_a_named_separator(read, tmp_path):
    content = "a,b;text\n1,2;hello\n3,4;bye; you\n"
    assert read("a.csv", content.replace("; you", ""), separator=";") == ["hello", "bye"]
    with pytest.raises(DataError, match="3 fields in line 3 .*expected 2, as in .*Put quotes around text that holds"):
        read("a.csv", content, separator=";")
    path = tmp_path / "b.csv"
    path.write_text("n\ttext\n" + "1\ta b\n" * 3)
    assert TextData(train_file=str(path), separator=r"\t").load().report["train"]["read"] == 3


# -- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("emma\nolivia\nava\n", r"\['emma'\] in the first line .*the name of a column or a text"),
        ("how are you\nfine\n", "look like data"),
        ("1,hello\n2,you\n", r"\['1', 'hello'\] .*which look like data: expected names of columns"),
        ("007\n123\n", "look like data"),
        ("?,a cat\n1,a dog\n2,c\n", "look like data"),
        (",a dog runs\n1,a cat sits\n", "look like data"),
        ("NaN,cat\n5,dog\n", "look like data"),
        ("12%,cat\n13,dog\n", "look like data"),
        ('"1,000",cat\n5,dog\n', "look like data"),
        ("pos,cat\nneg,dog\npos,ant\n", r"\['pos', 'cat'\] .* of which 'pos' stands below it again"),
        ("label,line\n1,a\nlabel,line\n2,b\n", "of which 'label' stands below it again"),
    ],
)
def test_a_header_that_looks_like_data_is_named(content, message, read):
    with pytest.raises(DataError, match=f"{message}.* Set header=false if this is a row"):
        read("a.csv", content)


@pytest.mark.parametrize("content", ["pos,cat\n1,dog\n", "emma\n1 2\n3\n", "n,line\n1,x\n2,y\n"])
def test_a_header_that_nothing_proves_is_said(content, tmp_path, caplog):
    path = tmp_path / "a.csv"
    path.write_text(content)
    told = f"the first line, {content.splitlines()[0].split(',')}, is taken for names of columns; set header=false if"
    for more, said in (({}, True), ({"header": True}, False), ({"ids_column": "line"}, "line" not in content)):
        caplog.clear()
        with suppress(DataError):  # most of these columns hold no ids
            IdsData(train_file=str(path), **more).load()
        assert (told in caplog.text) == said
    caplog.clear()
    with suppress(DataError):
        TextData(train_file=str(path)).load()
    assert told in caplog.text


def test_no_row_is_lost_to_a_header_that_is_none(read):
    assert read("a.csv", "emma\nolivia\nava\n", header=False) == ["emma", "olivia", "ava"]
    assert read("a.csv", "1,hello\n2,you\n", header=False) == ["hello", "you"]
    assert read("a.csv", "x,hello\ny,you\n", "column2", header=False) == ["hello", "you"]
    assert read("a.csv", "emma\nolivia\nava\n", "emma") == read("a.csv", "emma\nolivia\n", header=True) + ["ava"]


@pytest.mark.parametrize("content", ["text\na\nb\n", ",line\n0,a\n1,b\n", "n,line\n1.5,a\n-2e3,b\n"])
def test_headers_that_are_certain(content, read):
    assert read("a.csv", content) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,text\na,b\n", "the same name twice"),
        ("\ntext\na\n", "no fields in the first line"),
        ("text\n", "has only a header.*header=false if it is a row"),
        ("id,text\n1,a\n2\n", "1 fields in line 3 .*: expected 2"),
        ("id,te\0xt\n1,a\n", "NUL in line 1 of"),
        ("id,text\n1,a\n2,\0\n", "NUL in line 3 of"),
    ],
)
def test_broken_tables(content, message, read):
    with pytest.raises(DataError, match=message):
        read("a.csv", content)


def test_rows_that_pandas_would_lose(read, monkeypatch):
    monkeypatch.setattr("seqgan_hf.data.sources.load_dataset", lambda *_, **__: Dataset.from_dict({"text": ["a"]}))
    with pytest.raises(DataError, match="2 rows in .*a.csv', of which 1 were read: expected all"):
        read("a.csv", "text\na\nb\n")


def test_tables_that_differ(tmp_path):
    for name, content in (("a", "n,text\n1,x\n"), ("b", "n;text\n1;x\n"), ("c", "m,text\n1,x\n")):
        (tmp_path / f"{name}.csv").write_text(content)
    for other, what in (("b", "separator ';'"), ("c", "columns .'m', 'text'.")):
        with pytest.raises(DataError, match=f"{what} in .*{other}.csv.*: expected the same in all files"):
            TextData(train_file=[str(tmp_path / "a.csv"), str(tmp_path / f"{other}.csv")]).load()


def test_ids_without_a_header(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("3 1 4\n1 5\n9 2 6\n")
    with pytest.raises(DataError, match="look like data"):
        IdsData(train_file=str(path)).load()
    assert IdsData(train_file=str(path), header=False, eval_size=1).load().report["train"]["read"] == 3
    for content in ("n,notes\n1,3 1 4\n2,1 5\n3,9 2 6\n", "notes\n3 1 4\n1 5\n9 2 6\n"):
        path.write_text(content)
        assert IdsData(train_file=str(path), eval_size=1).load().vocab_size == 13


# -- settings ---------------------------------------------------------------------------------------------------------


def test_settings_of_tables_are_for_tables(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\nb\n")
    with pytest.raises(DataError, match="'header': False.* with .*a.txt.*only with .csv and .tsv"):
        TextData(train_file=str(path), header=False).load()
    with pytest.raises(DataError, match="only with .csv and .tsv files. Leave them out"):
        TextData(dataset=Dataset.from_dict({"text": ["a", "b"]}), quoting=True)


def test_tables_in_a_folder_are_read_likewise(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.tsv").write_text(SPEECH.replace(",", "\t"))
    (folder / "test.tsv").write_text("label\ttext\na\tx\n")
    corpus = TextData(dataset=str(folder), eval_split="test", text_column="text").load()
    assert corpus.texts("train") == LINES
    with pytest.raises(DataError, match=r"split='dev' of .*: expected one of \['train', 'test'\]"):
        TextData(dataset=str(folder), eval_split="dev").load()
    (folder / "train.tsv").write_text(SPEECH)
    with pytest.raises(DataError, match="no column 'text': expected one of .'label,text'."):
        TextData(dataset=str(folder), text_column="text", separator="\t", header=True).load()


@pytest.mark.parametrize("streaming", [False, True])
def test_prompts_and_columns_of_numbers(streaming, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("label;n;line\n" + "".join(f"{i % 2};00{i};w{i}\n" for i in range(6)))
    source = TextData(train_file=str(path), prompt_column="label", eval_size=1, streaming=streaming, max_length=4)
    corpus = source.load()
    assert len(list(corpus.train)) == 5 and corpus.conditional
    numbers = TextData(train_file=str(path), text_column="n", eval_size=1).load()
    assert {row["text"] for row in numbers.report["examples"]} < {f"00{i}" for i in range(6)}


def test_a_column_is_of_numbers_if_it_is_in_all_files(tmp_path):
    for name, number in (("a", "1"), ("b", "one")):
        (tmp_path / f"{name}.csv").write_text(f"n,line\n{number},x\n")
    files = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    with pytest.raises(DataError, match=r"no text_column: expected one of the columns \['n', 'line'\]"):
        TextData(train_file=files, header=True).load()
    assert TextData(train_file=files, header=True, text_column="line").load().report["train"]["read"] == 2


# -- other kinds of files ---------------------------------------------------------------------------------------------

PEPTIDES = ">12\nMKVLA\n>13 human\nMLLA\nGGT*\n"


def test_a_missing_value_is_no_text(read):
    with pytest.raises(DataError, match="no value .* in row 1 of .*a.jsonl"):
        read("a.jsonl", '{"text": "a"}\n{"text": null}\n')


def test_fasta_is_recognised(read):
    with pytest.raises(DataError, match="FASTA in .*2 of its first 5 lines are headers such as '>12': .*awk"):
        read("a.txt", PEPTIDES)
    with pytest.raises(DataError, match="FASTA"):
        read("a.fasta.gz", gzip.compress(PEPTIDES.encode()))


@pytest.mark.parametrize(
    "content",
    [
        "> 12\nMKVLA\n> 13 human\nMLLA\n",  # a space behind the angle
        ">\nMKVLA\n>\nMLLA\n",  # no name
        ">a\nMKVLAGGTAA MKVL\nMLLA\n\n>b\nMLLA\n",  # several lines, blocks, a blank line
        ";c\n>a\nMKVLA\n",  # a comment
        ">a\n>b\nMKVLA\n>c\nMLLA\n",  # an empty sequence
        ">12\nmkvla\n>sp|P1|x\nmllaou\n",  # small letters
        ">a\nACGTnnacgu\n>b\nacgt\n",
    ],
)
def test_fasta_of_every_form_is_recognised(content, read, tmp_path):
    with pytest.raises(DataError, match="FASTA in .* headers such as '[>;]") as refusal:
        read("a.txt", content)
    command = re.search("(awk '.*') FILE > sequences.txt", str(refusal.value))[1]
    converted = subprocess.run(f"{command} {tmp_path}/a.txt", shell=True, check=True, capture_output=True, text=True)
    blocks = re.split(r"^[>;].*\n", content, flags=re.MULTILINE)
    assert converted.stdout.splitlines() == [sequence for block in blocks if (sequence := "".join(block.split()))]


@pytest.mark.parametrize(
    "content",
    [
        ">be me\n>go out\nwell",
        "> yes, I think\nno",
        "a\n>b\nc",
        ">a\nyes, I\n>b\nno",
        "> are you there\nyes\n> when\nnow",  # quoted mail
        "> ARE YOU THERE\nYOU BET\n> WHEN\nNOW\n>\n> GOOD\nOK",
        "> quoted\n>\n> more of it\n\nAn answer.",  # Markdown
        ">>12345\nwell\n>>12346\nno",
        ";)\nOK\n;(\nNO",
        ">hi\nhello\n>12 of us\nfine",
    ],
)
def test_lines_with_angles_are_text(content, read):
    assert [line for line in read("a.txt", content) if line] == [line for line in content.splitlines() if line]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            '{"text": "a"}\n{"text": "b"}\n',
            "all of the first 2 lines are JSON objects; give the file the ending",
        ),
        ("a\tb c\nd\te\n", "all of the first 2 lines have 2 fields between tabs"),
        ("a\tb c\nd e\n", ""),
        ('{"text": "a"}\nb\n', ""),
        ("1\t2\n3\t4\n", ""),
    ],
)
def test_text_that_may_be_a_table_is_said(content, said, read, caplog):
    assert read("a.txt", content) == content.splitlines()
    assert said in caplog.text if said else not caplog.text


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark(name, encoding, read):
    content = "text\nhello\nyou\n".encode(encoding)
    with pytest.raises(DataError, match=f"are NUL: .*encoding={encoding}"):
        read(name, content)
    assert read(name, content, encoding=encoding)[-2:] == ["hello", "you"]


def test_windows_quotes_are_no_control_characters(read):
    content = "text\nca\xe9f\n\u201cso\u201d\n".encode("cp1252")
    with pytest.raises(DataError, match="byte 0xe9 in line 2 .*encoding=cp1252"):
        read("a.csv", content)
    assert read("a.csv", content, encoding="cp1252") == ["ca\xe9f", "\u201cso\u201d"]


# -- rows in, rows out ------------------------------------------------------------------------------------------------

WILD = st.text("ab1é漢 \"'\\,;\t|\n\r\0\x0b\x0c\x1a\x1c\x85\u2028#", max_size=8)


def written(rows: list[list[str]], separator: str, end: str, always: bool) -> str:
    """A table as the writers of spreadsheets make it; a blank line is the same as an empty text."""

    def field(text: str) -> str:
        needed = always or text[:1] == '"' or any(c in text for c in f'{separator}"\r\n')
        return '"' + text.replace('"', '""') + '"' if needed else text

    return end.join(separator.join(map(field, row)) for row in rows)


ENDS = st.sampled_from(["\n", "\r\n", "\r"])
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
ROWS = st.integers(1, 3).flatmap(lambda width: st.lists(st.lists(WILD, min_size=width, max_size=width), min_size=1))


def write_table(folder, rows, separator, end, always, encoding, ending) -> str:
    path = folder / f"a.{ending}"
    content = (written(rows, separator, end, always) + end).encode(encoding)
    path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    return str(path)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.sampled_from(",;\t|"), ENDS, st.booleans(), ENCODINGS, st.sampled_from(["csv", "tsv", "csv.gz"]))
def test_rows_in_are_rows_out_where_all_is_known(tmp_path_factory, rows, separator, end, always, encoding, ending):
    top = ["text", "label", "note"][: len(rows[0])]
    form = FileFormat(encoding=encoding.removesuffix("-sig"), separator=separator, quoting=True)
    nul = "".join(map("".join, rows)).count("\0")
    for header, column in ((True, "text"), (False, "column1" if len(top) > 1 else "text")):
        table = [top, *rows] if header else rows
        path = write_table(tmp_path_factory.mktemp("a"), table, separator, end, always, encoding, ending)
        try:
            texts = read_texts(path, column, replace(form, header=header))
        except DataError as error:
            # NUL and a table that begins with a blank line are refused
            assert (nul and "NUL" in str(error)) or (rows[0] == [""] and "no fields in the first" in str(error))
            continue
        assert not nul
        assert texts == [row[0] for row in rows]


@settings(max_examples=40, deadline=None)
@given(ROWS, st.sampled_from(",;\t|"), ENDS, st.booleans(), ENCODINGS)
def test_rows_in_are_rows_out_or_a_refusal_where_it_is_guessed(
    tmp_path_factory, rows, separator, end, always, encoding
):
    """The header is certain, since it has a column `text`; separator and quotes are not named."""
    table = [["text", "label", "note"][: len(rows[0])], *rows]
    path = write_table(tmp_path_factory.mktemp("a"), table, separator, end, always, encoding, "csv")
    try:
        texts = read_texts(path, "text", FileFormat(encoding=encoding.removesuffix("-sig")))
    except DataError:
        return
    assert texts == [row[0] for row in rows]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("ab \"'\t,é", max_size=6), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n", "\r"]))
def test_lines_in_are_rows_out_where_quotes_are_text(tmp_path_factory, lines, end):
    path = tmp_path_factory.mktemp("tables") / "a.tsv"
    path.write_text(end.join(["label\ttext", *(f"x\t{line}" for line in lines)]), encoding="utf-8", newline="")
    if any("\t" in line for line in lines):
        with pytest.raises(DataError, match="3 fields|fields in line"):
            read_texts(str(path), "text")
    else:
        assert read_texts(str(path), "text") == lines


@settings(max_examples=100, deadline=None)
@given(st.text('ab ",\n', max_size=30))
def test_no_line_of_any_csv_disappears_unsaid(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("tables") / "a.csv"
    content = f"text,label\na,b\n{content}"
    path.write_text(f"{content}\n", encoding="utf-8")
    with catch_log() as said:
        try:
            texts = read_texts(str(path))
        except DataError:
            return
    assert len(texts) == content.count("\n") or any("texts of several lines" in message for message in said)
