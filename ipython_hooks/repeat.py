"""Measuring a statement or a cell several times: `%imu run` and `%%imu`."""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pytest_imu.core.memory.reusable import reused_in
from pytest_imu.core.meter import Meter
from pytest_imu.core.model import Measurement
from pytest_imu.core.units import NANOSECONDS_PER_SECOND, format_count, format_mib, mib

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Repeated:
    """What a statement used in each of its runs; its text is their median and their spread."""

    statement: str
    measurements: tuple[Measurement, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form: the statement, and each run as in the JSON file of a test run."""
        return {"statement": self.statement, "runs": [one.to_dict() for one in self.measurements]}

    def __repr__(self) -> str:
        return "\n".join(f"{name} {value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in self._rows()
        )
        return f"<table>{rows}</table>"

    def _rows(self) -> list[tuple[str, str]]:
        runs = len(self.measurements)
        rows = [
            ("runs", str(runs)),
            ("used", _sizes([one.delta_bytes for one in self.measurements])),
            ("peak", _sizes([one.peak_bytes for one in self.measurements])),
            ("time", _times([one.duration_ns for one in self.measurements])),
        ]
        reused_bytes = max(map(reused_in, self.measurements))
        if reused_bytes:
            rows.append(("reused", f"up to {format_mib(reused_bytes)} MiB kept from before"))
        for event in dict.fromkeys(r.event for one in self.measurements for r in one.counters):
            readings = [r for one in self.measurements for r in one.counters if r.event == event]
            values = [reading.value for reading in readings if reading.value is not None]
            text = _spread(values, format_count) if values else f"n/a: {readings[0].reason}"
            rows.append((event, text))
        return rows


async def repeat(
    statement: str, body: Callable[[], Awaitable[T]], *, runs: int, meter: Callable[[], Meter]
) -> tuple[Repeated, T]:
    """Run *body* so many times, each in a window of its own; its exceptions pass.

    Return the numbers, and the last value: each run holds its own until its window has closed.
    """
    measurements = []
    value: list[T] = []
    for _ in range(runs):
        value.clear()
        with meter() as window:
            value.append(await body())
        measurements.append(window.measurement)
    return Repeated(statement, tuple(measurements)), value[0]


def _sizes(sizes_bytes: Sequence[int | None]) -> str:
    known = [mib(size) for size in sizes_bytes if size is not None]
    return _spread(known, lambda value: f"{round(value, 1) + 0.0:.1f}") + " MiB" if known else "n/a"


def _times(times_ns: Sequence[int]) -> str:
    seconds = [time_ns / NANOSECONDS_PER_SECOND for time_ns in times_ns]
    return _spread(seconds, lambda value: f"{value:.4f}") + " s"


def _spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    import statistics  # here: it is a tenth of the time that the extension takes to load

    middle = form(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({form(min(values))} to {form(max(values))})"
