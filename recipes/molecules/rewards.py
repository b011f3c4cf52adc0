"""Rewards and metrics of molecules, written as SMILES, by RDKit (`pip install "seqgan-hf[molecules]"`).

A reward takes a list of SMILES and gives a number for each, in [0, 1]; a metric takes lists by the names of
docs/how-to/evaluation.md and gives shares by name, with their intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rdkit import Chem, RDLogger
from rdkit.Chem import QED

from seqgan_hf.evaluation.record import Estimate, jackknife


RDLogger.DisableLog("rdApp.*")  # it writes a line for each molecule that does not exist


def molecule(smiles: str) -> Chem.Mol | None:
    """The molecule, or `None` where SMILES is no molecule (or empty)."""
    return Chem.MolFromSmiles(smiles) if smiles else None


def validity(texts: list[str]) -> list[float]:
    """1 for what is a molecule, else 0."""
    return [float(molecule(smiles) is not None) for smiles in texts]


def drug_likeness(texts: list[str]) -> list[float]:
    """QED (Bickerton et al. 2012), a number in [0, 1]; 0 for what is no molecule."""
    found = map(molecule, texts)
    return [0.0 if mol is None else QED.qed(mol) for mol in found]


def molecules(sample_texts: list[str], train: list[list[str]]) -> dict[str, Estimate]:
    """Shares of samples that are valid; of these, different ones; of those, ones not trained on; and mean QED.

    Molecules are compared by their canonical SMILES. The mean of QED is over all valid samples. The 95% intervals are
    Wilson's of a share, of `unique` by leaving out groups of samples, and of QED that of a mean; what is a share of
    nothing, such as `unique` where no sample is valid, is 0 without one.
    """
    valid = [mol for mol in map(molecule, sample_texts) if mol is not None]
    names = [Chem.MolToSmiles(mol) for mol in valid]
    known = {Chem.MolToSmiles(mol) for mol in map(molecule, map("".join, train)) if mol is not None}
    return {
        "valid": share(len(valid), len(sample_texts)),
        "unique": unique(names),
        "novel": share(len(set(names) - known), len(set(names))),
        "qed": Estimate.of_mean(np.array([*map(QED.qed, valid)])) if valid else Estimate(0.0),
    }


def share(count: int, total: int) -> Estimate:
    """A proportion with its interval; 0 of nothing."""
    return Estimate.of_share(count, total) if total else Estimate(0.0)


def unique(names: Sequence[str]) -> Estimate:
    """The share of different ones, which is no proportion of independent draws: more samples repeat more."""

    def different(rows: np.ndarray) -> dict[str, float]:
        return {"unique": len({names[row] for row in rows}) / max(1, len(rows))}

    everything = np.arange(len(names))
    error = jackknife(different, len(names), groups=10, seed=0).get("unique", np.nan)
    return Estimate.from_error(different(everything)["unique"], error).within(0, 1)
