"""An event of this process in the place of its memory, so that lines can be charged with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from pytest_imu.core.counters.source import CannotCountError
from pytest_imu.core.memory.window import Settle, Sizes
from pytest_imu.core.model import CountedBy
from pytest_imu.core.system import System
from pytest_imu.why.readings import Pace

NANOSECONDS_PER_MILLISECOND = 1_000_000
PACES = {
    "kernel": Pace(nothing=1, worth=1),
    # A reading takes a tenth of a second.
    "callgrind": Pace(exact_hits=3, short_ns=500_000_000, quiet_ns=4_000_000_000, nothing=1, worth=1),
}
"""How often lines are read, by what counts: no count is nothing."""


@dataclass(frozen=True, slots=True)
class CountWindow:
    """One open window; its bytes are counts."""

    before_bytes: int


class CountSource:
    """Windows on a count that only ever grows, without what the reading itself adds to it."""

    resolution_bytes: int | None = None
    _new_lock = staticmethod(threading.RLock)  # bound here: a test may replace it

    def __init__(
        self, label: str, read: Callable[[], int], stop: Callable[[], None], *, is_clock: bool = False
    ) -> None:
        """*read* returns what was counted so far."""
        self.label = label
        self.stop = stop
        self._read = read
        self._is_clock = is_clock
        self.own_a_window = 0
        """What each window has of the reading itself, and shall not have."""
        self._own = 0
        self._lock = self._new_lock()

    def open(self, settle: Settle | None = None) -> CountWindow:  # noqa: ARG002 - for memory
        """Begin a window."""
        with self._lock:
            return CountWindow(self._read() - self._own)

    def close(self, window: CountWindow, settle: Settle | None = None) -> Sizes:  # noqa: ARG002 - as above
        """End a window."""
        with self._lock:
            self._own += self.own_a_window
            now = self._read() - self._own
        return Sizes(window.before_bytes, now, now, "kernel")

    def peek(self, window: CountWindow) -> tuple[int, int]:  # noqa: ARG002 - as above
        """Return the count so far."""
        now = self._read() - self._own
        return now, now

    def shown(self, count: int) -> float:
        """Return a count as people read it: of clocks, in milliseconds."""
        return round(count / NANOSECONDS_PER_MILLISECOND, 6) if self._is_clock else count


def count_source(event: str, *, by: CountedBy) -> CountSource:
    """Return what counts an event in windows; CannotCountError says why nothing does."""
    match by:
        case "kernel":
            return _by_kernel(event)
        case "callgrind":
            return _by_callgrind(event)
        case _:
            raise CannotCountError(why_not(by))


def why_not(by: CountedBy) -> str | None:
    """Return why what counts cannot tell lines apart; None where it can."""
    return None if by in PACES else f"{by} counts a whole run, and not its lines"


def _by_kernel(event: str) -> CountSource:
    from pytest_imu.core.counters.kernel.call import perf_event_open
    from pytest_imu.core.counters.kernel.names import attrs_of
    from pytest_imu.core.counters.kernel.threads import Threads

    attrs = attrs_of(event)
    threads = Threads({event: attrs}, perf_event_open())
    if event in threads.refused:
        raise CannotCountError(threads.refused[event])
    total = 0

    def read() -> int:
        nonlocal total
        count = threads.advance()[event]
        scale = count.enabled_ns / count.running_ns if 0 < count.running_ns < count.enabled_ns else 1
        total += round(count.value * scale)
        return total

    threads.switch_on()
    return CountSource("perf_event_open", read, threads.close, is_clock=attrs[0].is_clock)


def _by_callgrind(event: str) -> CountSource:
    from pytest_imu.core.counters.callgrind.counts import process_counters
    from pytest_imu.core.counters.callgrind.dumps import public_count

    back_end = process_counters(System.getpid()).back_end
    total = 0

    def read() -> int:
        nonlocal total
        counted = public_count(event, back_end.take())
        if isinstance(counted, str):
            raise CannotCountError(counted)
        total += counted
        return total

    back_end.start()
    back_end.switch_on()
    return CountSource("callgrind, simulated caches", read, back_end.switch_off)
