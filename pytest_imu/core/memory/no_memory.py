"""What takes the place of memory's numbers where they could not be read, or mean nothing."""

from __future__ import annotations

from typing import Unpack

from pytest_imu.core.memory.trim import Trimmer
from pytest_imu.core.model import Measurement, Remarks

SIMULATED = "simulated run"
"""Why memory is not measured under valgrind: its own would be in every number."""


def unreadable(error: Exception, duration_ns: int) -> Measurement:
    """Return the measurement of a window that the platform refused to read."""
    return without_memory(f"memory could not be read: {type(error).__name__}: {error}", duration_ns)


def without_memory(reason: str, duration_ns: int, *, tracer: str | None = None) -> Measurement:
    """Return the measurement of a window that has a time and no sizes."""
    return Measurement(
        before_bytes=None,
        after_bytes=None,
        rss_peak_bytes=None,
        duration_ns=duration_ns,
        source="none",
        reason=reason,
        tracer=tracer,
    )


class NoPeak:
    """A source of peaks that has none, on purpose: it reads nothing, and so costs nothing."""

    resolution_bytes: int | None = None

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self.label = f"none ({reason})"

    def open(self, trimmer: Trimmer | None = None) -> NoWindow:  # noqa: ARG002 - nothing is read, so nothing is trimmed
        """Begin a window that will have no sizes."""
        return NoWindow(self._reason)


class NoWindow:
    """A window without sizes."""

    before_bytes: int | None = None

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def close(self, duration_ns: int, **remarks: Unpack[Remarks]) -> Measurement:
        """End the window; of the remarks the tracer is not about sizes alone."""
        return without_memory(self._reason, duration_ns, tracer=remarks.get("tracer"))

    def peek(self) -> tuple[int | None, int | None]:
        """Return that nothing is known."""
        return None, None
