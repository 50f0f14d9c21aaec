"""Measurements: derived numbers, and the plain form that any process can read back."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_imu.core.model import Block, ChildrenMemory, CounterReading, Measurement

MISSES = CounterReading(
    event="cache-misses",
    value=8823.0,
    per_second=17_646.5,
    running_percent=99.5,
    samples=(8000.0, 823.0),
)
CYCLES = CounterReading(event="cycles", value=None, reason="not supported by this machine")


def measurement(before: int | None, highest: int | None, after: int | None) -> Measurement:
    """Return a measurement with these bytes."""
    return Measurement(
        before_bytes=before,
        rss_peak_bytes=highest,
        after_bytes=after,
        duration_ns=1_500_000_000,
        started_ns=7_000,
        source="kernel",
    )


@pytest.mark.parametrize(
    ("before", "highest", "after", "delta", "peak"),
    [
        (100, 300, 120, 20, 200),
        (100, 100, 100, 0, 0),
        (300, 300, 100, -200, 0),  # it gave memory back, and needed none
        (300, 500, 100, -200, 200),
        (100, 90, 120, 20, 0),  # a mark that reads a little low is no negative peak
        (None, 300, 120, None, None),
        (100, None, 120, 20, None),
        (100, 300, None, None, 200),
        (None, None, None, None, None),
        (0, 0, 0, 0, 0),
    ],
)
def test_derived_numbers(
    before: int | None, highest: int | None, after: int | None, delta: int | None, peak: int | None
) -> None:
    """Delta is signed, peak is not below 0, and what cannot be derived is None."""
    one = measurement(before, highest, after)
    assert delta == one.delta_bytes
    assert peak == one.peak_bytes


def test_plain_form() -> None:
    """The plain form has every number under the name and in the unit that the JSON file documents."""
    one = dataclasses.replace(
        measurement(100, 300, 120),
        counters=(MISSES, CYCLES),
        had_children=True,
        children_memory=ChildrenMemory(peak_bytes=7, most=1, samples=3, unit="pss"),
        imports=("scipy",),
    )
    expected = {
        "before_bytes": 100,
        "after_bytes": 120,
        "rss_peak_bytes": 300,
        "delta_bytes": 20,
        "peak_bytes": 200,
        "duration_ns": 1_500_000_000,
        "started_ns": 7_000,
        "source": "kernel",
        "reason": None,
        "reusable_bytes": None,
        "tracer": None,
        "had_children": True,
        "children_memory": {
            "peak_bytes": 7,
            "most": 1,
            "samples": 3,
            "unit": "pss",
            "reason": None,
        },
        "imports": ["scipy"],
        "counters": {
            "cache-misses": {
                "value": 8823.0,
                "per_second": 17_646.5,
                "running_percent": 99.5,
                "reason": None,
                "samples": [8000.0, 823.0],
                "user_only": False,
                "source": "perf",
            },
            "cycles": {
                "value": None,
                "per_second": None,
                "running_percent": None,
                "reason": "not supported by this machine",
                "samples": [],
                "user_only": False,
                "source": "perf",
            },
        },
    }
    assert expected == one.to_dict()
    assert list(expected) == list(one.to_dict())


sizes = st.none() | st.integers(0, 2**60)
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
readings = st.builds(
    CounterReading,
    event=st.text(),
    value=numbers,
    per_second=numbers,
    running_percent=numbers,
    reason=st.none() | st.text(),
    samples=st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(tuple),
    user_only=st.booleans(),
    source=st.sampled_from(["kernel", "perf", "callgrind"]),
)
measurements = st.builds(
    Measurement,
    before_bytes=sizes,
    after_bytes=sizes,
    rss_peak_bytes=sizes,
    duration_ns=st.integers(0, 2**63),
    source=st.sampled_from(["kernel", "sampled", "none"]),
    reusable_bytes=sizes,
    tracer=st.none() | st.text(),
    had_children=st.none() | st.booleans(),
    children_memory=st.none()
    | st.builds(
        ChildrenMemory,
        peak_bytes=sizes,
        most=sizes,
        samples=st.integers(0, 9),
        unit=st.sampled_from(["pss", "rss", "none"]),
        reason=st.none() | st.text(),
    ),
    reason=st.none() | st.text(),
    counters=st.lists(readings, unique_by=lambda reading: reading.event).map(tuple),
)


@settings(derandomize=True, database=None, deadline=None, max_examples=100)
@given(measurements)
def test_measurement_comes_back_from_json(one: Measurement) -> None:
    """Through its plain form and JSON a measurement comes back equal, counters and their order too."""
    assert one == Measurement.from_dict(json.loads(json.dumps(one.to_dict())))


@settings(derandomize=True, database=None, deadline=None, max_examples=50)
@given(measurements, st.text())
def test_block_comes_back_from_json(one: Measurement, name: str) -> None:
    """A named block comes back equal too, its name in front."""
    block = Block(name=name, measurement=one)
    plain = block.to_dict()
    assert "name" == next(iter(plain))
    assert block == Block.from_dict(json.loads(json.dumps(plain)))


@pytest.mark.parametrize(
    ("most", "peak_bytes", "had_children", "expected_bytes"),
    [
        (0, 0, False, 0),
        (0, 0, None, 0),
        (0, 0, True, None),
        (1, 7, True, 7),
        (0, None, True, None),
    ],
)
def test_children_that_no_sample_met(
    *, most: int, peak_bytes: int | None, had_children: bool | None, expected_bytes: int | None
) -> None:
    """The memory of children that lived between two samples is unknown, and not 0."""
    known = None if peak_bytes is not None else "refused"
    memory = ChildrenMemory(peak_bytes=peak_bytes, most=most, samples=2, unit="pss", reason=known)

    found = memory.beside(had_children=had_children)

    assert expected_bytes == found.peak_bytes
    assert (expected_bytes is None) == (found.reason is not None)
    assert known is None or known == found.reason


def test_derived_numbers_are_derived_again() -> None:
    """What a file says of a derived number is not believed."""
    plain = measurement(100, 300, 120).to_dict() | {"delta_bytes": 7, "peak_bytes": 7}
    assert (20, 200) == (
        Measurement.from_dict(plain).delta_bytes,
        Measurement.from_dict(plain).peak_bytes,
    )


@pytest.mark.parametrize("missing", ["before_bytes", "duration_ns", "source", "reason", "counters"])
def test_plain_form_that_lacks_something_is_an_error(missing: str) -> None:
    """A plain form without one of its keys is a KeyError, never a number made up."""
    plain = measurement(100, 300, 120).to_dict()
    del plain[missing]
    with pytest.raises(KeyError, match=missing):
        Measurement.from_dict(plain)


@pytest.mark.parametrize(
    "record", [measurement(1, 2, 3), MISSES, Block(name="load", measurement=measurement(1, 2, 3))]
)
def test_records_are_frozen(record: Any) -> None:
    """A record cannot be changed, nor given what it does not have."""
    field = dataclasses.fields(record)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, field, None)
    assert not hasattr(record, "__dict__")


@pytest.mark.parametrize("kind", [Measurement, CounterReading, Block])
def test_records_are_keyword_only(kind: Any) -> None:
    """A number cannot be given by its place."""
    with pytest.raises(TypeError, match="positional"):
        kind(1, 2, 3)
