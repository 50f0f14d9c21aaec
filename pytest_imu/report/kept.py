"""Where a run's memory went: what each file's tests left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pytest_imu.core.units import MIB, NANOSECONDS_PER_SECOND, plural, printable
from pytest_imu.report.rows import Row

LEAST_BYTES = 10 * MIB
"""What a run must have kept to be worth a line, and a file a tenth of it."""
NAMED = 3
SAME_CLOCK_NS = NANOSECONDS_PER_SECOND
"""Monotonic clocks that are further apart, beside the wall clock, are those of several machines."""


def kept_lines(rows: Sequence[Row]) -> list[str]:
    """Return the line that names the files whose tests kept most; none where little was kept.

    "the run kept 771 MiB: 402 in test_import.py (31 tests), 120 in test_qa.py"
    """
    by_file, tests = kept_by_file(rows)
    total_bytes = sum(by_file.values())
    if total_bytes < LEAST_BYTES:
        return []
    base_names = Counter(name.rpartition("/")[2] for name in by_file)
    most = [
        f"{kept / MIB:.0f} in {_shown(name, base_names)}"
        + (f" ({plural(tests[name], 'test')})" if tests[name] > 1 else "")
        for name, kept in by_file.most_common(NAMED)
        if kept >= LEAST_BYTES / 10
    ]
    return [f"the run kept {total_bytes / MIB:.0f} MiB: {', '.join(most)}"]


def kept_by_file(rows: Sequence[Row]) -> tuple[Counter[str], Counter[str]]:
    """Return what the tests of each file kept, in bytes, and how many they are."""
    by_file: Counter[str] = Counter()
    names = {}
    for row, size in zip(rows, kept_bytes(rows), strict=True):
        if not row.isolated:
            names[row.nodeid] = row.nodeid.partition("::")[0]
            by_file[names[row.nodeid]] += size
    return by_file, Counter(names.values())


def kept_bytes(rows: Sequence[Row]) -> list[int]:
    """Return what each of a run's tests left behind in its process, in the order in which they ran.

    That is what the next one began with, less what it began with itself. What an isolated test keeps
    goes with its process.
    """
    kept = []
    following: dict[tuple[int, str | None], Row] = {}
    for row in reversed(rows):
        if row.isolated:
            kept.append(0)
            continue
        kept.append(_kept_bytes(row, following.get((row.run, row.worker))))
        following[row.run, row.worker] = row
    return kept[::-1]


def _kept_bytes(row: Row, following: Row | None) -> int:
    if following is not None and _is_one_process(row, following):
        before_bytes, after_bytes = _begin_bytes(row), _begin_bytes(following)
        if before_bytes is not None and after_bytes is not None:
            return after_bytes - before_bytes
    # A teardown that was not measured is known by what stood before and after it, where that was much.
    phases = sum(one.delta_bytes or 0 for one in row.phases.values())
    return phases + (row.teardown_kept_bytes or 0)


def _is_one_process(row: Row, following: Row) -> bool:
    """Tell whether a test followed another on one machine: a merged file has those of several."""
    if row.start is None or following.start is None:
        return False
    apart_ns = [one.wall_ns - one.clock_ns for one in (row.start, following.start)]
    in_order = row.start.clock_ns <= following.start.clock_ns
    return in_order and abs(apart_ns[0] - apart_ns[1]) < SAME_CLOCK_NS


def _begin_bytes(row: Row) -> int | None:
    return next((one.before_bytes for one in row.phases.values()), None)


def _shown(name: str, base_names: Counter[str]) -> str:
    base = name.rpartition("/")[2]
    return printable(base if base_names[base] == 1 else name)
