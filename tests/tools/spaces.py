"""A Space of the Hub on this machine: its app runs in its folder, from its files."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serve(space: Path, python: str | Path) -> Iterator[str]:
    """The address of the page while `app.py` runs with this interpreter."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": port, "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([str(python), "app.py"], cwd=space, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 200
            while "until you press" not in _text(log):
                assert process.poll() is None and time.monotonic() < deadline, _text(log)[-2000:]
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def _text(log) -> str:
    return os.pread(log.fileno(), 2**20, 0).decode(errors="replace")
