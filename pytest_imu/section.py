"""The terminal section: rows in, lines of text out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_imu.core.memory import peak_source
from pytest_imu.core.model import Measurement
from pytest_imu.core.text import align_right, cut_middle, plural, printable
from pytest_imu.core.units import MIB, format_mib, format_seconds
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


def lines(rows: Sequence[Row], settings: Settings, *, width: int, verbosity: int) -> list[Line]:
    """Return what the section says; nothing at all where there is nothing to say."""
    broken = [Line(text, "red") for text in broken_lines(rows)]
    if verbosity < 0:
        return broken
    shown: list[Line] = []
    if settings.report and not settings.off:
        shown += [Line(text) for text in report_lines(rows, settings, width, verbosity)] + broken
    return shown + [Line(text, "yellow") for text in unchecked_lines(rows)]


def report_lines(rows: Sequence[Row], settings: Settings, width: int, verbosity: int) -> list[str]:
    """Return the table with its counts and its legend."""
    entries = entries_of(rows)
    if not entries:
        return ["no test was measured"]
    shown = arrange(entries, settings)
    return [
        *table(shown, width=width, blocks=verbosity > 0),
        counts_line(shown, entries, settings),
        legend_line(entries),
        *unmeasured_lines(entries),
    ]


HEADINGS = ("peak", "delta", "total", "time")
SOURCE_LEGENDS = {
    "kernel": "kernel peaks, to {resolution}",
    "sampled": "~ sampled, a lower bound",
}
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
    # Compared as they are shown: "0.0" above "0.0" would tell nobody anything.
    setup_mib = round((setup.peak_bytes or 0) / MIB, 1)
    call_mib = round((call.peak_bytes or 0) / MIB, 1) if call is not None else 0.0
    return setup_mib > call_mib


def arrange(entries: Sequence[Entry], settings: Settings) -> list[Entry]:
    """Return the entries to show: large enough, sorted, and no more than asked for."""
    shown = [
        entry
        for entry in entries
        if entry.measurement.peak_bytes is None or entry.measurement.peak_bytes >= settings.min_mib * MIB
    ]
    if settings.sort == "name":
        shown.sort(key=lambda entry: entry.row.nodeid)
    else:
        shown.sort(key=lambda entry: _largest_first(entry.measurement, settings.sort))
    return shown[: settings.top] if settings.top else shown


def _largest_first(measurement: Measurement, sort: SortKey) -> tuple[bool, int]:
    value = {
        "peak": measurement.peak_bytes,
        "delta": measurement.delta_bytes,
        "total": measurement.after_bytes,
        "time": measurement.duration_ns,
    }[sort]
    return value is None, -(value or 0)


def table(entries: Sequence[Entry], *, width: int, blocks: bool) -> list[str]:
    """Return the table's lines, heading first, none of them wider than *width*."""
    cells: list[tuple[str, ...]] = [HEADINGS]
    labels = ["test"]
    for entry in entries:
        cells.append(_cells(entry.measurement))
        labels.append(entry.label)
        if blocks and not entry.is_setup:
            for block in entry.row.blocks:
                cells.append(_cells(block.measurement))
                labels.append(f"  block {printable(block.name)}")
    if any(entry.row.worker for entry in entries):
        workers = ["worker"]
        for entry in entries:
            shown_blocks = len(entry.row.blocks) if blocks and not entry.is_setup else 0
            workers += [entry.row.worker or ""] + [""] * shown_blocks
        cells = [(*row, worker) for row, worker in zip(cells, workers, strict=True)]
    numbers = align_right(cells)
    room = max(10, width - len(numbers[0]) - 2)
    return [f"{left}  {cut_middle(label, room)}" for left, label in zip(numbers, labels, strict=True)]


def _cells(measurement: Measurement) -> tuple[str, ...]:
    sampled = "~" if measurement.source == "sampled" else ""
    return (
        sampled + format_mib(measurement.peak_bytes),
        format_mib(measurement.delta_bytes),
        format_mib(measurement.after_bytes),
        format_seconds(measurement.duration_ns),
    )


def counts_line(shown: Sequence[Entry], entries: Sequence[Entry], settings: Settings) -> str:
    """Return how many of how many are shown, and in which order."""
    tests = sum(not entry.is_setup for entry in entries)
    setups = len(entries) - tests
    rows = f"{len(shown)} of {plural(tests, 'test')}"
    if setups:
        parts = f"{plural(tests, 'test')}, {plural(setups, 'setup')}"
        rows = f"{len(shown)} of {plural(len(entries), 'row')} ({parts})"
    more = "; --imu-top=0 shows all" if len(shown) < len(entries) else ""
    return f"{rows}, {SORT_WORDS[settings.sort]}{more}"


def legend_line(entries: Sequence[Entry]) -> str:
    """Return the line that says what the columns mean and where the peaks come from."""
    used = {entry.measurement.source for entry in entries}
    # Rounded up: 0.25 is not "to 0.2".
    resolution = math.ceil((peak_source().resolution_bytes or 0) / MIB * 10) / 10
    sources = [
        text.format(resolution=resolution) for source, text in SOURCE_LEGENDS.items() if source in used
    ]
    return "; ".join(["RSS in MiB: peak above start, delta kept, total at end", *sources])


def unmeasured_lines(entries: Sequence[Entry]) -> list[str]:
    """Return why some numbers are n/a, each reason once."""
    reasons: dict[str, int] = {}
    for entry in entries:
        if entry.measurement.source == "none" and entry.measurement.reason:
            reasons[entry.measurement.reason] = reasons.get(entry.measurement.reason, 0) + 1
    return [f"n/a in {plural(count, 'row')}: {printable(why)}" for why, count in reasons.items()]


def broken_lines(rows: Sequence[Row]) -> list[str]:
    """Return every broken budget, a line each."""
    return [
        f"{printable(row.nodeid)}: {verdict.reason}"
        for row in rows
        for verdict in row.verdicts
        if verdict.outcome == "broken"
    ]


def unchecked_lines(rows: Sequence[Row]) -> list[str]:
    """Return every budget that nothing could be held against although its test passed."""
    lines = [
        f"{printable(row.nodeid)}: {verdict.budget}: {printable(verdict.reason or '')}"
        for row in rows
        for verdict in row.verdicts
        if verdict.outcome == "unchecked" and row.outcome in ("passed", "xpassed")
    ]
    return [f"{plural(len(lines), 'budget')} not checked:", *lines] if lines else []
