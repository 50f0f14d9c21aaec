"""The kinds of value that options take: what is expected, in words, and how it is read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args

from pytest_imu.core.counters.source import CounterChoice, check_event
from pytest_imu.core.invalid import InvalidValueError, parse_number
from pytest_imu.core.units import NANOSECONDS_PER_SECOND

if TYPE_CHECKING:
    from pytest_imu.core.growth import Increase
    from pytest_imu.core.sizes import Cap
    from pytest_imu.core.tolerance import Tolerance

T = TypeVar("T")

SortKey = Literal["peak", "delta", "total", "time", "name"]
OnBreach = Literal["fail", "warn"]
Which = Literal["off", "budgets", "all"]
Cpu = Literal["baseline", "host"]
WhyWhich = Literal["off", "broken", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[T]):
    """What an option takes as its value."""

    expected: str
    parse: Callable[[Any], T]
    """Raises ValueError for what it cannot take."""
    metavar: str | None = None
    ini: Literal["bool", "int", "float", "string"] = "string"
    words: tuple[str, ...] = ()
    """All there is to choose from; empty where that is no list."""
    takes_paths: bool = False
    """Whether its value may be the path of a file that exists."""

    def read(self, value: object, *, typed: object = None) -> T:
        """Return the parsed value; raises InvalidValueError, which shows it as it was *typed*."""
        typed = value if typed is None else typed
        if self.ini == "string" and not isinstance(value, str):  # a list in TOML, before pytest 9
            raise InvalidValueError(typed, self.expected)
        try:
            return self.parse(value)
        except InvalidValueError:  # it knows better what was expected
            raise
        except ValueError:
            raise InvalidValueError(typed, self.expected) from None


def _parse_count(value: object) -> int:
    number = int(str(value))
    if number < 0:
        raise ValueError
    return number


def _parse_mib(value: object) -> float:
    if isinstance(value, bool):
        raise ValueError  # noqa: TRY004 - as for all other values
    return parse_number(str(value))


def _parse_path(value: str) -> Path:
    if not value:
        raise ValueError
    return Path(value)


def _parse_events(value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(check_event(event.strip()) for event in value.split(",")))


def _parse_isolate(value: str) -> Which:
    which: Which = WHICH.read(value)
    if which != "off" and not hasattr(os, "fork"):
        expected = f"off, because this platform ({sys.platform}) cannot fork"
        raise InvalidValueError(value, expected)
    return which


def _parse_increases(value: str) -> tuple[Increase, ...]:
    from pytest_imu.core.growth import parse_increase

    return tuple(parse_increase(part) for part in value.split(","))


def _parse_interval(value: str) -> int:
    number, unit = value.strip(), NANOSECONDS_PER_SECOND
    if number.endswith("ms"):
        number, unit = number.removesuffix("ms"), NANOSECONDS_PER_SECOND // 1000
    wanted_ns = float(number.removesuffix("s")) * unit
    if not LEAST_INTERVAL_NS <= wanted_ns <= NANOSECONDS_PER_SECOND * 3600:
        raise ValueError
    return round(wanted_ns)


def _parse_cap(value: str) -> Cap:
    from pytest_imu.core.sizes import parse_cap

    cap = parse_cap(value)
    if sys.platform != "linux":
        expected = f"nothing: this platform ({sys.platform}) has no limit that Python survives"
        raise InvalidValueError(value, expected)
    return cap


def _parse_leaks(value: str) -> tuple[int, int]:
    warmup, colon, calls = value.partition(":")
    is_form = colon and warmup.isdecimal() and calls.isdecimal()
    if not is_form or max(len(warmup), len(calls)) >= LONGEST:
        raise ValueError
    if int(warmup) < 1 or int(calls) < LEAST_CALLS:
        raise ValueError
    return int(warmup), int(calls)


def _parse_summary(value: str) -> Path:
    path = _parse_path(value)
    if value == "-" or path.suffix == ".py" or path.is_dir():  # what stands behind a bare flag: tests
        raise ValueError
    return path


def _parse_caches(value: str) -> str:
    from pytest_imu.core.counters.callgrind.command import parse_caches

    return parse_caches(value)


def _parse_tolerance(value: str) -> Tolerance:
    from pytest_imu.core.tolerance import parse_tolerance

    return parse_tolerance(value)


def _one_of(
    words: tuple[str, ...], metavar: str | None = None
) -> Kind[Any]:  # Any: the Literal whose words these are
    def parse(value: str) -> str:
        if value not in words:
            raise ValueError
        return value

    expected = f"{', '.join(words[:-1])} or {words[-1]}"
    return Kind(expected=expected, parse=parse, words=words, metavar=metavar)


FLAG = Kind(expected="true or false", parse=bool, ini="bool")
COUNT = Kind(expected="a whole number, 0 or more", parse=_parse_count, ini="int", metavar="N")
SECONDS = replace(COUNT, expected="a whole number of seconds, 0 or more")
SIZE = Kind(expected="a number of MiB, 0 or more", parse=_parse_mib, ini="float", metavar="MIB")
FILE = Kind(expected="the path of a file", parse=_parse_path, metavar="PATH")
STEP_SUMMARY = "$GITHUB_STEP_SUMMARY"
"""Stands for the file that this variable names, in the process that writes it."""
SUMMARY = Kind(
    expected="the path of a file; write --imu-summary after the paths of the tests",
    parse=_parse_summary,
    metavar="PATH",
    takes_paths=True,
)
INCREASES = Kind(
    expected="a percentage, a number of MiB or both, such as 10%, 2 or delta:10%+2",
    parse=_parse_increases,
    metavar="INCREASE",
)
LEAST_CALLS, LONGEST = 2, 7
LEAKS = Kind(
    expected="WARMUP:CALLS, 1 or more and 2 or more, such as 3:8",
    parse=_parse_leaks,
    metavar="WARMUP:CALLS",
)
CAP = Kind(
    expected="a size with its unit, such as 8GiB, or a share of what there is, such as 90%",
    parse=_parse_cap,
    metavar="SIZE",
)
LEAST_INTERVAL_NS = NANOSECONDS_PER_SECOND // 1000
INTERVAL = Kind(
    expected="an interval from 1ms to 3600s, such as 10ms or 0.5s",
    parse=_parse_interval,
    metavar="INTERVAL",
)
EVENTS = Kind(
    expected="events as `perf list` names them, separated by commas",
    parse=_parse_events,
    metavar="EVENTS",
)
CACHES = Kind(expected="NAME=BYTES,WAYS,LINE_BYTES for each cache", parse=_parse_caches)
TOLERANCE = Kind(
    expected="a number of MiB, 0 or more, or a percentage such as 5%",
    parse=_parse_tolerance,
    metavar="SIZE",
)
SORT: Kind[SortKey] = _one_of(get_args(SortKey), "KEY")
ON_BREACH: Kind[OnBreach] = _one_of(get_args(OnBreach))
COUNTERS: Kind[CounterChoice] = _one_of(get_args(CounterChoice), "SOURCE")
CPU: Kind[Cpu] = _one_of(get_args(Cpu))
WHICH: Kind[Which] = _one_of(get_args(Which), "WHICH")
WHY: Kind[WhyWhich] = _one_of(get_args(WhyWhich), "WHICH")
ISOLATE = replace(WHICH, parse=_parse_isolate)
