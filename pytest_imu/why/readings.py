"""Charges what memory does between two readings to the lines that were running.

A thread has one window of ours open at a time. Each event (a line begins, a function is entered or
left) closes it and opens the next, so the peaks of all windows in which a line was running, in it or
in what it called, make that line's peak.
"""

from __future__ import annotations

import _thread
from dataclasses import dataclass
from types import CodeType
from typing import Any

from pytest_imu.core.memory.trim import Trimmer
from pytest_imu.core.memory.window import PeakSource
from pytest_imu.core.system import System


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often lines are read, and how little is nothing."""

    exact_hits: int = 100
    """So often a line is read at each hit, however short it is."""
    short_ns: int = 50_000
    """What was read so lately need not be read again: in that time at most 0.4 MiB can be touched."""
    quiet_ns: int = 400_000
    """The same where nothing moves: each reading that finds nothing doubles the time to the next."""
    nothing: int = 2**14
    """What is under this is nothing: a line that appends small numbers moves more meanwhile."""
    worth: int = 2**19
    """What is worth to look for where it came from."""


OF_MEMORY = Pace()
Lines = dict[int, "Line"]
clock_ns = System.perf_counter_ns


class Line:
    """What is known of one line so far."""

    __slots__ = (
        "hits",
        "is_off",
        "kept_bytes",
        "most_kept_bytes",
        "number",
        "peak_bytes",
        "shared_bytes",
        "total_bytes",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_off = False
        """Whether it was switched off once: then it has had more hits than were counted."""
        self.hits = self.kept_bytes = self.peak_bytes = self.shared_bytes = self.total_bytes = 0
        self.most_kept_bytes: int | None = None


class Readings:
    """All that is read in one run, in all of its threads.

    Sizes are *net*: RSS without what this profiler itself has taken, as far as that can be told.
    """

    _other_threads = staticmethod(_thread._count)  # noqa: SLF001 - threading would have to be imported
    _this_thread = staticmethod(_thread.get_ident)

    def __init__(
        self, source: PeakSource[Any], pace: Pace = OF_MEMORY, trimmer: Trimmer | None = None
    ) -> None:
        self.source = source
        self.pace = pace
        self._trimmer = trimmer
        self._settle = None if trimmer is None else trimmer.settled_rss
        self.files: dict[str, Lines] = {}
        self.own_bytes = 0
        self.highest_bytes = 0
        self.chain: list[tuple[Lines, Line, int]] = []
        """The running lines when the highest RSS was reached: of which file, which, and its peak."""
        self.fault: Exception | None = None
        self._threads: dict[int, ThreadReadings] = {}
        self._whole: Any = None  # Any: what the source gave is its own business
        self.whole: Any = None
        """What the source says of the whole run, once it has ended."""

    def begin(self) -> None:
        """Begin to read; raises OSError or ValueError where memory cannot be read."""
        self._whole = self.source.open(self._settle)

    def open(self) -> Any:
        """Open a window; None where that fails, for no fault of the measuring reaches the code."""
        try:
            return self.source.open()
        except Exception as error:  # noqa: BLE001 - as said
            self.fault = self.fault or error.with_traceback(None)
            return None

    def close(self, window: Any) -> tuple[int, int] | None:
        """Close a window; return the RSS now and the highest in it, None where that fails."""
        try:
            sizes = self.source.close(window, self._settle)
        except Exception as error:  # noqa: BLE001 - as in open()
            self.fault = self.fault or error.with_traceback(None)
            return None
        return sizes.after_bytes or 0, sizes.rss_peak_bytes or 0

    def end(self) -> None:
        """Read no more."""
        for thread in self._threads.values():
            thread.end()
        self.whole = self.source.close(self._whole, self._settle)

    def thread(self) -> ThreadReadings:
        """Return the readings of this thread."""
        number = self._this_thread()
        found = self._threads.get(number)
        if found is None:
            found = self._threads[number] = ThreadReadings(self)
        return found

    def note_own(self, size_bytes: int) -> None:
        """Take in what RSS did between two windows: it is this profiler's, unless there are others."""
        if size_bytes and not self._other_threads():
            self.own_bytes += size_bytes
            if self._trimmer is not None:
                self._trimmer.leave_out(size_bytes)


class ThreadReadings:
    """The windows of one thread, and the functions in it that are running."""

    __slots__ = (
        "_after_bytes",
        "_window",
        "due_ns",
        "gap_ns",
        "is_shared",
        "net_bytes",
        "readings",
        "running",
    )

    def __init__(self, readings: Readings) -> None:
        self.readings = readings
        self.running: list[Running] = []
        self.net_bytes = 0
        """At the last reading."""
        self.gap_ns = readings.pace.short_ns
        self.due_ns = 0
        """Before this time there is no need for another."""
        self.is_shared = False
        """Whether lines were passed without a reading since the last one."""
        self._window: Any = None
        self._after_bytes = 0

    def close_window(self) -> None:
        """Read what memory has done since the last event, for the function that runs."""
        readings, window = self.readings, self._window
        if window is None:
            return
        self._window = None
        found = readings.close(window)
        if found is None:
            return
        is_quiet = found == (self._after_bytes, self._after_bytes)
        pace = readings.pace
        self.gap_ns = min(2 * self.gap_ns, pace.quiet_ns) if is_quiet else pace.short_ns
        self._after_bytes = found[0]
        net_bytes = found[0] - readings.own_bytes
        if net_bytes != self.net_bytes:  # one number for all lines that it holds for, not one each
            self.net_bytes = net_bytes
        highest_bytes = found[1] - readings.own_bytes
        top = self.running[-1]
        top.highest_bytes = max(top.highest_bytes, highest_bytes)
        if highest_bytes > readings.highest_bytes:
            readings.highest_bytes = highest_bytes
            readings.chain = [
                (one.lines, one.line, max(0, highest_bytes - one.before_bytes))
                for one in self.running
                if one.line is not None
            ]

    def open_window(self) -> None:
        """Begin the next window, unless no function runs that is read."""
        if self.running:
            readings = self.readings
            self._window = window = readings.open()
            if window is not None:
                readings.note_own(window.before_bytes - self._after_bytes)
                self._after_bytes = window.before_bytes
            self.is_shared = False
            self.due_ns = clock_ns() + self.gap_ns

    def enter(self, function: Running) -> None:
        """Take in that a function begins, or goes on after it has yielded."""
        if self._window is None:  # the first of this thread
            self.running.append(function)
            self._window = window = self.readings.open()
            if window is not None:
                self._after_bytes = window.before_bytes
                self.net_bytes = window.before_bytes - self.readings.own_bytes
            function.begin_at(self.net_bytes)
        elif clock_ns() >= self.due_ns:
            self.close_window()
            self.running.append(function)
            function.begin_at(self.net_bytes)
            self.open_window()
        else:
            self.running.append(function)
            function.begin_at(self.net_bytes)

    def leave(self, function: Running) -> None:
        """Take in that a function ends or yields, and so does whatever is running in it."""
        running = self.running
        if function not in running:
            return
        is_read = clock_ns() >= self.due_ns or running[0] is function
        if is_read:
            self.close_window()
        ended = None
        while ended is not function:
            ended = running[-1]
            ended.end_line()
            running.pop()
        if is_read:
            self.open_window()
        if running and (running[-1].highest_bytes, self.net_bytes) != (running[-1].before_bytes,) * 2:
            self.due_ns = 0  # the line that has called it takes what it kept at its own end

    def end(self) -> None:
        """End all that runs."""
        if self.running:
            self.leave(self.running[0])


class Running:
    """One function that is running: where it is, and what was there when that line began."""

    __slots__ = ("before_bytes", "code", "highest_bytes", "line", "lines", "thread")

    def __init__(self, thread: ThreadReadings, lines: Lines, code: CodeType) -> None:
        self.thread = thread
        self.code = code
        self.lines = lines
        self.line: Line | None = None
        self.before_bytes = self.highest_bytes = 0

    def begin_at(self, net_bytes: int) -> None:
        """Begin what is told apart from what came before: a line, or all that precedes the first."""
        self.before_bytes = self.highest_bytes = net_bytes

    def line_at(self, number: int) -> Line:
        """Return what is known of a line.

        One that is new ends the window first: what it takes to note it is not the running line's.
        """
        line = self.lines.get(number)
        if line is None:
            self.thread.close_window()
            line = self.lines[number] = Line(number)
        return line

    def reach(self, line: Line) -> None:
        """Take in that a line begins, and with it the line before has ended; read what that did."""
        thread = self.thread
        line.hits += 1
        thread.close_window()
        self.end_line()
        self.line = line
        self.begin_at(thread.net_bytes)
        thread.open_window()
        if line.hits <= thread.readings.pace.exact_hits:
            thread.due_ns = 0

    def end_line(self) -> None:
        """Charge the line that is running with what memory has done since it began."""
        line, running = self.line, self.thread.running
        if len(running) > 1 and running[-1] is self:
            caller = running[-2]
            caller.highest_bytes = max(caller.highest_bytes, self.highest_bytes)
        if line is None:
            return
        net_bytes = line.total_bytes = self.thread.net_bytes
        line.peak_bytes = max(line.peak_bytes, self.highest_bytes - self.before_bytes)
        kept_bytes = net_bytes - self.before_bytes
        if kept_bytes:
            most_bytes = line.most_kept_bytes
            line.most_kept_bytes = kept_bytes if most_bytes is None else max(most_bytes, kept_bytes)
            if self.thread.is_shared:
                line.shared_bytes += abs(kept_bytes)
            # In a function that calls itself the outermost line has all of it already.
            if not any(one.line is line for one in running if one is not self):
                line.kept_bytes += kept_bytes
