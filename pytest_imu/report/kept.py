"""Where a run's memory went: what each file's tests left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pytest_imu.core.units import MIB, plural, printable
from pytest_imu.report.rows import Row

LEAST_BYTES = 10 * MIB
"""What a run must have kept to be worth a line, and a file a tenth of it."""
NAMED = 3


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
    tests: Counter[str] = Counter()
    for row in rows:
        if not row.isolated:  # what an isolated test keeps goes with its process
            name = row.nodeid.partition("::")[0]
            by_file[name] += kept_bytes(row)
            tests[name] += 1
    return by_file, tests


def kept_bytes(row: Row) -> int:
    """Return what a test left behind in its process, with all its phases."""
    # A teardown that was not measured is known by what stood before and after it.
    phases = sum(one.delta_bytes or 0 for one in row.phases.values())
    return phases + (row.teardown_kept_bytes or 0)


def _shown(name: str, base_names: Counter[str]) -> str:
    base = name.rpartition("/")[2]
    return printable(base if base_names[base] == 1 else name)
