"""A line profiler with exact peaks: memory_profiler's machinery, our windows."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Self

from pytest_imu.core.memory.allowance import Allowance
from pytest_imu.core.memory.source import peak_source
from pytest_imu.core.memory.trim import trimmer_within
from pytest_imu.core.memory.window import PeakSource
from pytest_imu.why.monitoring import Monitor
from pytest_imu.why.profile import CountProfile, LineProfile
from pytest_imu.why.readings import (
    OF_MEMORY,
    Line,
    Lines,
    Pace,
    Readings,
    Running,
    ThreadReadings,
    clock_ns,
)
from pytest_imu.why.result import counts_of, profile_of

OURS = str(Path(__file__).parents[1])
LIBRARIES = ("site-packages", "dist-packages")
TRIM_SHARE = 0.1
"""How much of the time trims may take that bring nothing back: what is followed is no clock anyway."""
INLINED = frozenset(("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"))
"""What is read as a part of the line that it stands in: Python 3.12 has made most of them that."""


@contextlib.contextmanager
def _without_ipython() -> Iterator[None]:
    """Keep memory_profiler from importing IPython, only to declare magics of its own."""
    if "IPython" in sys.modules:
        yield
        return
    absent: Any = None
    sys.modules["IPython"] = absent
    try:
        yield
    finally:
        del sys.modules["IPython"]


if TYPE_CHECKING:
    import memory_profiler
else:
    with _without_ipython():
        import memory_profiler


class Code(memory_profiler.CodeMap):  # type: ignore[misc]  # it has no types
    """Which code is read, and its lines: of the functions added, and of the files that are *wanted*.

    Unlike memory_profiler's own it takes functions that are in no file, as those of a notebook.
    """

    def __init__(self, files: dict[str, Lines], wanted: Callable[[str], bool]) -> None:
        super().__init__(include_children=False, backend="psutil")
        self._files = files
        self._wanted = wanted

    def add(self, code: CodeType, toplevel_code: CodeType | None = None) -> None:  # noqa: ARG002 - theirs
        """Read a function's lines, and those of the functions in it."""
        self[code] = None if code.co_name in INLINED else self._files.setdefault(code.co_filename, {})
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                self.add(inner)

    def __missing__(self, code: CodeType) -> Lines | None:
        """Return the lines of code that is seen for the first time; None where it is not read."""
        if self._wanted(code.co_filename):
            self.add(code)
        else:
            self[code] = None
        lines: Lines | None = self[code]
        return lines


class LineProfiler(memory_profiler.LineProfiler):  # type: ignore[misc]  # it has no types
    """Reads the memory of every line of the code that is wanted, in this thread and new ones.

    `with LineProfiler(under(root)) as profiler: ...`, then `profiler.profile()`. Its parent's ways to
    name functions (`add_function`, `wrap_function`, `runctx`) work too.
    """

    _set_trace = staticmethod(sys.settrace)  # a test may have mocked them
    _set_thread_trace = staticmethod(threading.settrace)

    def __init__(
        self,
        wanted: Callable[[str], bool] = lambda _: False,
        *,
        source: PeakSource[Any] | None = None,
        pace: Pace = OF_MEMORY,
    ) -> None:
        super().__init__()
        if source is None:
            trimmer = trimmer_within(Allowance(max_share=TRIM_SHARE), worth_bytes=pace.worth)
            self._readings = Readings(peak_source(), pace, trimmer)
        else:
            self._readings = Readings(source, pace)
        self.code_map = Code(self._readings.files, wanted)
        self._monitor: Monitor | None = None
        self._offsets: defaultdict[CodeType, dict[int, Line]] = defaultdict(dict)

    def __enter__(self) -> Self:
        self.enable_by_count()
        return self

    def enable(self) -> None:
        """Begin."""
        self._readings.begin()
        if Monitor.is_free():
            self._monitor = Monitor(self._readings, self.code_map.__getitem__)
            self._monitor.begin()
            return
        self._original_trace_function = sys.gettrace()
        self._original_thread_trace = threading.gettrace()
        self._set_thread_trace(self.trace_memory_usage)
        self._set_trace(self.trace_memory_usage)

    def disable(self) -> None:
        """End."""
        if self._monitor is not None:
            self._monitor.end()
            self._readings.end()
            return
        if sys.gettrace() != self.trace_memory_usage:
            self._readings.fault = RuntimeError("the code set a trace function of its own")
        self._set_trace(self._original_trace_function)
        self._set_thread_trace(self._original_thread_trace)
        self._readings.end()

    def profile(self) -> LineProfile:
        """Return what was read, once it has ended."""
        return profile_of(self._readings)

    def least_kept(self) -> int:
        """Return what each hit of a line kept, on average, of the line that kept least."""
        lines = [line for found in self._readings.files.values() for line in found.values()]
        return min((max(0, line.kept_bytes // line.hits) for line in lines), default=0)

    def counts(self, event: str) -> CountProfile:
        """Return the same where the source has counted an event."""
        return counts_of(self._readings, event)

    def trace_memory_usage(
        self,
        frame: FrameType,
        event: str,
        arg: object,  # noqa: ARG002 - Python passes it
    ) -> Callable[..., None] | None:
        """Follow a function that is called, where its code is wanted: what `sys.settrace` calls."""
        lines = self.code_map[frame.f_code]
        if lines is None or event != "call" or not self.enable_count:
            return None
        thread = self._readings.thread()
        function = Running(thread, lines, frame.f_code)
        if frame.f_trace is not None:  # it goes on in the line that has yielded: the same hit
            function.line = lines.get(frame.f_lineno)
        thread.enter(function)
        return _follower(thread, function, self._offsets[frame.f_code])


def _follower(
    thread: ThreadReadings, function: Running, lines: dict[int, Line]
) -> Callable[[FrameType, str, object], None]:
    """Return what Python calls at each event in a function, which it does millions of times.

    *lines* has them by their place in the byte code: to ask for their number takes four times as long.
    """
    find = lines.get
    exact_hits = thread.readings.pace.exact_hits

    def follow(frame: FrameType, event: str, arg: object) -> None:  # noqa: ARG001 - Python passes it
        if event == "line":
            line = find(frame.f_lasti)
            if line is None:
                thread.close_window()  # what it takes to note a place is not the running line's
                line = lines[frame.f_lasti] = function.line_at(frame.f_lineno)
                if line is function.line:
                    thread.open_window()
            if line is function.line:  # a loop in one line: it goes on
                return
            if line.hits >= exact_hits and clock_ns() < thread.due_ns:
                line.hits += 1
                thread.is_shared = True
                function.line = line
            else:
                function.reach(line)
        elif event == "return":
            thread.leave(function)

    return follow


def under(*roots: str | Path) -> Callable[[str], bool]:
    """Return what tells whether a file is of the project: under a root, and no installed library."""
    folders = tuple(f"{Path(root).resolve()}/" for root in roots)

    def is_wanted(file: str) -> bool:
        path = file.replace("\\", "/")
        return path.startswith(folders) and not (
            path.startswith((f"{OURS}/", f"{sys.prefix}/"))
            or any(f"/{one}/" in path for one in LIBRARIES)
        )

    return is_wanted
