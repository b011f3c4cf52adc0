"""Values of one name but unequal signatures, which cannot be compared, are told apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .record import Run, is_number


def unequal_signatures(runs: Sequence[Run]) -> dict[str, dict[str, str]]:
    """Metrics that were measured under several signatures (seeds may differ): each signature and its difference."""
    found: dict[str, dict[str, None]] = {}
    for line in (line for run in runs for line in run.lines):
        for name, value in line.items():
            if is_number(value):
                found.setdefault(name, {})[_signature(line, name)] = None
    return {name: _differences(signatures) for name, signatures in found.items() if len(signatures) > 1}


def split_by_signature(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Rename values that cannot be compared, as `bleu_2 (samples:500)`, in the lines; the new names, by the old."""
    unequal = unequal_signatures(runs)
    for run in runs:
        run.lines = [_renamed(line, unequal) for line in run.lines]
    return {name: [f"{name} ({words})" for words in signatures.values()] for name, signatures in unequal.items()}


def _signature(line: dict[str, Any], name: str) -> str:
    """Without the seed, and empty where none was logged."""
    signature = line.get("signatures", {}).get(name, "")
    return "|".join(setting for setting in signature.split("|") if not setting.startswith("seed:"))


def _differences(signatures: Iterable[str]) -> dict[str, str]:
    """The settings that are not the same in all signatures, in words."""
    settings = {s: dict(setting.split(":", 1) for setting in s.split("|")) for s in signatures if s}
    names = dict.fromkeys(name for known in settings.values() for name in known)
    unequal = [name for name in names if len({known.get(name) for known in settings.values()}) > 1]
    words = {s: ", ".join(f"{n}:{known.get(n, '-')}" for n in unequal) for s, known in settings.items()}
    return {s: words.get(s) or ("signed" if s else "no signature") for s in signatures}


def _renamed(line: dict[str, Any], unequal: dict[str, dict[str, str]]) -> dict[str, Any]:
    measured = {n: words for n, words in unequal.items() if is_number(line.get(n))}
    names = {n: f"{n} ({words[_signature(line, n)]})" for n, words in measured.items()}
    values = {names.get(name, name): value for name, value in line.items()}
    intervals = {names.get(name, name): interval for name, interval in line.get("intervals", {}).items()}
    return values | {"intervals": intervals}
