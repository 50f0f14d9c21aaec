"""A test's numbers in the reports of pytest-html and allure-pytest, with the real plugins."""

from __future__ import annotations

import html
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.core.model import CounterReading, Measurement
from pytest_imu.recording.record import PhaseRecord
from pytest_imu.report.others import lines_of

MIB = 2**20
SUITE = """
import mmap
import pytest

@pytest.fixture
def breaks():
    raise LookupError("in the setup")

@pytest.fixture
def spikes():
    yield
    spike = mmap.mmap(-1, 30 * 2**20)
    spike.write(bytes(30 * 2**20))
    spike.close()

@pytest.mark.max_peak_mib(100)
def test_keeps():
    spike = bytearray(20 * 2**20)
    spike[::4096] = b"x" * len(spike[::4096])

@pytest.mark.max_peak_mib(1)
def test_breaks():
    spike = bytearray(20 * 2**20)
    spike[::4096] = b"x" * len(spike[::4096])

def test_setup_fails(breaks):
    pass

@pytest.mark.max_peak_mib(5, phase="all")
def test_as_a_whole(spikes):
    pass

@pytest.mark.parametrize("text", ["<b>", "back\\\\x"])
def test_odd_names(text):
    pass
"""
OUTCOMES = {"passed": 4, "failed": 1, "errors": 2}
NUMBERS = re.compile(
    r"peak (\d+\.\d|n/a) MiB, delta -?\d+\.\d MiB, total \d+\.\d MiB, \d+\.\d\ds \((kernel|sampled)\)"
)
RUNS = [(), ("-p", "xdist", "-n", "2"), ("--imu-isolate",)]
HTML = ("-p", "pytest_metadata.plugin", "-p", "pytest_html.plugin")
ALLURE = ("-p", "allure_pytest.plugin")


def needs(module: str, distribution: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where *module* cannot be found."""
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"{distribution} is not installed"
    )


needs_html = needs("pytest_html", "pytest-html")
needs_allure = needs("allure_pytest", "allure-pytest")
kernel_peaks = pytest.mark.needs_kernel_peaks


def run(pytester: pytest.Pytester, *args: str) -> None:
    """Run the suite in a process of its own, and expect its own outcomes."""
    pytester.makepyfile(SUITE)
    pytester.runpytest_subprocess("-p", "imu", *args).assert_outcomes(**OUTCOMES)


def html_logs(path: Path) -> dict[str, list[str]]:
    """Return what pytest-html shows of each test, a text for each of its rows."""
    text = path.read_text(encoding="utf-8")
    blob = re.search(r'data-jsonblob="([^"]*)"', text)
    assert blob is not None
    tests: dict[str, Any] = json.loads(html.unescape(blob[1]))["tests"]
    return {
        nodeid.rpartition("::")[2]: [html.unescape(row["log"]) for row in rows]
        for nodeid, rows in tests.items()
    }


def allure_texts(folder: Path) -> dict[str, list[str]]:
    """Return the lines of the one attachment of ours that each test has."""
    texts = {}
    for path in folder.glob("*-result.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["status"] == "skipped":  # allure itself adds one for each test that is isolated
            continue
        [source] = [one["source"] for one in result["attachments"] if one["name"] == "imu"]
        texts[result["name"]] = (folder / source).read_text(encoding="utf-8").splitlines()
    return texts


def peak_mib(line: str) -> float:
    """Return the peak that a line names; it must have the form of all of them."""
    found = NUMBERS.search(line)
    assert found is not None, line
    return float(found[1])


@needs_html
@kernel_peaks
@pytest.mark.parametrize("args", RUNS, ids=["alone", "xdist", "isolated"])
def test_html(pytester: pytest.Pytester, args: tuple[str, ...]) -> None:
    """pytest-html's rows show the numbers and the verdicts, whichever process ran the test."""
    run(pytester, *HTML, "--imu", "--html=out/report.html", *args)
    logs = html_logs(pytester.path / "out" / "report.html")

    [kept] = logs["test_keeps"]
    assert abs(peak_mib(kept) - 20) <= 0.6
    assert "imu: max_peak_mib(100) kept" in kept
    [broken] = logs["test_breaks"]
    assert abs(peak_mib(broken) - 20) <= 0.6
    assert "is over max_peak_mib(1) by" in broken.split("\n\n")[0]
    [setup] = logs["test_setup_fails"]
    assert setup.startswith("imu: setup: peak ")
    assert "in the setup" in setup
    whole = logs["test_as_a_whole"]
    assert [True, True] == ["max_peak_mib(5" in row for row in whole]
    for name in ("test_odd_names[<b>]", "test_odd_names[back\\\\x]"):
        [row] = logs[name]
        peak_mib(row)
    assert [] == [path.name for path in (pytester.path / "out").rglob("*") if "odd" in path.name]


@needs_html
def test_html_without_measuring(pytester: pytest.Pytester) -> None:
    """A run that measures nothing shows nothing of ours."""
    run_args = ("-p", "imu", *HTML, "--html=report.html", "--no-imu")
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest_subprocess(*run_args).assert_outcomes(passed=1)
    assert [["No log output captured."]] == list(html_logs(pytester.path / "report.html").values())


@needs_allure
@kernel_peaks
@pytest.mark.parametrize("args", RUNS, ids=["alone", "xdist", "isolated"])
def test_allure(pytester: pytest.Pytester, args: tuple[str, ...]) -> None:
    """Each of allure's results has one attachment with the numbers and the verdicts."""
    run(pytester, *ALLURE, "--imu", "--alluredir=results", *args)
    texts = allure_texts(pytester.path / "results")

    numbers, verdict = texts["test_keeps"]
    assert abs(peak_mib(numbers) - 20) <= 0.6
    assert "max_peak_mib(100) kept" == verdict
    numbers, verdict = texts["test_breaks"]
    assert abs(peak_mib(numbers) - 20) <= 0.6
    assert "max_peak_mib(1)" in verdict
    [setup] = texts["test_setup_fails"]
    assert setup.startswith("setup: peak ")
    assert "max_peak_mib(5" in texts["test_as_a_whole"][-1]


def test_lines_of_what_is_missing() -> None:
    """What could not be measured or counted is n/a with its reason."""
    measurement = Measurement(
        before_bytes=None,
        after_bytes=None,
        rss_peak_bytes=None,
        duration_ns=320_000_000,
        source="none",
        reason="no /proc",
        counters=(
            CounterReading(event="cache-misses", value=8823),
            CounterReading(event="cycles", value=None, reason="no such event"),
        ),
    )
    report = pytest.TestReport("test_it", ("f", 0, "test_it"), {}, "passed", None, "call")
    assert [] == lines_of(report)
    report.__dict__["imu"] = PhaseRecord(attempt=1, phases=(("call", measurement),))
    expected = [
        "memory n/a, no /proc; 0.32s",
        "cache-misses 8,823 (perf)",
        "cycles n/a, no such event",
    ]
    assert expected == lines_of(report)
