"""The rewards and metrics beside the recipe of molecules."""

from __future__ import annotations

import importlib.util

import pytest

from tests.tools.small_runs import ROOT


ASPIRIN, ETHANOL, BROKEN = "CC(=O)Oc1ccccc1C(=O)O", "CCO", "C1CC("


@pytest.fixture(scope="module")
def rewards():
    spec = importlib.util.spec_from_file_location("rewards", ROOT / "recipes" / "molecules" / "rewards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_no_molecule_earns_nothing(rewards):
    assert rewards.validity([ASPIRIN, BROKEN, ETHANOL, ""]) == [1.0, 0.0, 1.0, 0.0]
    found = rewards.drug_likeness([ASPIRIN, BROKEN, ""])
    assert found == [pytest.approx(0.55, abs=0.01), 0.0, 0.0]


def test_molecules_are_compared_by_what_they_are(rewards):
    samples = [ASPIRIN, ETHANOL, "OCC", BROKEN]  # ethanol twice
    found = rewards.molecules(samples, [list("C(C)O")])
    assert (found["valid"], found["unique"], found["novel"]) == (3 / 4, 2 / 3, 1 / 2)
    qed = rewards.drug_likeness([ASPIRIN, ETHANOL])
    assert found["qed"] == pytest.approx((qed[0] + 2 * qed[1]) / 3)
    assert rewards.molecules([BROKEN], [[]]) == {"valid": 0.0, "unique": 0.0, "novel": 0.0, "qed": 0.0}
