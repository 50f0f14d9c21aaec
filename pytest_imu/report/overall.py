"""What there is to say of a whole run: that nothing rose above the noise, or how far it grew."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from pytest_imu.core.budgets import LeakBudget
from pytest_imu.core.memory.reusable import reused_in
from pytest_imu.core.model import Measurement
from pytest_imu.core.units import MIB, format_bytes, format_mib, plural, printable
from pytest_imu.report.rows import Row
from pytest_imu.report.table import Entry
from pytest_imu.settings import Settings

EXPLAINED_GROWTH_BYTES = 10 * MIB
"""From here on it is said where the growth of a run went."""
NAMED_CAUSES = 3
NEAR_SHARE = 0.5
"""From here on it is said how near a run has come to the limit of what there is."""


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
    highest_bytes = max(measurement.peak_bytes, abs(measurement.delta_bytes))
    as_shown = float(format_mib(highest_bytes)) <= float(format_mib(noise_bytes))
    return as_shown and not reused_in(measurement)


def growth_lines(rows: Sequence[Row], settings: Settings) -> list[str]:
    """Return by how much the process grew that ran the tests, and where most of it went.

    Of several workers it is the one that grew most. Isolated tests are not told of: each has a process
    of its own.
    """
    if settings.isolate != "off":
        return []
    by_worker: defaultdict[tuple[int, str | None], list[Row]] = defaultdict(list)
    for row in rows:
        if _steps([row]):
            by_worker[row.run, row.worker].append(row)
    if not by_worker:
        return []
    (_, worker), own = max(by_worker.items(), key=lambda item: _grown_bytes(_steps(item[1])))
    steps = _steps(own)
    grown_bytes = _grown_bytes(steps)
    if grown_bytes < MIB:
        return []
    (_, first_bytes), (_, last_bytes) = steps[0], steps[-1]
    who = "the run" if worker is None else f"{printable(worker)}, the worker that grew most,"
    line = f"{who} grew from {first_bytes / MIB:.0f} to {last_bytes / MIB:.0f} MiB"
    if grown_bytes < EXPLAINED_GROWTH_BYTES:
        return [line]
    return [f"{line}:", *_cause_lines(steps, grown_bytes)]


def _steps(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Return the sizes of the process one after the other, each with what led to it."""
    steps = []
    since = ""  # what lies between two windows is the teardown of the first
    for row in rows:
        name = printable(row.nodeid)
        for phase, measurement in row.phases.items():
            if measurement.before_bytes is not None and measurement.after_bytes is not None:
                steps.append((since, measurement.before_bytes))
                steps.append((name if phase == "call" else f"{name} ({phase})", measurement.after_bytes))
                since = f"{name} (teardown)" if phase == "call" else steps[-1][0]
    return steps


def _grown_bytes(steps: Sequence[tuple[str, int]]) -> int:
    return steps[-1][1] - steps[0][1]


def _cause_lines(steps: Sequence[tuple[str, int]], grown_bytes: int) -> list[str]:
    """Return what led to most of the growth, and what all else amounts to.

    A step counts as far as the process never again became smaller than it had been before: what was
    released later is no reason for the size at the end.
    """
    kept: Counter[str] = Counter()
    lowest_bytes = steps[-1][1]
    for (cause, _), (_, before_bytes) in zip(reversed(steps), reversed(steps[:-1]), strict=False):
        kept[cause] += max(0, lowest_bytes - before_bytes)
        lowest_bytes = min(lowest_bytes, before_bytes)
    least_bytes = max(MIB, grown_bytes // 10)
    named = [(size, cause) for cause, size in kept.most_common(NAMED_CAUSES) if size >= least_bytes]
    rest_bytes = grown_bytes - sum(size for size, _ in named)
    if abs(rest_bytes) >= MIB:
        named.append((rest_bytes, "all else" if named else "in many small steps"))
    numbers = [format_mib(size) for size, _ in named]
    room = max(map(len, numbers), default=0)
    return [f"  {number:>{room}}  {cause}" for number, (_, cause) in zip(numbers, named, strict=True)]


def share_lines(rows: Sequence[Row], limit: tuple[int, str] | None) -> list[str]:
    """Return how near the largest test came to the limit of the run, where it came near.

    *limit* is how many bytes there are, and what says so.
    """
    if limit is None:
        return []
    limit_bytes, whose = limit
    peaks = [
        (measurement.rss_peak_bytes or 0, row) for row in rows for measurement in row.phases.values()
    ]
    peak_bytes, row = max(peaks, key=lambda one: one[0], default=(0, None))
    if row is None or peak_bytes < limit_bytes * NEAR_SHARE:
        return []
    of = f"{format_bytes(peak_bytes)} of {format_bytes(limit_bytes)} ({peak_bytes / limit_bytes:.0%})"
    return [f"peak {of.replace('%', ' %')}, {whose}: {printable(row.nodeid)}"]


def called_again_lines(rows: Sequence[Row], settings: Settings) -> list[str]:
    """Return how many tests `--imu-leaks` has called again, and how many of them grew."""
    if settings.leaks is None or settings.off:
        return []
    called = [row for row in rows if row.growth is not None]
    grew = sum(
        verdict.outcome == "broken" and isinstance(verdict.budget, LeakBudget)
        for row in called
        for verdict in row.verdicts
    )
    return [f"growth a call: {len(called)} of {plural(len(rows), 'test')} called again, {grew} grew"]
