"""The memory of all of this process's descendants, sampled, for those who ask for it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from typing import NamedTuple

from pytest_imu.core.children.census import helper_pids, standing_pids
from pytest_imu.core.children.proc import (
    GONE,
    can_open,
    child_pids,
    open_directory,
    parse_stat,
    read_all,
)
from pytest_imu.core.memory.platforms import KIB, PAGE_BYTES
from pytest_imu.core.memory.sampler import DEFAULT_INTERVAL_S, PeakSampler
from pytest_imu.core.model import ChildrenMemory
from pytest_imu.core.system import System

REST = 4
"""How long the thread rests after a reading, in readings: it takes a fifth of a core at most."""


class Memory(NamedTuple):
    """One process's memory, and whether it is its proportional share of what it shares."""

    size_bytes: int
    is_pss: bool


class ChildrenSampler:
    """Samples the memory of all descendants from `start()` to `stop()`.

    The first and the last sample are taken by the caller's own thread. A descendant that dies while it
    is read counts 0 in that sample; zombies, helpers and multiprocessing's own processes never count.
    Between two samples the thread rests 10 ms, or four times what the last took where that is longer.

    While the thread runs, os.fork in the block warns of threads on Python 3.12 and newer, as it does for
    any program with threads.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[Memory]] | None = None,
        *,
        clock_ns: Callable[[], int] = System.perf_counter_ns,
        interval_s: float = DEFAULT_INTERVAL_S,
    ) -> None:
        self._read = read or choose_reader()
        self._clock_ns = clock_ns
        self._sampler = PeakSampler(self._sample_when_due, interval_s=interval_s)
        self._next_ns: int | None = None
        """When the thread may sample next; None where a sample is due in any case."""
        self._is_ending = False
        self._peak_bytes = self._most = self._samples = 0
        self._is_pss = True

    def start(self) -> None:
        """Take the first sample and start the thread."""
        self._sampler.start()

    def stop(self) -> ChildrenMemory:
        """End the thread, take the last sample and return the highest."""
        self._is_ending = True
        self._sampler.stop()
        error = self._sampler.refusal or self._sampler.error
        if not self._samples or self._sampler.refusal is not None:
            reason = f"children could not be read: {type(error).__name__}: {error}"
            return ChildrenMemory(peak_bytes=None, most=None, samples=0, unit="none", reason=reason)
        return ChildrenMemory(
            peak_bytes=self._peak_bytes,
            most=self._most,
            samples=self._samples,
            unit="pss" if self._is_pss else "rss",
        )

    def _sample_when_due(self) -> int:
        begin_ns = self._clock_ns()
        if self._is_ending or self._next_ns is None or begin_ns >= self._next_ns:
            try:
                self._sample()
            finally:
                end_ns = self._clock_ns()
                self._next_ns = end_ns + REST * (end_ns - begin_ns)
        return self._peak_bytes

    def _sample(self) -> None:
        read = list(self._read())
        self._samples += 1
        self._peak_bytes = max(self._peak_bytes, sum(memory.size_bytes for memory in read))
        self._most = max(self._most, len(read))
        self._is_pss = self._is_pss and all(memory.is_pss for memory in read)


def choose_reader(proc: str = "/proc", platform: str = sys.platform) -> Callable[[], Iterable[Memory]]:
    """Return how this platform tells of descendants.

    With two children /proc takes 0.1 ms; psutil looks at all of the machine's processes, for 1 ms.
    """
    lists_children = can_open(f"{proc}/thread-self/children")
    if platform == "linux" and lists_children:
        return ProcReader(proc)
    return functools.partial(read_with_psutil, helper_pids())


class ProcReader:
    """Reads all descendants through /proc (Linux)."""

    def __init__(self, proc: str = "/proc", *, helpers: Container[int] | None = None) -> None:
        self._proc = proc
        self._helpers = helper_pids() if helpers is None else helpers
        # Not before Linux 4.14, and not in every kernel since.
        self._knows_pss = can_open(f"{proc}/self/smaps_rollup")

    def __call__(self) -> Iterator[Memory]:
        """Give the memory of every descendant that lives."""
        directory = open_directory(f"{self._proc}/self")
        try:
            yield from self._below(System.getpid(), directory)
        finally:
            System.close(directory)

    def _below(self, parent: int, parent_directory: int) -> Iterator[Memory]:
        for pid in child_pids(parent_directory):
            if pid in self._helpers:
                continue
            try:
                directory = open_directory(f"{self._proc}/{pid}")
            except GONE:
                continue
            try:
                yield from self._process(pid, parent, directory)
            except GONE:
                continue  # it has died, and its children are no longer ours
            finally:
                System.close(directory)

    def _process(self, pid: int, parent: int, directory: int) -> Iterator[Memory]:
        stat = parse_stat(read_all("stat", at=directory))
        # Another parent's is another process, under an id that was reused since the list was read.
        if stat.parent == parent and not stat.is_dead:
            if pid not in standing_pids():
                yield self.memory(directory)
            yield from self._below(pid, directory)

    def memory(self, directory: int) -> Memory:
        """Return one process's memory; raises OSError where it has died."""
        if self._knows_pss:
            try:
                return Memory(_pss_bytes(read_all("smaps_rollup", at=directory)), is_pss=True)
            except PermissionError:
                pass  # another user's, as under sudo: only its RSS is for everyone
        resident = read_all("statm", at=directory).split()[1]
        return Memory(int(resident) * PAGE_BYTES, is_pss=False)


def _pss_bytes(text: bytes) -> int:
    name = b"\nPss:"
    return int(text[text.index(name) + len(name) :].split(None, 1)[0]) * KIB


def read_with_psutil(helpers: Container[int]) -> Iterator[Memory]:
    """Give the RSS of every descendant that lives, as psutil finds them."""
    import psutil

    left_out: set[int] = set()
    for process in psutil.Process().children(recursive=True):  # parents before their children
        try:
            if process.pid in helpers or process.ppid() in left_out:
                left_out.add(process.pid)
            elif process.pid not in standing_pids() and process.status() != psutil.STATUS_ZOMBIE:
                yield Memory(process.memory_info().rss, is_pss=False)
        except psutil.NoSuchProcess:
            continue
