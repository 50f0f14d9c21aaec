"""The table's columns: for each what it shows of every test, and what it is sorted by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pytest_imu.core.budgets import Budget, Metric
from pytest_imu.core.model import Measurement
from pytest_imu.core.units import MIB, format_mib, format_seconds
from pytest_imu.history.compare import Comparison
from pytest_imu.history.wording import change_text, shown_change, was_text
from pytest_imu.html.run import PageRun
from pytest_imu.report.rows import Row
from pytest_imu.report.table import count_text, peak_text, readings_by_event

Key = float | str | None
BAR_WIDTH = 118
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
    width: int = 72
    """In pixels, where there is room."""
    is_number: bool = True
    is_wide: bool = False
    """Whether it is left out where there is little room; each test's part has it too."""


def columns_of(run: PageRun) -> list[Column]:
    """Return the columns behind the test's name."""
    rows = run.rows
    outcomes = [row.outcome or "interrupted" for row in rows]
    columns = [_text_column("outcome", "the test's outcome", outcomes, width=84)]
    if any(row.verdicts for row in rows):
        columns.append(_text_column("budget", "its budgets", map(verdict_of, rows), width=98))
    columns.append(_bar_column("peak", "highest RSS, above the start", rows, "peak"))
    if run.comparison is not None:
        columns += _changes(rows, run.comparison)
    columns += [
        _bar_column("kept", "RSS at the end, above the start", rows, "delta"),
        _plain_column(
            "total", "RSS at the end, in MiB", rows, format_mib, lambda call: call.after_bytes
        ),
        _plain_column("time", "how long it took", rows, format_seconds, lambda call: call.duration_ns),
        *_event_columns(rows),
    ]
    if any(row.worker for row in rows):
        workers = [row.worker or "" for row in rows]
        columns.append(_text_column("worker", "who ran it", workers, width=68))
    return columns


def verdict_of(row: Row) -> str:
    """Return what became of a test's budgets, as a word; empty where it has none."""
    outcomes = {verdict.outcome for verdict in row.verdicts}
    worst = next((one for one in VERDICTS if one in outcomes), "")
    return VERDICT_WORDS.get(worst, worst)


def _text_column(title: str, about: str, texts: Iterable[str], *, width: int) -> Column:
    cells = [Cell(text=text, key=text) for text in texts]
    return Column(title=title, about=about, cells=cells, width=width, is_number=False, is_wide=True)


def _bar_column(title: str, about: str, rows: Sequence[Row], metric: Metric) -> Column:
    """Return sizes as bars, the limit of each as a mark on its bar."""
    sizes = [None if row.call is None else _size_of(row.call, metric) for row in rows]
    scale_bytes = max((size or 0 for size in sizes), default=0) or 1
    return Column(
        title=title,
        about=f"{about}, in MiB; a line on the bar is its limit",
        width=BAR_WIDTH,
        cells=[
            Cell(
                text="" if row.call is None else _size_text(row.call, metric),
                key=size,
                bar=_percent(size, scale_bytes),
                mark=_percent(_limit_bytes(row, metric), scale_bytes),
            )
            for row, size in zip(rows, sizes, strict=True)
        ],
    )


def _size_of(call: Measurement, metric: Metric) -> int | None:
    return call.peak_bytes if metric == "peak" else call.delta_bytes


def _limit_bytes(row: Row, metric: Metric) -> float | None:
    budgets = (verdict.budget for verdict in row.verdicts)
    limits = [
        budget.limit_mib * MIB
        for budget in budgets
        if isinstance(budget, Budget) and (budget.metric, budget.phase) == (metric, "call")
    ]
    return min(limits, default=None)


def _size_text(call: Measurement, metric: Metric) -> str:
    return peak_text(call) if metric == "peak" else format_mib(call.delta_bytes)


def _percent(value: float | None, whole: float) -> float | None:
    """Return a share of the room; none where there would be nothing to see."""
    share = None if value is None else round(min(max(value / whole * 100, 0), 100), 1)
    return share or None


def _plain_column(
    title: str,
    about: str,
    rows: Sequence[Row],
    text_of: Callable[[int | None], str],
    number_of: Callable[[Measurement], int | None],
) -> Column:
    numbers = [None if row.call is None else number_of(row.call) for row in rows]
    cells = [
        Cell(text="" if row.call is None else text_of(number), key=number)
        for row, number in zip(rows, numbers, strict=True)
    ]
    return Column(title=title, about=about, cells=cells, is_wide=True)


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
    for name, readings in readings_by_event([row.call for row in rows]):
        cells = [Cell(text=count_text(one), key=None if one is None else one.value) for one in readings]
        yield Column(title=name, width=88, about="how often it happened", cells=cells, is_wide=True)
