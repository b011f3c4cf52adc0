"""A Space of a run: what is in it, and that it runs from its files alone."""

from __future__ import annotations

import re
import shutil
import sys
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from seqgan_hf.commands import main
from seqgan_hf.errors import MissingExtraError
from seqgan_hf.runs import space
from seqgan_hf.runs.folder import RunFolder
from tests.tools.small_runs import ROOT, quickstart
from tests.tools.spaces import serve


pytest.importorskip("gradio", reason="gradio is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main(quickstart(folder)) == 0
    return RunFolder(folder)


def front_matter(page: bytes) -> dict:
    return yaml.safe_load(page.decode().split("---")[1])


def test_a_space_holds_the_page_the_package_and_the_run(run, hub, capsys):
    assert main(["push", str(run.path), "--space", "someone/demo", "--private", "--license", "mit"]) == 0
    assert capsys.readouterr().out.strip() == f"{hub.url}/spaces/someone/demo"
    assert hub.private == {"spaces/someone/demo": True} and len(hub.commits["spaces/someone/demo"]) == 2
    files = hub.files("spaces/someone/demo")
    described = front_matter(files["README.md"])
    assert (described["sdk"], described["sdk_version"]) == ("gradio", metadata.version("gradio"))
    assert (described["app_file"], described["license"], described["title"]) == ("app.py", "mit", "digits")
    assert described["python_version"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert len(files["app.py"].splitlines()) < 10 and "models" not in described
    assert {"seqgan_hf/commands/demo_page.py", "seqgan_hf/models/__init__.py"} <= files.keys()
    assert files["runs/digits/generator/model.safetensors"] == (run.generator / "model.safetensors").read_bytes()
    assert files["runs/digits/metrics.jsonl"] == run.metrics.read_bytes()
    assert "runs/digits/discriminator/model.safetensors" in files
    assert not any(str(run.path.parent).encode() in content for content in files.values()), "paths of this machine"


def test_a_space_needs_what_the_package_needs_in_versions_that_are_here(run):
    lines = space.space_files(run)["requirements.txt"].decode().splitlines()
    pinned = {canonicalize_name(Requirement(line).name): Requirement(line).specifier for line in lines}
    needed = [Requirement(line) for line in metadata.requires("seqgan-hf")]
    assert set(pinned) == {canonicalize_name(each.name) for each in needed if "extra" not in str(each.marker)}
    assert all(metadata.version(name) in specifier for name, specifier in pinned.items())
    assert not any("+" in line for line in lines)  # a build that other machines do not find


def test_pushing_again_replaces_what_an_earlier_push_wrote(run, hub):
    assert main(["push", str(run.path), "--space", "demo"]) == 0
    held = hub.commits["spaces/someone/demo"][-1]
    held |= {"seqgan_hf/gone.py": b"", "runs/other/generator/config.json": b"", "notes.md": b"mine"}
    assert main(["push", str(run.path), "someone/digits", "--space", "demo", "--discriminator", "none"]) == 0
    files = hub.files("spaces/someone/demo")
    assert files["notes.md"] == b"mine" and "seqgan_hf/gone.py" not in files
    assert not any(name.startswith(("runs/other", "runs/digits/discriminator")) for name in files)
    assert front_matter(files["README.md"])["models"] == ["someone/digits"]
    assert "model.safetensors" in hub.files("someone/digits")


def test_mistakes(run, hub, monkeypatch, capsys):
    for call, message in (
        ([], "neither a repository nor a Space: expected a name. Give REPO_ID, --space SPACE_ID, or both."),
        (["--space", "a/b/c"], "the repository name 'a/b/c': expected `owner/name`"),
        (["--space", "demo", "--license", "do what you want"], "expected an identifier such as apache-2.0"),
    ):
        assert main(["push", str(run.path), *call]) == 1
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1
    monkeypatch.setattr(space, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"A Space runs on gradio. Run `pip install \"seqgan-hf\[demo\]\"`."):
        space.push_space(run, "demo")
    assert hub.requests == []


@pytest.fixture
def served(run, tmp_path, monkeypatch):
    """The address of a Space that runs from its files alone, which the code in the documentation has written."""
    shutil.copytree(run.path, tmp_path / "runs" / "grammar")
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/how-to/demo.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(code, {})
    with serve(tmp_path / "grammar-demo", sys.executable) as address:
        yield address


def test_a_space_runs_from_its_files_alone(served):
    client = pytest.importorskip("gradio_client").Client(served, verbose=False)
    page = client.predict(prompt="1 2", number=3, api_name="/write")
    assert page.count('<span class="prompt">1 2</span>') == 3 and len(re.findall("<mark", page)) == 18
    metrics, _, _, values, facts, _ = client.predict(api_name="/describe")
    assert "nll_oracle" in metrics["value"] and "nll_oracle" in values
    assert facts.startswith("# grammar\n") and "- training sequences: 64\n" in facts
