"""A hard cap on this process's memory: the allocation that would pass it raises MemoryError."""

from __future__ import annotations

import re
import sys

from pytest_imu.core.memory import platforms

_VM_DATA = re.compile(rb"VmData:\s*(\d+) kB")


class LimitUnavailableError(Exception):
    """The platform cannot cap a process so; the message says why."""


class MemoryLimit:
    """Caps the process by RLIMIT_DATA (Linux); `lift()` puts back what was there before.

    The kernel counts private writable memory, untouched pages and thread stacks included, not RSS. So
    "8 GiB in all" is what it counts now, and as much again as the RSS is away from 8 GiB now.
    """

    def __init__(self) -> None:
        self._before: tuple[int, int] | None = None
        self.total_bytes: int | None = None
        """The cap in force; None without one."""

    def set(self, total_bytes: int) -> None:
        """Cap the process at *total_bytes*.

        Raises LimitUnavailableError where the platform cannot, ValueError where the process is
        already larger.
        """
        if sys.platform != "linux":
            message = f"only Linux has a limit that Python survives, and this is {sys.platform}"
            raise LimitUnavailableError(message)
        import resource

        text = platforms.read_proc_file("/proc/self/status")
        rss_bytes = platforms.parse_proc_status(text).rss_bytes
        counted = _VM_DATA.search(text)
        if counted is None:
            message = "/proc/self/status does not tell VmData"
            raise LimitUnavailableError(message)
        if total_bytes <= rss_bytes:
            message = f"this process already holds {rss_bytes / 2**20:.1f} MiB"
            raise ValueError(message)
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = int(counted[1]) * platforms.KIB + total_bytes - rss_bytes
        limits = [one for one in self._before or (soft, hard) if one != resource.RLIM_INFINITY]
        allowed = min(limits, default=wanted)
        if wanted > allowed:
            message = f"this process may not go over {allowed / 2**20:.1f} MiB of data in any case"
            raise ValueError(message)
        try:
            resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
        except OverflowError:
            message = f"no process can hold {total_bytes / 2**40:.1f} TiB"
            raise ValueError(message) from None
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
