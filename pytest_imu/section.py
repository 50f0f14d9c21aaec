"""The terminal section: rows in, lines of text out."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_imu.core.budgets import FULLY_RUNNING_PERCENT, event_reason
from pytest_imu.core.memory import peak_source
from pytest_imu.core.model import CounterReading, Measurement
from pytest_imu.core.text import align_right, cut_middle, plural, printable
from pytest_imu.core.units import MIB, format_count, format_limit, format_mib, format_seconds
from pytest_imu.rows import Row
from pytest_imu.settings import Settings, SortKey


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the section and its colour, if any."""

    text: str
    colour: str | None = None

    @property
    def markup(self) -> dict[str, bool]:
        """The colour as pytest's terminal writer takes it."""
        return {} if self.colour is None else {self.colour: True}


def lines(
    rows: Sequence[Row], settings: Settings, *, width: int, verbosity: int, encoding: str = "utf-8"
) -> list[Line]:
    """Return what the section says; nothing at all where there is nothing to say."""
    broken = [Line(text, "red") for text in broken_lines(rows)]
    shown: list[Line] = []
    if verbosity < 0:
        shown = broken
    else:
        if settings.report and not settings.off:
            report = report_lines(rows, settings, width, verbosity, encoding)
            shown += [Line(text) for text in report] + broken
        shown += [Line(text, "yellow") for text in unchecked_lines(rows)]
    return [Line(encodable(line.text, encoding), line.colour) for line in shown]


def encodable(text: str, encoding: str) -> str:
    """Return *text* with everything escaped that *encoding* does not have."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def report_lines(
    rows: Sequence[Row], settings: Settings, width: int, verbosity: int, encoding: str = "utf-8"
) -> list[str]:
    """Return the table with its counts and its legend."""
    entries = entries_of(rows)
    if not entries:
        return ["no test was measured"]
    shown = arrange(entries, settings)
    return [
        *table(shown, width=width, blocks=verbosity > 0, encoding=encoding),
        counts_line(shown, entries, settings),
        legend_line(entries),
        *unmeasured_lines(entries),
        *counter_lines(entries),
    ]


HEADINGS = ("peak", "delta", "total", "time")
SOURCE_LEGENDS = {
    "kernel": "kernel peaks{}",
    "sampled": "~ sampled, a lower bound",
}
SETUP_MARGIN_BYTES = MIB // 2
"""Nearer than that two peaks cannot be told apart, and a row would tell nobody anything."""
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
    is_setup: bool = False

    @property
    def label(self) -> str:
        """What the last column says."""
        return printable(self.row.nodeid) + (" (setup)" if self.is_setup else "")


def entries_of(rows: Sequence[Row]) -> list[Entry]:
    """Return what the table can show: every call that ran, and every setup that took more than it."""
    entries = []
    for row in rows:
        call, setup = row.phases.get("call"), row.phases.get("setup")
        if setup is not None and _shows_more(setup, call):
            entries.append(Entry(row=row, measurement=setup, is_setup=True))
        if call is not None:
            entries.append(Entry(row=row, measurement=call))
    return entries


def _shows_more(setup: Measurement, call: Measurement | None) -> bool:
    call_peak_bytes = (call.peak_bytes or 0) if call is not None else 0
    return (setup.peak_bytes or 0) > call_peak_bytes + SETUP_MARGIN_BYTES


def arrange(entries: Sequence[Entry], settings: Settings) -> list[Entry]:
    """Return the entries to show: large enough, sorted, and no more than asked for."""
    shown = [entry for entry in entries if _is_large_enough(entry, settings)]
    if settings.sort == "name":
        shown.sort(key=lambda entry: entry.row.nodeid)
    else:
        shown.sort(key=lambda entry: _largest_first(entry.measurement, settings.sort))
    return shown[: settings.top] if settings.top else shown


def _is_large_enough(entry: Entry, settings: Settings) -> bool:
    peak_bytes = entry.measurement.peak_bytes
    return peak_bytes is None or peak_bytes >= settings.min_mib * MIB


def _largest_first(measurement: Measurement, sort: SortKey) -> tuple[bool, int]:
    value = {
        "peak": measurement.peak_bytes,
        "delta": measurement.delta_bytes,
        "total": measurement.after_bytes,
        "time": measurement.duration_ns,
    }[sort]
    return value is None, -(value or 0)


def table(entries: Sequence[Entry], *, width: int, blocks: bool, encoding: str = "utf-8") -> list[str]:
    """Return the table's lines, heading first, none of them wider than *width*."""
    events = events_of(entries)
    workers = any(entry.row.worker for entry in entries)
    cells, labels = [_headings(events, workers=workers)], ["test"]
    for entry in entries:
        worker = (entry.row.worker or "",) if workers else ()
        cells.append((*_cells(entry.measurement, events), *worker))
        labels.append(entry.label)
        for block in entry.row.blocks if blocks and not entry.is_setup else ():
            cells.append((*_cells(block.measurement, events), *("" for _ in worker)))
            labels.append(f"  block {printable(block.name)}")
    numbers = align_right(cells)
    room = max(10, width - len(numbers[0]) - 2)
    shown = (_fitted(encodable(label, encoding), room) for label in labels)
    return [f"{left}  {label}" for left, label in zip(numbers, shown, strict=True)]


def _fitted(label: str, room: int) -> str:
    kept = room
    while _columns(cut := cut_middle(label, kept)) > room:
        kept -= 1
    return cut


def _columns(text: str) -> int:
    # A terminal gives two columns to Chinese, Japanese and Korean characters.
    return sum(2 if unicodedata.east_asian_width(char) in "FW" else 1 for char in text)


def events_of(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return every event that was counted in any of the entries, in the order of their first."""
    counters = (reading.event for entry in entries for reading in entry.measurement.counters)
    return tuple(dict.fromkeys(counters))


def _headings(events: Sequence[str], *, workers: bool) -> tuple[str, ...]:
    counted = [text for event in events for text in ((event, "/s") if event == events[0] else (event,))]
    return (*HEADINGS, *counted, *(["worker"] if workers else []))


def _cells(measurement: Measurement, events: Sequence[str]) -> tuple[str, ...]:
    sampled = "~" if measurement.source == "sampled" else ""
    readings = {reading.event: reading for reading in measurement.counters}
    counts: list[str] = []
    for event in events:
        reading = readings.get(event)
        counts.append("" if reading is None else _count(reading))
        if event == events[0]:
            rate = None if reading is None else reading.per_second
            counts.append("" if rate is None else f"{rate:,.0f}")
    return (
        sampled + format_mib(measurement.peak_bytes),
        format_mib(measurement.delta_bytes),
        format_mib(measurement.after_bytes),
        format_seconds(measurement.duration_ns),
        *counts,
    )


def _count(reading: CounterReading) -> str:
    if reading.value is None:
        return "n/a"
    return format_count(reading.value) + ("*" if _is_scaled(reading) else "")


def _is_scaled(reading: CounterReading) -> bool:
    return reading.running_percent is not None and reading.running_percent < FULLY_RUNNING_PERCENT


def counts_line(shown: Sequence[Entry], entries: Sequence[Entry], settings: Settings) -> str:
    """Return how many of how many are shown, and in which order."""
    tests = sum(not entry.is_setup for entry in entries)
    setups = len(entries) - tests
    rows = f"{len(shown)} of {plural(tests, 'test')}"
    if setups:
        parts = f"{plural(tests, 'test')}, {plural(setups, 'setup')}"
        rows = f"{len(shown)} of {plural(len(entries), 'row')} ({parts})"
    under = sum(not _is_large_enough(entry, settings) for entry in entries)
    left_out = f"; {under} under {format_limit(settings.min_mib)} MiB left out" if under else ""
    more = ""
    if len(shown) + under < len(entries):
        more = f"; --imu-top=0 shows {'the rest' if under else 'all'}"
    return f"{rows}, {SORT_WORDS[settings.sort]}{left_out}{more}"


def legend_line(entries: Sequence[Entry]) -> str:
    """Return the line that says what the columns mean and where the peaks come from."""
    used = {entry.measurement.source for entry in entries}
    # Rounded up: 0.25 is not "to 0.2".
    resolution_bytes = peak_source().resolution_bytes if "kernel" in used else None
    exact = "" if resolution_bytes is None else f", to {math.ceil(resolution_bytes / MIB * 10) / 10}"
    sources = [text.format(exact) for source, text in SOURCE_LEGENDS.items() if source in used]
    return "; ".join(["RSS in MiB: peak above start, delta kept, total at end", *sources])


def unmeasured_lines(entries: Sequence[Entry]) -> list[str]:
    """Return why some numbers are n/a, each reason once."""
    reasons: Counter[str] = Counter()
    for entry in entries:
        if entry.measurement.source == "none" and entry.measurement.reason:
            reasons[entry.measurement.reason] += 1
        for reading in entry.measurement.counters:
            if reading.reason is not None:
                reasons[event_reason(reading.event, reading.reason)] += 1
    return [f"n/a in {plural(count, 'row')}: {printable(why)}" for why, count in reasons.items()]


def counter_lines(entries: Sequence[Entry]) -> list[str]:
    """Return what has to be known about the counts, where there are any."""
    readings = [reading for entry in entries for reading in entry.measurement.counters]
    lines = []
    if any(_is_scaled(reading) for reading in readings):
        lines.append("* scaled: perf had the event on the hardware for a part of the time only")
    counted = any(reading.value is not None for reading in readings)
    if counted and any(entry.row.worker for entry in entries):
        lines.append("counts of several workers: they share the caches, and disturb each other there")
    return lines


def broken_lines(rows: Sequence[Row]) -> list[str]:
    """Return every broken budget, a line each."""
    return [
        f"{printable(row.nodeid)}: {verdict.reason}"
        for row in rows
        for verdict in row.verdicts
        if verdict.outcome == "broken"
    ]


def unchecked_lines(rows: Sequence[Row]) -> list[str]:
    """Return every budget that nothing could be held against although its test passed, by reason."""
    named: dict[str, list[str]] = {}
    for row in rows:
        for verdict in row.verdicts:
            if verdict.outcome == "unchecked" and row.outcome in ("passed", "xpassed"):
                names = named.setdefault(printable(verdict.reason or ""), [])
                names.append(f"  {printable(row.nodeid)}: {verdict.budget}")
    lines = []
    for reason, names in named.items():
        lines += [f"{plural(len(names), 'budget')} not checked: {reason}", *names]
    return lines
