"""Exact peaks: windows on the kernel's high-water mark (Linux).

The kernel has one mark a process, and windows may nest and overlap. So every opening window first
hands the mark's reading to all windows that are open, and only then resets it.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterable

from pytest_imu.core.memory import platforms
from pytest_imu.core.memory.platforms import ProcStatus
from pytest_imu.core.memory.window import Settle, Sizes

FOREIGN_RESET = "the high-water mark was reset by other code inside the window"
PROOF_BATCHES = 16
"""How large the block is that proves the reset: far more than the CPUs hold back."""


class KernelWindow:
    """One open window on the kernel's high-water mark."""

    __slots__ = ("before_bytes", "reset_by_others", "rss_peak_bytes")

    def __init__(self, before_bytes: int) -> None:
        self.before_bytes = before_bytes
        self.rss_peak_bytes = before_bytes
        self.reset_by_others = False


class KernelPeak:
    """Exact peaks from the kernel's resettable high-water mark.

    What is used of it is how much `ru_maxrss` has grown since the reset, on top of the exact RSS then:
    the mark itself is made from counters that the kernel batches a CPU, and reads up to 0.3 MiB low.
    But `ru_maxrss` does not show what stays below the peak of the program that exec'd this one; while
    it stands there, the mark is read from /proc/self/status, which costs more.
    """

    label = "kernel high-water mark"

    def __init__(
        self,
        *,
        read_status: Callable[[], ProcStatus] = platforms.read_proc_status,
        read_rss: Callable[[], int] | None = None,
        read_max_rss: Callable[[], int] = platforms.max_rss_bytes,
        reset: Callable[[], None] = platforms.reset_high_water_mark,
        spike: Callable[[int], None] | None = None,
    ) -> None:
        self._read_status = read_status
        self._read_rss = read_rss or platforms.rss_reader()
        self._read_max_rss = read_max_rss
        self._reset = reset
        self._spike = spike or fill_and_free
        self._open_windows: set[KernelWindow] = set()
        self._rss_at_reset_bytes = self._max_rss_at_reset_bytes = 0
        self._hidden = True
        """Whether ru_maxrss stands at another program's peak and so hides ours; only a reset tells."""
        self._batch_bytes = platforms.high_water_batch_bytes()
        # Held back at the reset, and at the peak, by two CPUs: a thread is moved from one to another.
        self.resolution_bytes: int | None = 4 * self._batch_bytes
        self._slack_bytes = (os.cpu_count() or 1) * self._batch_bytes
        # Reentrant, because a signal handler may open a window while this thread opens one.
        self._lock = threading.RLock()

    def begin_in_forked_child(self) -> None:
        """Forget what held for the parent: who holds the lock, and where the RSS stood.

        The lock's holder may be a thread that the child does not have, and file pages that the
        parent had resident are not resident in the child, so its RSS and its mark begin lower.
        """
        self._lock = threading.RLock()
        self._rss_at_reset_bytes = self._max_rss_at_reset_bytes = 0
        self._hidden = True

    def prove(self) -> None:
        """Try the reset; raises OSError where it is refused, or accepted and not carried out.

        A block is filled and freed: the mark then stands above the RSS, and a reset must bring it down.
        """
        self.close(self.open())
        block_bytes = PROOF_BATCHES * self._batch_bytes
        self._spike(block_bytes)
        above_bytes = self._read_status().high_water_bytes
        self._reset()
        if above_bytes - self._read_status().high_water_bytes < block_bytes // 2:
            raise OSError("clear_refs did not lower VmHWM")

    def open(self, settle: Settle | None = None) -> KernelWindow:
        """Begin a window: what the mark says so far belongs to the others, then it is reset."""
        with self._lock:
            rss_bytes = self._read_rss() if settle is None else settle(self._read_rss)
            max_rss_bytes = self._read_max_rss()
            growth_bytes = max_rss_bytes - self._max_rss_at_reset_bytes
            if self._open_windows:
                self._raise_peaks(self._open_windows, rss_bytes, growth_bytes)
            # A reset costs 8-20 µs. A mark that has moved no further than the RSS has is at its highest
            # now, and stands where a reset would put it.
            if self._hidden or not 0 <= growth_bytes <= rss_bytes - self._rss_at_reset_bytes:
                self._reset_at(rss_bytes)
            else:
                self._rss_at_reset_bytes, self._max_rss_at_reset_bytes = rss_bytes, max_rss_bytes
            window = KernelWindow(rss_bytes)
            self._open_windows.add(window)
            return window

    def close(self, window: KernelWindow, settle: Settle | None = None) -> Sizes:
        """End a window. The mark stays: the windows still open find it at its next reading."""
        with self._lock:
            self._open_windows.discard(window)
            # It may fall here, and the mark stays.
            after_bytes = self._read_rss() if settle is None else settle(self._read_rss)
            growth_bytes = self._read_max_rss() - self._max_rss_at_reset_bytes
            self._raise_peaks((window, *self._open_windows), after_bytes, growth_bytes)
        sizes = (window.before_bytes, after_bytes, window.rss_peak_bytes)
        if window.reset_by_others:
            return Sizes(*sizes, "sampled", FOREIGN_RESET)
        return Sizes(*sizes, "kernel")

    def peek(self, window: KernelWindow) -> tuple[int, int]:
        """Return the RSS now and a window's highest so far; the mark stays."""
        with self._lock:
            rss_bytes = self._read_rss()
            growth_bytes = self._read_max_rss() - self._max_rss_at_reset_bytes
            self._raise_peaks((window,), rss_bytes, growth_bytes)
        return rss_bytes, window.rss_peak_bytes

    def _reset_at(self, rss_bytes: int) -> None:
        self._reset()
        self._rss_at_reset_bytes = rss_bytes
        self._max_rss_at_reset_bytes = self._read_max_rss()
        # Above the RSS it is the mark, which may be a little off, or it is not the mark.
        self._hidden = (
            self._max_rss_at_reset_bytes > rss_bytes
            and self._max_rss_at_reset_bytes > self._read_status().high_water_bytes
        )

    def _raise_peaks(self, windows: Iterable[KernelWindow], rss_bytes: int, growth_bytes: int) -> None:
        """Raise these windows' peaks to the highest RSS since the last reset."""
        highest_bytes = max(rss_bytes, self._rss_at_reset_bytes + growth_bytes)
        if growth_bytes > self._slack_bytes:
            # What the CPUs held back at the reset is in the growth, what they hold back now is not:
            # where the mark has really moved it is by itself the better of the two.
            highest_bytes = max(highest_bytes, self._max_rss_at_reset_bytes + growth_bytes)
        if self._hidden:
            highest_bytes = max(highest_bytes, self._read_status().high_water_bytes)
        for window in windows:
            window.rss_peak_bytes = max(window.rss_peak_bytes, highest_bytes)
            # It only ever grows, unless somebody else resets it.
            window.reset_by_others |= growth_bytes < 0


def fill_and_free(size_bytes: int) -> None:
    """Let this process's RSS rise by so much, and fall again."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, size_bytes, flags).close()
