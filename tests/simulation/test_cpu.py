"""The CPU of a simulated run: what is set for the libraries that choose by it, and for nobody else."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from pytest_imu.simulation import cpu


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


SUITE = """
    import os
    import subprocess
    import sys
    import numpy

    NAMES = ["GLIBC_TUNABLES", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES"]

    def test_numpy():
        [umath] = [m for name, m in sys.modules.items() if name.endswith("core._multiarray_umath")]
        print("left", *(name for name in umath.__cpu_dispatch__ if umath.__cpu_features__[name]), "end")

    def test_environment():
        script = f"import os; print('child', [os.environ.get(name) for name in {NAMES}])"
        print("own", [os.environ.get(name) for name in NAMES])
        print(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout)

    def test_copies():
        for _ in range(10):
            bytearray(BLOCK)

    BLOCK = bytes(2**20)
"""


@pytest.mark.needs_valgrind
@pytest.mark.needs_numpy
@pytest.mark.parametrize("which", ["baseline", "host"])
def test_simulated_run(pytester: pytest.Pytester, which: str) -> None:
    """The legend says which CPU it is; numpy chooses by it, and no test and no child sees how."""
    pytester.makepyfile(SUITE)
    cpus = ("-o", f"imu_simulate_cpu={which}", "-W", "error")
    plugins = ("-p", "imu", "-p", "no:cacheprovider")
    command = [sys.executable, "-B", "-m", "pytest", *plugins, "-rP", "--imu-simulate", *cpus]
    result = pytester.run(*command, timeout=200)
    result.assert_outcomes(passed=3)
    nothing = [os.environ.get(name) for name in cpu.VARIABLES]
    result.stdout.fnmatch_lines(
        [
            f"imu: simulated caches *, {which} CPU; memory is not measured",
            f"own {nothing}".replace("[", "?").replace("]", "?"),
            f"child {nothing}".replace("[", "?").replace("]", "?"),
            f"counts simulated by callgrind: *, {which} CPU",
        ]
    )
    if which == "baseline":
        result.stdout.no_re_match_line(r"left .*\b(X86_V3|AVX2|AVX|FMA3)\b")
        result.stdout.re_match_lines(["left .*end"])
