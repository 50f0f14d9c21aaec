"""What each tool adds to a trivial test, and how much it slows code that allocates many small objects.

`python benchmarks/overhead.py --peers` runs it. Every run with a tool is paired with one without, and
the pairs of all tools take turns: a noisy machine disturbs all of them alike.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MILLISECONDS = 1e3
TRIVIAL = """
import pytest

@pytest.mark.parametrize("n", range({tests}))
def test_many(n):
    pass
"""
# It times itself: what a tool does around the test is no slowdown of its code.
ALLOCATING = """
import pathlib
import time

class Node:
    def __init__(self, number):
        self.number = number
        self.text = str(number)
        self.near = [number, number + 1]

def test_allocates():
    start = time.perf_counter()
    for _ in range(5):
        nodes = [Node(number) for number in range(60_000)]
        by_text = {node.text: node for node in nodes}
        assert len(by_text) == 60_000
    pathlib.Path("seconds").write_text(str(time.perf_counter() - start))
"""
SAMPLING_THREAD = """
import threading

import psutil
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    read, samples, ended = psutil.Process().memory_info, [], threading.Event()
    def sample():
        while not ended.wait(INTERVAL_S):
            samples.append(read().rss)
    thread = threading.Thread(target=sample)
    thread.start()
    try:
        return (yield)
    finally:
        ended.set()
        thread.join()
"""
MEMORY_PROFILER = """
import memory_profiler
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    memory_profiler.memory_usage((pyfuncitem.obj, (), arguments), max_usage=True, max_iterations=1)
    return True
"""
TRACEMALLOC = """
import tracemalloc

tracemalloc.start()
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A tool: what it is asked for on the command line, and the conftest that puts it around tests."""

    name: str
    distribution: str | None
    arguments: tuple[str, ...] = ()
    conftest: str = ""


PEERS = (
    Peer("pytest-imu", "pytest-imu", ("-p", "pytest_imu.plugin", "--imu")),
    Peer(
        "pytest-imu --imu-isolate",
        "pytest-imu",
        ("-p", "pytest_imu.plugin", "--imu", "--imu-isolate=all"),
    ),
    Peer("pytest-isolate", "pytest-isolate", ("-p", "pytest_isolate.plugin", "--isolate")),
    Peer("pytest-memray", "pytest-memray", ("-p", "pytest_memray.plugin", "--memray")),
    Peer(
        "pytest-memray, Python's allocators",
        "pytest-memray",
        ("-p", "pytest_memray.plugin", "--memray", "--trace-python-allocators"),
    ),
    Peer("pytest-perfguard", "pytest-perfguard", ("-p", "pytest_perfguard.plugin", "--perfguard")),
    Peer("pytest-monitor", "pytest-monitor", ("-p", "pytest_monitor.pytest_monitor")),
    Peer("memory_profiler", "memory_profiler", conftest=MEMORY_PROFILER),
    Peer("psutil thread, 10 ms", "psutil", conftest=SAMPLING_THREAD.replace("INTERVAL_S", "0.01")),
    Peer("psutil thread, 1 ms", "psutil", conftest=SAMPLING_THREAD.replace("INTERVAL_S", "0.001")),
    Peer("tracemalloc", None, conftest=TRACEMALLOC),
)
NOTHING = Peer("nothing", None)


class PeerError(Exception):
    """A tool does not work here; its text is the reason."""


def version(peer: Peer) -> str | None:
    """Return the installed version; None where it is not installed."""
    if peer.distribution is None:
        return "Python's own"
    try:
        return importlib.metadata.version(peer.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def run(peer: Peer, suite: str) -> tuple[float, Path]:
    """Run a suite under a tool; return its wall-clock seconds and its folder, which the caller keeps."""
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("PEER_COSTS_DIR")))
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (folder / "conftest.py").write_text(peer.conftest, encoding="utf-8")
    (folder / "test_it.py").write_text(suite, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *peer.arguments]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise PeerError(importlib.import_module("peers").first_error(done.stdout + done.stderr))
    return seconds, folder


def added_ms(peer: Peer, tests: int, *, reverse: bool) -> float:
    """Return how many milliseconds a trivial test took more with the tool, less what its start takes."""

    def seconds(one: Peer) -> float:
        many, _ = run(one, TRIVIAL.format(tests=tests))
        none, _ = run(one, TRIVIAL.format(tests=1))
        return many - none

    pair = (peer, NOTHING) if reverse else (NOTHING, peer)
    took = {one.name: seconds(one) for one in pair}
    return (took[peer.name] - took[NOTHING.name]) / (tests - 1) * MILLISECONDS


def slowdown(peer: Peer, *, reverse: bool) -> float:
    """Return how many times as long the allocating code took under the tool."""

    def seconds(one: Peer) -> float:
        _, folder = run(one, ALLOCATING)
        return float((folder / "seconds").read_text(encoding="utf-8"))

    pair = (peer, NOTHING) if reverse else (NOTHING, peer)
    took = {one.name: seconds(one) for one in pair}
    return took[peer.name] / took[NOTHING.name]


def print_costs(*, rounds: int, tests: int = 100) -> None:
    """Print the table, as markdown."""
    costs: dict[str, list[tuple[float, float]]] = {peer.name: [] for peer in PEERS}
    reasons = {peer.name: "not installed" for peer in PEERS if version(peer) is None}
    with tempfile.TemporaryDirectory() as name:
        os.environ["PEER_COSTS_DIR"] = name
        for number in range(rounds):
            for peer in PEERS:
                if peer.name in reasons:
                    continue
                reverse = bool(number % 2)
                try:
                    cost = added_ms(peer, tests, reverse=reverse), slowdown(peer, reverse=reverse)
                except PeerError as error:
                    reasons[peer.name] = f"failed: {error}"
                else:
                    costs[peer.name].append(cost)
    print("| tool | version | adds to a trivial test | slows small allocations |")
    print("| --- | --- | ---: | ---: |")
    for peer in PEERS:
        if peer.name in reasons:
            print(f"| {peer.name} | {version(peer) or ''} | {reasons[peer.name]} | |")
            continue
        added, slower = zip(*costs[peer.name], strict=True)
        print(f"| {peer.name} | {version(peer)} | {spread(added, 'ms', 2)} | {spread(slower, 'x', 2)} |")


def spread(values: Sequence[float], unit: str, decimals: int) -> str:
    """Return the median, with the least and the most."""
    middle = statistics.median(values)
    return f"{middle:.{decimals}f} {unit} ({min(values):.{decimals}f} to {max(values):.{decimals}f})"
