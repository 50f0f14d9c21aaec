"""Windows on this process's memory: RSS at both ends and the highest RSS between them.

Windows may nest and overlap. The kernel has one high-water mark a process, so every opening window
first hands the mark's reading to all windows that are open, and only then resets it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Protocol, Unpack

from pytest_imu.core.counters.callgrind.command import running_tool
from pytest_imu.core.memory import platforms
from pytest_imu.core.memory.no_memory import SIMULATED, NoPeak
from pytest_imu.core.memory.platforms import MemoryReaders, ProcStatus
from pytest_imu.core.memory.sampler import PeakSampler
from pytest_imu.core.memory.trim import Trimmer
from pytest_imu.core.model import Measurement, Remarks

FOREIGN_RESET = "the high-water mark was reset by other code inside the window"


class MemoryWindow(Protocol):
    """A window that is open."""

    @property
    def before_bytes(self) -> int | None:
        """RSS as it opened; None where sizes mean nothing."""

    def close(self, duration_ns: int, **remarks: Unpack[Remarks]) -> Measurement:
        """End the window; raises OSError or ValueError where the platform refuses to be read.

        The remarks go into the measurement as they are.
        """

    def peek(self) -> tuple[int | None, int | None]:
        """Return the RSS now and the highest so far, in bytes; the window goes on."""


class PeakSource(Protocol):
    """A way to know peaks."""

    label: str
    resolution_bytes: int | None
    """How far a peak may be off; None where it is a lower bound."""

    def open(self, trimmer: Trimmer | None = None) -> MemoryWindow:
        """Begin a window; with a trimmer, its end trims too.

        Raises OSError or ValueError where the platform refuses to be read.
        """


class KernelPeak:
    """Exact peaks from the kernel's resettable high-water mark (Linux).

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
    ) -> None:
        self._read_status = read_status
        self._read_rss = read_rss or platforms.rss_reader()
        self._read_max_rss = read_max_rss
        self._reset = reset
        self._open_windows: set[KernelWindow] = set()
        self._rss_at_reset_bytes = 0
        self._max_rss_at_reset_bytes = 0
        self._hidden = False
        """Whether ru_maxrss stands at another program's peak and so hides ours."""
        batch_bytes = platforms.high_water_batch_bytes()
        # Held back at the reset, and at the peak, by two CPUs: a thread is moved from one to another.
        self.resolution_bytes: int | None = 4 * batch_bytes
        self._slack_bytes = (os.cpu_count() or 1) * batch_bytes
        # Reentrant, because a signal handler may open a window while this thread opens one.
        self._lock = threading.RLock()

    def begin_in_forked_child(self) -> None:
        """Forget what held for the parent: who holds the lock, and where the RSS stood.

        The lock's holder may be a thread that the child does not have, and file pages that the
        parent had resident are not resident in the child, so its RSS and its mark begin lower.
        """
        self._lock = threading.RLock()
        self._rss_at_reset_bytes = self._max_rss_at_reset_bytes = 0

    def prove(self) -> None:
        """Try the reset; raises OSError where it is refused, or accepted and not carried out."""
        self.open().close(0)
        status = self._read_status()
        if status.high_water_bytes > status.rss_bytes + self._slack_bytes:
            message = "clear_refs left VmHWM where it was"
            raise OSError(message)

    def open(self, trimmer: Trimmer | None = None) -> KernelWindow:
        """Begin a window: what the mark says so far belongs to the others, then it is reset."""
        with self._lock:
            if trimmer is not None:
                trimmer.trim()
            rss_bytes = self._read_rss()
            growth_bytes = self._read_max_rss() - self._max_rss_at_reset_bytes
            if self._open_windows:
                self._raise_peaks(self._open_windows, rss_bytes, growth_bytes)
            # A mark that has not moved stands where a reset would put it, and a reset costs 8 µs.
            if growth_bytes or rss_bytes != self._rss_at_reset_bytes or self._hidden:
                self._reset()
                self._rss_at_reset_bytes = rss_bytes
                self._max_rss_at_reset_bytes = self._read_max_rss()
                # Above the RSS it is the mark, which may be a little off, or it is not the mark.
                self._hidden = (
                    self._max_rss_at_reset_bytes > rss_bytes
                    and self._max_rss_at_reset_bytes > self._read_status().high_water_bytes
                )
            opened = KernelWindow(self, before_bytes=rss_bytes, trimmer=trimmer)
            self._open_windows.add(opened)
            return opened

    def close(self, window: KernelWindow, duration_ns: int, **remarks: Unpack[Remarks]) -> Measurement:
        """End a window. The mark stays: the windows still open find it at its next reading."""
        with self._lock:
            self._open_windows.discard(window)
            if window.trimmer is not None:
                window.trimmer.trim()  # it lowers the RSS, and the mark stays
            after_bytes = self._read_rss()
            growth_bytes = self._read_max_rss() - self._max_rss_at_reset_bytes
            self._raise_peaks((window, *self._open_windows), after_bytes, growth_bytes)
        return Measurement(
            before_bytes=window.before_bytes,
            after_bytes=after_bytes,
            rss_peak_bytes=window.rss_peak_bytes,
            duration_ns=duration_ns,
            source="sampled" if window.reset_by_others else "kernel",
            reason=FOREIGN_RESET if window.reset_by_others else None,
            **remarks,
        )

    def peek(self, window: KernelWindow) -> tuple[int, int]:
        """Return the RSS now and a window's highest so far; the mark stays."""
        with self._lock:
            rss_bytes = self._read_rss()
            growth_bytes = self._read_max_rss() - self._max_rss_at_reset_bytes
            self._raise_peaks((window,), rss_bytes, growth_bytes)
        return rss_bytes, window.rss_peak_bytes

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


class KernelWindow:
    """One open window on the kernel's high-water mark."""

    __slots__ = ("_source", "before_bytes", "reset_by_others", "rss_peak_bytes", "trimmer")

    def __init__(self, source: KernelPeak, *, before_bytes: int, trimmer: Trimmer | None) -> None:
        self._source = source
        self.trimmer = trimmer
        self.before_bytes = before_bytes
        self.rss_peak_bytes = before_bytes
        self.reset_by_others = False

    def close(self, duration_ns: int, **remarks: Unpack[Remarks]) -> Measurement:
        """End the window."""
        return self._source.close(self, duration_ns, **remarks)

    def peek(self) -> tuple[int, int]:
        """Return the RSS now and the highest so far."""
        return self._source.peek(self)


class SampledPeak:
    """Peaks from a sampling thread, where no high-water mark can be reset.

    Where the platform knows the highest RSS of the process's life and that rose inside the window,
    it is this window's peak, exactly; where it did not rise, it is older and says nothing.
    """

    resolution_bytes: int | None = None

    def __init__(self, readers: MemoryReaders, *, why: str) -> None:
        self._readers = readers
        self.label = f"sampled ({why})"

    def open(self, trimmer: Trimmer | None = None) -> SampledWindow:
        """Begin a window with a sampler of its own."""
        return SampledWindow(self._readers, trimmer)


class SampledWindow:
    """One open window with its sampler."""

    def __init__(self, readers: MemoryReaders, trimmer: Trimmer | None) -> None:
        self._readers = readers
        self._trimmer = trimmer
        self._lifetime_peak_bytes = self._read_lifetime_peak()
        self.before_bytes = self._trimmed_rss()
        self._sampler = PeakSampler(readers.rss_bytes)
        self._sampler.start()

    def close(self, duration_ns: int, **remarks: Unpack[Remarks]) -> Measurement:
        """End the window and its sampler."""
        sampled_bytes = self._sampler.stop()
        lifetime_peak_bytes = self._read_lifetime_peak()
        after_bytes = self._trimmed_rss()
        rose = lifetime_peak_bytes > self._lifetime_peak_bytes
        return Measurement(
            duration_ns=duration_ns,
            before_bytes=self.before_bytes,
            after_bytes=after_bytes,
            rss_peak_bytes=max(
                self.before_bytes,
                after_bytes,
                sampled_bytes or 0,
                lifetime_peak_bytes if rose else 0,
            ),
            source="kernel" if rose else "sampled",
            **remarks,
        )

    def peek(self) -> tuple[int, int]:
        """Return the RSS now and the highest sample so far."""
        rss_bytes = self._readers.rss_bytes()
        return rss_bytes, max(rss_bytes, self._sampler.peak_bytes or 0)

    def _trimmed_rss(self) -> int:
        if self._trimmer is not None:
            self._trimmer.trim()
        return self._readers.rss_bytes()

    def _read_lifetime_peak(self) -> int:
        read = self._readers.lifetime_peak_bytes
        return 0 if read is None else read()


def choose_peak_source(
    platform: str = sys.platform,
    *,
    kernel: Callable[[], KernelPeak] = KernelPeak,
    readers: Callable[[str], MemoryReaders] = platforms.readers_for,
    tool: Callable[[], str | None] = running_tool,
) -> PeakSource:
    """Return the best source of peaks that works here, tried once for real; under valgrind none does."""
    if tool() is not None:
        return NoPeak(SIMULATED)
    if platform != "linux":
        return SampledPeak(readers(platform), why=f"no resettable peak on {platform}")
    try:
        source = kernel()
        source.prove()
    except (OSError, ValueError) as error:
        return SampledPeak(readers(platform), why=f"/proc refused: {error}")
    os.register_at_fork(after_in_child=source.begin_in_forked_child)
    return source


_process_peak_source: PeakSource | None = None


def peak_source() -> PeakSource:
    """Return this process's one source of peaks, chosen at the first call.

    One a process, because the kernel's mark is: two that reset it would lose each other's peaks.
    """
    global _process_peak_source  # noqa: PLW0603 - the one process-wide high-water mark
    if _process_peak_source is None:
        _process_peak_source = choose_peak_source()
    return _process_peak_source
