"""Peaks from a sampling thread, where no high-water mark can be reset."""

from __future__ import annotations

from pytest_imu.core.memory.platforms import MemoryReaders
from pytest_imu.core.memory.sampler import PeakSampler
from pytest_imu.core.memory.window import Settle, Sizes


class SampledWindow:
    """One open window with its sampler."""

    def __init__(self, readers: MemoryReaders, settle: Settle | None) -> None:
        self.lifetime_peak_bytes = lifetime_peak_of(readers)
        self.before_bytes = settled_rss(readers, settle)
        self.sampler = PeakSampler(readers.rss_bytes)


class SampledPeak:
    """Peaks from samples, which are lower bounds.

    Where the platform knows the highest RSS of the process's life and that rose inside the window,
    it is this window's peak, exactly; where it did not rise, it is older and says nothing.
    """

    resolution_bytes: int | None = None

    def __init__(self, readers: MemoryReaders, *, why: str) -> None:
        self._readers = readers
        self.label = f"sampled ({why})"

    def open(self, settle: Settle | None = None) -> SampledWindow:
        """Begin a window and start its sampler."""
        window = SampledWindow(self._readers, settle)
        window.sampler.start()
        return window

    def close(self, window: SampledWindow, settle: Settle | None = None) -> Sizes:
        """End the window and its sampler."""
        sampled_bytes = window.sampler.stop()
        lifetime_peak_bytes = lifetime_peak_of(self._readers)
        after_bytes = settled_rss(self._readers, settle)
        rose = lifetime_peak_bytes > window.lifetime_peak_bytes
        known = (
            window.before_bytes,
            after_bytes,
            sampled_bytes or 0,
            lifetime_peak_bytes if rose else 0,
        )
        return Sizes(window.before_bytes, after_bytes, max(known), "kernel" if rose else "sampled")

    def peek(self, window: SampledWindow) -> tuple[int, int]:
        """Return the RSS now and the highest sample so far."""
        rss_bytes = self._readers.rss_bytes()
        return rss_bytes, max(rss_bytes, window.sampler.peak_bytes or 0)


def settled_rss(readers: MemoryReaders, settle: Settle | None) -> int:
    """Return the RSS, after freed memory was given back where that is wanted."""
    return readers.rss_bytes() if settle is None else settle(readers.rss_bytes)


def lifetime_peak_of(readers: MemoryReaders) -> int:
    """Return the highest RSS of the process's life; 0 where the platform does not know it."""
    return 0 if readers.lifetime_peak_bytes is None else readers.lifetime_peak_bytes()
