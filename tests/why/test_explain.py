"""Tests that broke a budget, or all, run once more, and their lines are shown."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

pytestmark = [
    pytest.mark.needs_kernel_peaks,
    pytest.mark.needs_malloc_trim,
    pytest.mark.needs_fork,
]

MODULE = """
    def block(mib):
        return bytearray(mib * 2**20)

    def merge(left):
        return len(left + block(40))
"""
TESTS = """
    import os, time

    import pytest
    from helper import block, merge

    FIRST = os.getpid()

    def is_second():
        return os.getpid() != FIRST

    @pytest.fixture
    def large():
        merge(block(40))
"""


def run(pytester: pytest.Pytester, tests: str, *args: str) -> tuple[pytest.RunResult, dict[str, Any]]:
    """Run a suite with a helper beside it; return the result and the JSON file's tests by name."""
    pytester.makepyfile(helper=MODULE, test_it=TESTS + tests)
    result = pytester.runpytest_subprocess(
        "-p", "imu", "-p", "no:cacheprovider", "--imu-why", "--imu-json=run.json", *args
    )
    tests_run = json.loads(Path("run.json").read_text(encoding="ascii"))["tests"]
    return result, {test["nodeid"].rpartition("::")[2]: test for test in tests_run}


def chain(test: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Return the lines behind a test's peak, each with what it kept and its peak in MiB."""
    costs = test["why"]["profile"]["chain"]
    return [
        (cost["text"], *(round(cost[f"{key}_bytes"] / 2**20) for key in ("kept", "peak")))
        for cost in costs
    ]


BROKEN = """
    @pytest.mark.max_peak_mib(100)
    def test_peak():
        open("runs", "a").write("x")
        left = block(40)
        merge(left)

    @pytest.mark.max_delta_mib(10)
    def test_kept():
        global kept
        kept = block(40)

    @pytest.mark.max_peak_mib(10, phase="setup")
    def test_setup(large):
        pass

    @pytest.mark.max_peak_mib(10, phase="all")
    def test_whole(large):
        pass

    @pytest.mark.max_peak_mib(100)
    def test_within():
        open("within", "a").write("x")
        merge(block(1))
"""


def test_broken_budgets(pytester: pytest.Pytester) -> None:
    """The failure has a section with the lines at the peak, or those that kept most."""
    result, tests = run(pytester, BROKEN, "--junit-xml=junit.xml")

    result.assert_outcomes(failed=4, passed=1)
    result.stdout.re_match_lines(
        [
            r"peak 1[56]\d\.\d MiB is over max_peak_mib\(100\) by .*",
            r"-+ imu: why -+",
            r"where the peak was reached, in a second run \(peak 1[56]\d\.\d\):",
            r"  kept    peak",
            r"   0\.0   1[12]\d\.\d  test_it\.py:\d+  merge\(left\)",
            r"   0\.0   1[12]\d\.\d  helper\.py:5    return len\(left \+ block\(40\)\)",
            r"what kept the most, in a second run \(kept 40\.\d\):",
            r"  40\.\d    40\.\d  .*:\d+ +.*block.*",
        ]
    )
    assert [("merge(left)", 0, 120), ("return len(left + block(40))", 0, 120)] == chain(
        tests["test_peak"]
    )
    for name, phase in (("test_setup", "setup"), ("test_whole", "all")):
        assert phase == tests[name]["why"]["phase"]
        assert "return len(left + block(40))" == chain(tests[name])[-1][0]
    assert "delta" == tests["test_kept"]["why"]["metric"]
    again = pytester.run(sys.executable, "-m", "pytest_imu", "report", "run.json")
    assert set(tests["test_kept"]["why"]["text"].splitlines()) <= set(again.outlines)
    lines = tests["test_kept"]["why"]["profile"]["lines"]
    [kept] = [line for line in lines if line["text"] == "kept = block(40)"]
    for key in ("kept_bytes", "peak_bytes"):  # as exact as the kernel's mark is
        assert abs(kept[key] - 40 * 2**20) <= 2**19
    assert None is tests["test_within"]["why"]
    # Its own run, the one that decides, and the one whose lines are followed.
    assert "xxx" == Path("runs").read_text(encoding="utf-8")
    assert "x" == Path("within").read_text(encoding="utf-8")
    [junit] = ET.parse("junit.xml").getroot().iter("testsuite")  # noqa: S314 - pytest has written it
    messages = [failure.get("message") for failure in junit.iter("failure")]
    assert 4 == len(messages)
    assert not any("second run" in str(message) for message in messages)


@pytest.mark.parametrize(
    "way", [("-n", "1", "-p", "xdist"), ("--imu-isolate",)], ids=["xdist", "isolated"]
)
def test_with_other_processes(pytester: pytest.Pytester, way: tuple[str, ...]) -> None:
    """The section comes home from a worker of xdist's, and from an isolated test's process."""
    if "xdist" in way:
        pytest.importorskip("xdist")
    result, tests = run(pytester, BROKEN, "test_it.py::test_peak", "test_it.py::test_setup", *way)
    result.assert_outcomes(failed=2)
    result.stdout.re_match_lines(
        [r"-+ imu: why -+", r".*in a second run.*", r" .*", r".*  test_it\.py:\d+  merge\(left\)"]
    )
    assert [("merge(left)", 0, 120), ("return len(left + block(40))", 0, 120)] == chain(
        tests["test_peak"]
    )
    assert "return len(left + block(40))" == chain(tests["test_setup"])[-1][0]


def test_what_goes_wrong_is_said(pytester: pytest.Pytester) -> None:
    """Where there is no second run, or it is another one, the section says so."""
    result, _ = run(
        pytester,
        """
    fails = pytest.mark.max_peak_mib(10)

    @fails
    def test_fails_there():
        block(40)
        assert not is_second(), "the port is in use"

    @fails
    @pytest.mark.imu_no_rerun
    def test_must_not_run_twice():
        assert not is_second()
        block(40)

    @fails
    def test_differs():
        block(20 if is_second() else 40)

    @fails
    def test_ends_there():
        block(40)
        if is_second():
            os._exit(3)
    """,
        "-o",
        "imu_confirm=false",
    )

    result.assert_outcomes(failed=4)
    result.stdout.re_match_lines(
        [
            r"where the peak was reached, in a second run \(peak (39|40)\.\d\):",
            r"in the second run it failed in its call: the port is in use",
            r"the lines are not known: it is marked imu_no_rerun",
            r"where the peak was reached, in a second run \(peak 20\.\d\):",
            r"the first run had (39|40)\.\d: there it may be other lines",
            r"the lines are not known: the child process ended with status 3 before the test did",
        ]
    )


def test_second_run_that_hangs(pytester: pytest.Pytester) -> None:
    """It is ended after the set time, or ten times what the first run took, and that is said."""
    result, tests = run(
        pytester,
        """
    @pytest.mark.max_peak_mib(10)
    def test_hangs_there():
        block(40)
        while is_second():
            time.sleep(1)
    """,
        *("-o", "imu_why_timeout=1", "-o", "imu_confirm=false"),
    )

    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([r"the lines are not known: it had not ended after \d+ s"])
    assert re.fullmatch(r"it had not ended after \d+ s", tests["test_hangs_there"]["why"]["reason"])
    assert None is tests["test_hangs_there"]["why"]["profile"]


def test_all_tests(pytester: pytest.Pytester) -> None:
    """`all` does it for tests without a budget too; with -v every line is shown."""
    result, tests = run(
        pytester,
        """
    def test_free():
        for mib in (30, 40):
            held = block(mib)
        del held

    def test_fails():
        assert not block(40)

    class TestOther:
        def test_case(self, large):
            block(60)
    """,
        "--imu-why=all",
        "-v",
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.re_match_lines(
        [
            r"test_it\.py::test_free:",
            r"where the peak was reached, in a second run \(peak 70\.\d\):",
            r"all lines:",
            r"  hits    kept  largest    peak   total",
            r"     2    40\.\d .* 40\.\d +\d+\.\d  test_it\.py:\d+ +held = block\(mib\)",
            r"test_it\.py::TestOther::test_case:",
            r" .*block\(60\)",
        ]
    )
    assert None is tests["test_fails"]["why"]


@pytest.mark.needs_memray
def test_what_was_held(pytester: pytest.Pytester) -> None:
    """Where memray is installed, the lines that asked for what was held at the peak are named too."""
    import memray  # seldom there

    tests = """
    @pytest.mark.max_peak_mib(30)
    def test_peak():
        left = block(40)
        merge(left)

    @pytest.mark.max_peak_mib(30)
    def test_untouched():
        held, ballast = block(40), bytes(100 * 2**20)

    @pytest.mark.max_peak_mib(30)
    def test_tracked():
        import memray
        block(40)
        if not is_second():
            return
        with memray.Tracker(f"own-{os.getpid()}.bin"):
            pass
    """
    result, found = run(pytester, tests, "--imu-why-keep=kept", "--imu-why-top=2")
    result.assert_outcomes(failed=3)
    result.stdout.re_match_lines(
        [
            r"held at the peak, by memray \(1[56]\d\.\d MiB asked for\):",
            r"  80\.0  helper\.py:\d  return (len\(left \+ block\(40\)\)|bytearray\(mib \* 2\*\*20\))",
            r" 100\.0  test_it\.py:\d+  held, ballast = .*",
            r"memray's 140\.\d is more than the peak: what is asked for and never touched .*",
            r"in the second run it failed in its call: .*Tracker.*",
        ]
    )
    held = found["test_peak"]["why"]["profile"]["held"]
    assert [80, 80] == [round(one["held_bytes"] / 2**20) for one in held["lines"]][:2]
    with memray.FileReader("kept/test_it.py_test_peak.bin") as reader:
        assert reader.metadata.peak_memory > 150 * 2**20


@pytest.mark.needs_kernel_counts
def test_events(pytester: pytest.Pytester) -> None:
    """A budget on events is explained by the lines in which they happened; one on memory comes first."""
    result, tests = run(
        pytester,
        """
    import mmap

    def touch(pages):
        with mmap.mmap(-1, pages * mmap.PAGESIZE) as block:
            block[:: mmap.PAGESIZE] = bytes(pages)

    @pytest.mark.max_events("page-faults", 100)
    def test_faults():
        touch(3000)

    @pytest.mark.max_events("page-faults", 100)
    @pytest.mark.max_peak_mib(30)
    def test_both():
        block(40)
    """,
        "--junit-xml=junit.xml",
    )
    result.assert_outcomes(failed=2)
    result.stdout.re_match_lines(
        [
            r"page-faults 3,0\d\d is over max_events.*",
            r"-+ imu: why -+",
            r"page-faults by line, in a second run \(3,0\d\d\):",
            r"  hits   count  largest",
            r"     1   3,0\d\d    3,0\d\d  test_it\.py:\d+ +(touch\(3000\)|block\[.*)",
            r"where the peak was reached, in a second run \(peak 40\.\d\):",
        ]
    )
    why = tests["test_faults"]["why"]
    assert ("page-faults", "call") == (why["metric"], why["phase"])
    counts = {line["text"]: line["count"] for line in why["profile"]["lines"]}
    assert 0 <= counts["touch(3000)"] - 3000 <= 50
    assert "peak" == tests["test_both"]["why"]["metric"]


def test_off_by_itself(pytester: pytest.Pytester) -> None:
    """Nothing runs a second time, and nothing is imported, where it is not asked for."""
    pytester.makepyfile(
        test_it="""
        import sys, pytest

        @pytest.mark.max_peak_mib(0)
        @pytest.mark.imu_no_rerun
        def test_breaks():
            bytearray(40 * 2**20)
            assert not {"pytest_imu.why", "memory_profiler"} & sys.modules.keys()
        """
    )
    result = pytester.runpytest_subprocess("-p", "imu")
    result.assert_outcomes(failed=1)
    assert "imu: why" not in result.stdout.str()
