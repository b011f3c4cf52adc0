"""Commands share the machine with others: as many threads as a container may use, which do not spin for long."""

from __future__ import annotations

import os
import re
import subprocess
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


@pytest.mark.parametrize("older", [False, True])
def test_the_narrowest_quota_counts_of_the_group_and_those_around_it(older, tmp_path):
    """As a service of systemd or a job of Slurm has it; what the path names may also lie outside of a container."""
    own, root = tmp_path / "cgroup", tmp_path / "fs"
    own.write_text("4:cpu,cpuacct:/batch/job\n1:name=systemd:/x\n" if older else "0::/batch/job\n")
    assert cores_of_container(root, own) is None
    for path, cores in (("batch", 5), ("batch/job", 6), ("", 7)):
        folder = root / ("cpu" if older else "") / path
        folder.mkdir(parents=True, exist_ok=True)
        if older:
            (folder / "cpu.cfs_quota_us").write_text(f"{cores}00000\n")
            (folder / "cpu.cfs_period_us").write_text("100000\n")
        else:
            (folder / "cpu.max").write_text(f"{cores}00000 100000\n")
    assert cores_of_container(root, own) == 5
    own.write_text("0::/elsewhere\n")
    assert cores_of_container(root, own) == 7


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


def test_the_command_sets_them_before_torch_reads_them():
    """As the library of threads tells by itself, in a process of its own."""
    names = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"}
    plain = {name: value for name, value in os.environ.items() if name not in names} | {"OMP_DISPLAY_ENV": "VERBOSE"}

    def spins(**chosen: str) -> str | None:
        command = [sys.executable, "-m", "seqgan_hf", "env"]
        told = subprocess.run(command, env=plain | chosen, capture_output=True, text=True, check=True).stderr
        found = re.search("GOMP_SPINCOUNT = '([0-9]+)'", told)
        return found and found[1]

    if (found := spins()) is None:
        pytest.skip("torch has another library of threads here")
    assert found == "3000"
    assert spins(OMP_WAIT_POLICY="passive") == "0"  # what the user has set stays, under its other name, too


@pytest.mark.parametrize("chosen", [{}, {"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "active"}])
def test_settings_are_made_before_torch_is_loaded_and_those_of_the_user_stay(chosen, monkeypatch):
    names = ("GOMP_SPINCOUNT", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
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
    settings = {name: os.environ[name] for name in names if name in os.environ}
    assert settings == (chosen or {"GOMP_SPINCOUNT": "3000"}) | {"OMP_NUM_THREADS": "3"}
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    commands._share_the_machine()
    assert os.environ["OMP_NUM_THREADS"] == "7"
