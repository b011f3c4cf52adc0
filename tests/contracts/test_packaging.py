"""What is packed: the files of the sdist, and metadata that can be read where there is no repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from email import message_from_string
from pathlib import Path

import pytest

from docs.long_description import standalone
from tests.tools.documents import ROOT
from tests.tools.installed import source_files


RELATIVE = re.compile(r"\]\((?!\w+:|#)([^)]*)\)")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder]
    subprocess.run(build, cwd=ROOT, env=variables, check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    return archive


def unpacked(sdist: Path, folder: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


def test_an_unpacked_sdist_knows_its_files_without_git(sdist, tmp_path):
    root = unpacked(sdist, tmp_path)
    (root / ".venv").mkdir()
    (root / ".venv/made_since.py").touch()
    files = source_files(sdist, root)
    assert {"pyproject.toml", "docs/long_description.py", "README.md", "seqgan_hf/__init__.py"} < set(files)
    assert all((root / name).is_file() for name in files)
    if (ROOT / ".git").exists():
        assert set(source_files(sdist)) - set(files) <= {".ci/run"}
        assert set(files) <= set(source_files(sdist))


def test_the_top_level_is_short(sdist):
    top = {name.partition("/")[0] for name in source_files(sdist)}
    folders, files = {"seqgan_hf", "recipes", "tests", "docs"}, {"pyproject.toml", "README.md", "LICENSE", "Makefile"}
    assert {name for name in top if not name.startswith(".")} == folders | files | {"constraints.txt"}


def test_the_long_description_has_no_relative_link(sdist, tmp_path):
    metadata = message_from_string((unpacked(sdist, tmp_path) / "PKG-INFO").read_text(encoding="utf-8"))
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = metadata.get_payload()
    assert RELATIVE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert RELATIVE.findall(text) == []
    assert (
        "[Yu et al. 2017](https://arxiv.org/abs/1609.05473)" in text
        and "on several GPUs or machines | long runs |" in text
    )


def test_links_become_absolute_with_the_address_of_a_repository():
    text = "[a](docs/a.md#b), ![c d](docs/c.png), [e](https://e.org), [f](#f)"
    assert standalone(text) == "a, (c d), [e](https://e.org), [f](#f)"
    assert standalone(text, "https://host/us/it/") == (
        "[a](https://host/us/it/blob/main/docs/a.md#b), ![c d](https://host/us/it/raw/main/docs/c.png), "
        "[e](https://e.org), [f](#f)"
    )


def test_what_the_readme_links_is_there():
    for link in RELATIVE.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        page, _, anchor = link.partition("#")
        assert (ROOT / page).is_file(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings], link
