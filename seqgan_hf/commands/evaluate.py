"""`seqgan-hf evaluate`: measure samples, or generators."""

from __future__ import annotations

from pathlib import Path

from ..evaluation.run import run_evaluation
from .recipe import load_evaluation


def run(arguments: list[str]) -> None:
    """`[RECIPE] [--key value ...]`."""
    settings = load_evaluation(arguments)
    run_evaluation(settings)
    report = Path(settings.output) / "report.md"
    print(report.read_text(encoding="utf-8") if report.exists() else f"written to {settings.output}")
