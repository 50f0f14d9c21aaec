"""The perf trial: samples of one event as they come, and their average, as in the ancestor's script."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Iterator

from pytest_imu.core.counters.perf.command import find_perf
from pytest_imu.core.counters.perf.output import EventSample, parse
from pytest_imu.core.counters.perf.process import PerfProcess
from pytest_imu.core.counters.source import CannotCountError
from pytest_imu.core.units import format_count

TICK_MS = 100
WORK_BYTES = 2**20


def trial(event: str, *, seconds: float, pid: int | None, emit: Callable[[str], None]) -> None:
    """Count one event for some seconds, of *pid* or of this process, which works meanwhile.

    Raises CannotCountError with the reason where nothing can be counted.
    """
    process = PerfProcess.started(find_perf(), [event], pid=pid, tick_ms=TICK_MS)
    try:
        process.enable()
        start_s = time.monotonic()
        shown: list[EventSample] = []
        whom = "this process, which fills memory meanwhile" if pid is None else f"process {pid}"
        emit(f"{event} of {whom}:")
        while time.monotonic() - start_s < seconds:
            fill_memory() if pid is None else time.sleep(TICK_MS / 1000)
            shown += _emit_new(process.output(), event, len(shown), emit)
        elapsed_s = time.monotonic() - start_s
        process.disable()
        shown += _emit_new(process.take_output(), event, len(shown), emit)
    finally:
        process.stop()
    counted = [sample.value for sample in shown if sample.value is not None]
    if not counted:
        reasons = sorted({sample.reason for sample in shown if sample.reason})
        raise CannotCountError(f"{event} is n/a, {' and '.join(reasons) or 'no sample came'}")
    emit(f"perf value for {event} averages to {sum(counted) / elapsed_s:,.0f}/second")


def _emit_new(
    output: str, event: str, already: int, emit: Callable[[str], None]
) -> Iterator[EventSample]:
    for sample in parse(output, events=[event])[already:]:
        emit(f"  {sample.reason if sample.value is None else format_count(sample.value)}")
        yield sample


def fill_memory() -> None:
    """Write to every page of a MiB: 256 page faults, and some work for every other event."""
    # Mapped afresh each time: what malloc hands out again has its pages already.
    with mmap.mmap(-1, WORK_BYTES) as block:
        for start in range(0, WORK_BYTES, mmap.PAGESIZE):
            block[start] = 1
