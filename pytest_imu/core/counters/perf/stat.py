"""`perf stat` as a source of counts: one perf a session, switched on for each window only."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pytest_imu.core.counters.perf.command import PerfCommand, PerfUnavailableError, find_perf
from pytest_imu.core.counters.perf.output import (
    NOT_BELIEVED,
    NOT_COUNTED,
    NOT_SUPPORTED,
    EventSample,
    parse,
)
from pytest_imu.core.counters.source import check_event, uncounted
from pytest_imu.core.model import CounterReading
from pytest_imu.core.units import NANOSECONDS_PER_SECOND

if TYPE_CHECKING:
    from pytest_imu.core.counters.perf.process import PerfProcess

SAMPLE_S = 0.1
"""How long one of the samples that are shown is: as in the ancestor's reports."""


class PerfStat:
    """Counts events of this process, all its threads included, inside windows.

    Windows may nest and overlap: at every boundary what was counted since the last one is given to
    all windows that are open. A boundary inside an open window costs a tick, which is not counted.
    Once perf has failed, every window says why, and perf is not tried again.

    perf writes a line a tick also while nothing is counted. Where windows may be far apart, in a
    notebook that stays open for days, *idle_s* ends it after so many seconds without a window, and
    the next window starts it again. It takes a thread, so a test run goes without.
    """

    def __init__(
        self,
        events: Sequence[str],
        *,
        find: Callable[[], PerfCommand] = find_perf,
        idle_s: float | None = None,
    ) -> None:
        self.events = tuple(check_event(event) for event in events)
        self.label = "perf stat"
        self._find = find
        self._idle_s = idle_s
        self._process: PerfProcess | None = None
        self._reason: str | None = None
        self._refused: dict[str, str] = {}
        self._open_windows: list[PerfWindow] = []
        self._counting = False
        self._idle_timer: threading.Timer | None = None
        self._pid = os.getpid()
        self._lock = threading.RLock()

    def prepare(self) -> None:
        """Start perf, if it does not run: the first time, and after a long idle time."""
        if self._is_forked_child:
            return
        with self._lock:
            self._cancel_idle()
            try:
                if self._process is None and self._reason is None:
                    self._process = self._start()
            except Exception as error:  # noqa: BLE001 - no fault of perf reaches the block
                self._fail(error)

    def open(self) -> PerfWindow:
        """Begin to count."""
        window = PerfWindow(self)
        self.prepare()
        if self._is_forked_child:
            return window
        with self._lock:
            try:
                if self._process is not None:
                    self._collect()
                    self._open_windows.append(window)
                    self._process.enable()
                    self._counting = True
            except Exception as error:  # noqa: BLE001 - no fault of perf reaches the block
                self._fail(error)
        return window

    def end(self, window: PerfWindow) -> None:
        """Stop counting, for all windows that are open: none shall count the reading of another."""
        if self._is_forked_child:
            return
        with self._lock:
            try:
                if self._counting and window in self._open_windows and self._process is not None:
                    self._process.disable()
                    self._counting = False
            except Exception as error:  # noqa: BLE001 - no fault of perf reaches the block
                self._fail(error)

    def read(self, window: PerfWindow, duration_ns: int) -> tuple[CounterReading, ...]:
        """Return what the window counted, and go on counting for the windows that are still open."""
        if self._is_forked_child:
            return uncounted(self.events, "perf counts the process that forked this one")
        with self._lock:
            if window in self._open_windows:
                self._close(window)
        if self._reason is not None:
            return uncounted(self.events, self._reason)
        return tuple(
            CounterReading(event=event, value=None, reason=self._refused[event])
            if event in self._refused
            else reading_of(event, window.samples, duration_ns)
            for event in self.events
        )

    def _close(self, window: PerfWindow) -> None:
        try:
            self._collect()
            self._open_windows.remove(window)
            if self._open_windows and self._process is not None:
                self._process.enable()
                self._counting = True
            else:
                self._stop_when_idle()
        except Exception as error:  # noqa: BLE001 - no fault of perf reaches the block
            self._fail(error)

    def stop(self) -> None:
        """End perf; a later window would start it again."""
        if self._is_forked_child:
            return
        with self._lock:
            self._cancel_idle()
            process, self._process = self._process, None
            self._counting = False
            self._open_windows.clear()
            if process is not None:
                atexit.unregister(self.stop)
                process.stop()

    @property
    def _is_forked_child(self) -> bool:
        # Asked before the lock is: in a child its holder may be a thread that is not there.
        return os.getpid() != self._pid

    def _start(self) -> PerfProcess:
        command = self._find()
        from pytest_imu.core.counters.perf.process import PerfProcess

        atexit.register(self.stop)
        try:
            return PerfProcess.started(command, self.events)
        except PerfUnavailableError:
            if len(self.events) == 1:
                raise
        # One event that perf refuses makes it refuse all: find out which, and count the others.
        for event in self.events:
            try:
                PerfProcess.started(command, [event]).stop()
            except PerfUnavailableError as error:
                self._refused[event] = str(error)
        accepted = [event for event in self.events if event not in self._refused]
        if not accepted:
            raise PerfUnavailableError(self._refused[self.events[0]])
        return PerfProcess.started(command, accepted)

    def _collect(self) -> None:
        """Give what was counted since the last boundary to all windows that are open."""
        if self._process is None or not self._open_windows:
            return
        if self._counting:
            self._process.disable()
            self._counting = False
        samples = parse(self._process.take_output(), events=self.events)
        for window in self._open_windows:
            window.samples += samples

    def _fail(self, error: Exception) -> None:
        """Remember why nothing can be counted from here on; the open windows have lost their counts."""
        known = isinstance(error, PerfUnavailableError)
        self._reason = str(error) if known else f"perf failed: {type(error).__name__}: {error}"
        self.stop()

    def _stop_when_idle(self) -> None:
        if self._idle_s is not None:
            self._idle_timer = threading.Timer(self._idle_s, self._stop_if_idle)
            self._idle_timer.name = "imu-perf-idle"
            self._idle_timer.daemon = True
            self._idle_timer.start()

    def _stop_if_idle(self) -> None:
        with self._lock:
            if not self._open_windows:
                self.stop()

    def _cancel_idle(self) -> None:
        timer, self._idle_timer = self._idle_timer, None
        if timer is not None:
            timer.cancel()


class PerfWindow:
    """One open window on a PerfStat."""

    def __init__(self, source: PerfStat) -> None:
        self._source = source
        self.samples: list[EventSample] = []

    def end(self) -> None:
        """Stop counting."""
        self._source.end(self)

    def read(self, duration_ns: int) -> tuple[CounterReading, ...]:
        """Return what was counted."""
        return self._source.read(self, duration_ns)


def reading_of(event: str, samples: Sequence[EventSample], duration_ns: int) -> CounterReading:
    """Return one event's total, rate, share of time on the hardware and samples of 100 ms."""
    own = [sample for sample in samples if sample.event == event]
    counted = [sample for sample in own if sample.value is not None]
    reasons = {sample.reason for sample in own}
    if NOT_BELIEVED in reasons:
        return CounterReading(event=event, value=None, reason=NOT_BELIEVED)
    if not counted:
        supported = "not supported by this machine" if NOT_SUPPORTED in reasons else NOT_COUNTED
        return CounterReading(event=event, value=None, reason=supported)
    value = _tidy(sum(sample.value or 0 for sample in counted))
    percents = [one.running_percent for one in counted if one.running_percent is not None]
    return CounterReading(
        event=event,
        value=value,
        per_second=value * NANOSECONDS_PER_SECOND / duration_ns if duration_ns else None,
        running_percent=sum(percents) / len(percents) if percents else None,
        samples=tuple(_regrouped(counted)),
    )


def _regrouped(counted: Sequence[EventSample]) -> list[float]:
    """Return the sums of the ticks in each tenth of a second."""
    start_s = counted[0].offset_s
    sums: dict[int, float] = {}
    for sample in counted:
        tenth = int((sample.offset_s - start_s) / SAMPLE_S)
        sums[tenth] = sums.get(tenth, 0.0) + (sample.value or 0)
    return [_tidy(total) for total in sums.values()]


def _tidy(total: float) -> float:
    """Return a count as the whole number it is, and milliseconds without the dust of adding them."""
    return int(total) if total == int(total) else round(total, 6)
