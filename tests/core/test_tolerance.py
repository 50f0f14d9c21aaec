"""A tolerance: read from text, added to limits."""

from __future__ import annotations

import re

import pytest

from pytest_imu.core.tolerance import EXACT, Tolerance, parse_tolerance


@pytest.mark.parametrize(
    ("text", "expected", "said"),
    [
        ("0.5", Tolerance(mib=0.5), "0.5 MiB"),
        ("2", Tolerance(mib=2), "2 MiB"),
        ("5%", Tolerance(percent=5), "5 %"),
        (" 2.5 % ", Tolerance(percent=2.5), "2.5 %"),
        (3, Tolerance(mib=3), "3 MiB"),
        ("0", EXACT, "0 MiB"),
        ("0%", EXACT, "0 MiB"),
    ],
)
def test_parsed(text: object, expected: Tolerance, said: str) -> None:
    """A bare number is MiB, one with a percent sign a share; it says itself in those words."""
    tolerance = parse_tolerance(text)
    assert (expected, said) == (tolerance, str(tolerance))


@pytest.mark.parametrize("text", ["", "%", "-1", "-1%", "nan", "inf", "1e999", "5 MiB", "5%%", "many"])
def test_refused(text: str) -> None:
    """Everything else is refused, with the value."""
    with pytest.raises(ValueError, match="^" + re.escape(text) + "$"):
        parse_tolerance(text)


def test_added() -> None:
    """MiB are added to limits in MiB alone, a share to every limit."""
    assert (105, 100) == (Tolerance(mib=5).over_mib(100), Tolerance(mib=5).over_count(100))
    assert (110, 110) == (Tolerance(percent=10).over_mib(100), Tolerance(percent=10).over_count(100))
    assert (True, True, False) == (bool(Tolerance(mib=1)), bool(Tolerance(percent=1)), bool(EXACT))
