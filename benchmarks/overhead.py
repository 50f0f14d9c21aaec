"""What measuring costs: python benchmarks/overhead.py [--rounds N] [--tests N] [--peers|--suite click].

Prints the cost of an empty window, of a start of pytest, of the plugin for each of many trivial tests
(idle, on) beside what pytest itself takes for one; counters.py has the costs of counting. The runs that
are compared are interleaved, so that a noisy machine disturbs all alike; medians are printed
with the spread from the first to the third quartile. With `--peers` it prints instead what other tools
cost beside this one, those that are installed (the extra `bench`); with `--suite click` what click's own
tests cost with the plugin, as a ratio.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pytest_imu import measure

MICROSECONDS = 1e6
MILLISECONDS = 1e3
PERCENT = 100
# Plugins are named, and none loads by itself: what else is installed shall cost nothing here.
OFF, IDLE = (), ("-p", "pytest_imu.plugin")
ON = (*IDLE, "--imu")
PERFGUARD = ("-p", "pytest_perfguard.plugin", "--perfguard")
CLICK = "8.5.1"
"""The version whose suite is run; its source archive has it."""
CLICK_STRESS = ("tests/test_stream_lifecycle.py", "tests/test_utils/test_echo_via_pager.py")
"""Left out: to collect the 31,000 stress tests that click deselects takes longer than the rest."""


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


def processor_seconds() -> float:
    """Return the processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_pytest(
    folder: Path, *args: str, clock: Callable[[], float] = processor_seconds, python_path: str = ""
) -> float:
    """Return what one quiet pytest run took, by this clock."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
    # As it is after the first start of an installed package: with its byte code on disk.
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    if python_path:
        environment["PYTHONPATH"] = python_path
    start = clock()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=environment)
    return clock() - start


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


def costs_a_test(
    folder: Path, modes: Mapping[str, Sequence[str]], *, tests: int, rounds: int
) -> dict[str, list[float]]:
    """Return for each mode what a trivial test took in each round, in seconds of processor time.

    It was collected too. The start of pytest is none of it: a run of one test is taken off.
    """
    many = "import pytest\n\n@pytest.mark.parametrize('n', range({}))\ndef test_many(n): pass\n"
    (folder / "test_many.py").write_text(many.format(tests))
    (folder / "test_one.py").write_text(many.format(1))
    costs: dict[str, list[float]] = {label: [] for label in modes}
    for number in range(rounds):
        for label in list(modes)[:: 1 if number % 2 else -1]:
            one = run_pytest(folder, "test_one.py", *modes[label])
            costs[label].append((run_pytest(folder, "test_many.py", *modes[label]) - one) / (tests - 1))
    return costs


def print_costs_a_test(modes: Mapping[str, Sequence[str]], *, tests: int, rounds: int) -> None:
    """Print what each mode adds to a trivial test, as a ratio of what pytest itself takes for it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n")
        costs = costs_a_test(folder, {"off": OFF, **modes}, tests=tests, rounds=rounds)
    own = costs["off"]
    own_ms = statistics.median(own) * MILLISECONDS
    for label in modes:
        ratios = [(cost / base - 1) * PERCENT for cost, base in zip(costs[label], own, strict=True)]
        print(f"{label + ':':<29} {signed_percent(ratios)} of pytest's own {own_ms:.2f} ms a test")


def signed_percent(values: Sequence[float]) -> str:
    """Return the median of percentages with its quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:+.0f} % ({low:+.0f} to {high:+.0f})"


def print_suite_costs(rounds: int) -> None:
    """Print how much more processor time click's own tests take with the plugin than without."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        source = [f"click=={CLICK}", "--no-deps"]
        try:
            subprocess.run([*pip, "install", *source, "--target", folder / "lib"], check=True)
            subprocess.run(
                [*pip, "download", *source, "--no-binary", ":all:", "--dest", folder], check=True
            )
        except subprocess.CalledProcessError:
            sys.exit(f"n/a: pip could not fetch click {CLICK}")
        with tarfile.open(folder / f"click-{CLICK}.tar.gz") as archive:
            archive.extractall(folder, filter="data")

        def suite(args: Sequence[str]) -> float:
            ignored = [f"--ignore={path}" for path in CLICK_STRESS]
            suite_folder, library = folder / f"click-{CLICK}", str(folder / "lib")
            return run_pytest(suite_folder, *ignored, *args, python_path=library)

        suite(OFF), suite(ON)  # fills the byte code caches
        took: dict[Sequence[str], list[float]] = {OFF: [], IDLE: [], ON: []}
        for number in range(rounds):
            for mode in list(took)[:: 1 if number % 2 else -1]:
                took[mode].append(suite(mode))
    for label, mode in (("idle", IDLE), ("with --imu", ON)):
        ratios = [with_it / without for with_it, without in zip(took[mode], took[OFF], strict=True)]
        without = spread(took[OFF], unit="s")
        print(f"click {CLICK}'s suite, {label}: {spread(ratios, unit='x', decimals=3)} of {without}")


def print_peer_costs(*, tests: int, rounds: int) -> None:
    """Print what other tools cost beside this one."""
    importlib.import_module("peer_costs").print_costs(rounds=rounds)
    modes = {"pytest-imu, with --imu": ON, "pytest-imu, idle": IDLE}
    if importlib.util.find_spec("pytest_perfguard") is None:
        print("pytest-perfguard is not installed")
    else:
        modes["pytest-perfguard"] = PERFGUARD
    print()
    print_costs_a_test(modes, tests=tests, rounds=rounds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="pairs of runs (default 9)")
    parser.add_argument("--tests", type=int, default=2000, help="trivial tests (default 2000)")
    parser.add_argument("--peers", action="store_true", help="compare with other tools")
    parser.add_argument("--suite", choices=["click"], help="run a suite that others wrote")
    options = parser.parse_args()
    if options.peers:
        print_peer_costs(tests=options.tests, rounds=options.rounds)
        return
    if options.suite:
        print_suite_costs(options.rounds)
        return

    print(f"empty window, small process:  {spread(empty_windows(), unit='µs')}")
    ballast = bytearray(4 * 2**30)
    ballast[::4096] = b"x" * len(ballast[::4096])
    print(f"empty window, 4 GiB process:  {spread(empty_windows(), unit='µs')}")
    del ballast

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "test_none.py").write_text("def test_one(): pass\n")

        def start(args: Sequence[str]) -> float:
            return run_pytest(folder, "test_none.py", *args, clock=time.perf_counter)

        start(OFF), start(ON)  # fills the byte code caches
        seconds = added(start, OFF, IDLE, 2 * options.rounds)
        print(f"a start, idle over off:       {spread([s * MILLISECONDS for s in seconds], unit='ms')}")
    modes = {"with --imu": ON, "idle": IDLE}
    print_costs_a_test(modes, tests=options.tests, rounds=options.rounds)


if __name__ == "__main__":
    main()
