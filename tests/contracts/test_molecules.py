"""The rewards and metrics beside the recipe of molecules."""

from __future__ import annotations

import importlib.util

import numpy as np
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
    assert [found[name].value for name in ("valid", "unique", "novel")] == [3 / 4, 2 / 3, 1 / 2]
    qed = rewards.drug_likeness([ASPIRIN, ETHANOL])
    assert found["qed"].value == pytest.approx((qed[0] + 2 * qed[1]) / 3)
    assert {name: value.value for name, value in rewards.molecules([BROKEN], [[]]).items()} == dict.fromkeys(found, 0)


def test_every_share_of_molecules_has_an_interval(rewards):
    """Chains of carbon of equal chances; the share of different ones is compared with that of many other draws."""
    rng = np.random.default_rng(0)
    draws = [["C" * length for length in rng.integers(1, 200, 100)] + [BROKEN] * 20 for _ in range(60)]
    found = [rewards.molecules(texts, [["C"]]) for texts in draws[:20]]
    for values in found:
        assert all(0 <= value.low < value.value < value.high <= 1 for value in values.values() if value.value < 1)
    unique = [len(set(texts) - {BROKEN}) / 100 for texts in draws]
    covered = [values["unique"].low <= np.mean(unique) <= values["unique"].high for values in found]
    assert sum(covered) >= 15
    assert rewards.unique(["C"] * 19).low is None, "too few for ten groups"
