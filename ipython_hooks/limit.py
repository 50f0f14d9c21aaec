"""A hard cap on this process's memory: the allocation that would pass it raises MemoryError."""

from __future__ import annotations

import functools
import sys

from pytest_imu.core.invalid import InvalidValueError
from pytest_imu.core.memory import platforms
from pytest_imu.core.memory.data_limit import new_limit
from pytest_imu.core.units import format_bytes

notebook_limit = functools.cache(new_limit)
"""The one limit of shells in this process: each that is made has hooks around forks for ever."""


class MemoryLimit:
    """Caps the process by RLIMIT_DATA (Linux); `lift()` puts back what was there before.

    The kernel counts private writable memory, untouched pages and thread stacks included, not RSS. So
    "8 GiB in all" is what it counts now, and as much again as the RSS is away from 8 GiB now.
    """

    def __init__(self) -> None:
        self._limit = notebook_limit()
        self._total_bytes: int | None = None

    @property
    def total_bytes(self) -> int | None:
        """The cap in force; None without one, as in a child that was forked."""
        return self._total_bytes if self._limit is not None and self._limit.is_set else None

    def set(self, total_bytes: int) -> None:
        """Cap the process at *total_bytes*.

        Raises ValueError where the platform cannot, or the process is already larger.
        """
        if self._limit is None:
            raise ValueError(f"only Linux has a limit that Python survives, and this is {sys.platform}")
        text = platforms.read_proc_file("/proc/self/status")
        rss_bytes = platforms.parse_proc_status(text).rss_bytes
        allowed_bytes = self._limit.allowed_bytes()
        wanted_bytes = platforms.data_bytes(text) + total_bytes - rss_bytes
        expected = None
        if total_bytes <= rss_bytes:
            expected = f"more than {format_bytes(rss_bytes)}, which this process already holds"
        elif allowed_bytes is not None and wanted_bytes > allowed_bytes:
            expected = f"less; this process may hold {format_bytes(allowed_bytes)} of data at most"
        elif wanted_bytes > sys.maxsize:
            expected = "a size that a process can have"
        if expected is not None:
            raise InvalidValueError(format_bytes(total_bytes), expected)
        self._total_bytes = None
        self._limit.set(total_bytes - rss_bytes)
        self._total_bytes = total_bytes

    def lift(self) -> None:
        """Put back the limit that was there before the first `set()`."""
        self._total_bytes = None
        if self._limit is not None:
            self._limit.lift()
