"""A hard cap on this process's memory: the allocation that would pass it raises MemoryError."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import weakref

from pytest_imu.core.children.census import children_exist, list_children
from pytest_imu.core.invalid import InvalidValueError
from pytest_imu.core.memory import platforms
from pytest_imu.core.units import format_bytes

_VM_DATA = re.compile(rb"VmData:\s*(\d+) kB")


class MemoryLimit:
    """Caps the process by RLIMIT_DATA (Linux); `lift()` puts back what was there before.

    The kernel counts private writable memory, untouched pages and thread stacks included, not RSS. So
    "8 GiB in all" is what it counts now, and as much again as the RSS is away from 8 GiB now.
    """

    def __init__(self) -> None:
        self._before: tuple[int, int] | None = None
        self._spared: set[int] = set()
        _IN_FORCE.add(self)
        self.total_bytes: int | None = None
        """The cap in force; None without one."""

    def set(self, total_bytes: int) -> None:
        """Cap the process at *total_bytes*.

        Raises ValueError where the platform cannot, or the process is already larger.
        """
        if sys.platform != "linux":
            message = f"only Linux has a limit that Python survives, and this is {sys.platform}"
            raise ValueError(message)
        import resource

        text = platforms.read_proc_file("/proc/self/status")
        rss_bytes = platforms.parse_proc_status(text).rss_bytes
        counted = _VM_DATA.search(text)
        if counted is None:
            message = "/proc/self/status does not tell VmData"
            raise ValueError(message)
        if total_bytes <= rss_bytes:
            expected = f"more than {format_bytes(rss_bytes)}, which this process already holds"
            raise InvalidValueError(format_bytes(total_bytes), expected)
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = int(counted[1]) * platforms.KIB + total_bytes - rss_bytes
        limits = [one for one in self._before or (soft, hard) if one != resource.RLIM_INFINITY]
        allowed = min(limits, default=wanted)
        if wanted > allowed:
            expected = f"less; this process may hold {format_bytes(allowed)} of data at most"
            raise InvalidValueError(format_bytes(total_bytes), expected)
        try:
            resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
        except OverflowError:
            raise InvalidValueError(
                format_bytes(total_bytes), "a size that a process can have"
            ) from None
        if self._before is None:
            self._before = (soft, hard)
        self.total_bytes = total_bytes

    def lift(self) -> None:
        """Put back the limit that was there before the first `set()`."""
        before, self._before = self._before, None
        self.total_bytes = None
        if before is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, before)

    def spare_children(self) -> None:
        """Give programs that were started under the limit the one from before it: it is not theirs."""
        if self._before is None or not children_exist():
            return
        import resource

        children = set(list_children())
        for pid in children - self._spared:
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                resource.prlimit(pid, resource.RLIMIT_DATA, self._before)
        self._spared = children


_IN_FORCE: weakref.WeakSet[MemoryLimit] = weakref.WeakSet()


def _lift_in_a_fork() -> None:
    for limit in _IN_FORCE:
        limit.lift()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lift_in_a_fork)
