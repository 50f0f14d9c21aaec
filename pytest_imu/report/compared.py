"""The run that reports beside the one that `--imu-compare` names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_imu.core.comparable import Numbers
from pytest_imu.core.growth import GrowthLimit
from pytest_imu.history.compare import Comparison, compare_runs
from pytest_imu.history.entries import Entry, Side, clean_sizes, counting
from pytest_imu.history.wording import counts_line, difference_lines, doubt_lines, grown_lines
from pytest_imu.report.rows import Row
from pytest_imu.settings import Settings

NOTHING_COMPARED = (
    "no test could be compared with {}, so the run fails; imu_compare_required = false lets it pass"
)


def comparison_of(
    rows: Sequence[Row], base: Side, settings: Settings, environment: Mapping[str, Any]
) -> Comparison:
    """Return this run beside the earlier one; *environment* is that of the JSON file."""
    counted_by = environment.get("counter_source")
    entries = counting(_entry(row, counted_by) for row in rows)
    now = Side(name="this run", environment=environment, entries=entries)
    return compare_runs(base, now, settings.fail_increase, judged=True)


def _entry(row: Row, counted_by: str | None) -> Entry:
    ended = row.outcome in ("passed", "xpassed") or row.failed_by_budget
    numbers = None
    if row.call is not None and ended:
        counted = counted_by if row.call.counters else None
        numbers = Numbers.of(row.call, isolated=row.isolated, counted_by=counted)
        alone = [verdict.to_dict() for verdict in row.verdicts if verdict.decided_by == "alone"]
        numbers = numbers.with_clean(clean_sizes(alone))
    return Entry(
        nodeid=row.nodeid,
        attempt=row.attempt,
        worker=row.worker,
        outcome=row.outcome or "interrupted",
        numbers=numbers,
        grown=frozenset(
            str(verdict.budget.increase)
            for verdict in row.verdicts
            if verdict.outcome == "broken" and isinstance(verdict.budget, GrowthLimit)
        ),
    )


def compared_lines(comparison: Comparison, *, whole: bool) -> list[str]:
    """Return what the section says of the comparison."""
    return [
        counts_line(comparison, gone="gone" if whole else "not run here"),
        *grown_lines(comparison),
        *doubt_lines(comparison),
        *difference_lines(comparison),
    ]
