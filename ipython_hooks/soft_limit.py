"""The first line of `%imu limit`: a watch that interrupts the command with a MemoryError in time."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from ipython_hooks.limit import MemoryLimit
from ipython_hooks.watcher import CellInfo, CellResult, place_of
from pytest_imu.core.memory.data_limit import loaded_that_abort
from pytest_imu.core.memory.platforms import rss_bytes_or_none
from pytest_imu.core.units import format_bytes

SOFT_PERCENT = 95
INTERVAL_S = 0.02


class SoftLimit:
    """Reads RSS while a command runs, and interrupts one that comes near the limit.

    The hard limit stands behind it, as long as no library is loaded that would end the process at it.
    """

    def __init__(self, shell: Any, hard: MemoryLimit, say: Callable[[list[str]], None]) -> None:
        self._shell = shell
        self._hard = hard
        self._say = say
        self.total_bytes: int | None = None
        """The limit in force; None without one."""
        self._lock = threading.Lock()
        self._command_runs = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._info: CellInfo | None = None
        self._trigger_bytes = 0
        self._due = self._was_due = False
        self._handler_before: Any = None

    @property
    def soft_bytes(self) -> int:
        """Where a command is interrupted."""
        return (self.total_bytes or 0) * SOFT_PERCENT // 100

    def set(self, total_bytes: int) -> None:
        """Limit the process; raises ValueError where that makes no sense, and nothing changes then."""
        self._hard.set(total_bytes)
        self._leave_the_hard_one_where_it_would_kill()
        self.total_bytes = total_bytes
        if self._thread is None:
            self._stopped.clear()
            self._thread = threading.Thread(target=self._watch, name="imu-limit", daemon=True)
            self._thread.start()
            self._shell.events.register("pre_run_cell", self._begin)
            self._shell.events.register("post_run_cell", self._end)

    def lift(self) -> None:
        """End the watch and the hard limit."""
        self._hard.lift()
        self.total_bytes = None
        thread, self._thread = self._thread, None
        if thread is not None:
            self._disarm()
            self._stopped.set()
            self._command_runs.set()  # for the thread to see it
            thread.join()
            self._command_runs.clear()
            self._shell.events.unregister("pre_run_cell", self._begin)
            self._shell.events.unregister("post_run_cell", self._end)

    def describe(self) -> str:
        """Return what is in force, in words."""
        if self.total_bytes is None:
            return "none"
        where = f"{format_bytes(self.total_bytes)}, MemoryError at {format_bytes(self.soft_bytes)}"
        if self._hard.total_bytes is not None:
            return where
        return (
            f"{where}; no hard limit, at which {' and '.join(loaded_that_abort())} would end the process"
        )

    def _begin(self, info: CellInfo, *_: object) -> None:
        if self._info is not None or threading.current_thread() is not threading.main_thread():
            return
        self._leave_the_hard_one_where_it_would_kill()
        with contextlib.suppress(ValueError):  # it is past the limit already
            if self._hard.total_bytes is not None:
                self._hard.set(self._hard.total_bytes)  # anew: threads have reserved memory meanwhile
        self._trigger_bytes = self._next_trigger_bytes()
        self._info, self._due, self._was_due = info, False, False
        self._handler_before = signal.signal(signal.SIGINT, self._on_signal)
        self._command_runs.set()

    def _end(self, result: CellResult | None, *_: object) -> None:
        if self._info is None:
            return
        if place_of(result, [self._info]) is not None:
            was_due = self._disarm()
            error = None if result is None else result.error_in_exec
            if was_due and isinstance(error, KeyboardInterrupt):
                self._say([f"interrupted: {self._reason()}"])  # by a library that hears ^C itself

    def _disarm(self) -> bool:
        """Take the handler away; return whether the command was told to stop."""
        with self._lock:
            self._command_runs.clear()
        info, self._info = self._info, None
        # What was sent just now finds our handler still there, and nothing to do.
        if info is not None and signal.getsignal(signal.SIGINT) == self._on_signal:
            signal.signal(signal.SIGINT, self._handler_before)
        return self._was_due

    def _watch(self) -> None:
        while not self._stopped.is_set():
            self._command_runs.wait()
            self._stopped.wait(INTERVAL_S)
            self._leave_the_hard_one_where_it_would_kill()
            with self._lock:
                rss_bytes = rss_bytes_or_none()
                if not self._command_runs.is_set() or (rss_bytes or 0) < self._trigger_bytes:
                    continue
                self._due = self._was_due = True
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _leave_the_hard_one_where_it_would_kill(self) -> None:
        if self._hard.total_bytes is not None and loaded_that_abort():
            self._hard.lift()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._due:  # the person's own ^C
            if callable(self._handler_before):
                self._handler_before(number, frame)
            return
        self._due = False
        is_due = self._command_runs.is_set() and (rss_bytes_or_none() or 0) >= self._trigger_bytes
        # Between the steps of a command that awaits, an error would end the shell's own loop.
        if is_due and self._is_in_the_command(frame):
            self._trigger_bytes = self._next_trigger_bytes()
            raise self._error()

    def _next_trigger_bytes(self) -> int:
        """Return where to interrupt: one that is near the limit must be able to free something."""
        room_bytes = ((self.total_bytes or 0) - self.soft_bytes) // 2
        return max(self.soft_bytes, (rss_bytes_or_none() or 0) + room_bytes)

    def _is_in_the_command(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if frame.f_globals is self._shell.user_ns:
                return True
            frame = frame.f_back
        return False

    def _error(self) -> MemoryError:
        """Return an error that the shell shows without the frame that raises it."""
        error = MemoryError(self._reason())

        def shown() -> list[str]:
            step = error.__traceback__
            while step is not None and step.tb_next is not None:
                if step.tb_next.tb_frame.f_code.co_filename == __file__:
                    step.tb_next = None
                step = step.tb_next
            tracebacks = self._shell.InteractiveTB
            lines: list[str] = tracebacks.structured_traceback(type(error), error, error.__traceback__)
            return lines

        error._render_traceback_ = shown  # type: ignore[attr-defined]  # the shell asks for it
        return error

    def _reason(self) -> str:
        rss = format_bytes(rss_bytes_or_none() or 0)
        return f"the process holds {rss}, and its limit is {format_bytes(self.total_bytes or 0)}"
