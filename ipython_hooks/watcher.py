"""CellWatcher: pairs the shell's events, measures between them and keeps the history."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ipython_hooks.notes import Note
from ipython_hooks.records import CommandRecord, difference
from pytest_imu.core.meter import Meter

OWN_LINE = re.compile(
    r"(?:\w+\s*=\s*)?%{1,2}imu(?:_start|_stop)?(?:\s.*)?\??"  # also `m = %imu run ...`
    r"|\?{0,2}%{0,2}imu(?:_start|_stop)?(?:\s+\w.*)?\?{0,2}"  # help, and the word without its `%`
)


class CellInfo(Protocol):
    """What the shell tells of a command before it runs."""

    raw_cell: str
    store_history: bool


class CellResult(Protocol):
    """What the shell tells of a command after it ran."""

    info: CellInfo | None
    success: bool
    execution_count: int | None
    error_in_exec: BaseException | None


def is_own(command: str) -> bool:
    r"""Whether a command only asks `%imu` for something: it has an answer, and needs no report.

    >>> is_own("%imu history"), is_own("a = %imu"), is_own("a = 1"), is_own("%imu off\na = 1")
    (True, True, False, False)
    """
    lines = [line.strip() for line in command.splitlines() if line.strip()]
    if lines[:1] and lines[0].startswith("%%imu lines"):  # a cell of the person's, run as any other
        return False
    whole = lines[:1] if command.lstrip().startswith("%%") else lines
    return all(OWN_LINE.fullmatch(line) for line in whole)


def place_of(result: CellResult | None, running: Sequence[Any]) -> int | None:
    """Return which of the running commands has ended, the innermost one first; each has a `raw_cell`."""
    # An interrupt inside the shell itself leaves no result, or one with an info of its own.
    if result is None or result.info is None:
        return len(running) - 1 if running else None
    for place in reversed(range(len(running))):
        if running[place] is result.info or running[place].raw_cell == result.info.raw_cell:
            return place
    return None


class CellWatcher:
    """Measures every command that is not part of another one; knows nothing of IPython itself.

    No fault of the measuring, and no ^C that falls into it, reaches the shell: *complain* hears of it.
    What is told to `%imu` itself has a window like all, and is neither kept nor reported.
    """

    def __init__(
        self,
        *,
        meter: Callable[[], Meter],
        ended: Callable[[], None],
        note: Callable[[CommandRecord, CellResult | None, int], tuple[Note, ...]],
        emit: Callable[[CommandRecord], None],
        complain: Callable[[str], None],
        grown: Callable[[int | None], tuple[tuple[str, int], ...]] = lambda _: (),
        cpu_ns: Callable[[], int] = time.process_time_ns,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._new_meter = meter
        self._ended = ended
        self._note = note
        self._emit = emit
        self._complain = complain
        self._grown = grown
        self._clock_of_cpu_ns = cpu_ns
        self._now_ns = now_ns
        self._running: list[CellInfo] = []
        self._meter: Meter | None = None
        self._cpu_ns = self._began_ns = 0
        self.total_bytes: int | None = None
        """RSS when the last command had ended; None where that is not known."""
        self.history: list[CommandRecord] = []

    def before(self, info: CellInfo, *_: Any) -> None:
        """Begin to measure, unless the command is run by another one."""
        try:
            self._running.append(info)
            if len(self._running) == 1:
                self._began_ns = self._now_ns()
                self._meter = self._new_meter()
                self._meter.__enter__()
                self._cpu_ns = self._clock_of_cpu_ns()
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the command runs in any case
            self._give_up(error)

    def after(self, result: CellResult | None, *_: Any) -> None:
        """Stop measuring, and report the command.

        IPython fires this also for commands that never began: an empty one, and the one that loaded
        the extension. Nothing is said of those.
        """
        try:
            self._end(result)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the shell goes on in any case
            self._give_up(error)

    def forget_running(self) -> None:
        """Leave what is being measured unreported: the command itself switched the report off."""
        self._running.clear()
        self._stop_meter()
        self.total_bytes = None

    def _end(self, result: CellResult | None) -> None:
        place = place_of(result, self._running)
        if place is None:
            return
        info = self._running.pop(place)
        if place > 0:
            return
        # What still runs is not part of it (a notebook's subshell), or never said that it ended.
        self._running.clear()
        cpu_ns = self._clock_of_cpu_ns() - self._cpu_ns
        if (meter := self._stop_meter()) is not None and not is_own(info.raw_cell):
            self._keep(info, result, meter, cpu_ns)

    def _stop_meter(self) -> Meter | None:
        meter, self._meter = self._meter, None
        if meter is not None:
            try:
                meter.__exit__(None, None, None)  # a window that stays open would measure for ever
            finally:
                self._ended()
        return meter

    def _keep(self, info: CellInfo, result: CellResult | None, meter: Meter, cpu_ns: int) -> None:
        number = None if result is None else result.execution_count
        measurement = meter.measurement
        record = CommandRecord(
            number=number if info.store_history else None,
            command=info.raw_cell,
            cell_id=getattr(info, "cell_id", None),
            began_ns=self._began_ns,
            cpu_ns=cpu_ns,
            measurement=measurement,
            since_last_bytes=difference(measurement.before_bytes, self.total_bytes),
            raised=result is None or not result.success,
        )
        with contextlib.suppress(Exception):  # the line is true without names
            record = dataclasses.replace(record, grown=self._grown(record.measurement.delta_bytes))
        self.total_bytes = measurement.after_bytes
        notes = self._note(record, result, cpu_ns)
        record = dataclasses.replace(
            record,
            notes=tuple(note.text for note in notes),
            noted_bytes=max((note.size_bytes for note in notes), default=0),
        )
        self.history.append(record)
        self._emit(record)

    def _give_up(self, error: BaseException) -> None:
        with contextlib.suppress(Exception):  # what is broken may be the very way to say so
            self.forget_running()
            what = f"{type(error).__name__}: {error}".removesuffix(": ")
            self._complain(f"a command is not reported: {what}")
