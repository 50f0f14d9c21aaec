"""The CPU of a simulated run: what is set for the libraries that choose by it, and for nobody else."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from pytest_imu.simulation import cpu, restart


def test_baseline_leaves_what_is_set() -> None:
    """Only what the environment does not say already is set, and only for processors that are known."""
    own = {"GLIBC_TUNABLES": "glibc.malloc.check=3", "NPY_DISABLE_CPU_FEATURES": ""}
    assert {"OPENBLAS_CORETYPE": "Nehalem"} == cpu.baseline(own, machine="x86_64")
    quiet = {"NPY_DISABLE_CPU_FEATURES": ""}
    arm = {"GLIBC_TUNABLES": "glibc.cpu.name=generic", "OPENBLAS_CORETYPE": "ARMV8"}
    assert arm == cpu.baseline(quiet, machine="aarch64")
    assert {} == cpu.baseline({}, machine="riscv64")


@pytest.mark.needs_numpy
def test_numpy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of numpy's own names those are switched off that it could use here; without an answer none is."""
    monkeypatch.delenv("NPY_DISABLE_CPU_FEATURES", raising=False)
    chosen = cpu.baseline(os.environ, machine="x86_64").get("NPY_DISABLE_CPU_FEATURES", "").split()
    assert set(chosen) <= set(cpu.NUMPY_FEATURES)
    monkeypatch.setattr(cpu, "ASK_NUMPY", "print('X86_V3 AVX512_ICL')")
    assert "X86_V3" == cpu.baseline({}, machine="x86_64")["NPY_DISABLE_CPU_FEATURES"]
    monkeypatch.setattr(cpu, "ASK_NUMPY", "raise ImportError")
    assert "NPY_DISABLE_CPU_FEATURES" not in cpu.baseline({}, machine="x86_64")


def test_host_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the CPU is not fixed no variable is set, neither now nor to be put back."""
    for name in cpu.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not {*cpu.VARIABLES} & restart._marks(os.environ, fixes_cpu=False).keys()
    if os.uname().machine in cpu.BASELINE:
        assert "GLIBC_TUNABLES" in restart._marks(os.environ, fixes_cpu=True)


def test_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that starts with the variables is told from one that does not."""
    assert cpu.starts_with(cpu.BASELINE["x86_64"], os.environ)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert not cpu.starts_with({}, os.environ)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert not cpu.starts_with({}, os.environ)


def test_variables_are_there_at_import_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that looks at them sees them while it is imported; nothing sees them before or after."""
    (tmp_path / "imu_choosy.py").write_text("import os\nseen = os.environ.get('IMU_CPU')\n")
    (tmp_path / "imu_other.py").write_text("import os\nseen = os.environ.get('IMU_CPU')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cpu, "LIBRARIES", ("imu_choosy", "imu_absent"))
    monkeypatch.setattr(sys, "meta_path", [cpu.AtImport({"IMU_CPU": "old"}), *sys.meta_path])
    assert ["old", None] == [importlib.import_module(name).seen for name in ("imu_choosy", "imu_other")]
    assert "IMU_CPU" not in os.environ
    with pytest.raises(ModuleNotFoundError, match="imu_absent"):
        importlib.import_module("imu_absent")
    for name in ("imu_choosy", "imu_other"):
        monkeypatch.delitem(sys.modules, name)
