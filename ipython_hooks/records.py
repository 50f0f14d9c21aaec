"""What one command used, as a record; its plain form is a row of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytest_imu.core.model import Measurement
from pytest_imu.core.units import NANOSECONDS_PER_SECOND, mib


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

    @property
    def above_current_bytes(self) -> int | None:
        """How far the peak stood above the level after the command: the ancestor's "peaked"."""
        peak, after = self.measurement.rss_peak_bytes, self.measurement.after_bytes
        return None if peak is None or after is None else max(0, peak - after)

    def __repr__(self) -> str:
        from ipython_hooks import wording  # noqa: PLC0415 - the words are made of records

        return wording.report_line(self, decimals=1, command_width=60)

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
            **{reading.event: reading.value for reading in measurement.counters},
        }


def largest(records: Sequence[CommandRecord], *, by: str, count: int) -> list[CommandRecord]:
    """Return the records with the largest `peak_bytes` or `delta_bytes`, largest first."""

    def size(record: CommandRecord) -> int:
        value: int | None = getattr(record.measurement, by)
        return value or 0

    return sorted(records, key=size, reverse=True)[:count]


def _mib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else mib(size_bytes)
