"""The site: what is public stands in its reference."""

from __future__ import annotations

import zlib

import pytest


pytest.importorskip("sphinx", reason="not installed: sphinx, of the extra `docs`")

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
