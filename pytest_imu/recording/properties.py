"""A test's numbers as user properties, which JUnit XML and other reports show."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from pytest_imu.core.model import CounterReading, Measurement
from pytest_imu.core.units import MIB


def set_properties(item: pytest.Item, measurement: Measurement, *, is_first: bool) -> None:
    """Give the call's numbers to everything that reads user properties; in place of an earlier try's."""
    properties = (
        ("imu_peak_mib", rounded_mib(measurement.peak_bytes)),
        ("imu_delta_mib", rounded_mib(measurement.delta_bytes)),
        ("imu_total_mib", rounded_mib(measurement.after_bytes)),
        ("imu_seconds", round(measurement.duration_ns / 1000) / 1_000_000),
        ("imu_source", measurement.source),
        *(_of_counters(measurement) if measurement.counters else ()),
    )
    if not is_first:
        names = {name for name, _ in properties}
        item.user_properties[:] = [pair for pair in item.user_properties if pair[0] not in names]
    item.user_properties += properties


def _of_counters(measurement: Measurement) -> Iterator[tuple[str, float | str]]:
    sources = {reading.source for reading in measurement.counters if reading.value is not None}
    if sources:
        yield "imu_counter_source", " and ".join(sorted(sources))
    for reading in measurement.counters:
        yield from _of_event(reading)


def _of_event(reading: CounterReading) -> Iterator[tuple[str, float | str]]:
    name = "imu_" + re.sub(r"\W+", "_", reading.event).strip("_")
    yield name, "n/a" if reading.value is None else reading.value
    if reading.per_second is not None:
        yield f"{name}_per_second", round(reading.per_second, 1)


def rounded_mib(size_bytes: int | None) -> float | str:
    """Return a size as properties have it."""
    # To three decimals; round(x, 3) says the same and takes six times as long.
    return "n/a" if size_bytes is None else round(size_bytes * 1000 / MIB) / 1000
