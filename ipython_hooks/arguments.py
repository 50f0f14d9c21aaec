"""The words behind a command: read, checked, and refused with what was expected."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from pytest_imu.core.invalid import InvalidValueError

MAX_RUNS = 1_000_000


class CommandError(Exception):
    """A command that makes no sense; the message says what was expected."""


@contextlib.contextmanager
def naming(source: str, path: Path | None = None) -> Iterator[None]:
    """Turn what goes wrong with a command's words, or its file, into an error that names the command."""
    try:
        yield
    except InvalidValueError as error:
        raise CommandError(error.of(source)) from None
    except OSError as error:  # without the name of the temporary file
        raise CommandError(f"{source}: {path} cannot be written: {error.strerror or error}") from None
    except ValueError as error:
        raise CommandError(f"{source}: {error}") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def cell_options(line: str) -> argparse.Namespace:
    """Return the options of `%%imu`: `r` runs, `q` for quiet, `j` for a file."""
    parser = _Parser(add_help=False)
    parser.add_argument("-r", default="1")
    parser.add_argument("-q", action="store_true")
    parser.add_argument("-j", type=Path)
    with naming("%%imu"):
        try:
            options = parser.parse_args(shlex.split(line))
        except ValueError:
            raise InvalidValueError(line.strip(), "[-r N] [-q] [-j FILE]") from None
    with naming("%%imu -r"):
        options.r = whole_number(options.r, most=MAX_RUNS)
    return options


def split_count(rest: str, option: str, command: str, *, usual: int) -> tuple[int, str]:
    """Return how often a statement is run, and the statement behind `[-r N]`, or another *option*."""
    runs, statement = usual, rest
    if rest.startswith(option):
        number, _, statement = rest.removeprefix(option).strip().partition(" ")
        with naming(f"{command} {option}"):
            runs = whole_number(number, most=MAX_RUNS)
    if not statement.strip():
        raise CommandError(InvalidValueError(rest, f"[{option} N] STATEMENT").of(command))
    return runs, statement.strip()


def whole_number(text: str, *, most: int | None = None) -> int:
    """Return a whole number, 1 or more; raises InvalidValueError."""
    number = int(text) if text.isdecimal() and len(text) < len(str(10**18)) else 0
    if number < 1 or (most is not None and number > most):
        raise InvalidValueError(text, f"a whole number, 1 {'or more' if most is None else f'to {most}'}")
    return number


def path_of(text: str) -> Path:
    """Return the one path that a command needs; raises InvalidValueError."""
    words = []
    with contextlib.suppress(ValueError):  # a quote that is not closed
        words = shlex.split(text)
    if len(words) != 1:
        raise InvalidValueError(text, "the path of one file")
    return Path(words[0]).expanduser()


def one_of(word: str, words: Sequence[str]) -> str:
    """Return a word if it is one of these; raises InvalidValueError."""
    if word not in words:
        raise InvalidValueError(word, f"{', '.join(words[:-1])} or {words[-1]}")
    return word
