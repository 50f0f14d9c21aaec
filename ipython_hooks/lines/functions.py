"""`%imu lines -f FUNC STATEMENT`: the lines of functions, also of those that a notebook defines."""

from __future__ import annotations

import builtins
import functools
import inspect
import linecache
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from ipython_hooks.arguments import CommandError
from ipython_hooks.lines.table import LineTable, Row
from ipython_hooks.running import statement_at_once
from pytest_imu.core.invalid import InvalidValueError
from pytest_imu.core.units import mib
from pytest_imu.why.table import is_shared, shared_lines

if TYPE_CHECKING:
    from ipython_hooks.session import Session
    from pytest_imu.why.profile import LineCost, LineProfile

SOURCE = "%imu lines"
EXPECTED = "-f FUNCTION [-f FUNCTION]"
OPTION = re.compile(r"-f\s*(\S+)(?:\s+|$)")
NOT_CALLED = "none of these functions was called"
COLUMNS = {
    "hits": "hits",
    "used": "used_mib",
    "largest": "largest_mib",
    "peak": "peak_mib",
    "total": "total_mib",
}


class FollowedFunctions:
    """Follows the lines of some functions while other code runs."""

    def __init__(self, session: Session, functions: list[FunctionType]) -> None:
        from pytest_imu.why.lines import LineProfiler

        self._session = session
        self._profiler = LineProfiler()
        for function in functions:
            self._profiler.add_function(function)

    @classmethod
    def named(cls, session: Session, names: list[str]) -> FollowedFunctions:
        """Follow functions by their names in the person's namespace; raises CommandError."""
        found = [one for name in names for one in _functions_of(name, session.shell.user_ns)]
        try:
            return cls(session, found)
        except Exception as error:  # whatever the platform throws, it is the answer
            raise CommandError(f"{SOURCE}: memory cannot be read: {error}") from error

    def begin(self) -> None:
        """Begin."""
        self._profiler.enable_by_count()

    @staticmethod
    def reach(number: int | None, value: object = None) -> object:  # noqa: ARG004 - what a cell calls
        """Let the cell go on: its own statements are not read."""
        return value

    def end(self) -> None:
        """End."""
        self._profiler.disable_by_count()

    def table(self, raw_cell: str = "", *, raised: bool = False) -> LineTable:  # noqa: ARG002 - a cell's
        """Return the lines that were run."""
        profile = self._profiler.profile()
        places = [f"{self._place(cost.file)}:{cost.line}" for cost in profile.lines]
        return LineTable(
            lines=tuple(_rows(profile)),
            columns=COLUMNS,
            decimals=self._session.options.decimals,
            places=tuple(place.ljust(max(map(len, places))) for place in places),
            remarks=tuple(_remarks(profile)),
        )

    def _place(self, file: str) -> str:
        """Return the file as a person knows it: the command's number, or the file's name."""
        described = self._session.shell.compile.format_code_name(file)
        return described[1] if described else Path(file).name


def follow(session: Session, rest: str) -> LineTable:
    """Carry out `%imu lines -f FUNCTION STATEMENT`."""
    names, statement = _split(rest)
    if not names or not statement:
        raise CommandError(InvalidValueError(rest, f"{EXPECTED} STATEMENT").of(SOURCE))
    run = statement_at_once(session.shell, statement, SOURCE, instead="; %%imu lines can")
    followed = FollowedFunctions.named(session, names)
    followed.begin()
    try:
        run()
    finally:
        followed.end()
    table = followed.table()
    session.keep_last(table)
    return table


def functions_of(options: str) -> list[str]:
    """Return the functions that a cell's options name, and nothing else; raises CommandError."""
    names, statement = _split(options)
    if statement:
        raise CommandError(InvalidValueError(options, f"[{EXPECTED}]").of(f"%{SOURCE}"))
    return names


def _split(text: str) -> tuple[list[str], str]:
    """Return the functions that are named, and what stands behind them."""
    names, rest = [], text.strip()
    while option := OPTION.match(rest):
        names.append(option[1])
        rest = rest[option.end() :]
    return names, rest


def _functions_of(name: str, namespace: dict[str, Any]) -> Iterator[FunctionType]:
    """Give the Python function of a name, or all those of a class."""
    first, *others = name.split(".")
    try:
        start = namespace[first] if first in namespace else vars(builtins)[first]
        value = functools.reduce(getattr, others, start)
    except (KeyError, AttributeError):
        raise CommandError(
            InvalidValueError(name, "a name that is defined").of(f"{SOURCE} -f")
        ) from None
    members = vars(value).values() if isinstance(value, type) else (value,)
    functions = [one for one in map(_unwrapped, members) if isinstance(one, FunctionType)]
    if not functions:
        expected = "a function or a class that is written in Python"
        raise CommandError(InvalidValueError(name, expected).of(f"{SOURCE} -f"))
    yield from functions


def _unwrapped(value: object) -> object:
    """Return the function behind a method, a property, a partial and what is left by `wraps`."""
    if isinstance(value, functools.partial):
        return _unwrapped(value.func)
    if isinstance(value, property):
        return _unwrapped(value.fget)
    value = getattr(value, "__func__", value)
    return inspect.unwrap(value) if callable(value) else value


def _rows(profile: LineProfile) -> Iterator[Row]:
    source = "kernel" if profile.is_exact else "sampled"
    typed = [linecache.getline(cost.file, cost.line).rstrip() for cost in profile.lines]
    texts = textwrap.dedent("\n".join(typed)).split("\n")
    for cost, text in zip(profile.lines, texts, strict=False):
        yield _row(cost, text) | {"source": source}


def _row(cost: LineCost, text: str) -> dict[str, Any]:
    return {
        "file": cost.file,
        "line": cost.line,
        "hits": cost.hits,
        "has_more_hits": cost.has_more_hits,
        "used_mib": mib(cost.kept_bytes),
        "largest_mib": mib(cost.most_kept_bytes),
        "peak_mib": mib(cost.peak_bytes),
        "total_mib": mib(cost.total_bytes),
        "is_shared": is_shared(cost),
        "text": text,
    }


def _remarks(profile: LineProfile) -> Iterator[str]:
    yield "(sizes in MiB)" if profile.lines else NOT_CALLED
    yield from shared_lines(profile.lines)
    if not profile.is_exact:
        yield f"~ {profile.label}: a lower bound"
    if profile.fault is not None:
        yield f"some readings failed: {profile.fault}"
