"""What a very large suite costs: python benchmarks/scale.py [--tests N] [--small N] [--rounds N].

Runs N trivial tests (100,000 by default) without the plugin, with `--imu --imu-json`, and the same
with `-n 2`. Prints the plugin's time a test, beside that of a small suite; its memory a test, read as
the session ends; and how long the section and the JSON file take. Runs that are compared are
interleaved.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MICROSECONDS = 1e6
OFF = ("-p", "no:imu")
ON = ("--imu", "--imu-json=imu.json")

# The first to finish and the last to summarise: between them lies what the plugin's report takes.
CONFTEST = """
import gc, json, os, time
import pytest

class Probe:
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workerinput"):
            return (yield)
        gc.collect()
        with open("/proc/self/statm") as file:
            self.rss_bytes = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        self.start = time.perf_counter()
        result = yield
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self, config):
        if hasattr(config, "workerinput"):
            return
        seconds = time.perf_counter() - self.start
        with open("probe.json", "w") as file:
            json.dump({"rss_bytes": self.rss_bytes, "report_s": seconds}, file)

def pytest_configure(config):
    config.pluginmanager.register(Probe(), "probe")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of pytest."""

    seconds: float
    rss_bytes: int
    report_s: float


def run(folder: Path, tests: int, args: Sequence[str]) -> Run:
    """Run pytest on so many tests."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
    start = time.perf_counter()
    subprocess.run(
        command,
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        env={**environment, "SCALE_TESTS": str(tests)},
    )
    seconds = time.perf_counter() - start
    probe = json.loads((folder / "probe.json").read_text())
    return Run(seconds=seconds, rss_bytes=probe["rss_bytes"], report_s=probe["report_s"])


def pairs(
    folder: Path, tests: int, base: Sequence[str], other: Sequence[str], rounds: int
) -> list[tuple[Run, Run]]:
    """Run both, interleaved, every other pair the other way round."""
    found = []
    for number in range(rounds):
        order = (base, other) if number % 2 else (other, base)
        runs = {tuple(args): run(folder, tests, args) for args in order}
        found.append((runs[tuple(base)], runs[tuple(other)]))
    return found


def report(label: str, tests: int, found: Sequence[tuple[Run, Run]]) -> None:
    """Print what the second of each pair took more."""
    each = [(on.seconds - off.seconds) / tests * MICROSECONDS for off, on in found]
    memory = [(on.rss_bytes - off.rss_bytes) / tests for off, on in found]
    reports = [on.report_s - off.report_s for off, on in found]
    print(
        f"{label:<22} {tests:>7,} tests: {statistics.median(each):6.0f} µs a test "
        f"({min(each):.0f} to {max(each):.0f}), {statistics.median(memory):6.0f} bytes a test, "
        f"section and JSON {statistics.median(reports):.2f} s"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tests", type=int, default=100_000, help="the large suite (default 100000)")
    parser.add_argument("--small", type=int, default=2_000, help="the small suite (default 2000)")
    parser.add_argument("--rounds", type=int, default=1, help="pairs of large runs (default 1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "conftest.py").write_text(CONFTEST)
        (folder / "test_many.py").write_text(
            "import os, pytest\n"
            "@pytest.mark.parametrize('n', range(int(os.environ['SCALE_TESTS'])))\n"
            "def test_many(n): pass\n"
        )
        for workers in ((), ("-n", "2")):
            suffix = " -n 2" if workers else ""
            for tests, rounds in ((options.small, 7), (options.tests, options.rounds)):
                found = pairs(folder, tests, (*OFF, *workers), (*ON, *workers), rounds)
                report(f"--imu --imu-json{suffix}", tests, found)


if __name__ == "__main__":
    main()
