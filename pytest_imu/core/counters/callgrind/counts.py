"""callgrind as a source of counts: simulated caches, where this process runs under valgrind."""

from __future__ import annotations

import functools
import gc
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pytest_imu.core.counters.callgrind.command import MIN_VERSION, running_tool, valgrind_arguments
from pytest_imu.core.counters.callgrind.dumps import Dump, Dumps, public_count
from pytest_imu.core.counters.callgrind.requests import CallgrindUnavailableError, Requests
from pytest_imu.core.counters.source import check_event, uncounted
from pytest_imu.core.model import CounterReading

WARM_UP_WINDOWS = 2
FORKED = "callgrind counts the process that forked this one"
STOPPED = "the counting was stopped inside the window"


class Sender(Protocol):
    """Something that gives orders to the valgrind around this process."""

    def __call__(self, *orders: str) -> None:
        """Return when they were obeyed; CallgrindUnavailableError says why they were not."""


class ProcessCounts:
    """What valgrind counts of this process: one set of counters, which all windows share.

    At every boundary of a window what was counted since the last one is given to all windows that are
    open, and the caches are emptied. Once callgrind has failed, every window says why, and it is not
    tried again.
    """

    def __init__(
        self,
        *,
        tool: Callable[[], str | None] = running_tool,
        sender: Sender | None = None,
        take_dump: Callable[[], Dump] | None = None,
    ) -> None:
        self._tool = tool
        self._start_folder = Path.cwd()  # now, before a test changes it
        self._sender = sender
        self._take_dump = take_dump
        self._is_ready = False
        self._reason: str | None = None
        self._open_windows: list[CallgrindWindow] = []
        self._counting = False
        self._pid = os.getpid()
        self._lock = threading.RLock()

    def prepare(self) -> None:
        """Count nothing, the first time: it shows whether all of it works."""
        if self._is_forked_child or self._is_ready or self._reason is not None:
            return
        with self._lock:
            try:
                self._start()
            except Exception as error:  # noqa: BLE001 - no fault of valgrind reaches the block
                self._fail(error)

    def open(self, window: CallgrindWindow) -> None:
        """Begin to count for a window."""
        self.prepare()
        if self._is_forked_child:
            return
        with self._lock:
            try:
                if self._is_ready:
                    self._collect()
                    if not self._open_windows and gc.isenabled():
                        # Else it is chance whether the block meets a collection of all objects.
                        gc.collect()
                    self._open_windows.append(window)
                    self._switch_on()
            except Exception as error:  # noqa: BLE001 - no fault of valgrind reaches the block
                self._fail(error)

    def end(self, window: CallgrindWindow) -> None:
        """Stop counting, for all windows that are open: none shall count the reading of another."""
        if self._is_forked_child:
            return
        with self._lock:
            try:
                if self._counting and window in self._open_windows:
                    self._switch_off()
            except Exception as error:  # noqa: BLE001 - no fault of valgrind reaches the block
                self._fail(error)

    def close(self, window: CallgrindWindow) -> str | None:
        """End a window, and count on for those that are still open; return why it has no counts."""
        if self._is_forked_child:
            return FORKED
        with self._lock:
            if window in self._open_windows:
                self._close(window)
        return self._reason

    def _close(self, window: CallgrindWindow) -> None:
        try:
            self._collect()
            self._open_windows.remove(window)
            if self._open_windows:
                self._switch_on()
        except Exception as error:  # noqa: BLE001 - no fault of valgrind reaches the block
            self._fail(error)

    def stop(self, source: Callgrind) -> None:
        """End one source's windows; valgrind itself goes on as long as the process."""
        if self._is_forked_child:
            return
        with self._lock:
            for window in [one for one in self._open_windows if one.source is source]:
                window.fault = STOPPED
                self._close(window)

    @property
    def _is_forked_child(self) -> bool:
        # Asked before the lock is: in a child its holder may be a thread that is not there.
        return os.getpid() != self._pid

    def _start(self) -> None:
        tool = self._tool()
        if tool != "callgrind":
            around = "no valgrind runs this process" if tool is None else f"valgrind runs {tool}"
            message = f"{around}, not callgrind"
            raise CallgrindUnavailableError(message)
        if self._sender is None:
            self._sender = Requests()
        if self._take_dump is None:
            self._take_dump = Dumps(
                valgrind_arguments(), pid=self._pid, start_folder=self._start_folder
            ).take
        # Two windows of nothing: what fails is known before the block runs, and what is slow only
        # the first time, the interpreter's specialising included, is in no window.
        for _ in range(WARM_UP_WINDOWS):
            self._switch_on()
            self._switch_off()
            self._take()
        self._is_ready = True

    def _collect(self) -> None:
        """Give what was counted since the last boundary to all windows that are open."""
        if not self._open_windows:
            return
        if self._counting:
            self._switch_off()
        costs = self._take().costs
        for window in self._open_windows:
            window.costs.update(costs)

    def _take(self) -> Dump:
        self._send("dump")
        if self._take_dump is None:
            message = "callgrind has not been started"
            raise CallgrindUnavailableError(message)
        dump = self._take_dump()
        if dump.version < MIN_VERSION:
            message = "valgrind {}.{} is older than {}.{}".format(*dump.version, *MIN_VERSION)
            raise CallgrindUnavailableError(message)
        return dump

    def _switch_on(self) -> None:
        self._counting = True
        self._send("zero", "start")

    def _switch_off(self) -> None:
        self._send("stop")
        self._counting = False

    def _send(self, *orders: str) -> None:
        if self._sender is not None:
            self._sender(*orders)

    def _fail(self, error: Exception) -> None:
        """Remember why nothing can be counted from here on; the open windows have lost their counts."""
        known = isinstance(error, CallgrindUnavailableError)
        self._reason = str(error) if known else f"callgrind failed: {type(error).__name__}: {error}"
        self._is_ready = False
        self._counting = False
        self._open_windows.clear()


@functools.lru_cache(maxsize=1)
def process_counts(pid: int) -> ProcessCounts:  # noqa: ARG001 - what a fork inherits is another process's
    """Return the one set of counters of this process, whose id is *pid*."""
    return ProcessCounts()


class Callgrind:
    """Counts events of this process, all its threads included, inside windows, by simulation.

    Every window begins with empty caches, and right after a garbage collection where those are not
    switched off: what counts is the block, and not what ran before it. Windows may nest and overlap,
    also with those of another source in this process.
    """

    label = "callgrind, simulated caches"

    def __init__(self, events: Sequence[str], *, counts: ProcessCounts | None = None) -> None:
        self.events = tuple(check_event(event) for event in events)
        self._counts = process_counts(os.getpid()) if counts is None else counts

    def prepare(self) -> None:
        """Count nothing, the first time: it shows whether all of it works."""
        self._counts.prepare()

    def open(self) -> CallgrindWindow:
        """Begin to count."""
        window = CallgrindWindow(self, self._counts)
        self._counts.open(window)
        return window

    def stop(self) -> None:
        """Stop counting; a window that is still open is lost."""
        self._counts.stop(self)


class CallgrindWindow:
    """One open window on a Callgrind."""

    def __init__(self, source: Callgrind, counts: ProcessCounts) -> None:
        self.source = source
        self.costs: Counter[str] = Counter()
        self.fault: str | None = None
        self._counts = counts

    def end(self) -> None:
        """Stop counting, for all windows that are open: none shall count the reading of another."""
        self._counts.end(self)

    def read(self, duration_ns: int) -> tuple[CounterReading, ...]:  # noqa: ARG002 - simulated time means nothing
        """Return what was counted."""
        fault = self._counts.close(self) or self.fault
        if fault is not None:
            return uncounted(self.source.events, fault, source="callgrind")
        return tuple(reading_of(event, self.costs) for event in self.source.events)


def reading_of(event: str, costs: Mapping[str, int]) -> CounterReading:
    """Return one event's total; a rate would be per second of a slowed-down program."""
    count = public_count(event, costs)
    if isinstance(count, str):
        return CounterReading(event=event, value=None, reason=count, source="callgrind")
    return CounterReading(event=event, value=count, source="callgrind")
