"""What measuring costs: python benchmarks/overhead.py [--rounds N] [--tests N] [--peers].

Prints the cost of an empty window, of the plugin for each of many trivial tests (switched off, idle,
on), of a start of pytest, and of counting with perf where there is one. The runs that are compared are
interleaved, so that a noisy machine disturbs both alike; medians are printed with the spread from the
first to the third quartile. With `--peers` it prints instead what other tools cost beside this one,
those that are installed (the extra `bench`).
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_imu import measure
from pytest_imu.core.counters.perf.stat import PerfStat
from pytest_imu.core.meter import Meter

MICROSECONDS = 1e6
MILLISECONDS = 1e3
OFF, IDLE, ON = ("-p", "no:imu"), (), ("--imu",)


def spread(values: Sequence[float], *, unit: str, decimals: int = 1) -> str:
    """Return a median with its quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.{decimals}f} {unit} ({low:.{decimals}f} to {high:.{decimals}f})"


def empty_windows(count: int = 3000) -> list[float]:
    """Return the cost of each of many empty windows, in microseconds."""
    costs = []
    for _ in range(count):
        start = time.perf_counter()
        with measure():
            pass
        costs.append((time.perf_counter() - start) * MICROSECONDS)
    return costs


def print_perf_costs(windows: int = 300) -> None:
    """Print what perf's start costs, and a window in which it counts."""
    starts, costs = [], []
    for _ in range(9):
        counters = PerfStat(["page-faults"])
        start = time.perf_counter()
        counters.prepare()
        starts.append((time.perf_counter() - start) * MILLISECONDS)
        for _ in range(windows // 9):
            start = time.perf_counter()
            with Meter(counters=counters) as meter:
                pass
            costs.append((time.perf_counter() - start) * MILLISECONDS)
        counters.stop()
    reason = meter.measurement.counters[0].reason
    if reason is not None:
        print(f"perf:                         n/a, {reason}")
        return
    print(f"perf's start, once a session: {spread(starts, unit='ms')}")
    print(f"empty window, perf counting:  {spread(costs, unit='ms')}")


def run_pytest(folder: Path, *args: str) -> float:
    """Return the wall-clock seconds of one quiet pytest run."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
    # As it is after the first start of an installed package: with its byte code on disk.
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - start


def added(
    runs: Callable[[Sequence[str]], float], base: Sequence[str], other: Sequence[str], rounds: int
) -> list[float]:
    """Return how many seconds *other* took more than *base*, for each interleaved pair."""
    differences = []
    for number in range(rounds):
        # Every other pair runs the other way round: neither gets the warmer machine.
        order = (base, other) if number % 2 else (other, base)
        seconds = {args: runs(args) for args in map(tuple, order)}
        differences.append(seconds[tuple(other)] - seconds[tuple(base)])
    return differences


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="pairs of runs (default 9)")
    parser.add_argument("--tests", type=int, default=2000, help="trivial tests (default 2000)")
    parser.add_argument("--peers", action="store_true", help="compare with other tools")
    options = parser.parse_args()
    if options.peers:
        importlib.import_module("peer_costs").print_costs(rounds=options.rounds)
        return

    print(f"empty window, small process:  {spread(empty_windows(), unit='µs')}")
    ballast = bytearray(4 * 2**30)
    ballast[::4096] = b"x" * len(ballast[::4096])
    print(f"empty window, 4 GiB process:  {spread(empty_windows(), unit='µs')}")
    del ballast
    print_perf_costs()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "test_none.py").write_text("def test_one(): pass\n")

        def start(args: Sequence[str]) -> float:
            return run_pytest(folder, "test_none.py", *args)

        start(OFF), start(ON)  # fills the byte code caches
        seconds = added(start, OFF, IDLE, 2 * options.rounds)
        print(f"a start, idle over off:       {spread([s * MILLISECONDS for s in seconds], unit='ms')}")

        (folder / "test_many.py").write_text(
            "import pytest\n"
            f"@pytest.mark.parametrize('n', range({options.tests}))\n"
            "def test_many(n): pass\n"
        )

        def many(args: Sequence[str]) -> float:
            return run_pytest(folder, "test_many.py", *args)

        for label, mode in (("idle", IDLE), ("on", ON)):
            seconds = added(many, OFF, mode, options.rounds)
            each = [s * MILLISECONDS / options.tests for s in seconds]
            print(f"a test, {label + ' over off:':<22}{spread(each, unit='ms', decimals=3)}")


if __name__ == "__main__":
    main()
