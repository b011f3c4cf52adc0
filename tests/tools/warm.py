"""Many calls of `seqgan-hf` at the price of one: a process that has imported the package is forked for each."""

from __future__ import annotations

import json
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType


COMMAND = {"seqgan-hf": "seqgan_hf.commands:main"}
SERVER = """
import gc, json, os, socket, sys
from contextlib import suppress
from importlib import import_module
from seqgan_hf.commands import COMMANDS

for name in COMMANDS:
    import_module(f"seqgan_hf.commands.{name}")
programs = {}
for name, place in json.loads(sys.argv[2]).items():
    module, _, function = place.partition(":")
    programs[name] = getattr(import_module(module), function)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
gc.collect()
gc.freeze()  # a search for garbage in a child would copy all that is shared
print("ready", flush=True)
while True:
    caller, _ = listener.accept()
    call, streams, *_ = socket.recv_fds(caller, 2**20, 3)
    child = os.fork()
    if child == 0:
        status, (folder, variables, program, arguments, group) = 1, json.loads(call)
        os.setpgid(0, group)  # who ends the caller's group ends this, too
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        try:
            os.chdir(folder)
            os.environ.update(variables)
            sys.path[1:1] = filter(None, variables.get("PYTHONPATH", "").split(":"))
            status = programs[program](arguments)
        except SystemExit as end:  # argparse ends so
            status = end.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    for stream in streams:
        os.close(stream)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with caller, suppress(BrokenPipeError):
        caller.sendall(bytes([status % 256]))
"""
CLIENT = """#!{python} -IS
import json, os, socket, sys

server = socket.socket(socket.AF_UNIX)
server.connect({place!r})
call = [os.getcwd(), dict(os.environ), os.path.basename(sys.argv[0]), sys.argv[1:], os.getpgrp()]
socket.send_fds(server, [json.dumps(call).encode()], [0, 1, 2])
sys.exit(server.recv(1)[0])
"""


@contextmanager
def warm_commands(
    python: Path, variables: dict[str, str], programs: Mapping[str, str] = MappingProxyType(COMMAND)
) -> Iterator[Path]:
    """A folder for PATH with programs that take no time to begin.

    Args:
        python: of the environment that holds the package.
        variables: environment variables of the process that is forked; a call adds its own.
        programs: `module:function`, from arguments to an exit status, by the name of the program.
    """
    with tempfile.TemporaryDirectory() as folder:
        place, commands = f"{folder}/socket", Path(folder, "bin")
        commands.mkdir()
        for name in programs:
            client = commands / name
            client.write_text(CLIENT.format(python=python, place=place))
            client.chmod(client.stat().st_mode | stat.S_IXUSR)
        call = [str(python), "-c", SERVER, place, json.dumps(dict(programs))]
        with subprocess.Popen(call, env=variables, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout.readline() == "ready\n", "it did not begin"
                yield commands
            finally:
                server.kill()
