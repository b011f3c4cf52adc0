"""Rewards and metrics of molecules, written as SMILES, by RDKit (`pip install "seqgan-hf[molecules]"`).

A reward takes a list of SMILES and gives a number for each, in [0, 1]; a metric takes lists by the names of
docs/how-to/evaluation.md and gives shares by name.
"""

from __future__ import annotations

from rdkit import Chem, RDLogger
from rdkit.Chem import QED


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


def molecules(sample_texts: list[str], train: list[list[str]]) -> dict[str, float]:
    """Shares of samples that are valid; of these, different ones; of those, ones not trained on; and mean QED.

    Molecules are compared by their canonical SMILES. The mean of QED is over all valid samples.
    """
    valid = [mol for mol in map(molecule, sample_texts) if mol is not None]
    different = {Chem.MolToSmiles(mol) for mol in valid}
    known = {Chem.MolToSmiles(mol) for mol in map(molecule, map("".join, train)) if mol is not None}
    return {
        "valid": len(valid) / max(1, len(sample_texts)),
        "unique": len(different) / max(1, len(valid)),
        "novel": len(different - known) / max(1, len(different)),
        "qed": sum(map(QED.qed, valid)) / max(1, len(valid)),
    }
