"""The run that reports beside the one that `--imu-compare` names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pytest_imu.core.comparable import Numbers
from pytest_imu.core.growth import USUAL, compare
from pytest_imu.history.compare import Comparison, compare_runs
from pytest_imu.history.entries import Side, clean_sizes, counting, entry_of
from pytest_imu.history.wording import counts_line, difference_lines, doubt_lines, grown_lines
from pytest_imu.recording.properties import rounded_mib
from pytest_imu.recording.record import PhaseRecord
from pytest_imu.recording.warning import FaultsAsWarnings
from pytest_imu.report.rows import Row
from pytest_imu.settings import Settings

NOTHING_COMPARED = (
    "no test could be compared with {}, so the run fails; imu_compare_required = false lets it pass"
)


def comparison_of(
    rows: Sequence[Row], base: Side, settings: Settings, environment: Mapping[str, Any]
) -> Comparison:
    """Return this run beside the earlier one; *environment* is that of the JSON file."""
    entries = counting(entry_of(row.to_dict(), environment) for row in rows)
    now = Side(name="this run", environment=environment, entries=entries)
    return compare_runs(base, now, settings.fail_increase, judged=True)


class EarlierPeaks:
    """Puts each test's earlier peak, and the change, among the properties of its reports.

    In the controlling process, which alone knows the earlier run: a worker's reports come by here, too,
    before JUnit XML is made of them.
    """

    def __init__(self, config: pytest.Config, base: Side) -> None:
        self._base = base
        self._guard = FaultsAsWarnings(config.hook, "a test's earlier peak is not among its properties")
        self._running: dict[tuple[str | None, str], list[tuple[str, object]]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add them to the call's report, and to the teardown's, from which JUnit XML takes them."""
        with self._guard:
            self._add(report)

    def _add(self, report: pytest.TestReport) -> None:
        record: PhaseRecord | None = getattr(report, "imu", None)
        key = getattr(report, "worker_id", None), report.nodeid
        if report.when == "call" and record is not None and (report.passed or record.failed_by_budget):
            self._running[key] = self._properties(report.nodeid, record)
        report.user_properties += self._running.get(key, [])
        if report.when == "teardown":
            self._running.pop(key, None)

    def _properties(self, nodeid: str, record: PhaseRecord) -> list[tuple[str, object]]:
        entry = self._base.entries.get(nodeid)
        call = dict(record.phases).get("call")
        if entry is None or entry.numbers is None or call is None:
            return []
        clean = clean_sizes(verdict.to_dict() for verdict in record.verdicts)
        now = Numbers.of(call, isolated=record.isolated, counted_by=None).with_clean(clean)
        change = compare(entry.numbers, now, USUAL, base=self._base.name)
        sizes = {"imu_was_mib": change.was, "imu_change_mib": change.by}
        return [
            (name, "n/a" if size is None else rounded_mib(round(size))) for name, size in sizes.items()
        ]


def compared_lines(comparison: Comparison, *, whole: bool) -> list[str]:
    """Return what the section says of the comparison."""
    return [
        counts_line(comparison, whole=whole),
        *grown_lines(comparison),
        *doubt_lines(comparison),
        *difference_lines(comparison),
    ]
