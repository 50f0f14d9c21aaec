"""CellWatcher: pairs the shell's events, measures between them and keeps the history."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

from ipython_hooks.records import CommandRecord
from pytest_imu.core.meter import Meter


class CellInfo(Protocol):
    """What the shell tells of a command before it runs."""

    raw_cell: str
    store_history: bool


class CellResult(Protocol):
    """What the shell tells of a command after it ran."""

    info: CellInfo | None
    success: bool
    execution_count: int | None


class CellWatcher:
    """Measures every command that is not part of another one; knows nothing of IPython itself.

    No fault of the measuring, and no ^C that falls into it, reaches the shell: *complain* hears of it.
    """

    def __init__(
        self,
        *,
        meter: Callable[[], Meter],
        note: Callable[[CommandRecord, CellResult | None], tuple[str, ...]],
        emit: Callable[[CommandRecord], None],
        complain: Callable[[str], None],
        grown: Callable[[int | None], tuple[tuple[str, int], ...]] = lambda _: (),
    ) -> None:
        self._new_meter = meter
        self._note = note
        self._emit = emit
        self._complain = complain
        self._grown = grown
        self._running: list[CellInfo] = []
        self._meter: Meter | None = None
        self.history: list[CommandRecord] = []

    def before(self, info: CellInfo, *_: Any) -> None:
        """Begin to measure, unless the command is run by another one."""
        try:
            self._running.append(info)
            if len(self._running) == 1:
                self._meter = self._new_meter()
                self._meter.__enter__()
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

    def _end(self, result: CellResult | None) -> None:
        place = self._place_of(result)
        if place is None:
            return
        info = self._running.pop(place)
        if place > 0:
            return
        # What still runs is not part of it (a notebook's subshell), or never said that it ended.
        self._running.clear()
        if (meter := self._stop_meter()) is not None:
            self._keep(info, result, meter)

    def _stop_meter(self) -> Meter | None:
        meter, self._meter = self._meter, None
        if meter is not None:
            meter.__exit__(None, None, None)  # a window that stays open would measure for ever
        return meter

    def _place_of(self, result: CellResult | None) -> int | None:
        """Return which of the running commands has ended, the innermost one first."""
        # An interrupt inside the shell itself leaves no result, or one with an info of its own.
        if result is None or result.info is None:
            return len(self._running) - 1 if self._running else None
        for place in reversed(range(len(self._running))):
            running = self._running[place]
            if running is result.info or running.raw_cell == result.info.raw_cell:
                return place
        return None

    def _keep(self, info: CellInfo, result: CellResult | None, meter: Meter) -> None:
        number = None if result is None else result.execution_count
        record = CommandRecord(
            number=number if info.store_history else None,
            command=info.raw_cell,
            measurement=meter.measurement,
            raised=result is None or not result.success,
        )
        record = dataclasses.replace(record, notes=self._note(record, result))
        with contextlib.suppress(Exception):  # the line is true without names
            record = dataclasses.replace(record, grown=self._grown(record.measurement.delta_bytes))
        self.history.append(record)
        self._emit(record)

    def _give_up(self, error: BaseException) -> None:
        with contextlib.suppress(Exception):  # what is broken may be the very way to say so
            self.forget_running()
            what = f"{type(error).__name__}: {error}".removesuffix(": ")
            self._complain(f"a command is not reported: {what}")
