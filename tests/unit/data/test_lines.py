"""Files of texts: whatever a text holds, it is one line, and comes back as it was."""

from hypothesis import given, settings
from hypothesis import strategies as st

from seqgan_hf.data import from_one_line, one_line
from seqgan_hf.evaluation.run import read_lines


BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
TEXT = st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from(BREAKS + "\ufeff␛␊␍␜NLPB\\n"), max_size=12)


def test_line_breaks_are_written_as_signs():
    text = "an old pond\na frog\r\nin\x85to\u2028water"
    assert one_line(text) == "an old pond␊a frog␍␊in␛Nto␛Lwater"
    assert len(one_line("".join(f"{c} x " for c in BREAKS)).splitlines()) == 1


def test_every_other_text_stays_as_it_is():
    for text in ("  a \t é ", r"print('a\n')", r"C/C=C\nn1", r"C:\new \\ \alpha", ""):
        assert one_line(text) == from_one_line(text) == text


@given(TEXT)
def test_a_line_is_read_as_what_was_written(text):
    assert len(one_line(text).splitlines()) <= 1
    assert from_one_line(one_line(text)) == text


@settings(max_examples=50, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=5))
def test_a_file_of_samples_is_read_as_what_was_written(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("samples") / "samples.txt"
    path.write_text("".join(f"{one_line(text)}\n" for text in texts), encoding="utf-8")
    assert read_lines(str(path), "samples", [], blank=True) == texts
