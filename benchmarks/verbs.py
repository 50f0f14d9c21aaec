"""What the verbs cost on large files: python benchmarks/verbs.py [--tests N].

Writes two runs of N tests (100,000 by default) and prints how long `compare` and `merge` take for them,
and the memory of the largest of their processes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_imu.core import document
from pytest_imu.core.budgets import Budget, Verdict
from pytest_imu.core.model import Measurement
from pytest_imu.core.units import MIB

ENVIRONMENT = {
    "python": "3.11",
    "peak_source": "kernel high-water mark",
    "peak_resolution_bytes": MIB // 2,
    "noise_floor_bytes": MIB // 10,
    "counter_source": None,
}


def tests(count: int, *, more_bytes: int) -> Iterator[dict[str, Any]]:
    """Return so many tests, of which every third has a budget."""
    for number in range(count):
        peak_bytes = number % 1_000 * MIB // 10 + more_bytes
        call, setup = (
            Measurement(
                before_bytes=100 * MIB,
                after_bytes=100 * MIB,
                rss_peak_bytes=100 * MIB + size_bytes,
                duration_ns=10**6,
                source="kernel",
                reusable_bytes=0,
            )
            for size_bytes in (peak_bytes, 0)
        )
        budget = Budget(metric="peak", limit_mib=500)
        kept = Verdict(budget=budget, outcome="kept", actual_bytes=peak_bytes)
        yield document.plain_test(
            nodeid=f"tests/package_{number % 300}/test_it.py::TestClass::test_number[{number}]",
            attempt=1,
            worker=None,
            outcome="passed",
            phases={"setup": setup, "call": call},
            blocks=(),
            verdicts=() if number % 3 else (kept,),
        )


def main() -> None:
    """Write the files, run the verbs and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tests", type=int, default=100_000, help="in each file (default 100000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        base, now = (Path(name, f"{which}.json") for which in ("base", "now"))
        document.write(base, tests(options.tests, more_bytes=0), ENVIRONMENT)
        document.write(now, tests(options.tests, more_bytes=3 * MIB), ENVIRONMENT)
        for verb in (("compare", base, now), ("merge", base, now, "-o", Path(name, "merged.json"))):
            command = [sys.executable, "-m", "pytest_imu", *map(str, verb)]
            start = time.perf_counter()
            running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(running.pid, 0)
            running.returncode = os.waitstatus_to_exitcode(status)
            if running.returncode != 0:
                sys.exit(running.returncode)
            elapsed = time.perf_counter() - start
            seconds, mib = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
            files = f"2 files of {options.tests:,} tests"
            taken = f"{elapsed:.1f} s, {seconds:.1f} s of processor time"
            print(f"{verb[0]:8} {files}: {taken}, {mib:.0f} MiB")


if __name__ == "__main__":
    main()
