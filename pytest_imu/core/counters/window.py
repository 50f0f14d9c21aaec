"""Counting in windows: one machine for all that can count. What counts is its back end."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from pytest_imu.core.counters.source import CannotCountError, LostError, check_event, uncounted
from pytest_imu.core.model import CountedBy, CounterReading
from pytest_imu.core.system import OwnProcess

STOPPED = "the counting was stopped inside the window"
Piece = TypeVar("Piece")
"""What a back end counted between being switched on and off."""


class BackEnd(Protocol[Piece]):
    """One set of counters of this process. What fails raises; CannotCountError says why in words."""

    name: CountedBy

    def start(self) -> None:
        """Make ready to count; called again after `stop()`, and after a LostError."""

    def is_alive(self) -> bool:
        """Tell, in microseconds, whether what was started is still there."""

    def switch_on(self) -> None:
        """Count, from 0."""

    def switch_off(self) -> None:
        """Count no more; cheap, for the block's window is still open."""

    def take(self) -> Piece:
        """Return what was counted since it was switched on."""

    def stop(self) -> None:
        """End what was started."""

    def read(self, event: str, pieces: Sequence[Piece], duration_ns: int) -> CounterReading:
        """Return what these pieces say of an event."""


class Counters(Generic[Piece]):
    """A back end's counters, which all windows share.

    Windows may nest and overlap: at every boundary what was counted since the last one is given to
    all windows that are open. Once the counting has failed, every window says why, and it is not tried
    again; but what was lost, to a test that killed it or closed its descriptors, is started anew, unless
    the next window loses it too.

    With *idle_s* the back end is ended after so many seconds without a window, and the next window
    starts it again. It takes a thread, so a test run goes without.
    """

    def __init__(self, back_end: BackEnd[Piece], *, idle_s: float | None = None) -> None:
        self.back_end = back_end
        self.open_windows: list[Window[Piece]] = []
        self._idle_s = idle_s
        self._idle_timer: threading.Timer | None = None
        self._is_running = False
        self._is_counting = False
        self._was_lost = False
        self._reason: str | None = None
        self._process = OwnProcess()
        self._lock = threading.RLock()

    def prepare(self) -> None:
        """Start the back end, where it does not run: at first, after idle time, or if it is gone."""
        self._safely(self._start)

    def open(self, window: Window[Piece]) -> None:
        """Begin to count for a window."""
        self._safely(self._open, window)

    def end(self, window: Window[Piece]) -> None:
        """Stop counting, for all windows that are open: none shall count the reading of another."""
        self._safely(self._end, window)

    def close(self, window: Window[Piece]) -> None:
        """End a window, and count on for those that are still open."""
        self._safely(self._close, window)

    def stop(self, windows: Sequence[Window[Piece]]) -> None:
        """Close some windows, whose counts are lost, and end the back end if no others are open."""
        timer = self._idle_timer
        self._safely(self._stop, *windows)
        if timer is not None and self._process.is_current:
            timer.join()  # not while the lock is held, which it may be waiting for

    def _safely(self, step: Callable[..., None], *windows: Window[Piece]) -> None:
        """Take a step; no fault in it reaches the block that is measured."""
        # Asked before the lock is: in a child its holder may be a thread that is not there.
        if not self._process.is_current:
            for window in windows:
                window.fault = f"{self.back_end.name} counts the process that forked this one"
            return
        with self._lock:
            try:
                step(*windows)
            except Exception as error:  # noqa: BLE001 - whatever it is
                self._fail(error, windows)

    def _start(self) -> None:
        self._cancel_idle()
        if self._is_running and not self.open_windows and not self.back_end.is_alive():
            self._end_back_end()
        if not self._is_running and self._reason is None:
            self.back_end.start()
            self._is_running = True
            atexit.register(self.stop, ())

    def _open(self, window: Window[Piece]) -> None:
        self._start()
        if self._reason is not None:
            window.fault = self._reason
            return
        self._collect()
        self.open_windows.append(window)
        self._switch_on()

    def _end(self, window: Window[Piece]) -> None:
        if self._is_counting and window in self.open_windows:
            self._switch_off()

    def _close(self, window: Window[Piece]) -> None:
        if window not in self.open_windows:
            return
        self._collect()
        self.open_windows.remove(window)
        self._was_lost = False
        if self.open_windows:
            self._switch_on()
        elif self._idle_s is not None:
            self._idle_timer = threading.Timer(self._idle_s, self._safely, (self._stop,))
            self._idle_timer.name = f"imu-{self.back_end.name}-idle"
            self._idle_timer.daemon = True
            self._idle_timer.start()

    def _stop(self, *windows: Window[Piece]) -> None:
        for window in windows:
            self._close(window)
            window.fault = STOPPED
        if not self.open_windows:
            self._end_back_end()

    def _collect(self) -> None:
        """Give what was counted since the last boundary to all windows that are open."""
        if not self.open_windows:
            return
        if self._is_counting:
            self._switch_off()
        piece = self.back_end.take()
        for window in self.open_windows:
            window.pieces.append(piece)

    def _switch_on(self) -> None:
        self._is_counting = True
        self.back_end.switch_on()

    def _switch_off(self) -> None:
        self.back_end.switch_off()
        self._is_counting = False

    def _fail(self, error: Exception, windows: Sequence[Window[Piece]]) -> None:
        """Remember why there are no counts: the windows that are open have lost theirs."""
        known = isinstance(error, CannotCountError)
        reason = str(error) if known else f"{self.back_end.name} failed: {type(error).__name__}: {error}"
        if not isinstance(error, LostError) or self._was_lost or not self._is_running:
            self._reason = reason
        self._was_lost = True
        for window in (*self.open_windows, *windows):
            window.fault = reason
        self.open_windows.clear()
        try:
            self._end_back_end()
        except Exception as second:  # noqa: BLE001 - what cannot be ended is not started again
            self._reason = f"{reason}; {type(second).__name__}: {second}"

    def _end_back_end(self) -> None:
        self._cancel_idle()
        self._is_counting = False
        if self._is_running:
            self._is_running = False
            atexit.unregister(self.stop)
            self.back_end.stop()

    def _cancel_idle(self) -> None:
        timer, self._idle_timer = self._idle_timer, None
        if timer is not None:
            timer.cancel()


class Window(Generic[Piece]):
    """One open window; the pieces are what was counted in it."""

    def __init__(self, source: Source[Piece]) -> None:
        self.source = source
        self.pieces: list[Piece] = []
        self.fault: str | None = None
        source.counters.open(self)

    def end(self) -> None:
        """Stop counting."""
        self.source.counters.end(self)

    def read(self, duration_ns: int) -> tuple[CounterReading, ...]:
        """Return what was counted."""
        source, back_end = self.source, self.source.counters.back_end
        source.counters.close(self)
        if self.fault is not None:
            return uncounted(source.events, self.fault, source=back_end.name)
        return tuple(back_end.read(event, self.pieces, duration_ns) for event in source.events)


class Source(Generic[Piece]):
    """Counts some events of this process, all its threads included, inside windows."""

    label: str

    def __init__(self, events: Sequence[str], counters: Counters[Piece]) -> None:
        self.events = tuple(check_event(event) for event in events)
        self.counters = counters

    def prepare(self) -> None:
        """Start whatever it takes; what fails is known before the block runs."""
        self.counters.prepare()

    def open(self) -> Window[Piece]:
        """Begin to count."""
        return Window(self)

    def stop(self) -> None:
        """Stop counting; a window of this source that is still open is lost."""
        self.counters.stop([one for one in self.counters.open_windows if one.source is self])
