"""Sizes as people type them."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_imu.core.sizes import parse_bytes
from pytest_imu.core.units import MIB, UNITS, format_bytes

fuzz = settings(derandomize=True, database=None, deadline=None, max_examples=300)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8GiB", 8 * 2**30),
        ("8 gib", 8 * 2**30),
        (" 500 MiB ", 500 * MIB),
        ("1.5 KiB", 1536),
        ("2GB", 2 * 10**9),
        ("2 MB", 2 * 10**6),
        ("0.5TB", 5 * 10**11),
        ("3 TiB", 3 * 2**40),
        ("12 B", 12),
        ("0B", 0),
    ],
)
def test_sizes_with_units(text: str, expected: int) -> None:
    """A size is read with its unit, in any case of letters, with or without a space."""
    assert expected == parse_bytes(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "8",
            "GiB",
            "-8GiB",
            "+8GiB",
            "8G",
            "8iB",
            "8 GiB off",
            "1e3MB",
            "8,5GiB",
            ".5GiB",
            "infGiB",
        ),
        "9" * 400 + "GiB",
    ],
)
def test_other_sizes_are_refused(text: str) -> None:
    """What is no size with a unit is refused, and the error says what was expected."""
    with pytest.raises(ValueError, match=r"^invalid value .*: expected a size with its unit, such as"):
        parse_bytes(text)


@fuzz
@example(1023)
@example(1024)
@example(2**20 - 1)
@example(2**60)
@given(st.integers(0, 2**60))
def test_printed_size_is_read_back(size_bytes: int) -> None:
    """A printed size, read back, is the size to within half of its last digit, and prints the same."""
    printed = format_bytes(size_bytes)
    read_back = parse_bytes(printed)
    unit = UNITS[printed.partition(" ")[2].upper()]
    assert abs(read_back - size_bytes) <= (0 if unit == 1 else unit / 20 + 1)
    assert unit == 1 or unit <= size_bytes
    assert printed == format_bytes(read_back) or read_back in UNITS.values()


@fuzz
@given(st.text(max_size=12))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    """Whatever is typed is a size or a ValueError."""
    try:
        size = parse_bytes(text)
    except ValueError:
        return
    assert size >= 0
