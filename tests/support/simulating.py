"""How the tests of `--imu-simulate` run pytest, and what they read of it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

CACHES = "I1=32768,8,64 D1=32768,8,64 LL=8388608,16,64"
SUITE = """
    import os
    import subprocess
    import sys

    import pytest

    CALLS = []
    ENVIRONMENT = ["PYTHONHASHSEED", "LD_LIBRARY_PATH", "PYTEST_IMU_SIMULATED", "IMU_TEST"]

    @pytest.mark.max_cache_misses(1_000_000, warmup=2)
    def test_kept(imu):
        CALLS.append(1)
        with imu.measure("half"):
            assert bytearray(2**19).count(1) == 0

    @pytest.mark.max_events("L1-dcache-load-misses", 10)
    def test_broken():
        assert bytearray(2**20).count(1) == 0

    @pytest.mark.max_events("page-faults", 10)
    @pytest.mark.max_events("branch-misses", 1_000_000)
    def test_unknown():
        pass

    @pytest.mark.max_peak_mib(10)
    def test_memory():
        assert [1, 1, 1] == CALLS

    def test_environment():
        script = f"import os; print([os.environ.get(name) for name in {ENVIRONMENT}])"
        seen = [os.environ.get(name) for name in ENVIRONMENT]
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert str(seen) + "\\n" == done.stdout
        print("environment", seen, hash("imu"))
"""


def command(*args: str) -> list[str]:
    """Return the command line of a simulated run."""
    plugins = ["-p", "imu", "-p", "no:cacheprovider"]
    return [sys.executable, "-B", "-m", "pytest", *plugins, *args]


def simulate(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """Run pytest under `--imu-simulate` in a process of its own, and see its temporary files go."""
    result = pytester.run(*command(*args), timeout=300)
    assert_nothing_left(pytester)
    return result


def assert_nothing_left(pytester: pytest.Pytester) -> None:
    """Wait for the janitor, which sees the end of the run only when that is over."""
    temporary = pytester.path / "temporary"
    for _ in range(1_000_000):
        if not list(temporary.glob("imu-*")):
            break
    assert [] == list(temporary.glob("imu-*"))
    assert [] == list(pytester.path.glob("*callgrind*"))


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the tests of the JSON file by their names."""
    return {test["nodeid"].rpartition("::")[2]: test for test in document["tests"]}


def count(test: dict[str, Any], event: str) -> float:
    """Return what a test's call counted."""
    value: float = test["phases"]["call"]["counters"][event]["value"]
    return value
