"""Metrics: one file each. See `docs/evaluation.md`."""
