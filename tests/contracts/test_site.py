"""The site: what is public stands in its reference."""

from __future__ import annotations

import sys
import zlib

import pytest

from tests.tools.demo_pictures import BROWSER_MISSING


pytest.importorskip("sphinx", reason="not installed: sphinx, of the extra `docs`")

from tests.tools import look_at_site  # noqa: E402
from tests.tools.look_at_site import exported, imported, unlisted  # noqa: E402


def write_inventory(folder, names) -> None:
    """The list of a site that shows these classes."""
    head = b"# Sphinx inventory version 2\n# Project: x\n# Version: 1\n# The rest is compressed with zlib.\n"
    lines = "".join(f"seqgan_hf.room.{name} py:class 1 page.html#$ -\n" for name in names)
    (folder / "objects.inv").write_bytes(head + zlib.compress(lines.encode()))


def test_what_packages_export_and_documents_import_belongs_into_the_reference(tmp_path):
    assert {"SeqGAN", "Interrupted", "one_line", "full_kl", "PushToHub", "judge_lm", "emb_sim"} < exported()
    assert {"RunFolder", "space_files", "AdversarialReward", "TextEvaluator"} < imported()
    public = exported() | imported()
    write_inventory(tmp_path, public)
    assert unlisted(tmp_path) == []
    for name in ("PushToHub", "emb_sim", "RunFolder"):
        write_inventory(tmp_path, public - {name})
        assert unlisted(tmp_path) == [name]


@pytest.mark.parametrize("pictures, status", [([], 0), (["--pictures", "shown"], 1)])
def test_a_missing_browser_is_said_with_how_to_get_it(pictures, status, tmp_path, monkeypatch, capsys):
    """It is a failure only where pictures are asked for."""
    monkeypatch.setattr(look_at_site, "find_browser", lambda: None)
    monkeypatch.setattr(look_at_site, "unfound", lambda site: [])
    monkeypatch.setattr(sys, "argv", ["look_at_site.py", str(tmp_path), *pictures])
    write_inventory(tmp_path, exported() | imported())
    assert look_at_site.main() == status
    assert BROWSER_MISSING in capsys.readouterr().out and "apt-get install chromium" in BROWSER_MISSING
    assert not (tmp_path / "shown").exists()


def test_a_run_of_the_tests_ends_with_what_was_skipped_and_why(request):
    assert "s" in request.config.getoption("reportchars")
