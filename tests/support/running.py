"""Whole runs of pytest with this plugin, and what they wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest

JSON = "--imu-json=run.json"
LOG = "--imu-log=run.jsonl"
LIMIT_S = 120
"""A run that has not ended by then hangs, and is ended."""
Test = dict[str, Any]


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """Run pytest in a process of its own, with this plugin and those that are named."""
    return pytester.runpytest_subprocess("-p", "imu", *args, timeout=LIMIT_S)


def run_here(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """Run pytest in this process, which takes least where it ends before its tests.

    What is about memory, forks, or what a run leaves broken behind needs a process of its own.
    """
    return pytester.runpytest_inprocess("-p", "imu", *args)


def run_and_read(pytester: pytest.Pytester, *args: str) -> tuple[pytest.RunResult, dict[str, Test]]:
    """Run pytest with a JSON file; return the result and the file's tests by name."""
    result = run(pytester, JSON, *args)
    return result, read_by_name(pytester)


def run_isolated(pytester: pytest.Pytester, *args: str, isolate: str = "all") -> pytest.RunResult:
    """Run pytest with each test in a child, and a JSON file and a log."""
    return run(pytester, "--imu", f"--imu-isolate={isolate}", JSON, LOG, *args)


def read_tests(pytester: pytest.Pytester, name: str = "run.json") -> list[Test]:
    """Return the JSON file's tests."""
    tests: list[Test] = json.loads(pytester.path.joinpath(name).read_text(encoding="ascii"))["tests"]
    return tests


def read_by_name(pytester: pytest.Pytester, name: str = "run.json") -> dict[str, Test]:
    """Return the JSON file's tests by the last part of their ids; each must be there once."""
    tests = read_tests(pytester, name)
    by_name = {test["nodeid"].rpartition("::")[2]: test for test in tests}
    assert len(tests) == len(by_name)
    return by_name


def read_log(pytester: pytest.Pytester, name: str = "run.jsonl") -> list[dict[str, Any]]:
    """Return the run log's lines about tests; the one about the run stands before them."""
    text = pytester.path.joinpath(name).read_text(encoding="ascii")
    run_line, *lines = [json.loads(line) for line in text.splitlines()]
    assert "run" == run_line["event"]
    return lines
