"""Reads what `--imu-json` and `--imu-log` wrote, a test at a time: of 100,000 little need be kept."""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, NoReturn, TypeVar

from pytest_imu.core.document import plain_test
from pytest_imu.core.invalid import RefusedError, invalid, shown
from pytest_imu.core.outfile import STDOUT
from pytest_imu.core.system import without_collector
from pytest_imu.history.form import UnusableError

T = TypeVar("T")
MAX_HEAD, MAX_LINE, MAX_WHOLE = 2**20, 2**24, 2**25
"""How many characters the first line, a test's line, and a file that is laid out otherwise may have."""
LARGE_BYTES = 2**24
"""To read as much takes longer than to start a process."""
TESTS_BEGIN = ', "tests": ['
TESTS_END = "]}"
WRITTEN_BY = "what --imu-json writes"
LOST = "killed"
"""The outcome of a test that a run log has the start of, and not the end."""


class UnusableFileError(RefusedError):
    """A file that cannot be used; the text is the whole line that says so."""

    def __init__(self, name: str, expected: str) -> None:
        super().__init__(name, expected)

    def __str__(self) -> str:
        name, expected = self.args
        return invalid(f"file {shown(name)}", expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Generic[T]):
    """One run, read again."""

    name: str
    """The file, as its user named it."""
    environment: dict[str, Any]
    tests: list[T]


def named_files(names: Sequence[str]) -> list[str]:
    """Return the files that names and patterns stand for; raises UnusableFileError for none."""
    found: list[str] = []
    for name in names:
        is_pattern = name != str(STDOUT) and not Path(name).exists() and glob.has_magic(name)
        matches = sorted(glob.glob(name)) if is_pattern else [name]  # noqa: PTH207 - any pattern, from /
        if not matches:
            raise UnusableFileError(name, "a pattern that matches a file")
        found += matches
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise UnusableFileError(twice, "each file once")
    return found


Make = Callable[[dict[str, Any], dict[str, Any], str | None], T]
"""What is made of a test's plain form and the run's environment; last its text, if it has a line."""


def read(name: str, make: Make[T]) -> Run[T]:
    """Read a file, or standard input for "-"; keep of each test what *make* makes of it.

    Raises UnusableFileError for what is no such file, as a whole: a part of a run is no run.
    """
    if name == str(STDOUT):
        sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # a file, or a test's own
        return _read(name, sys.stdin, make)
    try:
        with open(name, encoding="utf-8-sig") as file:  # noqa: PTH123 - the name is the user's own text
            return _read(name, file, make)
    except FileNotFoundError:
        raise UnusableFileError(name, "a file that exists") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnusableFileError(name, f"{WRITTEN_BY} ({reason})") from None


def read_all(names: Sequence[str], make: Make[T]) -> list[Run[T]]:
    """Read several files; large ones at once, each in a process of its own.

    *make* is a function that such a process can import. Raises UnusableFileError for the first file that
    cannot be used.
    """
    processes = min(len(names), os.cpu_count() or 1)
    if processes > 1 and str(STDOUT) not in names and all(map(_is_large, names)):
        from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
        from multiprocessing import get_context

        # Where there can be no processes, or one was killed for its memory, one at a time may do.
        with (
            contextlib.suppress(BrokenExecutor, ImportError, OSError),
            ProcessPoolExecutor(processes, get_context("spawn")) as pool,
        ):
            return list(pool.map(read, names, itertools.repeat(make)))
    return [read(name, make) for name in names]


def _is_large(name: str) -> bool:
    try:
        return Path(name).stat().st_size >= LARGE_BYTES
    except (OSError, ValueError):
        return False


@without_collector()  # a million objects are made, and none of them is in a circle
def _read(name: str, file: IO[str], make: Make[T]) -> Run[T]:
    from pytest_imu.history.schema import (
        check_head,  # here: each run imports this module, few read a file
    )

    reader = _Reader(file)
    try:
        environment = check_head(reader.begin())
        tests, seen = [], set()
        for test, text in reader.tests():
            key = test["nodeid"], test["attempt"], test["worker"]
            if key in seen:
                _refuse(f"but has two tests with the id {shown(test['nodeid'])}")
            seen.add(key)
            tests.append(make(test, environment, text))
    except UnicodeDecodeError:
        raise UnusableFileError(name, f"{WRITTEN_BY}, but it is no UTF-8 text") from None
    except UnusableError as error:
        where = f"; line {reader.line}" if reader.line > 1 else ""
        joint = "" if str(error).startswith("in ") else ","
        raise UnusableFileError(name, f"{WRITTEN_BY}{joint} {error}{where}") from None
    return Run(name=name, environment=environment, tests=tests)


class _Reader:
    """Reads any of three layouts: a test a line, as we write it; a run log; or JSON laid out anew."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._tests: Callable[[], Iterable[tuple[Any, str | None]]] = tuple
        self.line = 0
        """The line that is being read, where lines tell anything."""

    def begin(self) -> Any:
        """Return what stands before the tests."""
        first = self._next_line(MAX_HEAD)
        if first.rstrip().endswith(TESTS_BEGIN):
            self._tests = self._lines_of_document
            return _parsed(first.rstrip() + TESTS_END)
        if first.startswith('{"event": '):
            self._tests = self._lines_of_log
            return _parsed(first)
        text = first + self._file.read(MAX_WHOLE)
        if not text.strip():
            _refuse("but it is empty")
        if len(text) > MAX_WHOLE:
            _refuse(f"with a test a line; laid out otherwise, it may have {MAX_WHOLE >> 20} MiB")
        whole = _parsed(text)
        if isinstance(whole, dict) and isinstance(tests := whole.get("tests"), list):
            self._tests = lambda: ((test, None) for test in tests)
        elif isinstance(whole, dict) and "schema" in whole:
            _refuse("but it has no list of tests")
        self.line = 0
        return whole

    def tests(self) -> Iterator[tuple[dict[str, Any], str | None]]:
        """Return each test's plain form, checked, with its text where it stands on a line."""
        from pytest_imu.history.schema import check_test

        for test, text in self._tests():
            yield check_test(test), text

    def _lines_of_document(self) -> Iterator[tuple[Any, str]]:
        while text := self._next_line(MAX_LINE).strip():
            if text == TESTS_END:
                if self._file.read(1):
                    _refuse("but there is more behind its end")
                return
            text = text.removesuffix(",")
            yield _parsed(text), text
        _refuse("but it ends in the middle")

    def _lines_of_log(self) -> Iterator[tuple[Any, None]]:
        """Yield the tests of a run log: also those that began and never ended, and no half line."""
        from pytest_imu.history.schema import TEST

        running: dict[tuple[Any, Any, Any], None] = {}
        while text := self._next_line(MAX_LINE):
            try:
                event = _parsed(text)
                key = event["nodeid"], event["attempt"], event["worker"]
            except (UnusableError, KeyError, TypeError):
                continue  # the disk was full, or its process was killed as it wrote
            if event.get("event") == "start":
                running[key] = None
            else:
                running.pop(key, None)
                yield {name: event[name] for name in TEST.types if name in event}, None
        for nodeid, attempt, worker in running:
            yield (
                plain_test(nodeid=nodeid, attempt=attempt, worker=worker, outcome=LOST, phases={}),
                None,
            )

    def _next_line(self, limit: int) -> str:
        self.line += 1
        text = self._file.readline(limit)
        if len(text) == limit and limit == MAX_LINE:
            _refuse(f"but has a line of more than {MAX_LINE >> 20} MiB")
        return text


def _parsed(text: str) -> Any:
    try:
        return _decode(text)
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) and text.strip():
            _refuse("but it ends in the middle")
        _refuse(f"but it is no JSON ({error.msg})")
    except RecursionError:
        _refuse("but it is nested too deeply")
    except ValueError as error:  # a number of thousands of digits
        if isinstance(error, UnusableError):
            raise
        _refuse(f"but it is no JSON ({error})")


def _refuse_constant(name: str) -> NoReturn:
    _refuse(f"but has {name} in the place of a number")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


def _refuse(why: str) -> NoReturn:
    raise UnusableError(why)
