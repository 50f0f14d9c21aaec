"""One row a test and attempt, put together from the reports that come home."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_imu.core.budgets import Verdict
from pytest_imu.core.model import PHASES, Block, Measurement, Phase
from pytest_imu.record import PhaseRecord


@dataclass(slots=True, kw_only=True)
class Row:
    """What is known of one attempt at one test."""

    nodeid: str
    attempt: int = 1
    worker: str | None = None
    outcome: str | None = None
    """In pytest's words; None as long as no report has decided it."""
    phases: dict[Phase, Measurement] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    verdicts: tuple[Verdict, ...] = ()

    def add(self, report: pytest.TestReport, record: PhaseRecord) -> None:
        """Take in one phase's report and what came with it."""
        # That the setup passed decides nothing yet: the test may be interrupted before it passes.
        if report.when != "setup" or not report.passed:
            self.outcome = combined_outcome(self.outcome, report)
        self.blocks += record.blocks
        self.verdicts += record.verdicts
        if record.measurement is not None and report.when is not None:
            self.phases[report.when] = record.measurement

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, as it stands in the JSON file."""
        return {
            "nodeid": self.nodeid,
            "attempt": self.attempt,
            "worker": self.worker,
            "outcome": self.outcome or "interrupted",
            "phases": {
                phase: self.phases[phase].to_dict() if phase in self.phases else None for phase in PHASES
            },
            "blocks": [block.to_dict() for block in self.blocks],
            "budgets": [verdict.to_dict() for verdict in self.verdicts],
        }


class Rows:
    """Every row of the run, in the order in which the tests began."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._running: dict[tuple[str | None, str], Row] = {}

    def add(self, report: pytest.TestReport) -> Row | None:
        """Take in a report and return its row; None for a test that was not measured."""
        record: PhaseRecord | None = getattr(report, "imu", None)
        worker = getattr(report, "worker_id", None)
        if record is None:
            return self._add_crash(report) if report.when not in PHASES else None
        key = (worker, report.nodeid)
        row = self._running.get(key)
        if row is None or row.attempt != record.attempt:
            row = Row(nodeid=report.nodeid, attempt=record.attempt, worker=worker)
            self._rows.append(row)
            self._running[key] = row
        row.add(report, record)
        if report.when == "teardown":
            del self._running[key]
        return row

    def _add_crash(self, report: pytest.TestReport) -> Row:
        """Take in what xdist reports for the test that took its worker down."""
        gateway = getattr(getattr(report, "node", None), "gateway", None)
        worker = getattr(gateway, "id", None)
        row = self._running.pop((worker, report.nodeid), None)
        if row is None:
            row = Row(nodeid=report.nodeid, worker=worker)
            self._rows.append(row)
        row.outcome = "crashed"
        return row

    def all(self) -> list[Row]:
        """Return every attempt of every test."""
        return list(self._rows)

    def last_attempts(self) -> list[Row]:
        """Return the last attempt of every test: the one that counted."""
        return list({row.nodeid: row for row in self._rows}.values())


def combined_outcome(so_far: str | None, report: pytest.TestReport) -> str:
    """Return a test's outcome after one more phase, in pytest's own words."""
    outcome: str = report.outcome
    if hasattr(report, "wasxfail"):
        outcome = "xfailed" if report.skipped else "xpassed"
    elif report.failed and report.when != "call":
        outcome = "error"
    if so_far in (None, "passed"):
        return outcome
    # What came before the call's own report came from its subtests, and of those only failures count.
    if so_far != "failed" and (outcome == "error" or report.when == "call"):
        return outcome
    return str(so_far)
