"""One run under `--imu-simulate`, of all that a suite may have; each test here looks at one part."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pytest_imu.simulation import cpu
from simulating import CACHES, assert_nothing_left, by_name, command, count

pytestmark = [pytest.mark.needs_valgrind, pytest.mark.needs_numpy]
LIMIT_S = 300
UNWANTED = (*cpu.VARIABLES, "PYTEST_ADDOPTS", "CI", "BUILD_NUMBER")
EXAMPLE = Path(__file__).parents[2] / "examples" / "test_cache.py"
SUITE = """
    import os
    import subprocess
    import sys

    import numpy
    import pytest

    CALLS = []
    OWN = ["PYTHONHASHSEED", "LD_LIBRARY_PATH", "PYTEST_IMU_SIMULATED", "IMU_TEST"]
    CPU = ["GLIBC_TUNABLES", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES"]

    @pytest.mark.max_cache_misses(1_000_000, warmup=1)
    def test_kept(imu):
        CALLS.append(1)
        with imu.measure("half"):
            assert bytearray(2**19).count(1) == 0

    @pytest.mark.max_events("L1-dcache-load-misses", 10)
    def test_broken():
        assert bytearray(2**20).count(1) == 0

    @pytest.mark.max_peak_mib(10)
    @pytest.mark.max_events("page-faults", 10)
    @pytest.mark.max_events("branch-misses", 1_000_000)
    def test_unchecked():
        assert [1, 1] == CALLS
        script = f"import os; print([os.environ.get(name) for name in {OWN + CPU}])"
        seen = [os.environ.get(name) for name in OWN + CPU]
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert str(seen) + "\\n" == done.stdout
        print("environment", seen, hash("imu"))
        [umath] = [m for name, m in sys.modules.items() if name.endswith("core._multiarray_umath")]
        has = umath.__cpu_features__
        print("numpy has", *(name for name in umath.__cpu_dispatch__ if has[name]), "")
"""


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What a run printed, and the folder that it wrote its files into."""

    result: pytest.RunResult
    folder: Path
    document: dict[str, Any]
    tests: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    """Run a suite, and the example where there is one, under valgrind."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "test_suite.py").write_text(textwrap.dedent(SUITE), encoding="utf-8")
    if EXAMPLE.exists():  # an installed package is without
        shutil.copy(EXAMPLE, folder)
    temporary = folder / "temporary"
    temporary.mkdir()
    usual = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    own = {"PYTHONHASHSEED": "7", "IMU_TEST": "a b=c", "COLUMNS": "160", "TMPDIR": str(temporary)}
    files = ("--imu-json=out.json", "--imu-log=out.jsonl", "--junitxml=out.xml")
    done = subprocess.run(
        command("-rP", "-W", "error", *files, "--imu-why", "--imu-simulate"),
        cwd=folder,
        env={**usual, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **own},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    print(done.stdout, done.stderr)  # noqa: T201 - pytest shows it with a test that fails
    assert_nothing_left(folder)
    document = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    return Simulated(
        result=pytest.RunResult(done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), 0),
        folder=folder,
        document=document,
        tests=by_name(document),
    )


def test_what_it_says(run: Simulated) -> None:
    """Counts are there and called simulated, and memory is not; it ends as it would without."""
    tests = len(run.tests)
    assert tests in (3, 5)
    run.result.assert_outcomes(passed=tests - 1, failed=1)
    assert pytest.ExitCode.TESTS_FAILED == run.result.ret
    run.result.stdout.fnmatch_lines(
        [
            f"imu: simulated caches {CACHES}, baseline CPU; memory is not measured",
            'L1-dcache-load-misses * is over max_events("L1-dcache-load-misses", 10) by *; simulated',
            "peak *  cache-misses  L1-dcache-load-misses  branch-misses  page-faults  test",
            " n/a    n/a    n/a *:test_broken",
            f"{tests} of {tests} tests, most cache-misses first",
            f"n/a in {tests} rows: simulated run: the numbers would include valgrind's own memory",
            f"counts simulated by callgrind: {CACHES}, baseline CPU",
            "1 budget not checked: page-faults not supported by callgrind",
            "1 budget not checked: simulated run",
        ]
    )
    run.result.stdout.no_fnmatch_line("*warning*")


def test_lines_of_a_count(run: Simulated) -> None:
    """The line that missed is found by a second run in the same process, with a count like the first."""
    run.result.stdout.fnmatch_lines(
        [
            "L1-dcache-load-misses by line, in a second run in the same process (*",
            "     1 *  test_suite.py:*  assert bytearray(2****20).count(1) == 0",
            "in the same process: valgrind counts no other one",
        ]
    )
    broken = run.tests["test_broken"]
    [line] = broken["why"]["profile"]["lines"]
    # What reading the counts takes is simulated too, and is not quite the same each time.
    assert abs(line["count"] - count(broken, "L1-dcache-load-misses")) < 10_000


def test_what_the_tests_see(run: Simulated) -> None:
    """Their environment, and that of programs they start, is as ever; the hash seed is a fixed one."""
    seed_of_zero = subprocess.run(
        [sys.executable, "-c", "print(hash('imu'))"],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    seen = ["7", None, None, "a b=c", None, None, None]
    assert f"environment {seen} {seed_of_zero}" in run.result.outlines


def test_numpy_chooses_by_the_baseline(run: Simulated) -> None:
    """Of what it could choose its loops by here it has nothing that is newer than the baseline."""
    [line] = [line for line in run.result.outlines if line.startswith("numpy has ")]
    assert not {"X86_V3", "AVX2", "AVX", "FMA3"} & {*line.split()}


def test_files(run: Simulated) -> None:
    """The JSON file, the log and the JUnit file have the counts, with their source, and no memory."""
    assert f"callgrind, simulated caches {CACHES}" == run.document["environment"]["counter_source"]
    kept, unchecked = run.tests["test_kept"], run.tests["test_unchecked"]
    assert 2**20 / 64 < count(run.tests["test_broken"], "cache-misses") < 2**20 / 64 + 10_000
    assert 0 < count(unchecked, "branch-misses") < 1_000_000
    assert "callgrind" == kept["phases"]["call"]["counters"]["cache-misses"]["source"]
    assert ["half"] == [block["name"] for block in kept["blocks"]]
    assert [("kept", 1)] == [(one["verdict"], one["warmup"]) for one in kept["budgets"]]
    assert {
        ("page-faults", "unchecked", "page-faults not supported by callgrind"),
        ("branch-misses", "kept", None),
        (None, "unchecked", "simulated run"),  # the peak
    } == {(one["event"], one["verdict"], one["reason"]) for one in unchecked["budgets"]}
    assert (None, None, None, "none", "simulated run") == tuple(
        unchecked["phases"]["call"][key]
        for key in ("before_bytes", "after_bytes", "rss_peak_bytes", "source", "reason")
    )
    log = (run.folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert {None} == {json.loads(one)["rss_bytes"] for one in log}
    written = ET.parse(run.folder / "out.xml")  # noqa: S314 - written by the run above
    properties = {
        one.get("name"): one.get("value")
        for one in written.iterfind(".//*[@name='test_unchecked']//property")
    }
    assert ("callgrind", "n/a") == (properties["imu_counter_source"], properties["imu_peak_mib"])


@pytest.mark.skipif(not EXAMPLE.exists(), reason="an installed package is without examples/")
def test_example_holds_everywhere(run: Simulated) -> None:
    """A column of a C-ordered matrix has at least 2.5 times the misses of a row, within its budgets."""
    tests = [run.tests[name] for name in ("test_rows", "test_columns")]
    rows, columns = (count(test, "L1-dcache-load-misses") for test in tests)
    assert columns >= 2.5 * rows
    assert columns >= 2.5 * tests[0]["budgets"][0]["limit"]
    assert {"kept"} == {one["verdict"] for test in tests for one in test["budgets"]}
