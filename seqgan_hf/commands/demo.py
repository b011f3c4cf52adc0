"""`seqgan-hf demo`: a page that writes samples of one run or two, and shows what their discriminators make of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib.util import find_spec

from ..errors import MissingExtraError, UserError
from .command_parser import CommandParser
from .demo_texts import load_players


def run(arguments: list[str]) -> None:
    """`RUN [RUN] [--port N]`."""
    description = "Open a page that writes samples of a run, or of two side by side."
    parser = CommandParser(prog="seqgan-hf demo", description=description)
    parser.add_argument("run", help="a run's folder, a saved generator, or an id on the Hub")
    parser.add_argument("other", nargs="?", help="another one, to compare it with")
    parser.add_argument("--port", type=int, help="of the page (default: the first free one from 7860 on)")
    options = parser.parse_args(arguments)
    launch([options.run, *([options.other] if options.other else [])], options.port)


def launch(runs: Sequence[str], port: int | None = None, fixed: bool = False) -> None:
    """Serve the page on this machine until it is interrupted.

    Args:
        runs: one or two runs.
        port: where; by default the first free one from 7860 on.
        fixed: whether these runs alone can be shown, as it has to be where others reach the page. Else the page has
            boxes for other ones.

    Raises:
        MissingExtraError: gradio is not installed.
        UserError: a run without a generator, or a port that is taken or no number of one.
    """
    if find_spec("gradio") is None:
        raise MissingExtraError("the demo needs gradio", None, 'run `pip install "seqgan-hf[demo]"`')
    if port is not None and not 0 < port < 2**16:
        raise UserError(f"port {port}", "a number from 1 to 65535", "set --port, or leave it out to have one found")
    for name in runs:
        load_players(name)
    from .demo_page import LOOK, build_page

    page = build_page(runs, fixed)
    try:
        _, url, _ = page.launch(server_port=port, quiet=True, prevent_thread_lock=True, show_error=True, **LOOK)
    except OSError as error:
        if port is None:
            raise
        fix = "set --port, or leave it out to have one found"
        raise UserError(f"port {port} is taken", "a free one", fix) from error
    print(f"The demo is at {url} until you press Ctrl-C.", flush=True)
    try:
        threading.Event().wait()  # forever; an interrupt ends it
    finally:
        page.close(verbose=False)
