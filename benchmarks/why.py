"""What line profilers show of a hidden temporary, and what they cost: python benchmarks/why.py.

Prints, for a line that makes a temporary array and frees it, what memory_profiler, memray and this
project show, each in a process of its own; then how much longer a loop of nothing but small steps takes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import memory_profiler
import numpy as np

from pytest_imu.core.units import MIB
from pytest_imu.why.lines import LineProfiler

SIZE = 8_000_000
ROUNDS = 200_000
TIMES = 5


def hidden_temporary() -> float:
    """Add roots; the last of these lines but one needs 61 MiB for a moment, and keeps nothing."""
    a = np.ones(SIZE)
    c = np.ones(SIZE)
    a += np.sqrt(c)
    return float(a[0])


def small_steps(rounds: int) -> int:
    """Do nothing that takes memory."""
    number = 0
    while number < rounds:
        number += 1
        other = number * 2
        if other > rounds:
            other = number
    return other


def by_memory_profiler() -> str:
    """Return the increment that memory_profiler shows of the line."""
    profiler = memory_profiler.LineProfiler()
    profiler(hidden_temporary)()
    [(_, lines)] = profiler.code_map.items()
    first = hidden_temporary.__code__.co_firstlineno
    increments = {number - first: found[0] for number, found in lines if found}
    return f"{increments[4]:.1f} MiB, its increment"


def by_memray() -> str:
    """Return what memray shows of the line at the high-water mark."""
    import memray

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.bin")
        with memray.Tracker(path):
            hidden_temporary()
        with memray.FileReader(path) as reader:
            sizes = [
                record.size
                for record in reader.get_high_watermark_allocation_records(merge_threads=True)
                if record.stack_trace()[0][2] == hidden_temporary.__code__.co_firstlineno + 4
            ]
    return f"{sum(sizes) / MIB:.1f} MiB, what it has asked for at the peak"


def by_this() -> str:
    """Return what this project shows of the line."""
    profiler = LineProfiler()
    profiler(hidden_temporary)()
    [cost] = [one for one in profiler.profile().lines if one.text == "a += np.sqrt(c)"]
    return f"{cost.kept_bytes / MIB:.1f} MiB kept, {cost.peak_bytes / MIB:.1f} peak"


def cost() -> str:
    """Return how much longer small steps take with their lines followed."""

    def processor_time() -> float:
        start = time.process_time()
        small_steps(ROUNDS)
        return time.process_time() - start

    bare = min(processor_time() for _ in range(TIMES))
    ratios = []
    for _ in range(TIMES):
        profiler = LineProfiler()
        profiler.add_function(small_steps)
        with profiler:
            ratios.append(processor_time() / bare)
    return f"{statistics.median(ratios):.1f} times as long ({min(ratios):.1f} to {max(ratios):.1f})"


WAYS = {"memory_profiler": by_memory_profiler, "memray": by_memray, "pytest-imu": by_this, "cost": cost}


def main() -> None:
    """Run each way in a process of its own, or the one that is named."""
    if sys.argv[1:]:
        print(WAYS[sys.argv[1]]())
        return
    for name in WAYS:
        command = [sys.executable, __file__, name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(f"{name:16} {done.stdout.strip() or done.stderr.strip().splitlines()[-1]}")


if __name__ == "__main__":
    main()
