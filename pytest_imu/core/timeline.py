"""A thread that samples this process's RSS, and its children's memory, while something runs."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from threading import Event, Lock, Thread
from typing import Any

from pytest_imu.core.children.sampler import Memory, choose_reader
from pytest_imu.core.memory import platforms
from pytest_imu.core.system import System
from pytest_imu.core.units import NANOSECONDS_PER_SECOND

MOST_SAMPLES = 2000
"""Of how many each second one goes where there would be more: the interval doubles then."""
CHILDREN_EVERY_NS = NANOSECONDS_PER_SECOND // 20
"""Children are read as often as this at the most: that takes ten times as long."""


class Timeline:
    """Samples from `start()` to `stop()`; `begin()` and `take()` are the bounds of one test."""

    def __init__(
        self,
        interval_ns: int,
        *,
        read_rss: Callable[[], int] = platforms.rss_bytes,
        read_children: Callable[[], Iterable[Memory]] | None = None,
        clock_ns: Callable[[], int] = System.perf_counter_ns,
    ) -> None:
        self._read_rss = read_rss
        self._read_children = read_children or choose_reader()
        self._clock_ns = clock_ns
        self._lock = Lock()
        self._stopping = Event()
        self._thread: Thread | None = None
        self._running = _Samples(interval_ns)
        self._children_at_ns = 0
        self.fault: Exception | None = None
        """The last reading's failure, if any failed."""

    def start(self) -> None:
        """Start the thread."""
        self._stopping.clear()
        self._thread = Thread(target=self._run, name="imu-timeline", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        thread, self._thread = self._thread, None
        self._stopping.set()
        if thread is not None:
            thread.join()

    def begin(self) -> None:
        """Begin anew: a test begins."""
        with self._lock:
            self._running.clear()
        self.sample()

    def take(self) -> dict[str, Any]:
        """Return what was sampled since the beginning, in plain form."""
        self.sample()
        with self._lock:
            return self._running.to_dict()

    def sample(self) -> None:
        """Take one sample now; one that fails is left out."""
        with self._lock:
            now_ns = self._clock_ns()
            try:
                self._running.add_rss(now_ns, self._read_rss())
                if now_ns - self._children_at_ns >= CHILDREN_EVERY_NS:
                    self._children_at_ns = now_ns
                    children_bytes = sum(one.size_bytes for one in self._read_children())
                    self._running.add_children(now_ns, children_bytes)
            except Exception as error:  # noqa: BLE001 - whatever the reader does, the test goes on
                self.fault = error

    def _run(self) -> None:
        while not self._stopping.wait(self._running.interval_ns / NANOSECONDS_PER_SECOND):
            self.sample()


class _Samples:
    """The samples of one test, in room that is there already: else they were the test's growth."""

    def __init__(self, interval_ns: int) -> None:
        self._asked_ns = self.interval_ns = interval_ns
        self._rss = _Series()
        self._children = _Series()

    def clear(self) -> None:
        self.interval_ns = self._asked_ns
        self._rss.length = self._children.length = 0

    def add_rss(self, at_ns: int, size_bytes: int) -> None:
        self._rss.add(at_ns, size_bytes)
        if self._rss.length == MOST_SAMPLES:
            self._rss.halve()
            self._children.halve()
            self.interval_ns *= 2

    def add_children(self, at_ns: int, size_bytes: int) -> None:
        # None before the first child. While the RSS is read less often, they are too.
        if (size_bytes or self._children.length) and self._children.length < MOST_SAMPLES:
            self._children.add(at_ns, size_bytes)

    def to_dict(self) -> dict[str, Any]:
        return {
            "interval_ns": self.interval_ns,
            "rss": self._rss.pairs(),
            "children": self._children.pairs(),
        }


class _Series:
    """Times and sizes."""

    def __init__(self) -> None:
        self._times = array("q", bytes(8 * MOST_SAMPLES))
        self._sizes = array("q", bytes(8 * MOST_SAMPLES))
        self.length = 0

    def add(self, at_ns: int, size_bytes: int) -> None:
        self._times[self.length], self._sizes[self.length] = at_ns, size_bytes
        self.length += 1

    def halve(self) -> None:
        """Keep the larger one of each two."""
        for number in range(self.length // 2):
            first = 2 * number
            larger = first + (self._sizes[first + 1] > self._sizes[first])
            self._times[number], self._sizes[number] = self._times[larger], self._sizes[larger]
        self.length //= 2

    def pairs(self) -> list[list[int]]:
        """Return them in plain form."""
        return [[self._times[number], self._sizes[number]] for number in range(self.length)]
