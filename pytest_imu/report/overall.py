"""What there is to say of a whole run: that nothing rose above the noise, or how far it grew."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from pytest_imu.core.memory.reusable import NOTEWORTHY_BYTES, likely_reused
from pytest_imu.core.model import Measurement
from pytest_imu.core.units import MIB, format_mib, plural, printable
from pytest_imu.report.rows import Row
from pytest_imu.report.table import Entry
from pytest_imu.settings import Settings

EXPLAINED_GROWTH_BYTES = 10 * MIB
"""From here on it is said where the growth of a run went."""
NAMED_CAUSES = 3


def quiet_lines(
    entries: Sequence[Entry], settings: Settings, noise_bytes: int | None, *, verbosity: int
) -> list[str]:
    """Return the line that stands for the table where no row of it would tell anything."""
    asked = verbosity > 0 or settings.top == 0 or settings.sort in ("time", "name")
    if (
        asked
        or noise_bytes is None
        or not all(_is_noise(one.measurement, noise_bytes) for one in entries)
    ):
        return []
    tests = plural(len({id(entry.row) for entry in entries}), "test")
    return [f"no test rose above the noise of {format_mib(noise_bytes)} MiB ({tests}); -v shows them"]


def _is_noise(measurement: Measurement, noise_bytes: int) -> bool:
    if measurement.peak_bytes is None or measurement.delta_bytes is None or measurement.counters:
        return False
    if measurement.had_children or measurement.children_memory is not None:
        return False
    reused_bytes = likely_reused(measurement.reusable_bytes, measurement.duration_ns)
    highest_bytes = max(measurement.peak_bytes, abs(measurement.delta_bytes))
    as_shown = float(format_mib(highest_bytes)) <= float(format_mib(noise_bytes))
    return as_shown and reused_bytes < NOTEWORTHY_BYTES


def growth_lines(rows: Sequence[Row], settings: Settings) -> list[str]:
    """Return by how much the process grew that ran the tests, and where most of it went.

    Of several workers it is the one that grew most. Isolated tests are not told of: each has a process
    of its own.
    """
    if settings.isolate != "off":
        return []
    by_worker: defaultdict[str | None, list[Row]] = defaultdict(list)
    for row in rows:
        if any(one.after_bytes is not None for one in row.phases.values()):
            by_worker[row.worker].append(row)
    if not by_worker:
        return []
    worker, own = max(by_worker.items(), key=lambda item: _growth_bytes(item[1]))
    first_bytes, last_bytes = _ends(own)
    grown_bytes = last_bytes - first_bytes
    if grown_bytes < MIB:
        return []
    who = "the run" if worker is None else f"{printable(worker)}, the worker that grew most,"
    line = f"{who} grew from {first_bytes / MIB:.0f} to {last_bytes / MIB:.0f} MiB"
    if grown_bytes < EXPLAINED_GROWTH_BYTES:
        return [line]
    return [f"{line}:", *_cause_lines(own, grown_bytes)]


def _ends(rows: Sequence[Row]) -> tuple[int, int]:
    """Return the size before the first of these tests, and after the last."""
    measured = [one for row in rows for one in row.phases.values() if one.after_bytes is not None]
    return measured[0].before_bytes or 0, measured[-1].after_bytes or 0


def _growth_bytes(rows: Sequence[Row]) -> int:
    first_bytes, last_bytes = _ends(rows)
    return last_bytes - first_bytes


def _cause_lines(rows: Sequence[Row], grown_bytes: int) -> list[str]:
    """Return what kept the most, and what all else amounts to."""
    causes = sorted((cause for row in rows for cause in _causes(row)), key=lambda cause: -cause[0])
    named = [cause for cause in causes[:NAMED_CAUSES] if cause[0] >= max(MIB, grown_bytes // 10)]
    rest_bytes = grown_bytes - sum(kept_bytes for kept_bytes, _ in named)
    if abs(rest_bytes) >= MIB:
        named.append((rest_bytes, "all else" if named else "in many small steps"))
    numbers = [format_mib(kept_bytes) for kept_bytes, _ in named]
    room = max(map(len, numbers), default=0)
    return [f"  {number:>{room}}  {where}" for number, (_, where) in zip(numbers, named, strict=True)]


def _causes(row: Row) -> Iterator[tuple[int, str]]:
    for phase, measurement in row.phases.items():
        where = "" if phase == "call" else f" ({phase})"
        yield measurement.delta_bytes or 0, printable(row.nodeid) + where
    if row.teardown is None:
        yield row.teardown_kept_bytes or 0, f"{printable(row.nodeid)} (teardown)"
