"""What one command used, as a record; its plain form is a row of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytest_imu.core.model import Measurement
from pytest_imu.core.units import (
    NANOSECONDS_PER_SECOND,
    cut_middle,
    format_mib,
    format_seconds,
    mib,
    printable,
)

NAME_WIDTH = 30


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CommandRecord:
    """One command that was measured."""

    number: int | None
    """The number in its prompt; None for a command that is not in the history."""
    command: str
    """The source, as typed."""
    measurement: Measurement
    raised: bool
    notes: tuple[str, ...] = ()
    """What makes the numbers mislead."""
    grown: tuple[tuple[str, int], ...] = ()
    """The names that hold what was used, and how many bytes of it."""

    @property
    def above_current_bytes(self) -> int | None:
        """How far the peak stood above the level after the command: the ancestor's "peaked"."""
        peak, after = self.measurement.rss_peak_bytes, self.measurement.after_bytes
        return None if peak is None or after is None else max(0, peak - after)

    def __repr__(self) -> str:
        return report_line(self, decimals=1, command_width=60)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, flat, so that `pandas.DataFrame` takes a list of them as it is."""
        measurement = self.measurement
        return {
            "number": self.number,
            "command": self.command,
            "used_mib": _mib(measurement.delta_bytes),
            "peak_mib": _mib(measurement.peak_bytes),
            "above_current_mib": _mib(self.above_current_bytes),
            "total_mib": _mib(measurement.after_bytes),
            "seconds": measurement.duration_ns / NANOSECONDS_PER_SECOND,
            "source": measurement.source,
            "raised": self.raised,
            "notes": "; ".join(self.notes),
            "names": ", ".join(name for name, _ in self.grown),
            **{reading.event: reading.value for reading in measurement.counters},
        }


def largest(records: Sequence[CommandRecord], *, by: str, count: int) -> list[CommandRecord]:
    """Return the records with the largest `peak_bytes` or `delta_bytes`, largest first."""
    return sorted(records, key=lambda one: getattr(one.measurement, by) or 0, reverse=True)[:count]


def report_line(record: CommandRecord, *, decimals: int, command_width: int) -> str:
    """Return the ancestor's line: what a command used, how far it peaked, and where that leaves us."""
    measurement = record.measurement
    command = command_text(record.command, command_width)
    notes = "".join(f"; {note}" for note in record.notes)
    if measurement.source == "none":
        return f"{command} n/a in {format_seconds(measurement.duration_ns)}: {measurement.reason}{notes}"
    above = format_mib(record.above_current_bytes, decimals=decimals)
    sampled = " (sampled, a lower bound)" if measurement.source == "sampled" else ""
    return (
        f"{command} used {format_mib(measurement.delta_bytes, decimals=decimals)} MiB RAM "
        f"{names_text(record, decimals=decimals)}in {format_seconds(measurement.duration_ns)}, "
        f"peaked {above} MiB above current{sampled}, "
        f"total RAM usage {format_mib(measurement.after_bytes, decimals=decimals)} MiB{notes}"
    )


def names_text(record: CommandRecord, *, decimals: int) -> str:
    """Return the names that hold what was used, in brackets; nothing where none are known."""
    names = ", ".join(
        f"{cut_middle(printable(name), NAME_WIDTH)} {format_mib(size_bytes, decimals=decimals)}"
        for name, size_bytes in record.grown
    )
    return f"({names}) " if names else ""


def command_text(command: str, width: int) -> str:
    """Return a command as typed, on one line, in quotes, cut in the middle."""
    return f"'{cut_middle(printable(command.strip()), width)}'"


def _mib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else mib(size_bytes)
