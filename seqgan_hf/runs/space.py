"""A Space of a run: the page of `seqgan-hf demo` on the Hugging Face Hub, with the run's models in it."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Collection
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import SpaceCardData

from ..errors import MissingExtraError
from .card import public_metrics
from .folder import RunFolder
from .hub import check_license, commit, files_of, open_repository


PACKAGE = Path(__file__).parents[1]
APP = '''"""The page of `seqgan-hf demo`."""

from seqgan_hf.commands.demo import launch


launch([{run!r}], fixed=True)
'''
PAGE = """---
{metadata}
---

A text generator, trained with the objective {objective} of seqgan_hf. The page writes samples, with a colour behind
each token for how real the run's discriminator finds it, and shows learning curves and what the run was trained on.

`python app.py` runs it elsewhere, after `pip install -r requirements.txt gradio=={gradio}`.
"""


def push_space(
    folder: RunFolder,
    space_id: str,
    model_id: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    with_discriminator: bool = True,
    license: str | None = None,
) -> str:
    """Make a Space that shows a finished run, in one commit; pushing again replaces what an earlier push wrote.

    Args:
        folder: of the run.
        space_id: `owner/name`, or `name` for the owner of the token.
        model_id: the repository that the run was pushed to, for a link.
        private, token: see `hub.push_run`.
        with_discriminator: whether it is in the Space; without it, there are no colours.
        license: see `runs.card.model_card`.

    Returns:
        The address of the Space.

    Raises:
        HubError, RunFolderError: as `hub.push_run`.
        MissingExtraError: gradio is not installed.
    """
    check_license(license)
    files = space_files(folder, model_id, with_discriminator, license)
    space_id = open_repository(space_id, private, token, repo_type="space", space_sdk="gradio")
    return commit(space_id, files, token, "Upload the demo of a run of seqgan_hf", _ours, repo_type="space")


def _ours(held: Collection[str]) -> list[str]:
    return [name for name in held if name.startswith(("runs/", "seqgan_hf/"))]


def space_files(
    folder: RunFolder, model_id: str | None = None, with_discriminator: bool = True, license: str | None = None
) -> dict[str, Path | bytes]:
    """What a Space holds, by path in it: the page, the package and versions of libraries as installed, the run."""
    if find_spec("gradio") is None:
        raise MissingExtraError("a Space runs on gradio", None, 'run `pip install "seqgan-hf[demo]"`')
    summary, gradio = folder.read_summary(), metadata.version("gradio")
    run = f"runs/{folder.path.resolve().name}"
    described = SpaceCardData(
        title=folder.path.resolve().name,
        sdk="gradio",
        sdk_version=gradio,
        python_version=".".join(platform.python_version_tuple()[:2]),
        app_file="app.py",
        license=license or summary["license"],
        models=[model_id] if model_id else None,
        short_description="A text GAN writes; colours say how real it looks",
    )
    page = PAGE.format(metadata=described.to_yaml(), objective=summary["objective"]["name"], gradio=gradio)
    files: dict[str, Path | bytes] = {
        "README.md": page.encode(),
        "app.py": APP.format(run=run).encode(),
        "requirements.txt": "".join(f"{line}\n" for line in _requirements()).encode(),
        f"{run}/metrics.jsonl": public_metrics(folder.own(folder.metrics)),
        # the page does not read the evaluation, whose signatures may name paths of this machine
        f"{run}/summary.json": json.dumps(summary | {"evaluation": {}}, indent=1).encode(),
    }
    if summary["recipe"]:
        files[f"{run}/recipe.yaml"] = summary["recipe"].encode()
    for part in (folder.generator, folder.discriminator)[: 1 + (with_discriminator and folder.discriminator.exists())]:
        held = files_of(folder.own(part))
        held.pop("README.md", None)  # the card for this machine, with its paths
        files |= {f"{run}/{part.name}/{name}": path for name, path in held.items()}
    for path in sorted(PACKAGE.rglob("*.py")):
        files[f"seqgan_hf/{path.relative_to(PACKAGE).as_posix()}"] = path
    return files


def _requirements() -> list[str]:
    """What the package needs, in the versions that are installed here, without the marks of builds (`+cpu`)."""
    needed = [line for line in metadata.requires("seqgan-hf") or [] if "extra ==" not in line]
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in needed]
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in names]
