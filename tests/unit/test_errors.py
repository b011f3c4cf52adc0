"""One line for every mistake of a user: what was given, what is expected, what to do."""

from __future__ import annotations

import pickle

import pytest

from seqgan_hf.errors import MissingExtraError, TrainingError, UserError, import_by_path


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("rollouts=0", "1 or more", "set it higher"), "rollouts=0: expected 1 or more. Set it higher."),
        (("rollouts=0", "1 or more"), "rollouts=0: expected 1 or more."),
        (("`eos`", None, "set it"), "`eos`. Set it."),
        (("another process failed", None, "read its messages"), "Another process failed. Read its messages."),
        (("the loss is NaN",), "The loss is NaN."),
        (("a name", "letters", "did you mean b?"), "a name: expected letters. Did you mean b?"),
    ],
)
def test_a_mistake_is_one_line(parts, text):
    assert str(UserError(*parts)) == text


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def f(x: return 1", r"SyntaxError: .*\(broken_module.py, line 1\)"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_its_fault(tmp_path, monkeypatch, code, reason):
    (tmp_path / "broken_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=f"^Metric 'broken_module.f' cannot be imported .{reason}.. Correct the mod"):
        import_by_path("broken_module.f", "metric")


def test_mistakes_keep_their_parts_and_kind_between_processes():
    sent = pickle.loads(pickle.dumps(TrainingError("a", "b", "c")))
    assert type(sent) is TrainingError and (sent.problem, sent.expected, sent.fix) == ("a", "b", "c")


def test_a_missing_package_is_a_mistake_and_an_import_that_failed():
    with pytest.raises(ImportError, match="^`mauve` is not installed. Install it.$"):
        raise MissingExtraError("`mauve` is not installed", fix="install it")
    assert issubclass(MissingExtraError, UserError)
