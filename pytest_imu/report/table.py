"""The table of the section: one line a test's call, or its setup where that took more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_imu.core.checks import FULLY_RUNNING_PERCENT
from pytest_imu.core.memory.reusable import NOTEWORTHY_BYTES, reused_in
from pytest_imu.core.model import ChildrenMemory, CounterReading, Measurement, Phase
from pytest_imu.core.units import (
    MIB,
    align_right,
    encodable,
    format_count,
    format_limit,
    format_mib,
    format_seconds,
    plural,
    printable,
)
from pytest_imu.history.compare import Compared, Comparison
from pytest_imu.history.wording import change_text, was_text
from pytest_imu.kinds import SortKey
from pytest_imu.report.names import Label, folded, lay_out
from pytest_imu.report.rows import Row
from pytest_imu.settings import Settings

SETUP_MARGIN_BYTES = MIB // 2
"""Nearer than that two peaks cannot be told apart, and a row would tell nobody anything."""
GAP = "  "
SORT_WORDS = {
    "peak": "largest peak first",
    "delta": "largest delta first",
    "total": "largest total first",
    "time": "longest first",
    "name": "by name",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the table: a test's call, or its setup where that took more."""

    row: Row
    measurement: Measurement
    phase: Phase = "call"

    @property
    def remarks(self) -> str:
        """What stands behind the name, in brackets."""
        remarks: list[str] = [] if self.phase == "call" else [self.phase]
        if self.measurement.had_children and self.measurement.children_memory is None:
            remarks.append("had child processes, not counted")
        if self.measurement.imports:
            remarks.append(f"imports {', '.join(self.measurement.imports)}")
        return f" ({'; '.join(remarks)})" if remarks else ""


def entries_of(rows: Sequence[Row]) -> list[Entry]:
    """Return what the table can show: every call that ran, and every setup that took more than it."""
    entries = []
    for row in rows:
        call, setup = row.call, row.setup
        if setup is not None and _shows_more(setup, call):
            entries.append(Entry(row=row, measurement=setup, phase="setup"))
        if call is not None:
            entries.append(Entry(row=row, measurement=call))
        if (teardown := _teardown(row, call)) is not None:
            entries.append(Entry(row=row, measurement=teardown, phase="teardown"))
    return entries


def _teardown(row: Row, call: Measurement | None) -> Measurement | None:
    """Return what a teardown kept or needed where that is worth a row; None where it is not."""
    if row.teardown is not None:
        return row.teardown if (row.teardown.peak_bytes or 0) >= NOTEWORTHY_BYTES else None
    if row.teardown_kept_bytes is None or call is None or call.after_bytes is None:
        return None
    # Nobody measured it: it is known by what stood before and after it.
    after_bytes = call.after_bytes + row.teardown_kept_bytes
    return Measurement(
        before_bytes=call.after_bytes,
        after_bytes=after_bytes,
        rss_peak_bytes=after_bytes,
        duration_ns=0,
        source="sampled",
    )


def _shows_more(setup: Measurement, call: Measurement | None) -> bool:
    call_peak_bytes = (call.peak_bytes or 0) if call is not None else 0
    return (setup.peak_bytes or 0) > call_peak_bytes + SETUP_MARGIN_BYTES


def arrange(entries: Sequence[Entry], settings: Settings) -> list[Entry]:
    """Return the entries to show: large enough, sorted, and no more than asked for."""
    shown = [entry for entry in entries if _is_large_enough(entry, settings)]
    if settings.sort == "name":
        shown.sort(key=lambda entry: entry.row.nodeid)
    elif event := _event_to_sort_by(entries, settings.sort):
        shown.sort(key=lambda entry: -(_value_of(entry.measurement, event) or 0))
    else:
        shown.sort(key=lambda entry: _largest_first(entry.measurement, settings.sort))
    return shown[: settings.top] if settings.top else shown


def _event_to_sort_by(entries: Sequence[Entry], sort: SortKey) -> str | None:
    """Return the first event that was counted where sizes were asked for and none is known."""
    measured = [entry.measurement for entry in entries]
    if sort in ("time", "name") or any(one.source != "none" for one in measured):
        return None
    return next((reading.event for one in measured for reading in one.counters), None)


def _value_of(measurement: Measurement, event: str) -> float | None:
    return next((reading.value for reading in measurement.counters if reading.event == event), None)


def _is_large_enough(entry: Entry, settings: Settings) -> bool:
    peak_bytes = entry.measurement.peak_bytes
    return peak_bytes is None or peak_bytes >= (settings.min_mib or 0) * MIB


def _largest_first(measurement: Measurement, sort: SortKey) -> tuple[bool, int]:
    value = {
        "peak": measurement.peak_bytes,
        "delta": measurement.delta_bytes,
        "total": measurement.after_bytes,
        "time": measurement.duration_ns,
    }[sort]
    return value is None, -(value or 0)


def table(
    entries: Sequence[Entry],
    *,
    width: int,
    verbose: bool,
    encoding: str = "utf-8",
    comparison: Comparison | None = None,
) -> list[str]:
    """Return the table's lines, heading first, none wider than *width*.

    *verbose* shows blocks, and whole names, which may run over.
    """
    labels, measured, workers = [], [], ["worker"]
    for entry in entries:
        labels.append(Label(encodable(printable(entry.row.nodeid), encoding), entry.remarks))
        measured.append(entry.measurement)
        workers.append(entry.row.worker or "")
        for block in entry.row.blocks if verbose and entry.phase == "call" else ():
            name = encodable(f"  block {printable(block.name)}", encoding)
            labels.append(Label(name, is_test=False))
            measured.append(block.measurement)
            workers.append("")
    cells = [
        _peak_column(measured),
        *_was_columns(entries, comparison, blocks=verbose),
        ["delta", *(format_mib(one.delta_bytes) for one in measured)],
        ["total", *(format_mib(one.after_bytes) for one in measured)],
        ["time", *(format_seconds(one.duration_ns) for one in measured)],
        *_children_columns(measured),
        *_event_columns(measured),
        *([workers] if any(workers[1:]) else []),
    ]
    rows = list(zip(*cells, strict=True))
    numbers = align_right(rows)
    column = len(numbers[0]) + len(GAP)
    if column > width:
        return list(_without_columns(rows, labels, width=width, whole=verbose))
    lines = []
    shown = lay_out(labels, width=width, column=column, whole=verbose)
    for left, (name, *below) in zip(numbers, shown, strict=True):
        lines += [f"{left}{GAP}{name}".rstrip(), *below]
    return lines


def _without_columns(
    rows: Sequence[Sequence[str]], labels: Sequence[Label], *, width: int, whole: bool
) -> Iterator[str]:
    """Give the rows where the terminal is too narrow for their numbers side by side."""
    headings = rows[0]
    for label, cells in zip(labels, rows[1:], strict=True):
        numbers = (f"{head} {cell.strip()}" for head, cell in zip(headings, cells, strict=True) if cell)
        yield from [label.text] if whole else folded(label.text, width)
        yield from (f"  {line}" for line in folded(", ".join(map(str.strip, numbers)), width - 2))


def _was_columns(
    entries: Sequence[Entry], comparison: Comparison | None, *, blocks: bool
) -> list[list[str]]:
    """Return what each test's number was in an earlier run, and by how much it changed."""
    if comparison is None:
        return []
    cells = []
    for entry in entries:
        test = comparison.by_nodeid.get(entry.row.nodeid) if entry.phase == "call" else None
        cells.append(("", "new" if entry.phase == "call" else "") if test is None else _cells(test))
        cells += [("", "") for _ in (entry.row.blocks if blocks and entry.phase == "call" else ())]
    return [list(column) for column in zip(("was", "change"), *cells, strict=True)]


def _cells(test: Compared) -> tuple[str, str]:
    change = test.changes[0]
    return was_text(change), change_text(change) + (" alone" if change.alone else "")


def _peak_column(measured: Sequence[Measurement]) -> list[str]:
    """Return the peaks under their heading, each with what may have been reused, the numbers aligned."""
    peaks, reused = ["peak"], [""]
    for one in measured:
        peaks.append(peak_text(one))
        reused_bytes = reused_in(one)
        reused.append(f" (+{reused_bytes / MIB:.0f} reusable)" if reused_bytes else "")
    room = max(map(len, reused))
    numbers = align_right([[peak] for peak in peaks])
    return [number + more.ljust(room) for number, more in zip(numbers, reused, strict=True)]


def peak_text(one: Measurement) -> str:
    """Return a peak in MiB; one that is a lower bound has a sign."""
    is_bound = one.source == "sampled" and one.peak_bytes is not None
    return ("~" if is_bound else "") + format_mib(one.peak_bytes)


def _children_columns(measured: Sequence[Measurement]) -> list[list[str]]:
    """Return the column of the children's memory, where that was asked for."""
    memories = [one.children_memory for one in measured]
    if not any(memories):
        return []
    sampled = ("" if memory is None else _sampled(memory) for memory in memories)
    return [["children", *sampled]]


def _sampled(memory: ChildrenMemory) -> str:
    return "n/a" if memory.peak_bytes is None else f"~{format_mib(memory.peak_bytes)}"


def _event_columns(measured: Sequence[Measurement]) -> list[list[str]]:
    """Return a column for each event that was counted anywhere, with its rate behind the first."""
    columns = []
    for name, own in readings_by_event(measured):
        columns.append([name, *map(count_text, own)])
        # A rate of what is simulated, fifty times slower, would say nothing.
        timed = any(one is not None and not one.is_simulated for one in own)
        if len(columns) == 1 and timed:
            columns.append(["/s", *("" if one is None else _rate(one) for one in own)])
    return columns


def readings_by_event(
    measured: Sequence[Measurement | None],
) -> Iterator[tuple[str, list[CounterReading | None]]]:
    """Give the name of each event that was counted anywhere, and what each measurement has of it."""
    counters = [() if one is None else one.counters for one in measured]
    counted = [{reading.event: reading for reading in own} for own in counters]
    for event in dict.fromkeys(event for own in counted for event in own):
        readings = [own.get(event) for own in counted]
        yield max((one.name for one in readings if one is not None), key=len), readings


def _rate(reading: CounterReading) -> str:
    return "" if reading.per_second is None else f"{reading.per_second:,.0f}"


def count_text(reading: CounterReading | None) -> str:
    """Return a count, with a sign where it was scaled up; nothing where none was asked for."""
    if reading is None or reading.value is None:
        return "" if reading is None else "n/a"
    return format_count(reading.value) + ("*" if is_scaled(reading) else "")


def is_scaled(reading: CounterReading) -> bool:
    """Tell whether the event was counted for a part of the time only, and the count scaled up."""
    return reading.running_percent is not None and reading.running_percent < FULLY_RUNNING_PERCENT


def counts_line(shown: Sequence[Entry], entries: Sequence[Entry], settings: Settings) -> str:
    """Return how many of how many are shown, and in which order."""
    phases = Counter(entry.phase for entry in entries)
    rows = f"{len(shown)} of {plural(phases['call'], 'test')}"
    if len(entries) > phases["call"]:
        nouns: dict[Phase, str] = {"call": "test", "setup": "setup", "teardown": "teardown"}
        parts = ", ".join(plural(phases[one], noun) for one, noun in nouns.items() if phases[one])
        rows = f"{len(shown)} of {plural(len(entries), 'row')} ({parts})"
    under = sum(not _is_large_enough(entry, settings) for entry in entries)
    left_out = f"; {under} under {format_limit(settings.min_mib or 0)} MiB left out" if under else ""
    more = ""
    if len(shown) + under < len(entries):
        more = f"; --imu-top=0 shows {'the rest' if under else 'all'}"
    event = _event_to_sort_by(entries, settings.sort)
    order = SORT_WORDS[settings.sort] if event is None else f"most {event} first"
    return f"{rows}, {order}{left_out}{more}"
