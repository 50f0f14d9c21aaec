"""One known answer through one tool: python benchmarks/peers.py TOOL CASE, which prints JSON.

`benchmarks/accuracy.py` runs it, in a fresh process for each number; `--list` says what there is.
Each tool is used as its documentation says is most exact for the peak of one piece of code.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from tests.accuracy.cases import Case

MIB = 2**20
CASES_FILE = Path(__file__).parent.parent / "tests" / "accuracy" / "cases.py"
SUITE = """
import pytest

import cases

cases.warm_up()
[CASE] = [case for case in cases.CASES if case.name == {name!r}]

@pytest.fixture(scope="module")
def hold():
    hold = []
    CASE.before(hold)
    yield hold
    hold.clear()

def test_empty(hold):
    pass

def test_case(hold):
    CASE.run(hold)
"""

Read = Callable[[Path], float]


class ToolError(Exception):
    """A tool could not measure; its text is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A way to measure the peak of a case's body, in MiB."""

    name: str
    peak_mib: Callable[[Case], float]
    distribution: str | None = None
    """What has to be installed; None for the standard library."""
    group: str = "process"

    @property
    def version(self) -> str | None:
        """The installed version; the standard library's is Python's; None if it is not installed."""
        if self.distribution is None:
            return f"Python {platform.python_version()}"
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return None


def prepared(case: Case) -> Callable[[], object]:
    """Do what comes before the window; return the body, which holds what outlives it."""
    hold: list[object] = []
    case.before(hold)
    return functools.partial(case.run, hold)


def by_measure(case: Case) -> float:
    """Measure a block with pytest-imu."""
    from pytest_imu import measure

    body = prepared(case)
    with measure() as meter:
        body()
    if meter.peak_bytes is None:
        raise ToolError(meter.measurement.reason)
    return meter.peak_bytes / MIB


def by_memory_profiler(case: Case, *, interval_s: float) -> float:
    """Take the maximum of memory_profiler's samples over one before, as its %memit does."""
    memory_usage = importlib.import_module("memory_profiler").memory_usage
    body = prepared(case)
    [before] = memory_usage(-1)
    peak = memory_usage((body,), interval=interval_s, max_usage=True, max_iterations=1)
    return float(peak - before)


def by_sampling_thread(case: Case, *, interval_s: float) -> float:
    """Take the maximum of what a thread reads through psutil, and of what there is before and after."""
    memory_info = importlib.import_module("psutil").Process().memory_info
    body = prepared(case)
    samples: list[int] = [memory_info().rss]
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(interval_s):
            samples.append(memory_info().rss)

    sampler = threading.Thread(target=sample)
    sampler.start()
    body()
    ended.set()
    sampler.join()
    samples.append(memory_info().rss)
    return (max(samples) - samples[0]) / MIB


def by_tracemalloc(case: Case) -> float:
    """Take the growth of tracemalloc's peak, which is set back before the body."""
    tracemalloc.start()
    body = prepared(case)
    tracemalloc.reset_peak()
    before_bytes = tracemalloc.get_traced_memory()[0]
    body()
    peak_bytes = tracemalloc.get_traced_memory()[1]
    return (peak_bytes - before_bytes) / MIB


def by_max_rss(case: Case) -> float:
    """Take the growth of getrusage's ru_maxrss, which nobody sets back."""
    body = prepared(case)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    body()
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak_kib - before_kib) / 1024


def by_plugin(case: Case, *, module: str, arguments: tuple[str, ...], read: Read) -> float:
    """Run the case as a test, after an empty one that uses the same fixture; read what was reported."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(CASES_FILE, folder)
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        (folder / "test_known.py").write_text(SUITE.format(name=case.name), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-p", module, "-p", "no:cacheprovider", *arguments]
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise ToolError(first_error(done.stdout + done.stderr))
        return read(folder)


def first_error(text: str) -> str:
    """Return the first line that pytest marks as an error, or the last one."""
    lines = text.strip().splitlines() or ["pytest failed without a word"]
    return next((line[1:].strip() for line in lines if line.startswith("E  ")), lines[-1])


def read_imu(folder: Path) -> float:
    """Return the call's peak from pytest-imu's JSON file."""
    _, test = json.loads((folder / "imu.json").read_text(encoding="utf-8"))["tests"]
    peak_bytes: int = test["phases"]["call"]["peak_bytes"]
    return peak_bytes / MIB


def read_isolate(folder: Path) -> float:
    """Return the peak RSS of the test's process over the empty test's, from the JUnit XML file."""
    tests = ET.parse(folder / "junit.xml").iter("testcase")  # noqa: S314 - pytest wrote it just now
    empty, case = (
        float(found.attrib["value"])
        for test in tests
        for found in test.iter("property")
        if found.attrib["name"] == "peak_rss_mib"
    )
    return case - empty


def read_monitor(folder: Path) -> float:
    """Return the highest sample of the test over the empty test's, from pytest-monitor's database."""
    database = sqlite3.connect(folder / ".pymon")
    query = "SELECT item, mem_usage FROM test_metrics WHERE kind = 'function'"
    usage = dict(database.execute(query))
    database.close()
    return float(usage["test_case"] - usage["test_empty"])


def read_memray(folder: Path) -> float:
    """Return the high-water mark of the test's allocations, from what pytest-memray keeps."""
    texts = [path.read_text(encoding="utf-8") for path in (folder / "memray" / "metadata").iterdir()]
    peaks: Mapping[str, int] = {
        test["test_id"].rpartition("::")[2]: test["peak_memory"] for test in map(json.loads, texts)
    }
    return peaks["test_case"] / MIB


def profiler(milliseconds: int) -> Tool:
    """Return memory_profiler, sampling this often."""
    peak_mib = functools.partial(by_memory_profiler, interval_s=milliseconds / 1000)
    name = f"memory_profiler, {milliseconds} ms"
    return Tool(name=name, distribution="memory_profiler", peak_mib=peak_mib)


def sampling_thread(milliseconds: int) -> Tool:
    """Return a thread that samples this often."""
    peak_mib = functools.partial(by_sampling_thread, interval_s=milliseconds / 1000)
    return Tool(name=f"psutil thread, {milliseconds} ms", distribution="psutil", peak_mib=peak_mib)


def plugin(name: str, module: str, read: Read, *arguments: str) -> Tool:
    """Return the tool that a pytest plugin is, with what it is asked for on the command line."""
    peak_mib = functools.partial(by_plugin, module=module, arguments=arguments, read=read)
    return Tool(name=name, distribution=name, group="plugin", peak_mib=peak_mib)


TOOLS = (
    Tool(name="`measure()`", distribution="pytest-imu", peak_mib=by_measure),
    profiler(100),
    profiler(1),
    sampling_thread(10),
    sampling_thread(1),
    Tool(name="`ru_maxrss`", peak_mib=by_max_rss),
    Tool(name="tracemalloc", peak_mib=by_tracemalloc),
    plugin("pytest-imu", "pytest_imu.plugin", read_imu, "--imu", "--imu-json=imu.json"),
    plugin("pytest-isolate", "pytest_isolate.plugin", read_isolate, "--isolate", "--junitxml=junit.xml"),
    plugin("pytest-monitor", "pytest_monitor.pytest_monitor", read_monitor),
    plugin("pytest-memray", "pytest_memray.plugin", read_memray, "--memray", "--memray-bin-path=memray"),
)


def load_cases() -> Any:
    """Import the tests' module of cases. Any: it is found by its path alone."""
    spec = importlib.util.spec_from_file_location("cases", CASES_FILE)
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018 - for the type checker
    module = sys.modules["cases"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def describe(cases: Any) -> dict[str, object]:
    """Return what can be measured, and with what."""
    return {
        "tools": [{"name": tool.name, "group": tool.group, "version": tool.version} for tool in TOOLS],
        "cases": [
            {"name": case.name, "why": case.why, "peak_mib": case.peak_mib, "bound_mib": case.bound_mib}
            for case in cases.CASES
        ],
    }


def main() -> None:
    """Print one peak, or the reason why there is none."""
    cases = load_cases()
    if sys.argv[1:] == ["--list"]:
        print(json.dumps(describe(cases)))
        return
    tool_name, case_name = sys.argv[1:]
    [tool] = [tool for tool in TOOLS if tool.name == tool_name]
    [case] = [case for case in cases.CASES if case.name == case_name]
    if tool.group == "process":
        cases.warm_up()
    try:
        print(json.dumps({"peak_mib": tool.peak_mib(case)}))
    except (ToolError, ImportError, OSError) as error:
        print(json.dumps({"reason": str(error)}))


if __name__ == "__main__":
    main()
