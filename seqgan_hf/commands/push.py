"""`seqgan-hf push`: share a finished run on the Hugging Face Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..runs.folder import RunFolder
from ..runs.hub import push_run


DISCRIMINATOR = "where it goes: beside the generator, into a repository of its own, nowhere (default: subfolder)"


def run(arguments: list[str]) -> None:
    """`RUN REPO_ID [--private] [--discriminator PLACE] [--license ID]`."""
    parser = argparse.ArgumentParser(prog="seqgan-hf push", description="Share a finished run on the Hub.")
    add = parser.add_argument
    add("run", help="a run's folder")
    add("repo_id", help="owner/name, or a name in your own account")
    add("--private", action="store_true", default=None, help="make a new repository private")
    places = ("subfolder", "repository", "none")
    add("--discriminator", choices=places, default="subfolder", help=DISCRIMINATOR)
    add("--license", help="as the Hub names it: apache-2.0, mit, cc-by-4.0, ...")
    options = vars(parser.parse_args(arguments))
    print(push_run(RunFolder(Path(options.pop("run"))), **options))
