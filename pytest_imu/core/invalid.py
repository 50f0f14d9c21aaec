"""The one wording for a value that cannot be used, wherever somebody typed it."""

from __future__ import annotations

import math

from pytest_imu.core.units import cut_middle, printable

SHOWN_WIDTH = 200


class RefusedError(Exception):
    """What was asked for cannot be done; the text is the whole line that says why."""


class InvalidValueError(ValueError):
    """A value that cannot be used; its text says what was expected in its place."""

    def __init__(self, value: object, expected: str) -> None:
        super().__init__(invalid(f"value {shown(value)}", expected))
        self.value = value
        self.expected = expected

    def of(self, source: str) -> str:
        """Return the text with the place where the value was typed."""
        return invalid(f"value {shown(self.value)} for {source}", self.expected)


def parse_number(text: str) -> float:
    """Return a number, 0 or more; raises ValueError."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError(text)
    return number


def invalid(what: str, expected: str) -> str:
    """Return the line that refuses something.

    >>> invalid("value 'x' for --imu-top", "a whole number, 0 or more")
    "invalid value 'x' for --imu-top: expected a whole number, 0 or more"
    """
    return f"invalid {what}: expected {expected}"


def shown(value: object) -> str:
    r"""Return a value as typed, printable and cut, even where its own repr raises.

    >>> shown("\x1b[31m"), len(shown("x" * 100_000))
    ("'\\x1b[31m'", 200)
    """
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - a user's own class may raise anything
        text = f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
    return cut_middle(printable(text), SHOWN_WIDTH)
