"""The table's columns: for each what it shows of every test, and what it is sorted by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pytest_imu.core.budgets import Budget
from pytest_imu.core.model import CounterReading, Measurement
from pytest_imu.core.units import MIB, format_count, format_mib, format_seconds
from pytest_imu.history.compare import Comparison
from pytest_imu.history.wording import change_text, shown_change, was_text
from pytest_imu.html.run import PageRun
from pytest_imu.report.rows import Row
from pytest_imu.report.table import is_scaled

Key = float | str | None
VERDICTS = ("broken", "unchecked", "kept")
"""The verdict on a test's budgets is the first of these that any of them has."""
VERDICT_WORDS = {"unchecked": "not checked"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What stands in one place of the table; a bar behind it, in percent, and a mark on that."""

    text: str
    key: Key
    bar: float | None = None
    mark: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column."""

    title: str
    about: str
    cells: Sequence[Cell]
    is_number: bool = True
    is_wide: bool = False
    """Whether it is left out where there is little room; each test's part has it too."""


def columns_of(run: PageRun) -> list[Column]:
    """Return the columns behind the test's name."""
    rows = run.rows
    columns = [
        Column(
            title="outcome",
            about="the test's outcome",
            cells=[_text(row.outcome or "interrupted") for row in rows],
            is_number=False,
            is_wide=True,
        )
    ]
    if any(row.verdicts for row in rows):
        cells = [_text(verdict_of(row)) for row in rows]
        columns.append(
            Column(title="budget", about="its budgets", cells=cells, is_number=False, is_wide=True)
        )
    columns.append(_peak_column(rows))
    if run.comparison is not None:
        columns += _changes(rows, run.comparison)
    columns += [
        _size_column(
            "kept",
            "RSS at the end, above the start, in MiB",
            rows,
            lambda call: call.delta_bytes,
            bars=True,
        ),
        _size_column("total", "RSS at the end, in MiB", rows, lambda call: call.after_bytes),
        Column(
            title="time",
            about="how long it took, in seconds",
            cells=[
                Cell(text="", key=None)
                if row.call is None
                else Cell(text=format_seconds(row.call.duration_ns), key=row.call.duration_ns)
                for row in rows
            ],
            is_wide=True,
        ),
        *_event_columns(rows),
    ]
    if any(row.worker for row in rows):
        cells = [_text(row.worker or "") for row in rows]
        columns.append(
            Column(title="worker", about="who ran it", cells=cells, is_number=False, is_wide=True)
        )
    return columns


def verdict_of(row: Row) -> str:
    """Return what became of a test's budgets, as a word; empty where it has none."""
    outcomes = {verdict.outcome for verdict in row.verdicts}
    worst = next((one for one in VERDICTS if one in outcomes), "")
    return VERDICT_WORDS.get(worst, worst)


def _text(text: str) -> Cell:
    return Cell(text=text, key=text)


def _peak_column(rows: Sequence[Row]) -> Column:
    """Return the peaks as bars, the limit of each as a mark on its bar."""
    scale_bytes = max((row.call.peak_bytes or 0 for row in rows if row.call is not None), default=0) or 1
    return Column(
        title="peak",
        about="highest RSS, above the start, in MiB; a line on the bar is its limit",
        cells=[_peak(row, scale_bytes) for row in rows],
    )


def _peak(row: Row, scale_bytes: int) -> Cell:
    if row.call is None:
        return Cell(text="", key=None)
    limits = [
        verdict.budget.limit_mib * MIB
        for verdict in row.verdicts
        if isinstance(verdict.budget, Budget)
        and (verdict.budget.metric, verdict.budget.phase) == ("peak", "call")
    ]
    peak_bytes = row.call.peak_bytes
    return Cell(
        text=size_text(row.call, peak_bytes),
        key=peak_bytes,
        bar=_percent(peak_bytes, scale_bytes),
        mark=_percent(min(limits), scale_bytes) if limits else None,
    )


def size_text(measurement: Measurement, size_bytes: int | None) -> str:
    """Return a peak in MiB, with a sign where it is a lower bound."""
    sampled = "~" if measurement.source == "sampled" and size_bytes is not None else ""
    return sampled + format_mib(size_bytes)


def _percent(value: float | None, whole: float) -> float | None:
    """Return a share of the room; none where there would be nothing to see."""
    share = None if value is None else round(min(max(value / whole * 100, 0), 100), 1)
    return share or None


def _size_column(
    title: str,
    about: str,
    rows: Sequence[Row],
    size_of: Callable[[Measurement], int | None],
    *,
    bars: bool = False,
) -> Column:
    sizes = [None if row.call is None else size_of(row.call) for row in rows]
    scale = max((size or 0 for size in sizes), default=0) or 1
    return Column(
        title=title,
        about=about,
        cells=[
            Cell(
                text="" if row.call is None else format_mib(size),
                key=size,
                bar=_percent(size, scale) if bars else None,
            )
            for row, size in zip(rows, sizes, strict=True)
        ],
        is_wide=not bars,
    )


def _changes(rows: Sequence[Row], comparison: Comparison) -> list[Column]:
    """Return what each test's number was, and by how much it changed."""
    was, change = [], []
    for row in rows:
        test = comparison.by_nodeid.get(row.nodeid)
        if test is None:
            was.append(Cell(text="", key=None))
            change.append(Cell(text="new", key=None))
            continue
        shown = shown_change(test)
        was.append(Cell(text=was_text(shown), key=shown.was))
        change.append(Cell(text=change_text(shown), key=shown.by))
    return [
        Column(title="was", about=f"what it was in {comparison.base}", cells=was, is_wide=True),
        Column(title="change", about="by how much it changed", cells=change),
    ]


def _event_columns(rows: Sequence[Row]) -> Iterator[Column]:
    """Give a column for each event that was counted anywhere."""
    counted = [{} if row.call is None else {one.event: one for one in row.call.counters} for row in rows]
    for event in dict.fromkeys(event for own in counted for event in own):
        readings = [own.get(event) for own in counted]
        name = max((one.name for one in readings if one is not None), key=len)
        yield Column(
            title=name,
            about="how often it happened",
            cells=[_count(one) for one in readings],
            is_wide=True,
        )


def _count(reading: CounterReading | None) -> Cell:
    if reading is None or reading.value is None:
        return Cell(text="" if reading is None else "n/a", key=None)
    return Cell(
        text=format_count(reading.value) + ("*" if is_scaled(reading) else ""), key=reading.value
    )
