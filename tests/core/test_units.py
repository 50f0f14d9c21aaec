"""Numbers as people read them."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_imu.core import units
from pytest_imu.core.units import MIB, format_count, format_limit, format_mib, format_seconds, mib

fuzz = settings(derandomize=True, database=None, deadline=None, max_examples=200)


@pytest.mark.parametrize(
    ("size_bytes", "decimals", "expected"),
    [
        (None, 1, "n/a"),
        (0, 1, "0.0"),
        (64 * MIB, 1, "64.0"),
        (80_000_000, 1, "76.3"),
        (80_000_000, 3, "76.294"),
        (4096, 1, "0.0"),
        (4096, 3, "0.004"),
        (-12, 1, "0.0"),  # never "-0.0"
        (-52_429, 1, "-0.1"),
        (-64 * MIB, 1, "-64.0"),
        (3 * 2**40, 1, "3145728.0"),
        (3 * MIB // 2, 0, "2"),
    ],
)
def test_mib(size_bytes: int | None, decimals: int, expected: str) -> None:
    """A size is written in MiB, negative ones too, and what could not be read is "n/a"."""
    assert expected == format_mib(size_bytes, decimals=decimals)


@fuzz
@given(st.integers(-(2**50), 2**50), st.integers(1, 6))
def test_printed_size_can_be_read_back(size_bytes: int, decimals: int) -> None:
    """What is printed is the size to within half of its last digit, and no zero has a sign."""
    printed = format_mib(size_bytes, decimals=decimals)
    assert abs(float(printed) - mib(size_bytes)) <= 0.5000001 * 10**-decimals
    assert not (printed.startswith("-") and float(printed) == 0)


@pytest.mark.parametrize("size_bytes", [0, 1, -1, 2**53 + 2**20, 4096])
def test_mib_is_exact(size_bytes: int) -> None:
    """The number of MiB is the size itself, divided by a power of two."""
    assert size_bytes == mib(size_bytes) * 2**20


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (0, "0"),
        (0.0, "0"),
        (100, "100"),
        (100.0, "100"),
        (0.5, "0.5"),
        (1e6, "1000000"),
        (0.1, "0.1"),
        (99.99, "99.99"),
    ],
)
def test_limit(limit: float, expected: str) -> None:
    """A limit is written as its author typed it."""
    assert expected == format_limit(limit)


@fuzz
@example(2.0**70)
@example(5e-324)
@given(st.floats(min_value=0, allow_infinity=False))
def test_printed_limit_is_the_limit(limit: float) -> None:
    """A printed limit, typed in again, is the same limit."""
    assert limit == float(format_limit(limit))


@pytest.mark.parametrize(
    ("duration_ns", "expected"),
    [
        (None, "n/a"),
        (0, "0.00s"),
        (4_999_999, "0.00s"),
        (320_000_000, "0.32s"),
        (3600 * 10**9, "3600.00s"),
    ],
)
def test_seconds(duration_ns: int | None, expected: str) -> None:
    """A duration is written in seconds, and what was not timed is "n/a"."""
    assert expected == format_seconds(duration_ns)


@pytest.mark.parametrize(
    ("value", "expected"), [(0, "0"), (8823.0, "8,823"), (1_234_567, "1,234,567"), (4.5, "4.50")]
)
def test_count(value: float, expected: str) -> None:
    """A count has its thousands apart, and decimals only where it is no whole number."""
    assert expected == format_count(value)


def test_examples_in_the_docstrings() -> None:
    """What the docstrings show is what comes out."""
    failed, attempted = doctest.testmod(units)
    assert 0 == failed
    assert 0 < attempted
