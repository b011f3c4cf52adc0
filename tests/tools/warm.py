"""Many calls of `seqgan-hf` at the price of one: a process that has imported the package is forked for each."""

from __future__ import annotations

import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


SERVER = """
import json, os, socket, sys
from importlib import import_module
from seqgan_hf.commands import COMMANDS, main

for name in COMMANDS:
    import_module(f"seqgan_hf.commands.{name}")
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
while True:
    caller, _ = listener.accept()
    call, streams, *_ = socket.recv_fds(caller, 2**20, 3)
    child = os.fork()
    if child == 0:
        status, (folder, arguments) = 1, json.loads(call)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        try:
            os.chdir(folder)
            status = main(arguments)
        except SystemExit as end:  # argparse ends so
            status = end.code or 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    for stream in streams:
        os.close(stream)
    caller.sendall(bytes([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256]))
    caller.close()
"""
CLIENT = """#!{python} -IS
import json, os, socket, sys

server = socket.socket(socket.AF_UNIX)
server.connect({place!r})
socket.send_fds(server, [json.dumps([os.getcwd(), sys.argv[1:]]).encode()], [0, 1, 2])
sys.exit(server.recv(1)[0])
"""


@contextmanager
def warm_commands(python: Path, variables: dict[str, str]) -> Iterator[Path]:
    """A folder for PATH with a `seqgan-hf` that takes no time to begin.

    Args:
        python: of the environment that holds the package.
        variables: environment variables of all calls.
    """
    with tempfile.TemporaryDirectory() as folder:
        place, client = f"{folder}/socket", Path(folder, "bin", "seqgan-hf")
        client.parent.mkdir()
        client.write_text(CLIENT.format(python=python, place=place))
        client.chmod(client.stat().st_mode | stat.S_IXUSR)
        call = [str(python), "-c", SERVER, place]
        with subprocess.Popen(call, env=variables, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout.readline() == "ready\n", "it did not begin"
                yield client.parent
            finally:
                server.kill()
