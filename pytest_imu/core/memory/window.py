"""What a window on this process's memory is, whichever way the platform tells of peaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

from pytest_imu.core.model import Source

W = TypeVar("W")
ReadRss = Callable[[], int]
Settle = Callable[[ReadRss], int]
"""Reads the RSS with what it is given, and gives freed memory back first where that may change it."""


class Sizes(NamedTuple):
    """What a window found, in bytes of RSS; what could not be read is None."""

    before_bytes: int | None
    after_bytes: int | None
    rss_peak_bytes: int | None
    source: Source
    reason: str | None = None


class PeakSource(Protocol[W]):
    """A way to know peaks; each of its methods raises OSError or ValueError where it is refused."""

    label: str
    resolution_bytes: int | None
    """How far a peak may be off; None where it is a lower bound."""

    def open(self, settle: Settle | None = None, /) -> W:
        """Begin a window; it knows `before_bytes`."""

    def close(self, window: W, settle: Settle | None = None, /) -> Sizes:
        """End a window."""

    def peek(self, window: W, /) -> tuple[int, int]:
        """Return the RSS now and the highest so far, in bytes; the window goes on."""
