"""What stands at the top: the run in one sentence, and what somebody has to look at, worst first."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_imu.core.checks import event_reason
from pytest_imu.core.growth import grown_line
from pytest_imu.core.memory.source import SIMULATED
from pytest_imu.core.units import format_mib, plural
from pytest_imu.history.load import LOST
from pytest_imu.history.wording import counts_line, difference_lines, doubts
from pytest_imu.html.picture import Picture
from pytest_imu.html.run import PageRun
from pytest_imu.report.budget_lines import broken_budgets, unchecked_budgets
from pytest_imu.report.rows import Row, last_attempts
from pytest_imu.report.section import legend_lines, remark_lines
from pytest_imu.report.table import entries_of
from pytest_imu.settings import Settings

NAMED = 100
"""How many tests a list names; the table's filters show the rest."""
ENDLESS = (LOST, "crashed", "interrupted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A test that a list names, and what is to be said of it."""

    place: int | None
    """Its place in the table; None where it is not there."""
    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A list of tests under a heading."""

    kind: str
    """"bad", "warn" or "note": how much it matters."""
    title: str
    items: Sequence[Item]
    more: int
    """How many are not named."""


def sentence(run: PageRun, picture: Picture | None) -> str:
    """Return the run in one sentence."""
    rows = run.rows
    measured = [row for row in rows if row.call is not None]
    workers = {row.worker for row in rows if row.worker}
    took = "" if picture is None else f" in {picture.seconds:,.1f} s"
    on = f" on {plural(len(workers), 'worker')}" if workers else ""
    told = [f"{plural(len(measured), 'test')} measured{took}{on}"]
    outcomes = Counter(verdict.outcome for row in rows for verdict in row.verdicts)
    unchecked = len(unchecked_budgets(rows))
    if outcomes["broken"]:
        told.append(f"{plural(outcomes['broken'], 'budget')} broken")
    elif outcomes["kept"]:
        told.append(f"{plural(outcomes['kept'], 'budget')} kept")
    elif not outcomes:
        told.append("no budgets")
    if unchecked:
        told.append(f"{plural(unchecked, 'budget')} not checked")
    if run.comparison is not None:
        told.append(f"{plural(run.comparison.counts['grew'], 'test')} grew")
    peaks = [row.call.peak_bytes for row in measured if row.call and row.call.peak_bytes is not None]
    if peaks:
        told.append(f"the largest peak is {format_mib(max(peaks))} MiB")
    return f"{told[0]}: {', '.join(told[1:])}."


def groups_of(run: PageRun) -> list[Group]:
    """Return what has to be looked at, worst first."""
    finders = (_broken, _endless, _grown, _not_checked, _not_measured, _doubts)
    return [group for find in finders for group in find(run)]


def remarks_of(run: PageRun, settings: Settings) -> list[str]:
    """Return what has to be known of the numbers, a sentence each."""
    rows = last_attempts(run.attempts)
    entries = entries_of(rows)
    remarks = _joined(remark_lines(rows, entries, settings))
    if entries:
        width = sys.maxsize  # the browser folds it
        remarks[:0] = legend_lines(entries, run.noise_bytes, run.resolution_bytes, width=width)
    if run.comparison is not None:
        remarks.append(counts_line(run.comparison, whole=run.whole))
        remarks += difference_lines(run.comparison)
    return remarks


def _joined(lines: Sequence[str]) -> list[str]:
    """Return lines with those that are indented at the end of the one above them."""
    joined: list[str] = []
    for line in lines:
        if line.startswith(" ") and joined:
            joined[-1] += (" " if joined[-1].endswith(":") else ", ") + " ".join(line.split())
        else:
            joined.append(line)
    return joined


def _group(kind: str, title: str, items: Sequence[Item]) -> Iterator[Group]:
    if items:
        more = max(0, len(items) - NAMED)
        yield Group(kind=kind, title=title, items=items[:NAMED], more=more)


def _item(run: PageRun, row: Row, text: str) -> Item:
    return Item(place=run.places.get(id(row)), name=row.nodeid, text=text)


def _broken(run: PageRun) -> Iterator[Group]:
    items = [_item(run, row, verdict.reason or "") for row, verdict in broken_budgets(run.rows)]
    yield from _group("bad", f"{plural(len(items), 'budget')} broken", items)


def _endless(run: PageRun) -> Iterator[Group]:
    outcomes = [(row, row.outcome or "interrupted") for row in run.rows]
    items = [_item(run, row, outcome) for row, outcome in outcomes if outcome in ENDLESS]
    yield from _group("bad", f"{plural(len(items), 'test')} did not come to an end", items)


def _grown(run: PageRun) -> Iterator[Group]:
    if (comparison := run.comparison) is None:
        return
    items = [
        _item(run, run.by_nodeid[nodeid], grown_line(change, comparison.base))
        for nodeid, change in comparison.grown
    ]
    yield from _group("bad", f"{plural(comparison.counts['grew'], 'test')} grew", items)


def _not_checked(run: PageRun) -> Iterator[Group]:
    by_reason: dict[str, list[Item]] = {}
    for row, verdict, why in unchecked_budgets(run.rows):
        by_reason.setdefault(why, []).append(_item(run, row, str(verdict.budget)))
    for reason, items in by_reason.items():
        yield from _group("warn", f"{plural(len(items), 'budget')} not checked: {reason}", items)


def _not_measured(run: PageRun) -> Iterator[Group]:
    """Give what has no number, by reason: the memory of tests, and events."""
    by_reason: dict[str, list[Item]] = {}
    for row in run.rows:
        call = row.call
        if call is not None and call.source == "none" and call.reason != SIMULATED:
            by_reason.setdefault(f"not measured: {call.reason}", []).append(_item(run, row, ""))
        for reading in () if call is None else call.counters:
            if reading.reason is not None:
                reason = f"not counted: {event_reason(reading.event, reading.reason)}"
                by_reason.setdefault(reason, []).append(_item(run, row, ""))
    for reason, items in by_reason.items():
        yield from _group("warn", f"{plural(len(items), 'test')} {reason}", items)


def _doubts(run: PageRun) -> Iterator[Group]:
    for why, nodeids in () if run.comparison is None else doubts(run.comparison):
        items = [_item(run, run.by_nodeid[nodeid], "") for nodeid in nodeids]
        yield from _group("warn", f"{plural(len(items), 'test')} {why}", items)
