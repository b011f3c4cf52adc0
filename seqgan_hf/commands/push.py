"""`seqgan-hf push`: share a finished run on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from ..errors import HubError
from ..runs.folder import RunFolder
from ..runs.hub import push_run
from ..runs.space import push_space
from .command_parser import CommandParser


SPACE = "make a Space, owner/name or a name in your own account: a page that shows the run, as `demo` does"
DISCRIMINATOR = "where it goes: beside the generator, into a repository of its own, nowhere (default: subfolder)"


def run(arguments: list[str]) -> None:
    """`RUN [REPO_ID] [--space SPACE_ID] [--private] [--discriminator PLACE] [--license ID]`."""
    parser = CommandParser(prog="seqgan-hf push", description="Share a finished run on the Hub.")
    add = parser.add_argument
    add("run", help="a run's folder")
    add("repo_id", nargs="?", help="of the models: owner/name, or a name in your own account")
    add("--space", metavar="SPACE_ID", help=SPACE)
    add("--private", action="store_true", default=None, help="make a new repository private")
    places = ("subfolder", "repository", "none")
    add("--discriminator", choices=places, default="subfolder", help=DISCRIMINATOR)
    add("--license", help="as the Hub names it: apache-2.0, mit, cc-by-4.0, ...")
    options = parser.parse_args(arguments)
    folder, sharing = RunFolder(Path(options.run)), {"private": options.private, "license": options.license}
    folder.read_summary()  # that there is a finished run is known before names are asked for
    if options.repo_id is None and options.space is None:
        raise HubError("neither a repository nor a Space", "a name", "give REPO_ID, --space SPACE_ID, or both")
    if options.repo_id is not None:
        print(push_run(folder, options.repo_id, discriminator=options.discriminator, **sharing))
    if options.space is not None:
        judged = options.discriminator != "none"
        print(push_space(folder, options.space, options.repo_id, with_discriminator=judged, **sharing))
