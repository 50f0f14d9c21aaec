"""The options of the verbs that need more than argparse has: how their values are read."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from pytest_imu.core.invalid import InvalidValueError

if TYPE_CHECKING:
    from pytest_imu.core.growth import Increase


def add_increase(parser: argparse.ArgumentParser) -> None:
    """Declare `--fail-increase`."""
    parser.add_argument(
        "--fail-increase",
        action="extend",
        default=[],
        type=_increases,
        metavar="INCREASE",
        help="fail where a test grew by more, as 10%%+2 or delta:10%%; may be repeated",
    )


def percent(text: str) -> float:
    """Return a percentage, with its sign or without."""
    return _number(text.removesuffix("%"), "a percentage, 0% or more")


def mib(text: str) -> float:
    """Return a size in MiB."""
    return _number(text, "a number of MiB, 0 or more")


def count(text: str) -> int:
    """Return a whole number."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(str(InvalidValueError(text, "a whole number, 0 or more")))
    return int(text)


def sort_keys() -> Sequence[str]:
    """Return what a table may be sorted by."""
    from pytest_imu.kinds import SortKey

    return get_args(SortKey)


def _increases(text: str) -> list[Increase]:
    from pytest_imu.core.growth import parse_increase

    try:
        return [parse_increase(part) for part in text.split(",")]
    except InvalidValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(text: str, expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(str(InvalidValueError(text, expected)))
    return number
