"""What the IPython extension adds to a command: python benchmarks/ipython_latency.py [--rounds N].

A real shell runs `pass`, with a way of reporting and without it, in pairs, every other pair the other
way round. Printed is how much longer a command took: the median and, in brackets, the quartiles; first
in a fresh shell, then in one that holds 3 GiB and 20 million objects. The rivals are measured where
they are installed: pip install ipython_memory_usage memory_profiler.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

MILLISECONDS = 1e3
BALLAST_BYTES, OBJECTS = 3 * 2**30, 20_000_000
BATCH = 5
"""Commands a turn; their median is the turn's value."""
UNLOAD = "%unload_ext ipython_hooks"


@dataclass(frozen=True)
class Way:
    """One way to report what a command used."""

    label: str
    extension: str | None = None
    setup: str = "pass"
    teardown: str = "pass"
    """How to stop it, since some stay loaded."""
    command: str = "pass"
    slow: bool = False
    """Whether a command takes a tenth of a second, so that fewer are enough to see it."""


WAYS = (
    Way("nothing: the noise"),
    Way("ipython_hooks", "ipython_hooks", teardown=UNLOAD),
    Way("ipython_hooks, page-faults", "ipython_hooks", setup="%imu perf page-faults", teardown=UNLOAD),
    Way(
        "ipython_memory_usage",
        "ipython_memory_usage",
        setup="%imu_start",
        teardown="%imu_stop",
        slow=True,
    ),
    Way("%memit", "memory_profiler", command="%memit pass", slow=True),
)


def quietly(shell: InteractiveShell, command: str) -> None:
    """Run a command, and throw away what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        result = shell.run_cell(command, store_history=True)  # type: ignore[no-untyped-call]  # IPython is partly typed
    result.raise_error()


def turn(shell: InteractiveShell, command: str) -> float:
    """Return how long a command takes, in milliseconds, after one that was not timed."""
    quietly(shell, command)
    times = []
    for _ in range(BATCH):
        start = time.perf_counter()
        quietly(shell, command)
        times.append((time.perf_counter() - start) * MILLISECONDS)
    return statistics.median(times)


def turn_with(shell: InteractiveShell, way: Way) -> float:
    """Return how long a command takes while a way of reporting is loaded."""
    if way.extension is None:
        return turn(shell, way.command)
    quietly(shell, f"%load_ext {way.extension}")
    quietly(shell, way.setup)
    value = turn(shell, way.command)
    quietly(shell, way.teardown)
    return value


def added(shell: InteractiveShell, way: Way, rounds: int) -> list[float]:
    """Return how many milliseconds a way adds, for each pair."""
    differences = []
    turn_with(shell, way)  # its modules are imported now
    for number in range(rounds):
        if number % 2:
            reported, bare = turn_with(shell, way), turn(shell, "pass")
        else:
            bare, reported = turn(shell, "pass"), turn_with(shell, way)
        differences.append(reported - bare)
    return differences


def spread(values: Sequence[float]) -> str:
    """Return a median with its quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ms ({low:.2f} to {high:.2f})"


def print_all(folder: str, rounds: int) -> None:
    """Print what each way adds, each in a shell that the others have not touched."""
    config = Config(HistoryManager={"enabled": False})
    for way in WAYS:
        if way.extension is not None and importlib.util.find_spec(way.extension) is None:
            print(f"  {way.label:<28}not installed")
            continue
        InteractiveShell.clear_instance()
        shell = InteractiveShell.instance(config=config, ipython_dir=folder)
        count = max(2, rounds // 10) if way.slow else rounds
        print(f"  {way.label:<28}{spread(added(shell, way, count))}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50, help="pairs of turns (default 50)")
    rounds = parser.parse_args().rounds

    with tempfile.TemporaryDirectory() as folder:
        print("added to `pass`, in a fresh shell:")
        print_all(folder, rounds)
        ballast = bytearray(BALLAST_BYTES)
        ballast[::4096] = b"x" * len(ballast[::4096])
        objects = [*map(float, range(OBJECTS))]
        print("added to `pass`, with 3 GiB and 20 million objects in use:")
        print_all(folder, rounds)
        del ballast, objects


if __name__ == "__main__":
    main()
