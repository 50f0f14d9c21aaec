"""What one command used, as a record; its plain form is a row of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pytest_imu.core.model import Measurement
from pytest_imu.core.units import (
    MIB,
    NANOSECONDS_PER_SECOND,
    cut_middle,
    format_mib,
    format_seconds,
    format_signed_mib,
    mib_or_none,
    printable,
)

NAME_WIDTH = 30
LINE_BREAK = " ⏎ "
LEAST_WIDTH = 10
"""A command is cut to no less, to keep its line on one row."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CommandRecord:
    """One command that was measured."""

    number: int | None
    """The number in its prompt; None for a command that is not in the history."""
    command: str
    """The source, as typed."""
    measurement: Measurement
    raised: bool
    cell_id: str | None = None
    """The notebook's name for its cell, where the front end tells it."""
    began_ns: int = 0
    """When it began, in nanoseconds since the epoch."""
    cpu_ns: int = 0
    """The processor time that it took, with the shell's own part."""
    since_last_bytes: int | None = None
    """What the process's memory had moved since the command before had ended; None where unknown."""
    notes: tuple[str, ...] = ()
    """What makes the numbers mislead."""
    grown: tuple[tuple[str, int], ...] = ()
    """The names that hold what was used, and how many bytes of it."""
    noted_bytes: int = 0
    """The largest size that a note speaks of."""

    @property
    def above_current_bytes(self) -> int | None:
        """How far the peak stood above the level after the command: the ancestor's "peaked"."""
        above = difference(self.measurement.rss_peak_bytes, self.measurement.after_bytes)
        return None if above is None else max(0, above)

    def is_under(self, size_bytes: float) -> bool:
        """Whether all that there is to say of it is smaller than this; never where a size is unknown."""
        measurement = self.measurement
        known = (measurement.delta_bytes, measurement.peak_bytes)
        if None in known or measurement.counters:
            return False
        sizes = (*known, self.since_last_bytes, self.noted_bytes)
        return all(abs(size or 0) < size_bytes for size in sizes)

    def __repr__(self) -> str:
        return f"{command_text(self.command, 60)}  {short_line(self, decimals=1)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, flat, so that `pandas.DataFrame` takes a list of them as it is."""
        measurement = self.measurement
        began = datetime.fromtimestamp(self.began_ns / NANOSECONDS_PER_SECOND, tz=UTC)
        return {
            "number": self.number,
            "cell_id": self.cell_id,
            "command": self.command,
            "began": began.isoformat(timespec="milliseconds"),
            "used_mib": mib_or_none(measurement.delta_bytes),
            "peak_mib": mib_or_none(measurement.peak_bytes),
            "above_current_mib": mib_or_none(self.above_current_bytes),
            "since_last_mib": mib_or_none(self.since_last_bytes),
            "total_mib": mib_or_none(measurement.after_bytes),
            "seconds": measurement.duration_ns / NANOSECONDS_PER_SECOND,
            "source": measurement.source,
            "raised": self.raised,
            "notes": "; ".join(self.notes),
            "names": ", ".join(name for name, _ in self.grown),
            **{reading.event: reading.value for reading in measurement.counters},
        }


def difference(size_bytes: int | None, other_bytes: int | None) -> int | None:
    """Return what a size has more than another; None where one of them is unknown."""
    return None if size_bytes is None or other_bytes is None else size_bytes - other_bytes


def largest(records: Sequence[CommandRecord], *, by: str, count: int) -> list[CommandRecord]:
    """Return the records with the largest `peak_bytes` or `delta_bytes`, largest first."""
    return sorted(records, key=lambda one: getattr(one.measurement, by) or 0, reverse=True)[:count]


def ancestors_line(
    record: CommandRecord, *, decimals: int, command_width: int, columns: int | None = None
) -> str:
    """Return the ancestor's line: what a command used, how far it peaked, and where that leaves us.

    The command is cut so that the line stands on one row of *columns*, where that can be.
    """
    rest = _without_the_command(record, decimals)
    room = command_width if columns is None else columns - len(rest) - len("'' ")
    width = command_width if room < LEAST_WIDTH else min(command_width, room)
    return f"{command_text(record.command, width)} {rest}"


def _without_the_command(record: CommandRecord, decimals: int) -> str:
    measurement = record.measurement
    notes = "".join(f"; {note}" for note in record.notes)
    if measurement.source == "none":
        return f"n/a in {format_seconds(measurement.duration_ns)}: {measurement.reason}{notes}"
    above = format_mib(record.above_current_bytes, decimals=decimals)
    sampled = " (sampled, a lower bound)" if measurement.source == "sampled" else ""
    return (
        f"used {format_mib(measurement.delta_bytes, decimals=decimals)} MiB RAM "
        f"{names_text(record, decimals=decimals)}in {format_seconds(measurement.duration_ns)}, "
        f"peaked {above} MiB above current{sampled}, "
        f"total RAM usage {format_mib(measurement.after_bytes, decimals=decimals)} MiB"
        f"{_since_last(record, decimals)}{notes}"
    )


def names_text(record: CommandRecord, *, decimals: int) -> str:
    """Return the names that hold what was used, in brackets; nothing where none are known."""
    names = ", ".join(
        f"{cut_middle(printable(name), NAME_WIDTH)} {format_mib(size_bytes, decimals=decimals)}"
        for name, size_bytes in record.grown
    )
    return f"({names}) " if names else ""


def short_line(record: CommandRecord, *, decimals: int) -> str:
    """Return what a command used and what it needed on top of what was there: the design's peak."""
    measurement = record.measurement
    time = _short_time(measurement.duration_ns)
    if measurement.source == "none":
        parts = [f"n/a: {measurement.reason}", time]
    else:
        sampled = " (sampled, a lower bound)" if measurement.source == "sampled" else ""
        total = format_mib(measurement.after_bytes, decimals=decimals)
        parts = [
            f"{format_signed_mib(measurement.delta_bytes, decimals=decimals)} MiB "
            + names_text(record, decimals=decimals),
            f"peak {format_signed_mib(measurement.peak_bytes, decimals=decimals)}{sampled}",
            f"total {total}{_since_last(record, decimals)}",
            time,
        ]
    return " · ".join([*map(str.rstrip, parts), *record.notes])


def command_text(command: str, width: int) -> str:
    r"""Return a command as typed, its lines on one row, in quotes, cut in the middle.

    >>> command_text("a = 1\nb = 2", 60)
    "'a = 1 ⏎ b = 2'"
    """
    lines = [line.strip() for line in command.split("\n") if line.strip()]
    return f"'{cut_middle(LINE_BREAK.join(map(printable, lines)), width)}'"


def _since_last(record: CommandRecord, decimals: int) -> str:
    """Return what came between the commands: without it "used" would not add up to the total."""
    if abs(record.since_last_bytes or 0) < MIB:
        return ""
    return f" ({format_signed_mib(record.since_last_bytes, decimals=decimals)} since the last command)"


def _short_time(duration_ns: int) -> str:
    """Return a duration in the unit in which it is read at once."""
    seconds = duration_ns / NANOSECONDS_PER_SECOND
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else "<1 ms"  # noqa: PLR2004 - a millisecond
