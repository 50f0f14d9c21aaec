"""Which valgrind is taken: scripted ones, and the one of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_imu.core.counters.callgrind.command import find_valgrind
from pytest_imu.core.counters.source import CannotCountError


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that writes a valgrind which does what a line of shell says."""

    def write(line: str) -> str:
        path = tmp_path / "valgrind"
        path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    return write


@pytest.mark.needs_proc
@pytest.mark.parametrize("version", ["3.19.0", "3.22.0.GIT", "4.0.0", "3.100.1"])
def test_new_enough(scripted: Callable[[str], str], version: str) -> None:
    """A version from 3.19 is taken; numbers are compared as numbers."""
    path = scripted(f"echo valgrind-{version}")
    assert (path, version) == find_valgrind(lambda _: path)


@pytest.mark.needs_proc
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("echo valgrind-3.18.1", "{} is valgrind-3.18.1, and too old"),
        ("echo valgrind-2.99.0", "{} is valgrind-2.99.0, and too old"),
        ("echo what", "{} --version ends with status 0 and says 'what'"),
        ("echo valgrind-3.19.0; exit 3", "{} --version ends with status 3 and says 'valgrind-3.19.0'"),
        ("true", "{} --version ends with status 0 and says ''"),
    ],
)
def test_one_that_will_not_do(scripted: Callable[[str], str], line: str, reason: str) -> None:
    """One that is too old, or does not say its version, is refused with what it did say."""
    path = scripted(line)
    with pytest.raises(CannotCountError) as raised:
        find_valgrind(lambda _: path)
    assert reason.format(path) == str(raised.value)


def test_none_at_all(tmp_path: Path) -> None:
    """None on the path, or one that cannot be run, is a reason too."""
    with pytest.raises(CannotCountError, match=r"^not installed$"):
        find_valgrind(lambda _: None)
    gone = str(tmp_path / "gone")
    with pytest.raises(CannotCountError, match=r"/gone: "):
        find_valgrind(lambda _: gone)


@pytest.mark.needs_valgrind
def test_this_machines_own() -> None:
    """The one that is installed here is found."""
    path, version = find_valgrind()
    assert Path(path).exists()
    assert version[0].isdecimal()
