"""What counting events costs, and how sources agree: python benchmarks/counters.py [--tests N].

Prints for the kernel's own call and for `perf stat` what their start and an empty window take, one table
of what both count of the same code, and what counting page faults adds to many trivial tests.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import mmap
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pytest_imu.core.counters.kernel.counts import Kernel
from pytest_imu.core.counters.perf.stat import PerfStat
from pytest_imu.core.counters.source import CounterSource

overhead = importlib.import_module("overhead")  # from this folder
MICROSECONDS, MILLISECONDS, ON = overhead.MICROSECONDS, overhead.MILLISECONDS, overhead.ON
spread = overhead.spread
SOURCES: Mapping[str, Callable[[Sequence[str]], CounterSource]] = {"kernel": Kernel, "perf": PerfStat}
FOUR = ("page-faults", "task-clock", "context-switches", "minor-faults")
COUNTED = ("page-faults", "minor-faults", "major-faults", "context-switches", "cpu-migrations")


def touch(pages: int) -> None:
    """Write to each of many fresh pages."""
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as block:
        for start in range(0, pages * mmap.PAGESIZE, mmap.PAGESIZE):
            block[start] = 1


def sleep(times: int) -> None:
    """Give the processor up so many times."""
    for _ in range(times):
        time.sleep(0.001)


CODE: Mapping[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "1 page": lambda: touch(1),
    "1,000 pages": lambda: touch(1000),
    "5,000 pages": lambda: touch(5000),
    "50 sleeps": lambda: sleep(50),
}


def print_costs() -> None:
    """Print what a start and an empty window take."""
    for name, make in SOURCES.items():
        starts = []
        for _ in range(9):
            source = make(FOUR[:1])
            start = time.perf_counter()
            source.prepare()
            starts.append((time.perf_counter() - start) * MILLISECONDS)
            source.stop()
        label = f"{name}, start:"
        print(f"{label:<34} {spread(starts, unit='ms')}")
        for events in (FOUR[:1], FOUR):
            windows = empty_windows(make(events), 2000 if name == "kernel" else 300)
            label = f"{name}, empty window, {len(events)} of events:"
            print(f"{label:<34} {spread(windows, unit='µs')}")


def empty_windows(source: CounterSource, windows: int) -> list[float]:
    """Return what each of many empty windows took, in microseconds."""
    source.prepare()
    costs = []
    for _ in range(windows):
        start = time.perf_counter()
        window = source.open()
        window.end()
        window.read(1)
        costs.append((time.perf_counter() - start) * MICROSECONDS)
    source.stop()
    return costs


def print_agreement(rounds: int = 15) -> None:
    """Print what each source counts of the same code, the median of some rounds."""
    sources = {name: make(COUNTED) for name, make in SOURCES.items()}
    print("\n" + f"{'code':<12} {'event':<18}" + "".join(f"{name:>8}" for name in sources))
    gc.disable()
    for code, body in CODE.items():
        counts: dict[str, list[list[float]]] = {name: [] for name in sources}
        for _ in range(rounds):
            for name, source in sources.items():
                window = source.open()
                body()
                window.end()
                counts[name].append([reading.value or 0 for reading in window.read(1)])
        for number, event in enumerate(COUNTED):
            medians = [statistics.median(row[number] for row in counts[name]) for name in sources]
            print(f"{code:<12} {event:<18}" + "".join(f"{median:>8,.0f}" for median in medians))
    gc.enable()
    for source in sources.values():
        source.stop()


def print_costs_of_tests(*, tests: int, rounds: int) -> None:
    """Print what trivial tests take with their page faults counted, beside what they take without."""
    modes = {"with --imu": ON, "with --imu-perf=page-faults": (*ON, "--imu-perf=page-faults")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n")
        costs = overhead.costs_a_test(folder, modes, tests=tests, rounds=rounds)
    plain, counting = costs.values()
    ratios = [with_it / without for with_it, without in zip(counting, plain, strict=True)]
    print(f"\na test {list(modes)[1]}: {spread(ratios, unit='x', decimals=2)} of one with --imu")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of runs (default 5)")
    parser.add_argument("--tests", type=int, default=2000, help="trivial tests (default 2000)")
    options = parser.parse_args()
    print_costs()
    print_agreement()
    print_costs_of_tests(tests=options.tests, rounds=options.rounds)


if __name__ == "__main__":
    main()
