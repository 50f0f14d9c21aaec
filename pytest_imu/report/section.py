"""The terminal section: rows in, lines of text out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_imu.core.checks import event_reason
from pytest_imu.core.memory.reusable import reused_in
from pytest_imu.core.memory.source import SIMULATED
from pytest_imu.core.units import MIB, encodable, format_mib, plural, printable
from pytest_imu.history.compare import Comparison
from pytest_imu.history.load import LOST
from pytest_imu.report.budget_lines import (
    broken_lines,
    kept_alone_lines,
    unchecked_lines,
    unreliable_lines,
)
from pytest_imu.report.compared import compared_lines
from pytest_imu.report.kept import kept_lines
from pytest_imu.report.names import INDENT, folded_below
from pytest_imu.report.overall import called_again_lines, growth_lines, quiet_lines, share_lines
from pytest_imu.report.rows import Row
from pytest_imu.report.suggestions import suggestion_lines
from pytest_imu.report.table import Entry, arrange, counts_line, entries_of, is_scaled, table
from pytest_imu.settings import Settings

UNFOLDED_WIDTH = 80
"""In this width, which pytest takes for a log too, and from it on, a line of text stays one line, which
can be searched for. Those of the table fit anyway."""
VERY_QUIET = -2
"""pytest's verbosity under `-qq`."""


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
    rows: Sequence[Row],
    settings: Settings,
    *,
    width: int,
    verbosity: int,
    encoding: str = "utf-8",
    noise_bytes: int | None = None,
    first_imports: Mapping[str, int] | None = None,
    resolution_bytes: int | None = None,
    comparison: Comparison | None = None,
    whole: bool = True,
    failures_shown: bool = True,
    limit: tuple[int, str] | None = None,
) -> list[Line]:
    """Return what the section says; nothing at all where there is nothing to say.

    Without *failures_shown* it says, too, what a test's failure has said before.
    """
    reports = settings.report and not settings.off
    shown: list[Line] = []
    if reports and verbosity > VERY_QUIET:
        report = report_lines(
            rows,
            settings,
            width=width,
            verbosity=verbosity,
            encoding=encoding,
            noise_bytes=noise_bytes,
            resolution_bytes=resolution_bytes,
            comparison=comparison,
        )
        shown += [Line(text) for text in report]
        shown += [Line(text) for text in share_lines(rows, limit)]
        if comparison is not None:
            shown += [Line(text) for text in compared_lines(comparison, whole=whole)]
    if reports or verbosity < 0:  # else pytest's own failures are enough
        shown += [Line(text, "red") for text in broken_lines(rows)]
    if verbosity > VERY_QUIET:
        shown += [Line(text, "yellow") for text in unchecked_lines(rows)]
    if reports and verbosity >= 0:
        shown += [Line(text) for text in first_imports_lines(first_imports or {})]
        shown += [Line(text) for text in kept_alone_lines(rows)]
    if verbosity >= 0:
        shown += [Line(text) for text in why_lines(rows, of_failed=not failures_shown)]
        shown += [Line(text, "yellow") for text in unreliable_lines(rows, noise_bytes)]
        shown += [Line(text) for text in called_again_lines(rows, settings)]
    if settings.suggest and not settings.off:
        shown += [Line(text) for text in suggestion_lines(rows, settings, noise_bytes)]
    shown = [Line(encodable(line.text, encoding), line.colour) for line in shown]
    if width >= UNFOLDED_WIDTH or verbosity > 0:
        return shown
    return [Line(part, line.colour) for line in shown for part in folded_below(line.text, width)]


def report_lines(
    rows: Sequence[Row],
    settings: Settings,
    *,
    width: int,
    verbosity: int,
    encoding: str = "utf-8",
    noise_bytes: int | None = None,
    resolution_bytes: int | None = None,
    comparison: Comparison | None = None,
) -> list[str]:
    """Return the table with its counts and its legend; with `-q` without the legend."""
    entries = entries_of(rows)
    if not entries:
        return ["no test was measured"]
    shown = arrange(entries, settings)
    quiet = [] if comparison else quiet_lines(entries, settings, noise_bytes, verbosity=verbosity)
    lines = quiet or [
        *table(shown, width=width, verbose=verbosity > 0, encoding=encoding, comparison=comparison),
        counts_line(shown, entries, settings),
    ]
    if verbosity < 0:
        return lines + unmeasured_lines(entries)
    legend = [] if quiet else legend_lines(entries, noise_bytes, resolution_bytes, width=width)
    return [*lines, *legend, *remark_lines(rows, entries, settings)]


def remark_lines(rows: Sequence[Row], entries: Sequence[Entry], settings: Settings) -> list[str]:
    """Return what has to be known of a run's numbers, besides what they mean."""
    return [
        *kept_lines(rows),
        *growth_lines(rows, settings),
        *reused_lines(entries),
        *unmeasured_lines(entries),
        *simulated_lines(entries, settings),
        *traced_lines(entries),
        *children_lines(entries),
        *counter_lines(entries),
    ]


SOURCE_LEGENDS = {
    "kernel": "kernel peaks{}",
    "sampled": "~ sampled, a lower bound",
}


def legend_lines(
    entries: Sequence[Entry],
    noise_bytes: int | None = None,
    resolution_bytes: int | None = None,
    *,
    width: int,
) -> list[str]:
    """Return what the columns mean and where the peaks come from, in lines that fit."""
    used = {entry.measurement.source for entry in entries}
    # Rounded up: 0.25 is not "to 0.2".
    exact = "" if not resolution_bytes else f", to {math.ceil(resolution_bytes / MIB * 10) / 10}"
    sources = [text.format(exact) for source, text in SOURCE_LEGENDS.items() if source in used]
    noise = [] if noise_bytes is None else [f"noise of an empty window ± {format_mib(noise_bytes)} MiB"]
    lines = ["RSS in MiB: peak above start, delta kept, total at end"]
    for part in [*sources, *noise]:
        longer = f"{lines[-1]}; {part}"
        if len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(INDENT + part)
    return lines


def unmeasured_lines(entries: Sequence[Entry]) -> list[str]:
    """Return why some numbers are n/a, each reason once."""
    reasons: Counter[str] = Counter()
    for entry in entries:
        if entry.measurement.source == "none" and entry.measurement.reason:
            reasons[entry.measurement.reason] += 1
        for reading in entry.measurement.counters:
            if reading.reason is not None:
                reasons[event_reason(reading.event, reading.reason)] += 1
    return [
        f"n/a in {plural(count, 'row')}: {printable(why)}{EXPLAINED.get(why, '')}"
        for why, count in reasons.items()
    ]


def reused_lines(entries: Sequence[Entry]) -> list[str]:
    """Return how many rows may read low because of memory that earlier ones had freed."""
    low = sum(reused_in(entry.measurement) > 0 for entry in entries)
    return [f"{plural(low, 'row')} may read low: reusable memory was free as they began"] if low else []


EXPLAINED = {SIMULATED: ": the numbers would include valgrind's own memory"}


def simulated_lines(entries: Sequence[Entry], settings: Settings) -> list[str]:
    """Return which caches were simulated, where any were."""
    readings = [reading for entry in entries for reading in entry.measurement.counters]
    if not any(reading.is_simulated and reading.value is not None for reading in readings):
        return []
    from pytest_imu.core.counters.choice import simulated_caches_of

    simulated = f"{simulated_caches_of(settings.caches)}, {settings.simulate_cpu} CPU"
    return [f"counts simulated by callgrind: {simulated}"]


def traced_lines(entries: Sequence[Entry]) -> list[str]:
    """Return what else traced the tests, and thereby put its own share into their numbers."""
    traced = Counter(entry.measurement.tracer for entry in entries if entry.measurement.tracer)
    return [
        f"traced by {printable(tracer)} in {plural(count, 'row')}: their numbers include its memory"
        for tracer, count in traced.items()
    ]


def children_lines(entries: Sequence[Entry]) -> list[str]:
    """Return what the children's column is made of, and why it has no number where it has none."""
    memories = [entry.measurement.children_memory for entry in entries]
    labels = dict.fromkeys(one.label for one in memories if one is not None and one.most is not None)
    reasons = Counter(one.reason for one in memories if one is not None and one.reason)
    return [
        *(f"children: the highest sum of their memory, {label}" for label in labels),
        *(f"n/a in {plural(count, 'row')}: {printable(why)}" for why, count in reasons.items()),
    ]


def counter_lines(entries: Sequence[Entry]) -> list[str]:
    """Return what has to be known about the counts, where there are any."""
    readings = [reading for entry in entries for reading in entry.measurement.counters]
    lines = []
    if any(is_scaled(reading) for reading in readings):
        lines.append("* scaled: the event was counted only part of the time")
    user_only = dict.fromkeys(reading.name for reading in readings if reading.user_only)
    if user_only:
        lines.append(f"{', '.join(user_only)}: in user space only, as no more is allowed")
    counted = any(reading.value is not None and not reading.is_simulated for reading in readings)
    if counted and any(entry.row.worker for entry in entries):
        lines.append("counts of several workers: they share the caches and affect each other's counts")
    return lines


def killed_lines(rows: Sequence[Row]) -> list[str]:
    """Return what a run log has the start of and not the end, a line each."""
    return [f"{printable(row.nodeid)}: its end is missing" for row in rows if row.outcome == LOST]


def first_imports_lines(sizes: Mapping[str, int]) -> list[str]:
    """Return what the packages took that isolated tests were the first to import: in no row."""
    named = [f"{printable(package)} {format_mib(size)}" for package, size in sizes.items()]
    return [f"first imports: {', '.join(named)}"] if named else []


def why_lines(rows: Sequence[Row], *, of_failed: bool) -> list[str]:
    """Return the lines behind tests; of those that have failed, their failures may show them."""
    return [
        line
        for row in rows
        if row.why is not None and (of_failed or row.outcome in ("passed", "xpassed"))
        for line in (f"{printable(row.nodeid)}:", *map(printable, row.why["text"].split("\n")))
    ]
