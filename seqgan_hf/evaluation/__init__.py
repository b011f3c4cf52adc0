"""Metrics: one file each. See `docs/how-to/evaluation.md`."""

from pathlib import Path


MODULE = str(Path(__file__).with_name("evaluate_module.py"))  # for `evaluate.load(MODULE, "bleu")`
