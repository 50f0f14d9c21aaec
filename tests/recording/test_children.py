"""Child processes of tests: said beside the row, and measured where that is asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_imu.core.units import MIB

pytestmark = pytest.mark.needs_proc

HELD_MIB = 64
PYTHON_MIB = 24
"""More than a bare Python's own memory."""
SUITE = f"""
    import os
    import subprocess
    import sys

    HOLDER = "held = b'x' * ({HELD_MIB} << 20); print(flush=True); input()"

    left = []

    def hold():
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        holder = subprocess.Popen([sys.executable, "-S", "-c", HOLDER], **pipes)
        holder.stdout.readline()
        return holder

    def test_waits_for_two():
        hold().communicate(b"\\n")
        hold().communicate(b"\\n")

    def test_none():
        pass

    def test_leaves_two():
        left.extend([hold(), hold()])

    def test_ends_them():
        for holder in left:
            holder.communicate(b"\\n")
"""


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the names room beside their remarks."""
    monkeypatch.setenv("COLUMNS", "120")


def run(pytester: pytest.Pytester, *args: str) -> tuple[pytest.RunResult, dict[str, Any]]:
    """Run the suite measured; return the result and each test's call as the JSON file has it."""
    pytester.makepyfile(test_it=SUITE)
    result = pytester.runpytest_subprocess("-p", "imu", "--imu", "--imu-json=run.json", *args)
    result.assert_outcomes(passed=4)
    tests = json.loads(pytester.path.joinpath("run.json").read_text(encoding="ascii"))["tests"]
    return result, {test["nodeid"].partition("::")[2]: test["phases"]["call"] for test in tests}


def test_children_are_said(pytester: pytest.Pytester) -> None:
    """A row says where child processes started or ended meanwhile."""
    result, calls = run(pytester)

    result.stdout.fnmatch_lines_random(
        [
            "*::test_waits_for_two (had child processes, not counted)",
            "*::test_leaves_two (had child processes, not counted)",
            "*::test_ends_them (had child processes, not counted)",
        ]
    )
    assert (False, None) == (calls["test_none"]["had_children"], calls["test_none"]["children_memory"])


def test_children_are_measured(pytester: pytest.Pytester) -> None:
    """`--imu-children` adds up what all of them held, and leaves the test's own numbers as they are."""
    result, calls = run(pytester, "--imu-children")

    # Both ends of a window are samples, and so whom a test finds or leaves is always met.
    for name, count in {"test_none": 0, "test_leaves_two": 2, "test_ends_them": 2}.items():
        memory = calls[name]["children_memory"]
        assert ("pss", count, None) == (memory["unit"], memory["most"], memory["reason"])
        assert count * HELD_MIB * MIB <= memory["peak_bytes"] <= count * (HELD_MIB + PYTHON_MIB) * MIB
        assert calls[name]["peak_bytes"] < HELD_MIB * MIB
    result.stdout.fnmatch_lines(["*children*", "children: the highest * PSS, sampled"])


def test_setups_children_are_told_with_the_call(pytester: pytest.Pytester) -> None:
    """What a fixture starts is the test's; where no call follows the setup tells itself."""
    pytester.makepyfile(
        test_it="""
        import subprocess, sys
        import pytest

        @pytest.fixture
        def child():
            subprocess.run([sys.executable, "-S", "-c", ""])

        @pytest.fixture
        def skipped(child):
            pytest.skip("no call")

        def test_in_setup(child): pass
        def test_without_call(skipped): pass
        def test_none(): pass
        """
    )
    result = pytester.runpytest_subprocess("-p", "imu", "--imu-json=run.json")
    result.assert_outcomes(passed=2, skipped=1)
    tests = json.loads(pytester.path.joinpath("run.json").read_text(encoding="ascii"))["tests"]
    told = [
        [measured and measured["had_children"] for name, measured in test["phases"].items()][:2]
        for test in tests
    ]
    assert [[None, True], [True, None], [None, False]] == told
