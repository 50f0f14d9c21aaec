"""callgrind as a source of counts: simulated caches, where this process runs under valgrind."""

from __future__ import annotations

import gc
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pytest_imu.core.callgrind_command import running_tool, valgrind_arguments
from pytest_imu.core.callgrind_dumps import Dumps
from pytest_imu.core.callgrind_output import Dump, public_count
from pytest_imu.core.callgrind_requests import CallgrindUnavailableError, Requests
from pytest_imu.core.counters import check_event, uncounted
from pytest_imu.core.model import CounterReading

MIN_VERSION = (3, 19)
WARM_UP_WINDOWS = 2
FORKED = "callgrind counts the process that forked this one"


class Sender(Protocol):
    """Something that gives orders to the valgrind around this process."""

    def __call__(self, *orders: str) -> None:
        """Return when they were obeyed; CallgrindUnavailableError says why they were not."""


class Callgrind:
    """Counts events of this process, all its threads included, inside windows, by simulation.

    Every window begins with empty caches, and right after a garbage collection where those are not
    switched off: what counts is the block, and not what ran before it. Windows may nest and overlap: at
    every boundary what was counted since the last one is given to all windows that are open, and the
    caches are emptied. Once callgrind has failed, every window says why, and it is not tried again.
    """

    label = "callgrind, simulated caches"

    def __init__(
        self,
        events: Sequence[str],
        *,
        tool: Callable[[], str | None] = running_tool,
        sender: Sender | None = None,
        take_dump: Callable[[], Dump] | None = None,
    ) -> None:
        self.events = tuple(check_event(event) for event in events)
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

    def open(self) -> CallgrindWindow:
        """Begin to count."""
        window = CallgrindWindow(self)
        self.prepare()
        if self._is_forked_child:
            return window
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
        return window

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

    def read(self, window: CallgrindWindow) -> tuple[CounterReading, ...]:
        """Return what the window counted, and go on counting for the windows that are still open."""
        if self._is_forked_child:
            return uncounted(self.events, FORKED, source="callgrind")
        with self._lock:
            if window in self._open_windows:
                self._close(window)
        if self._reason is not None:
            return uncounted(self.events, self._reason, source="callgrind")
        return tuple(reading_of(event, window.costs) for event in self.events)

    def _close(self, window: CallgrindWindow) -> None:
        try:
            self._collect()
            self._open_windows.remove(window)
            if self._open_windows:
                self._switch_on()
        except Exception as error:  # noqa: BLE001 - no fault of valgrind reaches the block
            self._fail(error)

    def stop(self) -> None:
        """Stop counting; valgrind itself goes on as long as the process."""
        if self._is_forked_child:
            return
        with self._lock:
            self._open_windows.clear()
            try:
                if self._counting:
                    self._switch_off()
            except Exception as error:  # noqa: BLE001 - no fault of valgrind reaches the block
                self._fail(error)

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


class CallgrindWindow:
    """One open window on a Callgrind."""

    def __init__(self, source: Callgrind) -> None:
        self._source = source
        self.costs: Counter[str] = Counter()

    def end(self) -> None:
        """Stop counting."""
        self._source.end(self)

    def read(self, duration_ns: int) -> tuple[CounterReading, ...]:  # noqa: ARG002 - simulated time means nothing
        """Return what was counted."""
        return self._source.read(self)


def reading_of(event: str, costs: Mapping[str, int]) -> CounterReading:
    """Return one event's total; a rate would be per second of a slowed-down program."""
    count = public_count(event, costs)
    if isinstance(count, str):
        return CounterReading(event=event, value=None, reason=count, source="callgrind")
    return CounterReading(event=event, value=count, source="callgrind")
