"""A test that seems to have grown runs once more, alone, where the earlier run has its clean number."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from running import Test, read_by_name, run

pytestmark = [
    pytest.mark.needs_kernel_peaks,
    pytest.mark.needs_malloc_trim,
    pytest.mark.needs_fork,
]

SUITE = """
    import os, pytest

    def grow(mib):
        # Each growth may move the block. Once a large block was freed glibc moves by copying.
        one, other = bytearray(), bytearray()
        for _ in range(mib * 16):
            one += bytes(2**16)
            other += bytes(2**16)

    def test_before():
        if "FREES" in os.environ:
            bytes(31 * 2**20)

    LIMIT = os.environ.get("LIMIT")

    @(pytest.mark.max_peak_mib(int(LIMIT)) if LIMIT else lambda test: test)
    def test_grow():
        open("runs", "a").write("x")
        grow(int(os.environ.get("MIB", "16")))

    def test_small():
        pass
"""
"""`grow(16)` peaks at 32 MiB in a fresh process, and at 56 to 65 once a large block was freed."""

Compare = Callable[..., tuple[pytest.RunResult, dict[str, Test]]]


@pytest.fixture
def compare(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Compare:
    """Return a function that runs the suite for a base, and once more; variables say how."""
    pytester.makepyfile(test_it=SUITE)

    def compared(
        *args: str, base: tuple[str, ...] = (), was: dict[str, str], now: dict[str, str]
    ) -> tuple[pytest.RunResult, dict[str, Test]]:
        with monkeypatch.context() as first:
            for name, value in was.items():
                first.setenv(name, value)
            assert 0 == run(pytester, "--imu", "--imu-json=base.json", *base).ret
        Path("runs").unlink()
        for name, value in now.items():
            monkeypatch.setenv(name, value)
        flags = ["--imu-compare=base.json", "--imu-fail-increase=10%+5", "--imu-json=now.json"]
        return run(pytester, *flags, *args), read_by_name(pytester, "now.json")

    return compared


def runs() -> int:
    """Return how often the test ran that may have grown."""
    return len(Path("runs").read_text(encoding="utf-8"))


def test_what_only_earlier_tests_have_made_grow(compare: Compare, pytester: pytest.Pytester) -> None:
    """Against a run of isolated tests it is the same, and the section has all three numbers."""
    result, tests = compare(base=("--imu-isolate",), was={}, now={"FREES": "1"})
    result.assert_outcomes(passed=3)
    result.stdout.re_match_lines(
        [
            r" *[56]\d\.\d +3\d\.\d +[+-]?0\.\d alone .*test_grow",
            "compared 3 tests: 1 same, 2 not compared",
            r"1 number did not grow alone: test_it\.py::test_grow: peak 3\d\.\d alone, was 3.*; [56].*",
        ]
    )
    [verdict] = tests["test_grow"]["budgets"]
    assert ("kept", "alone") == (verdict["verdict"], verdict["decided_by"])
    assert abs(verdict["actual"] - verdict["was"]) < 1
    [change] = tests["test_grow"]["compared"]
    assert "same" == change["status"]
    assert abs(change["now"] / 2**20 - verdict["actual"]) < 0.001
    assert 2 == runs()
    # The same offline: both files have a clean number.
    files = ("base.json", "now.json")
    again = pytester.run(sys.executable, "-m", "pytest_imu", "compare", *files, "--fail-increase=10%+5")
    assert 0 == again.ret
    again.stdout.fnmatch_lines(["compared 3 tests: 1 same, 2 not compared"])


@pytest.mark.parametrize("way", [(), ("-p", "xdist", "-n1")], ids=["alone", "xdist"])
def test_what_grew_alone_too(compare: Compare, way: tuple[str, ...]) -> None:
    """A budget that a run alone has decided leaves a clean number too; what grew past it fails."""
    if way:
        pytest.importorskip("xdist")
    result, tests = compare(
        "--junit-xml=junit.xml",
        "--imu-why",
        *way,
        was={"FREES": "1", "LIMIT": "40"},
        now={"FREES": "1", "MIB": "30"},
    )
    result.assert_outcomes(passed=2, failed=1)
    line = (
        r"peak 6\d\.\d MiB, was 3\d\.\d in base\.json: grew \d+\.\d MiB \(\d+ %\), over 10%\+5; "
        r"1\d\d\.\d after earlier tests"
    )
    result.stdout.re_match_lines(
        [
            line,
            r"-+ imu: why -+",
            r"where the peak was reached, in a second run \(peak 6\d\.\d\):",
            r" .*test_it\.py:\d+ +grow\(int\(.*",
            rf"test_it\.py::test_grow: {line}",
        ]
    )
    result.stdout.fnmatch_lines(["compared 3 tests: 1 grew, 2 same"])
    junit = Path("junit.xml").read_text(encoding="utf-8")
    assert re.search(line, junit)
    assert re.search(
        r'"imu_was_mib" value="3\d\.\d+" ?/><property name="imu_change_mib" value="\d\d\.', junit
    )
    assert "peak" == tests["test_grow"]["why"]["metric"]
    assert 3 == runs()  # its own run, the one that decides, and the one whose lines are followed


def test_without_a_clean_number(compare: Compare) -> None:
    """It is held against what the earlier run has, and does not run again."""
    result, _ = compare(was={}, now={"FREES": "1"})
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.re_match_lines([r"peak [56]\d\.\d MiB, was 3\d\.\d in base\.json: grew .*10%\+5$"])
    assert 1 == runs()
