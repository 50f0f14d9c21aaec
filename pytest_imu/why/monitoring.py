"""Follows lines by `sys.monitoring` (Python 3.12), which can switch off those that never move memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType
from typing import Any

from pytest_imu.why.readings import Line, Lines, Readings, Running, clock_ns

QUIET_HITS = 1_000
"""Each time it has had so many more hits for nothing, a line is switched off."""
NAME = "pytest-imu"
EVENTS = ("PY_START", "PY_RESUME", "PY_THROW", "PY_RETURN", "PY_YIELD", "PY_UNWIND", "LINE")
TOOLS = (2, 3, 4)
"""The numbers that are taken: a profiler's own, and those that are nobody's."""


class Monitor:
    """The callbacks. What they are told is which code, and not which frame: that is the innermost."""

    _api: Any = getattr(sys, "monitoring", None)  # Any: not there before Python 3.12
    _frame = staticmethod(sys._getframe)  # noqa: SLF001 - its name is Python's

    def __init__(self, readings: Readings, lines_of: Callable[[CodeType], Lines | None]) -> None:
        self._readings = readings
        self._lines_of = lines_of
        self._tool: int | None = None
        self._codes: set[CodeType] = set()
        self._with_lines_off: set[CodeType] = set()

    @classmethod
    def is_free(cls) -> bool:
        """Whether Python has monitoring, and there is room for one more tool."""
        return cls._api is not None and any(cls._api.get_tool(tool) is None for tool in TOOLS)

    def begin(self) -> None:
        """Begin to follow all threads."""
        api, events = self._api, self._api.events
        self._tool = tool = next(tool for tool in TOOLS if api.get_tool(tool) is None)
        api.use_tool_id(tool, NAME)
        self._register(
            PY_START=self._start,
            PY_RESUME=self._resume,
            PY_THROW=self._resume,
            PY_RETURN=self._leave,
            PY_YIELD=self._leave,
            PY_UNWIND=self._leave,
            LINE=self._line,
        )
        api.restart_events()  # what an earlier run has switched off
        api.set_events(tool, events.PY_START | events.PY_THROW | events.PY_UNWIND)

    def end(self) -> None:
        """Follow no more."""
        api, tool = self._api, self._tool
        if api.get_tool(tool) == NAME:
            api.set_events(tool, 0)
            for code in self._codes:
                api.set_local_events(tool, code, 0)
            self._register(**dict.fromkeys(EVENTS))
            api.free_tool_id(tool)

    def _register(self, **callbacks: Callable[..., object] | None) -> None:
        for event, callback in callbacks.items():
            self._api.register_callback(self._tool, getattr(self._api.events, event), callback)

    def _start(self, code: CodeType, _: int) -> object:
        lines = self._lines_of(code)
        if lines is None:
            return self._api.DISABLE
        if code not in self._codes:
            self._codes.add(code)
            events = self._api.events
            local = events.LINE | events.PY_RESUME | events.PY_RETURN | events.PY_YIELD
            self._api.set_local_events(self._tool, code, local)
        thread = self._readings.thread()
        if thread.running and thread.running[-1].code in self._with_lines_off:
            self._find_caller(thread.running[-1])
        thread.enter(Running(thread, lines, code))
        return None

    def _find_caller(self, caller: Running) -> None:
        """Ask where a function is that calls another: its line may be switched off."""
        frame = self._frame(2).f_back
        if frame is not None and frame.f_code is caller.code and frame.f_lineno is not None:
            line = caller.line_at(frame.f_lineno)
            if line is not caller.line:
                self._mark_shared(caller)
                caller.reach(line)

    def _resume(self, code: CodeType, *_: object) -> None:
        """Go on in the line that has yielded, which is the same hit of it."""
        lines = self._lines_of(code)
        if lines is not None:
            thread = self._readings.thread()
            function = Running(thread, lines, code)
            function.line = lines.get(self._frame(1).f_lineno)
            thread.enter(function)

    def _leave(self, code: CodeType, *_: object) -> None:
        if code not in self._codes:  # an exception leaves any
            return
        thread = self._readings.thread()
        function = next((one for one in reversed(thread.running) if one.code is code), None)
        if function is not None:
            before_bytes = self._mark_shared(function)
            thread.leave(function)
            self._look_again(code, thread.net_bytes - before_bytes)
            if thread.running:  # that line of the caller shall end at the next, and not later
                caller = thread.running[-1]
                self._look_again(caller.code, caller.highest_bytes - caller.before_bytes)

    def _line(self, code: CodeType, number: int) -> object:
        thread = self._readings.thread()
        function = thread.running[-1] if thread.running else None
        if function is None or function.code is not code:
            return None
        line = function.line_at(number)
        if line is function.line and code not in self._with_lines_off:
            return self._api.DISABLE  # a loop in one line: it goes on
        if line.hits >= self._readings.pace.exact_hits and clock_ns() < thread.due_ns:
            line.hits += 1
            thread.is_shared = True
            function.line = line
            if line.hits % QUIET_HITS == 0 and self._is_quiet(line):
                line.is_off = True
                self._with_lines_off.add(code)
                return self._api.DISABLE
        else:
            before_bytes = self._mark_shared(function)
            function.reach(line)
            self._look_again(code, thread.net_bytes - before_bytes)
        return None

    def _is_quiet(self, line: Line) -> bool:
        nothing = self._readings.pace.nothing
        return line.peak_bytes < nothing and -nothing < line.kept_bytes < nothing

    def _mark_shared(self, function: Running) -> int:
        """Note that what ends may be another line's, where lines are switched off; return its start."""
        if function.code in self._with_lines_off:
            function.thread.is_shared = True
        return function.before_bytes

    def _look_again(self, code: CodeType, moved_bytes: int) -> None:
        """Switch all lines on again where a function has moved memory in a line that nobody saw."""
        if code in self._with_lines_off and abs(moved_bytes) >= self._readings.pace.worth:
            self._with_lines_off.clear()
            self._api.restart_events()
