"""CellWatcher: pairs the shell's events, measures between them and keeps the history."""

from __future__ import annotations

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
    """Measures every command that is not part of another one; knows nothing of IPython itself."""

    def __init__(
        self,
        *,
        meter: Callable[[], Meter],
        note: Callable[[CommandRecord, CellResult], tuple[str, ...]],
        emit: Callable[[CommandRecord], None],
    ) -> None:
        self._new_meter = meter
        self._note = note
        self._emit = emit
        self._running: list[CellInfo] = []
        self._meter: Meter | None = None
        self.history: list[CommandRecord] = []

    def before(self, info: CellInfo, *_: Any) -> None:
        """Begin to measure, unless the command is run by another one."""
        self._running.append(info)
        if len(self._running) == 1:
            self._meter = self._new_meter()
            self._meter.__enter__()

    def after(self, result: CellResult | None, *_: Any) -> None:
        """Stop measuring, and report the command.

        IPython fires this also for commands that never began: an empty one, and the one that loaded
        the extension. Nothing is said of those.
        """
        if not self._ends_running(result):
            return
        self._running.pop()
        if self._running or self._meter is None:
            return
        meter, self._meter = self._meter, None
        meter.__exit__(None, None, None)
        if result is not None and result.info is not None:
            self._keep(result, result.info, meter)

    def forget_running(self) -> None:
        """Leave what is being measured unreported: the command itself switched the report off."""
        self._running.clear()
        self._meter = None

    def _ends_running(self, result: CellResult | None) -> bool:
        if not self._running:
            return False
        # An interrupt inside the shell itself leaves no result, or one with an info of its own.
        if result is None or result.info is None:
            return True
        running = self._running[-1]
        return running is result.info or running.raw_cell == result.info.raw_cell

    def _keep(self, result: CellResult, info: CellInfo, meter: Meter) -> None:
        record = CommandRecord(
            number=result.execution_count if info.store_history else None,
            command=info.raw_cell,
            measurement=meter.measurement,
            raised=not result.success,
        )
        record = dataclasses.replace(record, notes=self._note(record, result))
        self.history.append(record)
        self._emit(record)
