"""What makes the numbers of a command mislead, in a few words each."""

from __future__ import annotations

import sys
from typing import Any

from ipython_hooks.records import CommandRecord
from ipython_hooks.repeat import Repeated
from ipython_hooks.watcher import CellResult
from pytest_imu.core.memory.reusable import NOTEWORTHY_BYTES, likely_reused
from pytest_imu.core.units import format_mib

SMALL_TYPES = (bool, int, float, complex, str, bytes, CommandRecord, Repeated)


def notes_on(record: CommandRecord, *, output_number: int | None) -> tuple[str, ...]:
    """Return what has to be said about a command, most important first."""
    notes = []
    if record.raised:
        notes.append("the command raised")
    measurement = record.measurement
    reused_bytes = likely_reused(
        measurement.reusable_bytes, measurement.duration_ns, measurement.peak_bytes
    )
    if reused_bytes:
        notes.append(f"reused up to {format_mib(reused_bytes)} MiB that Python had kept")
    if measurement.tracer:
        notes.append(f"traced by {measurement.tracer}, the numbers include its memory")
    if output_number is not None and (measurement.delta_bytes or 0) >= NOTEWORTHY_BYTES:
        notes.append(f"the result is kept alive by Out[{output_number}]")
    if measurement.had_children:
        notes.append("had child processes, not counted")
    return tuple(notes)


def output_number(shell: Any, result: CellResult) -> int | None:
    """Return the number under which the shell keeps the command's value; None where it keeps none.

    A value that is small in itself is not what keeps memory alive.
    """
    number = result.execution_count
    outputs = shell.user_ns.get("_oh", {})
    if number is None or number not in outputs:
        return None
    value = outputs[number]
    small = isinstance(value, SMALL_TYPES) and sys.getsizeof(value) < NOTEWORTHY_BYTES
    return None if small else number
