"""Do numbers hold in any order? python benchmarks/real_suites.py [--alone N] [SUITE ...].

Installs numpy, pandas and networkx into a virtual environment of its own, runs parts of their tests
in file order and reversed, in one process and isolated, and prints how far a test's peak is from the one
to the other. For each suite's N largest tests the isolated peak is also held against that of the test
alone in a fresh process that has imported the same (a run of pytest for each). Takes about 15 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_imu.core.units import MIB

ROOT = Path(__file__).parents[1]
ORDERS = ("forward", "reversed")
SUITES: Mapping[str, Sequence[str]] = {
    "networkx": [
        f"networkx/{path}"
        for path in (
            "algorithms/tests/test_cycles.py",
            "algorithms/tests/test_dag.py",
            "algorithms/tests/test_matching.py",
            "algorithms/centrality/tests/test_betweenness_centrality.py",
            "algorithms/shortest_paths/tests/test_weighted.py",
            "drawing/tests/test_layout.py",
            "generators/tests/test_random_graphs.py",
            "linalg/tests/test_graphmatrix.py",
        )
    ],
    "pandas": [
        f"pandas/tests/{path}"
        for path in (
            "frame/methods/test_describe.py",
            "frame/methods/test_sort_values.py",
            "reshape/merge/test_merge.py",
            "series/methods/test_value_counts.py",
        )
    ],
    "numpy": [
        f"numpy/{path}"
        for path in (
            "lib/tests/test_function_base.py",
            "lib/tests/test_arraysetops.py",
            "linalg/tests/test_linalg.py",
            "_core/tests/test_einsum.py",
        )
    ],
}
NEEDED = ("numpy", "pandas", "networkx", "scipy", "hypothesis", "pytest")
PLUGIN = """
import gc, importlib, os, pathlib, sys
import pytest

LIST = pathlib.Path(__file__).with_name("modules.txt")

@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    if os.environ["SUITE_ORDER"] == "reversed":
        items.reverse()
    if os.environ["SUITE_ORDER"] == "alone":
        for name in LIST.read_text().split():
            try:
                importlib.import_module(name)
            except BaseException:
                pass
        gc.collect()

def pytest_sessionfinish():
    if os.environ["SUITE_ORDER"] == "forward":
        LIST.write_text("\\n".join(sys.modules))
"""
"""Turns the order round; before a test that is alone, imports what the suite had imported at its end."""
Peaks = dict[str, int]


class Runs:
    """Runs of parts of a suite, in an environment that has it."""

    def __init__(self, folder: Path, python: Path, site: Path) -> None:
        self._folder = folder
        self._python = python
        self._site = site
        (folder / "ordering.py").write_text(PLUGIN, encoding="utf-8")
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")

    def peaks(self, tests: Sequence[str], order: str, *args: str) -> Peaks:
        """Return the peak of each test's call in bytes."""
        out = self._folder / "run.json"
        out.unlink(missing_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(self._folder), "PYTHONHASHSEED": "0"}
        environment["SUITE_ORDER"] = order
        command = [
            *(str(self._python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "ordering"),
            *("-c", str(self._folder / "pytest.ini"), f"--rootdir={self._site}"),
            *("--imu", f"--imu-json={out}", *args, *(f"{self._site}/{test}" for test in tests)),
        ]
        done = subprocess.run(
            command, env=environment, cwd=self._folder, capture_output=True, text=True, check=False
        )
        if not out.exists() or done.returncode not in (0, 1):
            sys.exit(f"pytest ended with {done.returncode}: {done.stdout}{done.stderr}")
        tests_run = json.loads(out.read_text(encoding="utf-8"))["tests"]
        calls = {test["nodeid"]: test["phases"]["call"] for test in tests_run}
        return {nodeid: call["peak_bytes"] for nodeid, call in calls.items() if call is not None}


def differences(one: Peaks, other: Peaks) -> list[float]:
    """Return how far apart the peaks of each test are, in MiB."""
    return [abs(one[nodeid] - other[nodeid]) / MIB for nodeid in one.keys() & other.keys()]


def row(name: str, found: Sequence[float]) -> str:
    """Return one line: how many tests, how many over 1 MiB, the median and the worst."""
    over = sum(difference > 1 for difference in found)
    middle, worst = statistics.median(found), max(found)
    return f"{name:44}{len(found):6} tests {over:5} over 1 MiB   median {middle:.1f}   worst {worst:.1f}"


def compare(runs: Runs, suite: str, largest: int) -> None:
    """Print the lines of one suite."""
    files = SUITES[suite]
    for name, args in (("in one process", ()), ("isolated", ("--imu-isolate=all",))):
        forward, backward = (runs.peaks(files, order, *args) for order in ORDERS)
        print(row(f"{suite}, {name}, in two orders:", differences(forward, backward)), flush=True)
    top = sorted(forward, key=forward.__getitem__, reverse=True)[:largest]
    if top:
        alone: Peaks = {}
        for nodeid in top:
            alone |= runs.peaks([nodeid], "alone")
        print(row(f"{suite}, isolated beside a fresh process:", differences(forward, alone)), flush=True)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("suites", nargs="*", default=[*SUITES], choices=[*SUITES, []], metavar="SUITE")
    parser.add_argument("--alone", type=int, default=15, metavar="N", help="tests run alone (15)")
    parser.add_argument("--python", type=Path, help="an environment that has all of it already")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        python = asked.python or made_environment(Path(name) / "venv")
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True)
        runs = Runs(Path(name), python, Path(site.stdout.strip()))
        for suite in asked.suites:
            compare(runs, suite, asked.alone)


def made_environment(folder: Path) -> Path:
    """Make a virtual environment with this package and the suites; return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(ROOT), *NEEDED], check=True)
    return python


if __name__ == "__main__":
    main()
