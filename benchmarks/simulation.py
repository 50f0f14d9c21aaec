"""What simulated caches cost, and how well they repeat: python benchmarks/simulation.py [--runs N].

Starts Python natively and under callgrind, and prints what a start costs, a window, and how much
slower code runs inside windows and outside them; then, for each block, how far the counts of fresh
processes lie apart. Native and simulated runs are interleaved, so that a noisy machine disturbs both
alike; medians are printed with the spread from the first to the third quartile.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pytest_imu.core.counters.callgrind.command import USUAL_CACHES, callgrind_command

MILLISECONDS = 1e3
EVENTS = ("instructions", "L1-dcache-load-misses", "cache-misses")
WINDOWS = 20

SCRIPT = """
import json, sys, time
from pytest_imu.core.counters.callgrind.counts import Callgrind

def words():
    table = {}
    for number in range(60_000):
        key = f"key {number % 500}"
        table[key] = table.get(key, 0) + number
    return " ".join(f"{key}={value}" for key, value in table.items())

def lists():
    many = [sorted((number * 7919 + start) % 10007 for number in range(30_000)) for start in range(4)]
    return sorted(sum(many, []), reverse=True)

BLOCKS = [words, lists]
try:
    import numpy
except ImportError:
    pass
else:
    table = numpy.ones((1000, 1000))

    def rows():
        return sum(table[index].sum() for index in range(300))

    def columns():
        return sum(table[:, index].sum() for index in range(300))

    BLOCKS += [rows, columns]

def seconds(body):
    start = time.perf_counter()
    body()
    return time.perf_counter() - start

def inside(body):
    window = source.open()
    cost = seconds(body)
    window.end()
    return cost, [one.value for one in window.read(1)]

def nothing():
    source.open().read(1)

source = Callgrind(json.loads(sys.argv[1]))
answers = {"outside": {}, "inside": {}, "counts": {}}
for body in BLOCKS:
    body()  # the first call is slow everywhere, and counts otherwise
    answers["outside"][body.__name__] = seconds(body)
if len(sys.argv) > 2:
    answers["prepare"] = seconds(source.prepare)
    for body in BLOCKS:
        cost, counts = inside(body)
        answers["inside"][body.__name__] = cost
        answers["counts"][body.__name__] = counts
    answers["windows"] = [seconds(nothing) for _ in range(int(sys.argv[2]))]
print(json.dumps(answers))
"""


def spread(values: Sequence[float], *, unit: str, decimals: int = 1) -> str:
    """Return a median with its quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.{decimals}f} {unit} ({low:.{decimals}f} to {high:.{decimals}f})"


def output_of(command: Sequence[str]) -> tuple[float, str]:
    """Return how many seconds a program took, and what it printed."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return time.perf_counter() - start, done.stdout


def under_callgrind(valgrind: str, python: Sequence[str]) -> tuple[float, str]:
    """Return the same of a Python under callgrind."""
    with tempfile.TemporaryDirectory() as name:
        command = callgrind_command(valgrind, python=python, caches=USUAL_CACHES, out_folder=Path(name))
        return output_of(command)


def print_starts(valgrind: str, runs: int) -> None:
    """Print what a start of Python costs that does nothing."""
    nothing = [sys.executable, "-c", "pass"]
    native, simulated = [], []
    for _ in range(runs):
        native.append(output_of(nothing)[0] * MILLISECONDS)
        simulated.append(under_callgrind(valgrind, nothing)[0] * MILLISECONDS)
    print(f"a start of Python, native:     {spread(native, unit='ms')}")
    print(f"a start under callgrind:       {spread(simulated, unit='ms')}")


def print_repeats(block: str, counts: Sequence[Sequence[int]]) -> None:
    """Print how far the counts of a block lie apart in fresh processes."""
    parts = []
    for event, values in zip(EVENTS, zip(*counts, strict=True), strict=True):
        apart = 100 * (max(values) - min(values)) / min(values)
        parts.append(f"{event} {min(values):,} +{apart:.2f} %")
    print(f"{block + ', counted:':<30} {'; '.join(parts)}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="fresh processes of each kind (default 10)")
    runs = parser.parse_args().runs
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        sys.exit("valgrind is not on the PATH")

    print_starts(valgrind, runs)
    script = [sys.executable, "-c", SCRIPT, json.dumps(EVENTS)]
    native, simulated = [], []
    for _ in range(runs):
        native.append(json.loads(output_of(script)[1]))
        simulated.append(json.loads(under_callgrind(valgrind, [*script, str(WINDOWS)])[1]))
    windows = [cost * MILLISECONDS for one in simulated for cost in one["windows"]]
    prepared = [one["prepare"] * MILLISECONDS for one in simulated]
    print(f"getting ready, once a session: {spread(prepared, unit='ms')}")
    print(f"empty window:                  {spread(windows, unit='ms')}")
    for block in native[0]["outside"]:
        for where in ("outside", "inside"):
            pairs = zip(native, simulated, strict=True)
            slower = [under[where][block] / usual["outside"][block] for usual, under in pairs]
            print(f"{block + ', ' + where + ' a window:':<30} {spread(slower, unit='x')}")
    for block in native[0]["outside"]:
        print_repeats(block, [one["counts"][block] for one in simulated])


if __name__ == "__main__":
    main()
