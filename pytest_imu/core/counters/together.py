"""Several sources as one: each counts some of the events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_imu.core.counters.source import CounterSource, CounterWindow

if TYPE_CHECKING:
    from pytest_imu.core.model import CounterReading


class Together:
    """Counts with several sources. The last one's window lies innermost: none of the others is in it."""

    def __init__(self, events: Sequence[str], parts: Sequence[CounterSource]) -> None:
        self.events = tuple(events)
        self._parts = tuple(parts)
        self.label = " and ".join(part.label for part in reversed(parts))

    def prepare(self) -> None:
        """Start whatever it takes."""
        for part in self._parts:
            part.prepare()

    def open(self) -> CounterWindow:
        """Begin to count."""
        return _Windows(self.events, [part.open() for part in self._parts])

    def stop(self) -> None:
        """End whatever was started."""
        for part in self._parts:
            part.stop()

    def anew(self) -> Together:
        """Return the same for a process that was forked from this one."""
        return Together(self.events, [part.anew() for part in self._parts])


class _Windows:
    """The window of each source."""

    def __init__(self, events: Sequence[str], windows: Sequence[CounterWindow]) -> None:
        self._events = events
        self._windows = windows

    def end(self) -> None:
        """Stop counting."""
        for window in reversed(self._windows):
            window.end()

    def read(self, duration_ns: int) -> tuple[CounterReading, ...]:
        """Return what was counted."""
        readings = [reading for window in self._windows for reading in window.read(duration_ns)]
        by_event = {reading.event: reading for reading in readings}
        return tuple(by_event[event] for event in self._events)
