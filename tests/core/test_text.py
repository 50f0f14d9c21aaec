"""Text: what may be shown, how it is cut and how it is lined up."""

from __future__ import annotations

import doctest
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_imu.core import units as text
from pytest_imu.core.units import align_right, cut_middle, plural, printable

fuzz = settings(derandomize=True, database=None, deadline=None, max_examples=300)
any_text = st.text(st.characters())  # surrogates and control characters too


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("", ""),
        ("test_load[png]", "test_load[png]"),
        ("test_größe[日本]", "test_größe[日本]"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\r\n\tb", r"a\r\n\tb"),
        ("a\x00b", r"a\x00b"),
        ("a\u202eb", r"a\u202eb"),  # turns the direction of writing round
        ("a\u2028b", r"a\u2028b"),
        ("a\xa0b", r"a\xa0b"),
        ("a\ud800b", r"a\ud800b"),  # half of a character, which no file can hold
        ("a\U000e0001b", r"a\U000e0001b"),
    ],
)
def test_unprintable_characters_are_escaped(shown: str, expected: str) -> None:
    """What could move a cursor, hide, or fail to encode is shown as its escape."""
    assert expected == printable(shown)


@fuzz
@example("\x7f\x9b\ud83d\ufeff")
@given(any_text)
def test_printable_text_has_no_control_characters(shown: str) -> None:
    """Whatever comes in, the outcome is one line of printable characters that UTF-8 can write."""
    result = printable(shown)
    assert result.isprintable()
    assert [] == [char for char in result if unicodedata.category(char) in {"Cc", "Cf", "Cs"}]
    assert result == result.encode().decode()
    assert result == printable(result)


@pytest.mark.parametrize(
    ("shown", "width", "expected"),
    [
        ("tests/test_image.py::test_load[png]", 20, "tests/te...load[png]"),
        ("abcdefgh", 8, "abcdefgh"),
        ("abcdefgh", 7, "ab...gh"),
        ("abcdefgh", 6, "a...gh"),
        ("abcdefgh", 5, "a...h"),
        ("abcdefgh", 4, "...h"),
        ("abcdefgh", 3, "abc"),
        ("abcdefgh", 1, "a"),
        ("abcdefgh", 0, ""),
        ("", 0, ""),
    ],
)
def test_cut_in_the_middle(shown: str, width: int, expected: str) -> None:
    """What is too long loses its middle; where the dots alone would not fit, it loses its end."""
    assert expected == cut_middle(shown, width)


@fuzz
@given(any_text, st.integers(0, 60))
def test_cut_text_fits(shown: str, width: int) -> None:
    """A cut text is never longer than the width, fills it, and keeps both of its ends."""
    result = cut_middle(shown, width)
    assert min(len(shown), width) == len(result)
    if len(shown) > width > 3:
        start, end = result[: (width - 3) // 2], result[(width - 3) // 2 + 3 :]
        assert shown.startswith(start)
        assert shown.endswith(end)
        assert len(end) - len(start) in {0, 1}


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 budgets"), (1, "1 budget"), (2, "2 budgets"), (1000, "1000 budgets")]
)
def test_plural(count: int, expected: str) -> None:
    """Only one thing is without an s."""
    assert expected == plural(count, "budget")


def test_columns_are_right_aligned() -> None:
    """Every column is as wide as its widest cell, with two spaces to the next."""
    rows = [("peak", "delta"), ("117.2", "-3.1"), ("0.0", "n/a")]
    assert [" peak  delta", "117.2   -3.1", "  0.0    n/a"] == align_right(rows)


def test_no_rows_are_no_lines() -> None:
    """Nothing lines up to nothing."""
    assert [] == align_right([])


def test_row_that_lacks_a_cell_is_an_error() -> None:
    """A row with fewer cells is a mistake, and is not shown in the wrong columns."""
    with pytest.raises(ValueError, match="shorter"):
        align_right([("a", "b"), ("c",)])


def test_examples_in_the_docstrings() -> None:
    """What the docstrings show is what comes out."""
    failed, attempted = doctest.testmod(text)
    assert 0 == failed
    assert 0 < attempted
