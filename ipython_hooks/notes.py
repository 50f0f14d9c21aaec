"""What makes the numbers of a command mislead, in a few words each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipython_hooks.records import CommandRecord
from ipython_hooks.repeat import Repeated
from ipython_hooks.watcher import CellResult
from pytest_imu.core.reusable import may_be_reused
from pytest_imu.core.units import MIB, format_mib

NOTEWORTHY_BYTES = MIB
NOTEWORTHY_REUSE_BYTES = 4 * MIB
"""A shell always has a MiB or two of free blocks; under this the note would stand on every line."""
SMALL_TYPES = (bool, int, float, complex, str, bytes, CommandRecord, Repeated)


def notes_on(
    record: CommandRecord,
    *,
    output_number: int | None,
    reusable_bytes: int | None,
    children: int,
) -> tuple[str, ...]:
    """Return what has to be said about a command, most important first."""
    notes = []
    if record.raised:
        notes.append("the command raised")
    reused_bytes = may_be_reused(reusable_bytes, record.measurement.duration_ns)
    if reused_bytes >= NOTEWORTHY_REUSE_BYTES:
        notes.append(f"reused up to {format_mib(reused_bytes)} MiB that Python had kept")
    if output_number is not None and (record.measurement.delta_bytes or 0) >= NOTEWORTHY_BYTES:
        notes.append(f"the result is kept alive by Out[{output_number}]")
    if children:
        processes = "1 child process" if children == 1 else f"{children} child processes"
        notes.append(f"{processes} not counted")
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


def count_children(platform: str, *, ignore: Sequence[int]) -> int:
    """Return how many child processes live now; only Linux tells that for little."""
    if platform != "linux":
        return 0
    pids: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        try:
            pids.update(map(int, task.read_bytes().split()))
        except OSError:  # the thread has ended meanwhile, or the kernel does not tell
            continue
    return len(pids.difference(ignore))
