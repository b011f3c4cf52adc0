"""Commands share the machine with others: as many threads as a container may use, which do not spin for long."""

from __future__ import annotations

import os
import sys

import pytest

from seqgan_hf import commands
from seqgan_hf.commands import cores_of_container


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1), ("max 100000", None), ("800000 100000", None)],
)
def test_a_container_has_the_cores_of_its_quota(quota, cores, tmp_path):
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert cores_of_container(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("300000", 3), ("-1", None), ("20000", 1)])
def test_and_so_has_one_of_the_older_kind(quota, cores, tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores_of_container(tmp_path) == cores


def test_elsewhere_torch_counts_for_itself(tmp_path):
    assert cores_of_container(tmp_path) is None
    (tmp_path / "cpu.max").write_text("nonsense\n")
    assert cores_of_container(tmp_path) is None


@pytest.mark.parametrize("chosen", [{}, {"GOMP_SPINCOUNT": "5", "OMP_NUM_THREADS": "7"}])
def test_settings_are_made_before_torch_is_loaded_and_those_of_the_user_stay(chosen, monkeypatch):
    names = ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(commands, "cores_of_container", lambda: 3)
    commands._share_the_machine()  # too late
    assert {name: os.environ[name] for name in names if name in os.environ} == chosen
    monkeypatch.delitem(sys.modules, "torch")
    commands._share_the_machine()
    assert [os.environ[name] for name in names] == (list(chosen.values()) or ["3000", "3"])
