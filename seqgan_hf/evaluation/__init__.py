"""Metrics: one file each. See `docs/how-to/evaluation.md`."""

from pathlib import Path


#: What `evaluate.load(MODULE, "bleu")` and its like load metrics from.
MODULE = str(Path(__file__).with_name("evaluate_module.py"))
