"""One row a test and attempt, put together from the reports that come home."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_imu.core.budgets import Verdict
from pytest_imu.core.document import plain_test
from pytest_imu.core.leaks.growth import Growth
from pytest_imu.core.model import PHASES, Block, Measurement, Phase, Start
from pytest_imu.recording.record import PhaseRecord, TeardownKept, Why, combined_outcome


@dataclass(slots=True, kw_only=True)
class Row:
    """What is known of one attempt at one test."""

    nodeid: str
    attempt: int = 1
    worker: str | None = None
    isolated: bool = False
    failed_by_budget: bool = False
    outcome: str | None = None
    """In pytest's words; None as long as no report has decided it."""
    start: Start | None = None
    """When it began; None where its process did not live to tell."""
    run: int = 0
    """Which of several files it is from."""
    ended_ns: int | None = None
    timeline: Mapping[str, Any] | None = None
    setup: Measurement | None = None
    call: Measurement | None = None
    teardown: Measurement | None = None
    blocks: tuple[Block, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    teardown_kept_bytes: int | None = None
    """What stayed between its call's end and the next test's beginning, where that is worth a word."""
    why: Why | None = None
    growth: Growth | None = None
    """What further calls of its body grew."""
    properties: list[tuple[str, object]] = field(default_factory=list)
    """Those of the call's report, which its teardown's has too."""

    @property
    def phases(self) -> dict[Phase, Measurement]:
        """What was measured, by phase; made on demand, for a dict takes more than the row itself."""
        by_phase = zip(PHASES, (self.setup, self.call, self.teardown), strict=True)
        return {phase: measurement for phase, measurement in by_phase if measurement is not None}

    def add(self, report: pytest.TestReport, record: PhaseRecord) -> None:
        """Take in one phase's report and what came with it."""
        # That the setup passed decides nothing yet: the test may be interrupted before it passes.
        if report.when != "setup" or report.outcome != "passed":
            self.outcome = combined_outcome(self.outcome, report)
        if hasattr(report, "imu_crashed"):  # isolation's word for a child that died
            self.outcome = "crashed"
        self.isolated |= record.isolated
        self.failed_by_budget |= record.failed_by_budget
        self.blocks += record.blocks
        self.verdicts += record.verdicts
        for phase, measurement in record.phases:
            setattr(self, phase, measurement)
        self.why = record.why or self.why
        self.growth = record.growth or self.growth
        self.start = record.start or self.start
        self.ended_ns = record.ended_ns or self.ended_ns
        self.timeline = record.timeline or self.timeline
        # From an xdist worker each report brings a copy of its own, and pytest keeps all reports.
        if report.user_properties == self.properties:
            report.user_properties = self.properties
        self.properties = report.user_properties

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, as it stands in the JSON file."""
        return plain_test(
            nodeid=self.nodeid,
            attempt=self.attempt,
            worker=self.worker,
            outcome=self.outcome or "interrupted",
            start=self.start,
            ended_ns=self.ended_ns,
            timeline=self.timeline,
            failed_by_budget=self.failed_by_budget,
            isolated=self.isolated,
            phases=self.phases,
            blocks=self.blocks,
            verdicts=self.verdicts,
            teardown_kept_bytes=self.teardown_kept_bytes,
            why=self.why,
            growth=self.growth,
        )

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], run: int = 0) -> Row:
        """Rebuild a row from its plain form, as one of a run."""
        text, growth = plain["started_at"], plain["growth"]
        taken = (plain["phases"][phase] for phase in PHASES)
        setup, call, teardown = (None if one is None else Measurement.from_dict(one) for one in taken)
        return cls(
            nodeid=plain["nodeid"],
            attempt=plain["attempt"],
            worker=plain["worker"],
            outcome=plain["outcome"],
            run=run,
            ended_ns=plain["ended_ns"],
            timeline=plain["timeline"],
            start=None if text is None else Start.from_text(text, plain["started_ns"]),
            isolated=plain["isolated"],
            failed_by_budget=plain["failed_by_budget"],
            setup=setup,
            call=call,
            teardown=teardown,
            blocks=tuple(map(Block.from_dict, plain["blocks"])),
            verdicts=tuple(map(Verdict.from_dict, plain["budgets"])),
            teardown_kept_bytes=plain["teardown_kept_bytes"],
            why=plain["why"],
            growth=None if growth is None else Growth.from_dict(growth),
        )


class Rows:
    """Every row of the run, in the order in which the tests began."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._running: dict[tuple[str | None, str], Row] = {}
        self._ended: dict[str | None, Row] = {}
        """The row that ended last, by worker."""

    def add(self, report: pytest.TestReport, record: PhaseRecord) -> None:
        """Take in a report of a test that was measured, and what came with it."""
        worker = getattr(report, "worker_id", None)
        key = (worker, nodeid := report.nodeid)
        row = self._running.get(key)
        if row is None or row.attempt != record.attempt:
            row = Row(nodeid=nodeid, attempt=record.attempt, worker=worker)
            self._rows.append(row)
            self._running[key] = row
        row.add(report, record)
        if record.before is not None:
            self._note_teardown(worker, record.before)
        if report.when == "teardown":
            del self._running[key]
            self._ended[worker] = row

    def _note_teardown(self, worker: str | None, kept: TeardownKept) -> None:
        """Take in what the test before this one, in the same process, left behind after its call."""
        row = self._ended.get(worker)
        if row is not None and (row.nodeid, row.attempt) == (kept.nodeid, kept.attempt):
            row.teardown_kept_bytes = kept.kept_bytes

    def add_crash(self, report: pytest.TestReport) -> None:
        """Take in what xdist reports for the test that took its worker down."""
        gateway = getattr(getattr(report, "node", None), "gateway", None)
        worker = getattr(gateway, "id", None)
        row = self._running.pop((worker, report.nodeid), None)
        if row is None:
            row = Row(nodeid=report.nodeid, worker=worker)
            self._rows.append(row)
        row.outcome = "crashed"

    def all(self) -> list[Row]:
        """Return every attempt of every test."""
        return list(self._rows)

    def last_attempts(self) -> list[Row]:
        """Return the last attempt of every test: the one that counted."""
        return last_attempts(self._rows)


def last_attempts(rows: Sequence[Row]) -> list[Row]:
    """Return the last attempt of every test: the one that counted. Two tests may share an id."""
    last: list[Row] = []
    places: dict[str, int] = {}
    for row in rows:
        if row.attempt > 1 and row.nodeid in places:
            last[places[row.nodeid]] = row
        else:
            places[row.nodeid] = len(last)
            last.append(row)
    return last
