"""`--imu-compare` and `--imu-fail-increase` in whole runs: what fails, what is said, what is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from pytest_imu.core.memory.source import peak_source
from pytest_imu.report.compared import NOTHING_COMPARED
from running import run_here
from suites import SUITE

if TYPE_CHECKING:
    from tests.history.conftest import Documents

Run = Callable[..., pytest.RunResult]
FILE = "test_it.py"


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Return a function that runs the suite with this plugin, and with others that are named."""
    pytester.makepyfile(**{FILE.removesuffix(".py"): SUITE})
    return lambda *arguments: pytester.runpytest_subprocess("-p", "imu", *arguments)


@pytest.fixture
def base(documents: Documents) -> Callable[..., str]:
    """Return a function that writes an earlier run's file: the peaks in MiB of its tests."""
    source = peak_source().label

    def written(large: float = 30, small: float = 5, **more: Any) -> str:
        kind = "kernel" if source.startswith("kernel") else "sampled"
        tests = [
            documents.test(f"{FILE}::{name}", peak, **more)
            for name, peak in (("test_large", large), ("test_small", small), ("test_gone", 1))
        ]
        for test in tests:
            test["phases"]["call"]["source"] = kind
        return documents.write("base.json", *tests)

    return written


def said(result: pytest.RunResult) -> list[str]:
    """Return the lines that tell of the comparison and of what it failed."""
    return [
        re.sub(r"\d+\.\d|\d+ %", "N", line)
        for line in result.outlines
        if re.match(r"compared|test_it.py::|no test could|nothing compared|  test|\d+ (un|not)", line)
    ]


def properties(path: Path) -> list[dict[str, str]]:
    """Return the properties of each test in JUnit XML; each has a name of its own."""
    cases = ET.parse(path).getroot().iter("testcase")  # noqa: S314 - the run above has written it
    found = [[one.attrib for one in case.iter("property")] for case in cases]
    assert all(len(own) == len({one["name"] for one in own}) for own in found)
    return [{one["name"]: one["value"] for one in own} for own in found]


def test_a_test_that_grew_fails(run: Run, base: Callable[..., str], tmp_path: Path) -> None:
    """It fails like an assertion, in one line, which is in the JUnit XML and in the section too."""
    flags = ["--imu-fail-increase=10%+2", "--imu-fail-increase=delta:50%+9"]
    files = [f"--junit-xml={tmp_path / 'junit.xml'}", f"--imu-json={tmp_path / 'now.json'}"]
    result = run(f"--imu-compare={base(large=20)}", *flags, *files)
    result.assert_outcomes(passed=1, failed=1)
    line = r"peak \d\d\.\d MiB, was 20\.0 in base\.json: grew \d+\.\d MiB \(\d\d %\), over 10%\+2"
    result.stdout.re_match_lines([line, rf"test_it\.py::test_large: {line}"])
    assert re.search(line, (tmp_path / "junit.xml").read_text(encoding="utf-8"))
    large_was, small_was = properties(tmp_path / "junit.xml")
    assert ("20.0", "5.0") == (large_was["imu_was_mib"], small_was["imu_was_mib"])
    assert abs(float(large_was["imu_peak_mib"]) - 20 - float(large_was["imu_change_mib"])) < 0.002
    result.stdout.re_match_lines([r" *peak +was +change +delta", r" *\d\d\.\d +20\.0 +\+\d+\.\d "])
    assert ["compared 2 tests: 1 grew, 1 same, 1 gone", "test_it.py::test_large: peak N MiB"] == [
        line.partition(",  was")[0].partition(", was")[0] for line in said(result)
    ]
    large, small = json.loads((tmp_path / "now.json").read_text(encoding="ascii"))["tests"]
    assert (["peak", "delta"], ["grew", "same"]) == (
        [change["subject"] for change in large["compared"]],
        [large["compared"][0]["status"], small["compared"][0]["status"]],
    )
    assert [("imu_fail_increase", "broken", "10%+2"), ("imu_fail_increase", "kept", "delta:50%+9")] == [
        (budget["name"], budget["verdict"], budget["increase"]) for budget in large["budgets"]
    ]
    assert (20 * 2**20, True) == (large["compared"][0]["was"], large["failed_by_budget"])


def test_without_an_increase_nothing_fails(run: Run, base: Callable[..., str]) -> None:
    """What grew is told, and the run passes."""
    result = run(f"--imu-compare={base(large=20)}")
    result.assert_outcomes(passed=2)
    assert 0 == result.ret
    assert [
        "compared 2 tests: 1 grew, 1 same, 1 gone",
        "  test_it.py::test_large: peak N MiB, was N in base.json: grew N MiB (N), over 10%+2",
    ] == said(result)


def test_workers_fail_what_grew(run: Run, base: Callable[..., str]) -> None:
    """Under xdist the workers are told the numbers, and the controller compares the whole run."""
    flags = [f"--imu-compare={base(large=20)}", "--imu-fail-increase=10%+2", "--junit-xml=junit.xml"]
    result = run("-p", "xdist", "-n2", *flags)
    result.assert_outcomes(passed=1, failed=1)
    assert ["20.0", "5.0"] == sorted(one["imu_was_mib"] for one in properties(Path("junit.xml")))
    assert 'failure message="Failed: peak ' in Path("junit.xml").read_text(encoding="utf-8")
    result.stdout.re_match_lines([r"peak \d\d\.\d MiB, was 20\.0 in base\.json: grew"])
    assert "compared 2 tests: 1 grew, 1 same, 1 gone" in said(result)


@pytest.mark.needs_fork
@pytest.mark.needs_kernel_peaks
def test_isolated_runs_are_compared_with_isolated_ones(run: Run, base: Callable[..., str]) -> None:
    """An earlier number isolates no test; and what was isolated is held against what was, too."""
    flags = [f"--imu-compare={base(large=20, isolated=True)}", "--imu-fail-increase=10%+2"]
    result = run(*flags, "--imu-isolate=budgets")
    result.assert_outcomes(passed=2)
    assert [
        "compared 2 tests: 2 not compared, 1 gone",
        "2 not compared: isolated in base.json, not here",
    ] == said(result)[:2]
    assert 1 == result.ret  # nothing was compared
    result = run(*flags, "--imu-isolate")
    result.assert_outcomes(passed=1, failed=1)
    assert "compared 2 tests: 1 grew, 1 same, 1 gone" in said(result)


def test_a_run_that_compared_nothing_fails(
    run: Run, documents: Documents, pytester: pytest.Pytester
) -> None:
    """It has proved nothing, unless the ini file lets it."""
    path = documents.write("base.json", documents.test("another.py::test"))
    result = run(f"--imu-compare={path}")
    result.assert_outcomes(passed=2)
    assert 1 == result.ret
    assert [
        "compared 2 tests: 2 new, 1 gone",
        NOTHING_COMPARED.format("base.json"),
    ] == said(result)
    assert 0 == run(f"--imu-compare={path}", "-o", "imu_compare_required=false").ret
    pytester.makepyfile(test_it="def nothing(): pass")
    assert pytest.ExitCode.NO_TESTS_COLLECTED == run(f"--imu-compare={path}").ret


def test_a_part_of_the_suite_does_not_call_the_rest_gone(run: Run, base: Callable[..., str]) -> None:
    """With a selection it is only not run."""
    assert "compared 1 test: 1 same, 2 not run here" in said(
        run(f"--imu-compare={base()}", "-k", "small")
    )


def test_a_missing_file_is_an_error(run: Run, tmp_path: Path) -> None:
    """The error says how to make one; a first run may go without."""
    path = tmp_path / "main.json"
    result = run(f"--imu-compare={path}")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    expected = "a file that exists; a run with --imu-json=main.json writes it"
    line = f"ERROR: invalid value '{path}' for --imu-compare: expected {expected}"
    assert [line] == [line for line in result.errlines if line]
    result = run(f"--imu-compare={path}", "--imu-compare-if-exists")
    assert 0 == result.ret
    assert [f"nothing compared: {path} does not exist; a run with --imu-json writes it"] == said(result)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--imu-fail-increase=5%"], "--imu-fail-increase needs --imu-compare=PATH, the file*"),
        (["--imu-compare-if-exists"], "--imu-compare-if-exists needs --imu-compare=PATH, the file*"),
        (
            ["--imu-fail-increase=5%,x"],
            "invalid value 'x' for --imu-fail-increase: expected a percentage, a number of MiB *",
        ),
        (["-o", "imu_fail_increase=-1"], "invalid value '-1' for -o imu_fail_increase: expected *"),
        (
            [f"--imu-compare={FILE}"],
            "--imu-compare: invalid file '*test_it.py': expected what --imu-json writes, but *",
        ),
        (["--imu-compare=."], "--imu-compare: invalid file '*': expected what --imu-json writes (*"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    pytester: pytest.Pytester, flags: list[str], line: str
) -> None:
    """One line, before any test runs."""
    pytester.makepyfile(test_it=SUITE)
    result = run_here(pytester, *flags)
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines([f"ERROR: {line}"])
    assert 1 == len([line for line in result.errlines if line])


def test_a_warning_instead_of_a_failure(run: Run, base: Callable[..., str]) -> None:
    """What is true of budgets is true of what grew: `imu_on_breach`, and `--no-imu`."""
    flags = [f"--imu-compare={base(large=20)}", "--imu-fail-increase=10%+2"]
    result = run(*flags, "-o", "imu_on_breach=warn")
    result.assert_outcomes(passed=2, warnings=1)
    result = run(*flags, "--no-imu")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*base.json not compared: --no-imu"])
