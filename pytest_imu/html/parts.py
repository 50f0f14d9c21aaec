"""A test's own part of the page: everything that is known of it, as text that is ready to be shown."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_imu.core.budgets import LeakBudget, Verdict
from pytest_imu.core.memory.reusable import reused_in
from pytest_imu.core.model import CounterReading, Measurement
from pytest_imu.core.units import (
    format_bytes,
    format_count,
    format_limit,
    format_mib,
    format_seconds,
)
from pytest_imu.history.headroom import suggested_mib
from pytest_imu.history.wording import change_text, was_text
from pytest_imu.html.columns import VERDICT_WORDS
from pytest_imu.html.lines import Lines, lines_of
from pytest_imu.html.run import PageRun
from pytest_imu.report.rows import Row
from pytest_imu.report.suggestions import calls_by_function, function_of
from pytest_imu.report.table import is_scaled, peak_text

LONGEST_TYPED = 1000
"""A longer id nobody types, nor do shells take a line of any length."""
LONGEST_NAME = 300
"""What the table shows of an id; the test's part has all of it."""
RAW_SAMPLES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A phase or a block: its numbers, and what has to be known of them."""

    name: str
    numbers: Sequence[str]
    """Before, peak, kept, after and time."""
    notes: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetShown:
    """A budget and what became of it."""

    text: str
    actual: str
    verdict: str
    percent: float | None
    """How much of the limit was used."""
    notes: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterShown:
    """An event that was counted in the call."""

    name: str
    value: str
    per_second: str
    notes: Sequence[str]
    curve: str
    """The points of its samples, 100 across and from 20 to 0 upwards; empty for fewer than 2."""
    samples: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One test."""

    folder: str
    """The id up to the test's own name."""
    name: str
    whole_name: str | None
    """The id, where the table shows less of it."""
    about: Sequence[str]
    steps: Sequence[Step]
    budgets: Sequence[BudgetShown]
    counters: Sequence[CounterShown]
    changes: Sequence[str]
    lines: Lines | None
    marker: str | None
    command: str


def parts_of(run: PageRun) -> Iterator[Part]:
    """Give each test's part, in the order of the rows."""
    limits = {
        function: suggested_mib(max(call.peak_bytes or 0 for call in calls), run.floor_bytes)
        for function, calls in calls_by_function(run.rows).items()
    }
    earlier: dict[str, list[Row]] = {}
    for row in run.attempts:
        if id(row) not in run.places:
            earlier.setdefault(row.nodeid, []).append(row)
    for row in run.rows:
        yield _part(run, row, limits=limits, earlier=earlier.get(row.nodeid, ()))


def _part(run: PageRun, row: Row, *, limits: Mapping[str, float], earlier: Sequence[Row]) -> Part:
    folder, name = split_name(row.nodeid)
    is_limited = any(verdict.budget.name == "max_peak_mib" for verdict in row.verdicts)
    limit = None if is_limited else limits.get(function_of(row.nodeid))
    return Part(
        folder=folder,
        name=name,
        whole_name=row.nodeid if len(row.nodeid) > LONGEST_NAME else None,
        about=list(_about(row, earlier)),
        steps=[
            *(_step(phase, one) for phase, one in row.phases.items()),
            *(_step(f"block {block.name}", block.measurement) for block in row.blocks),
        ],
        budgets=[_budget(verdict) for verdict in row.verdicts],
        counters=[] if row.call is None else [_counter(one) for one in row.call.counters],
        changes=list(_changes(run, row)),
        lines=None if row.why is None else lines_of(row.why),
        marker=None if limit is None else f"@pytest.mark.max_peak_mib({format_limit(limit)})",
        command=_command(row.nodeid),
    )


def split_name(nodeid: str) -> tuple[str, str]:
    """Return where a test stands, and its own name; both cut where nobody would read them."""
    folder, separator, name = nodeid.partition("::")
    if not separator:
        folder, name = "", nodeid
    if len(nodeid) > LONGEST_NAME:
        folder, name = folder[: LONGEST_NAME // 2], name[: LONGEST_NAME // 2] + "..."
    return folder + separator, name


def _about(row: Row, earlier: Sequence[Row]) -> Iterator[str]:
    """Give sentences about the test as a whole."""
    where = f" on {row.worker}" if row.worker else ""
    alone = " in a process of its own" if row.isolated else ""
    yield f"{row.outcome or 'interrupted'}{where}{alone}"
    if row.failed_by_budget:
        yield "it ran to its end, and only a budget failed it"
    for one in earlier:
        peak = "" if one.call is None else f", peak {format_mib(one.call.peak_bytes)}"
        yield f"attempt {one.attempt}: {one.outcome or 'interrupted'}{peak}"
    if row.teardown_kept_bytes is not None and row.teardown is None:
        yield f"between its call and the next test {format_mib(row.teardown_kept_bytes)} MiB stayed"


def _step(name: str, one: Measurement) -> Step:
    numbers = (
        format_mib(one.before_bytes),
        peak_text(one),
        format_mib(one.delta_bytes),
        format_mib(one.after_bytes),
        format_seconds(one.duration_ns),
    )
    return Step(name=name, numbers=numbers, notes=list(_notes(one)))


def _notes(one: Measurement) -> Iterator[str]:
    """Give what has to be known of a measurement."""
    if one.source == "none":
        yield f"not measured: {one.reason}"
    elif one.source == "sampled":
        reason = f" ({one.reason})" if one.reason else ""
        yield f"sampled: the peak is a lower bound{reason}"
    elif one.reason:
        yield one.reason
    yield from _reuse(one)
    if one.tracer:
        yield f"traced by {one.tracer}: the numbers include its memory"
    if one.imports:
        yield f"the first to import {', '.join(one.imports)}: what that takes is in these numbers"
    memory = one.children_memory
    if memory is not None and memory.peak_bytes is None:
        yield f"child processes n/a: {memory.reason}"
    elif memory is not None and memory.most:
        size = format_mib(memory.peak_bytes)
        yield f"child processes: {size} MiB, {memory.most} at once ({memory.label})"
    elif memory is None and one.had_children:
        yield "had child processes, which are not in these numbers"


def _reuse(one: Measurement) -> Iterator[str]:
    """Give what memory that was free already means for the peak."""
    if one.source != "kernel" or one.peak_bytes is None:
        return
    if one.reusable_bytes is None:
        yield "how much freed memory it used again is not known: it may need more than its peak"
    elif one.reusable_bytes:
        free, most = format_mib(one.reusable_bytes), format_mib(one.peak_bytes + one.reusable_bytes)
        likely = reused_in(one)
        advice = "; --imu-isolate tells" if likely else ", and likely not more"
        yield (
            f"{free} MiB were free as it began, which it may have used again: "
            f"it needs {format_mib(one.peak_bytes)} to {most} MiB{advice}"
        )


def _budget(verdict: Verdict) -> BudgetShown:
    budget, plain = verdict.budget, verdict.to_dict()
    actual = format_mib(verdict.actual_bytes)
    if verdict.actual_count is not None:
        actual = format_count(verdict.actual_count)
    elif isinstance(budget, LeakBudget) and verdict.actual_bytes is not None:
        actual = format_bytes(verdict.actual_bytes)
    used, limit = plain["actual"], plain["limit"]
    notes = [] if verdict.reason is None else [verdict.reason]
    if verdict.decided_by == "alone":
        notes.append(f"decided by a run alone; the first run had {format_mib(verdict.first_bytes)}")
    if verdict.not_alone:
        notes.append(f"no run alone: {verdict.not_alone}")
    if verdict.unreliable:
        notes.append("nearer to the limit than the noise")
    if budget.origin:
        notes.append(f"from {budget.origin}")
    return BudgetShown(
        text=str(budget),
        actual=actual,
        verdict=VERDICT_WORDS.get(verdict.outcome, verdict.outcome),
        percent=round(min(max(used / limit, 0), 1) * 100, 1) if used is not None and limit > 0 else None,
        notes=notes,
    )


def _counter(reading: CounterReading) -> CounterShown:
    notes = [] if reading.reason is None else [reading.reason]
    if is_scaled(reading):
        notes.append(f"scaled: counted {reading.running_percent:.0f} % of the time")
    if reading.user_only:
        notes.append("in user space only")
    notes.append("simulated by callgrind" if reading.is_simulated else f"by {reading.source}")
    shown = [format_count(value) for value in reading.samples[:RAW_SAMPLES]]
    more = len(reading.samples) - len(shown)
    return CounterShown(
        name=reading.name,
        value="n/a" if reading.value is None else format_count(reading.value),
        per_second="" if reading.per_second is None else f"{reading.per_second:,.0f}",
        notes=notes,
        curve=_curve(reading.samples),
        samples=", ".join(shown) + (f" and {more} more" if more > 0 else ""),
    )


def _curve(samples: Sequence[float]) -> str:
    if len(samples) <= 1:
        return ""
    highest = max(samples) or 1
    across = 100 / (len(samples) - 1)
    return " ".join(
        f"{number * across:.4g},{20 - max(0, value) / highest * 20:.3g}"
        for number, value in enumerate(samples)
    )


def _changes(run: PageRun, row: Row) -> Iterator[str]:
    """Give what was compared with the earlier run."""
    comparison = run.comparison
    test = None if comparison is None else comparison.by_nodeid.get(row.nodeid)
    if comparison is None or test is None:
        return
    for change in test.changes:
        reason = f": {change.reason}" if change.reason else ""
        was = "" if change.was is None else f", was {was_text(change)} in {comparison.base}"
        was += "" if change.by is None else f" ({change_text(change)})"
        yield f"{change.increase.subject} {change.status}{was}{reason}"


def _command(nodeid: str) -> str:
    """Return what runs a test alone; its whole file where the id is nothing to type."""
    path = nodeid.partition("::")[0]
    for typed in (nodeid, path):
        if typed.isprintable() and len(typed) <= LONGEST_TYPED:
            return f"pytest --imu {shlex.quote(typed)}"
    return "pytest --imu"
