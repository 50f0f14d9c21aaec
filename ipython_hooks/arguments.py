"""The words behind a command: read, checked, and refused with what is accepted."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

MAX_RUNS = 1_000_000


class CommandError(Exception):
    """A command that makes no sense; the message says what is accepted."""


def cell_options(line: str) -> argparse.Namespace:
    """Return the options of `%%imu`: `r` runs, `q` for quiet, `j` for a file."""
    parser = _Parser(prog="%%imu", add_help=False)
    parser.add_argument("-r", type=runs_of, default=1)
    parser.add_argument("-q", action="store_true")
    parser.add_argument("-j", type=Path)
    return parser.parse_args(words_of("%%imu", line))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        text = f"{self.prog}: {message}; accepted: [-r N] [-q] [-j FILE]"
        raise CommandError(text)


def split_run_options(name: str, rest: str) -> tuple[int, str]:
    """Return how often to run, and the statement behind `[-r N]`."""
    if not rest.startswith("-r"):
        return 1, rest
    number, _, statement = rest.removeprefix("-r").strip().partition(" ")
    try:
        return runs_of(number), statement.strip()
    except argparse.ArgumentTypeError as error:
        message = f"{name}: {error}"
        raise CommandError(message) from None


def runs_of(text: str) -> int:
    """Return a number of runs; argparse turns its error into one that names the option."""
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= MAX_RUNS:
        message = f"-r {text!r} is not accepted; a whole number from 1 to {MAX_RUNS} is"
        raise argparse.ArgumentTypeError(message)
    return number


def words_of(name: str, line: str) -> list[str]:
    """Return the words of a line as a shell splits it."""
    try:
        return shlex.split(line)
    except ValueError as error:
        message = f"{name}: {error}"
        raise CommandError(message) from None


def path_of(name: str, rest: str) -> Path:
    """Return the one path that a command needs."""
    words = words_of(f"%imu {name}", rest)
    if len(words) != 1:
        message = f"%imu {name} needs the path of one file"
        raise CommandError(message)
    return Path(words[0]).expanduser()


def unwritable(name: str, path: Path | None, error: OSError) -> str:
    """Return why a file could not be written, without the name of the temporary one."""
    return f"{name}: {path} cannot be written: {error.strerror or error}"


def one_of(name: str, word: str, accepted: Sequence[str]) -> str:
    """Return a word if it is one of those accepted."""
    if word not in accepted:
        message = f"%imu {name}: {word!r} is not accepted; one of {', '.join(accepted)} is"
        raise CommandError(message)
    return word


def require_nothing(name: str, rest: str) -> None:
    """Refuse words behind a command that takes none."""
    if rest:
        message = f"%imu {name} takes nothing more, and got {rest!r}"
        raise CommandError(message)
