"""Mutation testing by mutmut: which changes to the code does no test notice? See docs/contributing.md.

    python tests/tools/mutate.py [seqgan_hf.objectives.* ...]

`mutmut results` lists the survivors, `mutmut show NAME` shows one. Settings: `[tool.mutmut]` in pyproject.toml.
Beyond what mutmut offers, decorated functions are mutated, too; messages (strings with a space) and `device=` are not.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import libcst as cst
from mutmut import __main__ as mutmut
from mutmut.mutation import file_mutation, mutators
from mutmut.runners import harness
from mutmut.state import state


NOT_KILLED = {0, 33}  # exit codes of mutmut: survived, or reached by no test; timeouts and crashes are noticed
skips, arranges = file_mutation.MutationVisitor._skip_node_and_children, file_mutation.function_trampoline_arrangement
selects = harness.PytestRunner._pytest_args_regular_run


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


def arguments(runner: harness.PytestRunner, tests) -> list[str]:
    """The fast tests first: most mutants are killed by one of them."""
    return selects(runner, sorted(tests, key=lambda test: state().duration_by_test.get(test, 0.0)))


def report() -> None:
    total: Counter[str] = Counter()
    print(f"\n{'file':48} {'mutants':>8} {'killed':>8}")
    for path in sorted(Path("mutants/seqgan_hf").rglob("*.meta")):
        codes = [code for code in json.loads(path.read_text())["exit_code_by_key"].values() if code is not None]
        killed = sum(code not in NOT_KILLED for code in codes)
        if codes:
            print(f"{str(path)[8:-5]:48} {len(codes):8} {killed / len(codes):8.1%}")
        total += Counter(mutants=len(codes), killed=killed)
    print(f"{'all':48} {total['mutants']:8} {total['killed'] / max(1, total['mutants']):8.1%}")


if __name__ == "__main__":
    file_mutation.MutationVisitor._skip_node_and_children = skip
    file_mutation.function_trampoline_arrangement = arrange
    harness.PytestRunner._pytest_args_regular_run = arguments
    ours = {mutators.operator_string: operator_string, mutators.operator_arg_removal: operator_arg_removal}
    operators = mutators.mutation_operators
    operators[:] = [(kind, ours.get(operator, operator)) for kind, operator in operators]
    mutmut.run.callback(tuple(sys.argv[1:]), max_children=1)
    report()
