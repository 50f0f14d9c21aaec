"""How the tests of `--imu-simulate` run pytest, and what they read of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

CACHES = "I1=32768,8,64 D1=32768,8,64 LL=8388608,16,64"


def command(*args: str) -> list[str]:
    """Return the command line of a simulated run."""
    plugins = ["-p", "imu", "-p", "no:cacheprovider"]
    return [sys.executable, "-B", "-m", "pytest", *plugins, *args]


def simulate(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """Run pytest under `--imu-simulate` in a process of its own, and see its temporary files go."""
    result = pytester.run(*command(*args), timeout=300)
    assert_nothing_left(pytester.path)
    return result


def assert_nothing_left(folder: Path) -> None:
    """Wait until the files of a run in a folder are removed, which is done when that is over."""
    temporary = folder / "temporary"
    for _ in range(1_000_000):
        if not list(temporary.glob("imu-*")):
            break
    assert [] == list(temporary.glob("imu-*"))
    assert [] == list(folder.glob("*callgrind*"))


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the tests of the JSON file by their names."""
    return {test["nodeid"].rpartition("::")[2]: test for test in document["tests"]}


def count(test: dict[str, Any], event: str) -> float:
    """Return what a test's call counted."""
    value: float = test["phases"]["call"]["counters"][event]["value"]
    return value
