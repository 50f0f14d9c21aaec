"""The one seam to the operating system: what each platform tells of this process's own memory.

Everything here reads or resets one number of the running process and raises OSError or ValueError
where the platform refuses; the callers decide what that means.
"""

from __future__ import annotations

import functools
import mmap
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pytest_imu.core.system import System

KIB = 1024
PAGE_BYTES = mmap.PAGESIZE
MAX_RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else KIB


@dataclass(frozen=True, slots=True)
class ProcStatus:
    """VmRSS and VmHWM out of one text of /proc/self/status, in bytes."""

    rss_bytes: int
    high_water_bytes: int


def read_proc_file(path: str) -> bytes:
    """Return the first 16 KiB of a small /proc file: a thousand groups stand before VmRSS in status.

    The file is opened afresh: "/proc/self" then always means the process that asks, also after a
    fork, and no descriptor is left for a test to inherit, count or close. It costs 8 µs.
    """
    descriptor = System.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return System.read(descriptor, 16 * KIB)
    finally:
        System.close(descriptor)


def parse_proc_status(text: bytes) -> ProcStatus:
    """Return both memory fields of a /proc/PID/status text; ValueError where one is missing."""
    return ProcStatus(_kib_field(text, b"VmRSS:"), _kib_field(text, b"VmHWM:"))


def _kib_field(text: bytes, name: bytes) -> int:
    start = text.index(name) + len(name)
    return int(text[start : text.index(b"kB", start)]) * KIB


def data_bytes(text: bytes) -> int:
    """Return what RLIMIT_DATA limits, out of a /proc/PID/status text; ValueError where it is missing."""
    return _kib_field(text, b"VmData:")


def read_proc_status() -> ProcStatus:
    """Return this process's RSS and high-water mark, read together so that they agree (Linux)."""
    return parse_proc_status(read_proc_file("/proc/self/status"))


class RssReader:
    """Reads this process's RSS alone, through a descriptor that stays open: 3 µs a reading (Linux).

    Of all files only this one is kept, and only for reading. A test may close what it did not open,
    and find its own file under the same number: what does not read like a statm is opened afresh. In
    a forked child the descriptor would still read the parent, so there it is forgotten.
    """

    def __init__(self) -> None:
        self._descriptor = -1
        if hasattr(os, "register_at_fork"):  # Windows has no fork
            os.register_at_fork(after_in_child=self._forget)

    def __call__(self) -> int:
        """Return the RSS in bytes; raises OSError or ValueError where the platform refuses."""
        try:
            return self._read()
        except (OSError, ValueError):
            self._descriptor = System.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
            return self._read()

    def _read(self) -> int:
        # Seven numbers; the second counts the resident pages.
        _, resident, _, _, _, _, _ = System.pread(self._descriptor, 256, 0).split()
        return int(resident) * PAGE_BYTES

    def _forget(self) -> None:
        self._descriptor = -1


@functools.cache
def rss_reader() -> RssReader:
    """Return this process's one reader of its RSS (Linux)."""
    return RssReader()


def reset_high_water_mark() -> None:
    """Set this process's VmHWM, and its ru_maxrss, down to its current RSS (Linux).

    Only ever "5": the other values of clear_refs make the kernel walk every page of the process.
    """
    descriptor = System.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        System.write(descriptor, b"5")
    finally:
        System.close(descriptor)


def max_rss_bytes() -> int:
    """Return getrusage's ru_maxrss of this process: KiB on Linux and the BSDs, bytes on macOS."""
    max_rss: int = System.getrusage(System.RUSAGE_SELF).ru_maxrss
    return max_rss * MAX_RSS_UNIT_BYTES


def high_water_batch_bytes() -> int:
    """Return how much one CPU may hold back from the kernel's high-water mark (Linux).

    The kernel adds pages to its RSS counter in batches of max(32, 2 x CPUs) a CPU.
    """
    return max(32, 2 * (os.cpu_count() or 1)) * PAGE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReaders:
    """How this platform tells RSS, and the highest RSS of the process's life if it knows that."""

    rss_bytes: Callable[[], int]
    lifetime_peak_bytes: Callable[[], int] | None
    label: str


def readers_for(platform: str, *, process_memory: Callable[[], Any] | None = None) -> MemoryReaders:
    """Return the readers for a `sys.platform` name.

    *process_memory* is psutil's `Process().memory_info`, imported where it is needed and not given.
    """
    if platform == "linux":
        return MemoryReaders(
            rss_bytes=rss_reader(),
            lifetime_peak_bytes=lambda: read_proc_status().high_water_bytes,
            label="/proc/self/statm",
        )
    if process_memory is None:
        import psutil

        process: Any = psutil.Process()  # Any: what memory_info() has depends on the platform
        process_memory = process.memory_info
    if platform == "win32":
        return MemoryReaders(
            rss_bytes=lambda: int(process_memory().rss),
            lifetime_peak_bytes=lambda: int(process_memory().peak_wset),
            label="psutil, working set",
        )
    return MemoryReaders(
        rss_bytes=lambda: int(process_memory().rss),
        lifetime_peak_bytes=max_rss_bytes,
        label="psutil, getrusage",
    )


def rss_bytes() -> int:
    """Return this process's RSS now, in bytes, on any platform."""
    return platform_readers().rss_bytes()


@functools.cache
def platform_readers() -> MemoryReaders:
    """Return this platform's readers."""
    return readers_for(sys.platform)


def rss_bytes_or_none() -> int | None:
    """Return this process's RSS now, in bytes; None where the platform refuses."""
    try:
        return rss_bytes()
    except (OSError, ValueError):
        return None
