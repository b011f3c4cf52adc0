"""Mutation testing with mutmut's mutants: which changes to the code does no test notice? See docs/contributing.md.

    python tests/tools/mutate.py [seqgan_hf.objectives.pairwise* ...] [-- TESTS AND OPTIONS OF PYTEST]

`mutmut results` lists the survivors, `mutmut show NAME` shows one. Settings: `[tool.mutmut]` in pyproject.toml.
Beyond what mutmut offers, decorated functions are mutated, too; messages (strings with a space) and `device=` are not;
and tests are collected once: each mutant is tried in a fork, by the tests that reach it, until one of them fails.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import suppress
from fnmatch import fnmatch
from importlib import import_module
from multiprocessing import Pipe
from pathlib import Path

import libcst as cst
import pytest
from mutmut import __main__ as mutmut
from mutmut.configuration import config
from mutmut.mutation import file_mutation, mutators, trampoline
from mutmut.mutation.data import SourceFileMutationData
from mutmut.utils import file_utils
from mutmut.utils.format_utils import mangled_name_from_mutant_name


SURVIVED, KILLED, UNREACHED, TIMEOUT = 0, 1, 33, 36  # exit codes of mutmut
skips, arranges = file_mutation.MutationVisitor._skip_node_and_children, file_mutation.function_trampoline_arrangement


def skip(visitor, node: cst.CSTNode) -> bool:
    return skips(visitor, node.with_changes(decorators=[])) if is_decorated(node) else skips(visitor, node)


def is_decorated(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.FunctionDef) and any(
        not isinstance(found.decorator, cst.Name) or found.decorator.value not in ("staticmethod", "abstractmethod")
        for found in node.decorators
    )


def arrange(function: cst.FunctionDef, mutants, class_name: str | None):
    """The decorators stay on what is called, and are left out of the copies that it chooses from."""
    if not is_decorated(function):
        return arranges(function, mutants, class_name)
    empty, (called, *copies), filled, names = arranges(function.with_changes(decorators=[]), mutants, class_name)
    called = called.with_changes(decorators=[*function.decorators, *called.decorators])
    return empty, [called, *copies], filled, names


def operator_string(node: cst.BaseString):
    return () if " " in getattr(node, "value", "") else mutators.operator_string(node)


def operator_arg_removal(node: cst.Call):
    """Not of `device=`, which makes no difference where there is one device only."""
    devices = [arg for arg in node.args if arg.keyword is not None and arg.keyword.value == "device"]
    for mutant in mutators.operator_arg_removal(node):
        if all(any(arg is device for arg in mutant.args) for device in devices):
            yield mutant


def generate() -> list[SourceFileMutationData]:
    """Write the mutants, where the code has changed since they were; what is known of those of each file."""
    Path("mutants").mkdir(exist_ok=True)
    file_utils.copy_src_dir()
    file_utils.copy_also_copy_files()
    file_utils.setup_source_paths()
    mutmut.create_mutants(1)
    files = [SourceFileMutationData(path=path) for path in sorted(file_utils.walk_mutatable_files())]
    for file in files:
        file.load()
        file.meta_path = file.meta_path.absolute()
    return files


class Forks:
    """Of pytest: in place of the tests, the tests on every mutant whose name fits one of the patterns."""

    def __init__(self, files: list[SourceFileMutationData], patterns: list[str]):
        self.files, self.patterns, self.reached, self.failed = files, patterns, set(), False
        self.hits = tempfile.TemporaryFile(buffering=0)  # of the processes that a test forks, too

    def hit(self, name: str, caller: object = None) -> None:
        if name not in self.reached:
            self.reached.add(name)
            os.write(self.hits.fileno(), f"{name}\n".encode())

    def pytest_runtest_logreport(self, report) -> None:
        self.failed |= report.failed

    def pytest_runtestloop(self, session) -> bool:
        tests, took = self.measured(session.items)
        for file in self.files:
            for name in file.exit_code_by_key:
                if any(fnmatch(name, pattern) for pattern in self.patterns):
                    chosen = sorted(tests[mangled_name_from_mutant_name(name)], key=took.__getitem__)
                    seconds = 10 + 3 * sum(took[index] for index in chosen)
                    file.exit_code_by_key[name] = self.outcome(
                        name, [session.items[index] for index in chosen], seconds
                    )
                    file.save()
        return True

    def measured(self, items: list) -> tuple[dict, dict]:
        """`measure` in a fork: once OpenMP has had threads in this process, no fork of it could begin any."""
        receiver, sender = Pipe(duplex=False)
        if (child := os.fork()) == 0:
            sender.send((*self.measure(items), list(sys.modules)))
            os._exit(0)
        sender.close()
        try:
            tests, took, modules = receiver.recv()
        except EOFError:  # the fork has said why
            pytest.exit("not all tests pass without any mutant", 1)
        os.waitpid(child, 0)
        for module in modules:  # once, and not in the fork of each mutant
            with suppress(Exception):
                import_module(module)
        return tests, took

    def measure(self, items: list) -> tuple[dict, dict]:
        """Which tests, by their place, reach a function, and their seconds, without a mutant."""
        trampoline.record_trampoline_hit = self.hit
        trampoline.set_mutant_under_test("stats")
        tests, took = defaultdict(list), {}
        for index, item in enumerate(items):
            self.reached.clear()
            self.hits.seek(0)
            self.hits.truncate()
            started = time.monotonic()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            took[index] = time.monotonic() - started
            if self.failed:
                print(f"{item.nodeid} fails", flush=True)
                os._exit(1)
            self.hits.seek(0)
            for name in set(self.hits.read().decode().split()):
                tests[name].append(index)
        return tests, took

    def outcome(self, mutant: str, items: list, seconds: float) -> int:
        if not items:
            return UNREACHED
        if (child := os.fork()) == 0:
            signal.alarm(round(seconds))  # whose signal ends it
            trampoline.set_mutant_under_test(mutant)
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            for item, following in zip(items, [*items[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self.failed:
                    os._exit(KILLED)
            os._exit(SURVIVED)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return TIMEOUT if status == -signal.SIGALRM else KILLED if status else SURVIVED


def report(files: list[SourceFileMutationData]) -> None:
    total: Counter[str] = Counter()
    print(f"\n{'file':48} {'mutants':>8} {'killed':>8}")
    for file in files:
        codes = [code for code in file.exit_code_by_key.values() if code is not None]
        if codes:
            print(f"{file.path!s:48} {len(codes):8} {codes.count(KILLED) / len(codes):8.1%}")
        total += Counter(mutants=len(codes), killed=codes.count(KILLED))
    print(f"{'all':48} {total['mutants']:8} {total['killed'] / max(1, total['mutants']):8.1%}")


if __name__ == "__main__":
    file_mutation.MutationVisitor._skip_node_and_children = skip
    file_mutation.function_trampoline_arrangement = arrange
    ours = {mutators.operator_string: operator_string, mutators.operator_arg_removal: operator_arg_removal}
    operators = mutators.mutation_operators
    operators[:] = [(kind, ours.get(operator, operator)) for kind, operator in operators]
    given = sys.argv[1:]
    at = given.index("--") if "--" in given else len(given)
    files = generate()
    os.chdir("mutants")
    chosen = given[at + 1 :] or config().pytest_add_cli_args_test_selection
    pytest.main([*config().pytest_add_cli_args, *chosen], plugins=[Forks(files, given[:at] or ["*"])])
    report(files)
