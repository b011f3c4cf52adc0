"""The converter, rewards and metrics beside the recipe of tunes."""

from __future__ import annotations

import json
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqgan_hf.commands import main
from seqgan_hf.errors import UserError
from tests.tools.small_runs import ROOT, short_run


FOLDER = ROOT / "recipes" / "tunes"
JIG = "M:6/8 K:D A | d2 d f e d | B d B A F D | (3 D F A B2 A c | d6 | e6 | f6 | d3 d2"
REEL = "M:4/4 K:Em e/2 f/2 | g2 f e B- B z2 | ^d e f3 B/2 A/2 G F | E4 =c, e' _B2 | E4 z3"
BROKEN = {
    "no metre and key in front": [
        "",
        "d2 d f e d",
        "M:6/8",
        "M:6/8 d2 d | f e d",
        "M:0/8 K:D | d",
        JIG.replace("K:D", "K:Dxyz"),
        JIG.replace("M:6/8", "M:6/7"),
    ],
    "fewer than 4 bars": ["M:6/8 K:D d6 | d6 | d6", "M:6/8 K:D"],
    "a word that is no note": [JIG.replace("B2", "H2"), JIG.replace("B2", "B0"), JIG.replace("B2", "K:D")],
    "an empty bar or an unfinished triplet": [JIG.replace("(3 D F A B2 A c", "D4 (3 D F"), JIG.replace("A |", "| |")],
    "a tie that does not lead to the same note": [JIG.replace("B d B", "B d- B"), JIG.replace("d3 d2", "d3 d2-")],
    "a bar that does not fill the metre": [
        JIG.replace("B d B", "B d2 B"),
        JIG.replace("B d B", "B B"),
        JIG.replace("d3 d2", "d3 d"),
        JIG.replace("A |", "A7 |").replace("d3 d2", "d6"),
        JIG.replace("(3 D", "D"),
    ],
}

ABC = """
% a book of tunes
X: 1
T:First and (1) "Last"
R:jig
M:4/4
K:A
M:6/8
P:A
A|"D"d2d fe.d|B-BB {e}(AFD)|\\
(3DFA B2 Ac|[1 d3 d2:|
 [2 d3 d3||
K:D
P:B
|:"D"a6|"G"g2g- g2 e|d/f/a/ A3/2 B3|!trill! d6::a3 f3|[M:6/8]g6|~g6|
f6|1 d6:|2 d3 d3|]

X: 2
T:Second
M:C
L:1/4
K:E minor
e/4f/4|:g f/e/ B>A|e<d B//c// d/2z|e4|e7/2:|
w: la la
"""
LINES = [
    "M:6/8 K:A A | d2 d f e d | B- B B A F D | (3 D F A B2 A c | d3 d2",
    "M:6/8 K:D a6 | g2 g- g2 e | d/2 f/2 a/2 A3/2 B3 | d6",
    "M:6/8 K:D a3 f3 | g6 | g6 | f6 | d6",
    "M:4/4 K:Em e/2 f/2 | g2 f e B3 A | e d3 B/2 c/2 d z2 | e8 | e7",
]
LEFT_OUT = {
    "[eg]4|e4|e4|e4": "a sign that is not read, such as notes played at once",
    "e4|(5efefe|e4|e4": "a sign that is not read, such as notes played at once",
    "e4|e4|e4|\nK:G\ne4": "a change of metre, unit or key",
    "e4|e4|[M:3/4]e3|[M:4/4]e4": "a change of metre, unit or key",
    "e4|e/0e4|e4|e4": "a sign that is not read, such as notes played at once",
    "e4|e4": "fewer than 4 bars",
    "e4|e4|e5|e4": "a bar that does not fill the metre",
    "e4|e4-|f4|e4": "a tie that does not lead to the same note",
}


@pytest.fixture(scope="module")
def tunes():
    """The modules beside the recipe, `tune_rewards` and `convert_abc`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        import convert_abc
        import tune_rewards

        yield tune_rewards, convert_abc
    for name in ("convert_abc", "tune_rewards"):
        del sys.modules[name]


@pytest.fixture(scope="module")
def rewards(tunes):
    return tunes[0]


@pytest.fixture(scope="module")
def convert(tunes):
    return tunes[1]


def test_a_valid_tune_has_eight_bars_and_fills_them(rewards):
    assert rewards.validity([JIG, REEL, JIG.replace("d3 d2", "d6")]) == [1.0, 0.0, 1.0]
    assert rewards.full_bars([JIG, REEL, JIG.replace("d6", "d6 | d6")]) == [1.0, 5 / 8, 1.0]
    assert rewards.read_full_tune(REEL).lengths == [1, 8, 8, 8, 7]
    assert rewards.read_full_tune(JIG).metre == Fraction(6)


@pytest.mark.parametrize(("reason", "line"), [(reason, line) for reason, lines in BROKEN.items() for line in lines])
def test_what_is_no_valid_tune_earns_nothing_and_says_why(reason, line, rewards):
    assert rewards.validity([line]) == [0.0]
    with pytest.raises(ValueError) as found:
        rewards.read_full_tune(line)
    assert str(found.value) == reason


def test_the_share_of_full_bars(rewards):
    two_wrong = JIG.replace("B d B", "B B").replace("d3 d2", "d")
    assert rewards.full_bars([two_wrong, "no tune"]) == [6 / 8, 0.0]


def test_tunes_are_counted_by_what_they_are(rewards):
    other = JIG.replace("K:D", "K:G")
    samples = [JIG, JIG, f" {other}", JIG.replace("B2", "^c2"), JIG.replace("B2", "B3"), REEL, ""]
    found = rewards.tunes(samples, [other.split()])
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(
        {
            "valid": 4 / 7,
            "unique": 3 / 4,
            "novel": 2 / 3,
            "full_bars": (4 + 7 / 8 + 5 / 8) / 7,
            "in_key": (3 + 22 / 23) / 4,
            "bars": (5 * 8 + 5 + 1) / 7,
        }
    )
    assert found["valid"].low < 4 / 7 < found["valid"].high
    none = rewards.tunes([REEL], [JIG.split()])
    assert [none[name].value for name in ("valid", "unique", "novel", "in_key")] == [0.0] * 4


def test_training_lines_that_are_no_tunes_are_named(rewards):
    with pytest.raises(UserError, match="^no training line is a tune: .*to_lines"):
        rewards.tunes([JIG], [["a", "cat"], REEL.split()])


def test_abc_notation_becomes_lines(convert, tmp_path, capsys):
    (tmp_path / "a.abc").write_text(ABC, encoding="utf-8-sig")
    (tmp_path / "b.abc").write_text(ABC.partition("X: 2")[0].replace("\n", "\r\n") + "X: 3\nM:none\nK:D\nd4|d4")
    sources = [str(tmp_path / name) for name in ("a.abc", "b.abc")]
    assert convert.main(["to_lines", *sources, "--output", str(tmp_path / "tunes.txt")]) == 0
    assert (tmp_path / "tunes.txt").read_text().splitlines() == LINES
    said = f"4 parts of tunes written to {tmp_path}/tunes.txt; left out: 3 (written already), "
    assert capsys.readouterr().out == said + "1 (no metre and key in front)\n"


@pytest.mark.parametrize(("music", "reason"), LEFT_OUT.items())
def test_what_is_left_out_is_said(music, reason, convert):
    found = list(convert.parts_of(f"X:1\nM:4/4\nL:1/4\nK:C\n|:{music}:|c4|c4|c4|c4|]"))
    assert str(found[0]) == reason and found[1].endswith(" c8 | c8 | c8 | c8")


@pytest.mark.parametrize(
    ("key", "word"), {"C": "C", "Bb": "Bb", "f#": "", "Amin": "Am", "D Mixolydian": "Dmix", "G major": "G"}.items()
)
def test_keys(key, word, convert):
    line = next(convert.parts_of(f"X:1\nM:3/4\nK:{key}\nc6|c6|c6|c6"))
    assert (line == f"M:3/4 K:{word} c6 | c6 | c6 | c6") if word else isinstance(line, ValueError)


@pytest.mark.parametrize(("metre", "length"), {"2/4": "/2", "6/8": "", "C|": "", "5/8": "/2"}.items())
def test_a_unit_that_is_not_named_follows_from_the_metre(metre, length, convert):
    notes = {"2/4": 8, "6/8": 6, "C|": 8, "5/8": 10}[metre]
    line = next(convert.parts_of(f"X:1\nM:{metre}\nK:C\n" + "|".join(["c" * notes] * 4)))
    assert line == f"M:{metre.replace('C|', '2/2')} K:C " + " | ".join([" ".join([f"c{length}"] * notes)] * 4)


NAMES = st.builds(
    "".join, st.tuples(st.sampled_from(["", "^", "__", "="]), st.sampled_from(["C,,", "G", "a", "b'", "z"]))
)


@given(
    st.lists(st.lists(NAMES, min_size=4, max_size=4), min_size=3, max_size=40), st.lists(NAMES, min_size=1, max_size=4)
)
def test_a_line_comes_back_from_abc_notation(convert, full, upbeat):
    bars = [" ".join(upbeat), *(f"{a}3/2 {b}/2 (3 {c}/2 {c}/2 {c}/2 {d}" for a, b, c, d in full)]
    line = "M:2/4 K:Edor " + " | ".join(bars)
    assert list(convert.parts_of(convert.to_abc(line, 1, "a | b"))) == [line]


@given(st.text(alphabet="ABcdz^_=,'/0123456789|:[]()<>-xMKLP\"!{}%\\ \n"))
def test_wild_notation_gives_full_tunes_or_reasons(tunes, text):
    rewards, convert = tunes
    for part in convert.parts_of(f"X:1\nM:4/4\nK:C\nC8|C8|C8|{text}"):
        assert isinstance(part, ValueError) or rewards.read_full_tune(part)
    assert rewards.validity([text, f"M:4/4 K:C {text}"]) == [0.0, 0.0] or text.count("|") > 6


def test_lines_become_abc_notation_and_midi_that_music21_reads(convert, tmp_path, capsys):
    from music21 import converter

    (tmp_path / "samples.txt").write_text(f"{JIG}\nno tune\n{REEL}\n")
    places = ["--output", str(tmp_path / "samples.abc"), "--midi", str(tmp_path / "midi")]
    assert convert.main(["to_abc", str(tmp_path / "samples.txt"), *places]) == 0
    out = capsys.readouterr().out
    assert out == f"2 tunes written to {tmp_path}/samples.abc; left out: 1 (no metre and key in front)\n"
    text = (tmp_path / "samples.abc").read_text()
    assert text.startswith(
        "X:1\nT:line 1\nM:6/8\nL:1/8\nK:D\nA|d2dfed|BdBAFD|(3DFAB2Ac|\nd6|e6|f6|d3d2|]\n\nX:3\nT:line 3\n"
    )
    reel = converter.parse(text, format="abc", number=3)
    lengths = [measure.duration.quarterLength for measure in reel.recurse().getElementsByClass("Measure")]
    assert lengths == [0.5, 4, 4, 4, 3.5]
    assert sorted(path.name for path in (tmp_path / "midi").iterdir()) == ["1.mid", "3.mid"]
    played = converter.parse(tmp_path / "midi" / "1.mid").flatten().notes
    assert [note.nameWithOctave for note in played][:6] == ["A4", "D5", "D5", "F#5", "E5", "D5"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["to_lines", "missing.abc"],
            "'missing.abc' cannot be read (No such file or directory): expected a file of text",
        ),
        (["to_lines", "lines.txt"], "'lines.txt' holds no tune: expected ABC notation"),
        (
            ["to_abc", "book.abc"],
            "'book.abc' holds no tune whose bars fill the metre: expected lines as `to_lines` writes them",
        ),
        (["to_lines", "book.abc", "--output", "no/where"], "'no/where' cannot be written (No such file or directory)"),
        (["to_abc", "lines.txt", "--midi", "lines.txt"], "'lines.txt' cannot be written (File exists)"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, convert, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines.txt").write_text(JIG)
    (tmp_path / "book.abc").write_text(ABC)
    more = [] if "--output" in arguments else ["--output", "out"]
    assert convert.main([*arguments, *more]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"convert_abc: {message}") and error.count("\n") == 1


def test_a_missing_music21_is_named_before_anything_is_written(convert, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "music21", None)
    (tmp_path / "samples.txt").write_text(JIG)
    places = ["--output", str(tmp_path / "samples.abc"), "--midi", str(tmp_path / "midi")]
    assert convert.main(["to_abc", str(tmp_path / "samples.txt"), *places]) == 1
    said = 'convert_abc: --midi needs music21, which is not installed. Run `pip install "seqgan-hf[tunes]"`.\n'
    assert capsys.readouterr().err == said
    assert not (tmp_path / "samples.abc").exists()


def test_a_miniature_run_writes_tunes(convert, tmp_path, capsys, monkeypatch):
    """From files in ABC notation to samples of a trained generator, in ABC notation if any are tunes."""
    monkeypatch.chdir(tmp_path)
    parts = "".join(
        f"|:{a}{length}D{6 - length}|A6|{b}6|d6|e6|f6|e6|d6:|"
        for length in range(1, 6)
        for a in "ab"
        for b in "ABcdef"
    )
    (tmp_path / "book.abc").write_text(f"X:1\nM:6/8\nK:D\n{parts}\n")
    assert convert.main(["to_lines", "book.abc", "--output", "tunes.txt"]) == 0
    recipe = FOLDER / "organ.yaml"
    assert main(short_run(recipe, tmp_path / "run", tmp_path / "tunes.txt")) == 0
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"valid", "unique", "novel", "full_bars", "in_key", "bars", "reward"} <= set(last)
    (tmp_path / "words.txt").write_text("a cat sat\n" * 60)
    capsys.readouterr()
    assert main(short_run(recipe, tmp_path / "other", tmp_path / "words.txt")) == 1
    assert "no training line is a tune" in capsys.readouterr().err
