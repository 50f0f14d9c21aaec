"""What /proc tells of other processes (Linux)."""

from __future__ import annotations

import functools
import os
from typing import NamedTuple

from pytest_imu.core.system import System

GONE = (FileNotFoundError, ProcessLookupError)
"""What /proc answers for a process that has ended, before and after its directory was opened."""


READ_BYTES = 65536


class Stat(NamedTuple):
    """What a /proc/PID/stat text tells of a process."""

    is_dead: bool
    parent: int
    reaped_faults: int
    """The page faults of its children that it has waited for; each has had some."""
    born: int
    """In clock ticks since the machine started."""


def parse_stat(text: bytes) -> Stat:
    """Return what is needed of a stat text; the command's name in it may hold anything."""
    fields = text[text.rindex(b")") + 1 :].split()
    return Stat(
        is_dead=fields[0] in b"ZXx",
        parent=int(fields[1]),
        reaped_faults=int(fields[8]),
        born=int(fields[19]),
    )


def child_pids(directory: int) -> list[int]:
    """Return the ids of a process's children; *directory* is its open /proc/PID."""
    tasks = open_directory("task", at=directory)
    try:
        threads = System.listdir(tasks)
        return [int(pid) for thread in threads for pid in _children_of(thread, tasks)]
    finally:
        System.close(tasks)


def _children_of(thread: str, tasks: int) -> list[bytes]:
    try:
        return read_all(f"{thread}/children", at=tasks).split()
    except GONE:
        return []  # the thread has ended, and its children are another one's


def open_directory(path: str, *, at: int | None = None) -> int:
    """Return a descriptor of a directory; a process's means that very one, if its id is reused too."""
    return System.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)


def can_open(path: str) -> bool:
    """Whether there is such a file to read; asked in a way that no fake file system is in."""
    try:
        System.close(System.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def read_all(path: str, *, at: int | None = None) -> bytes:
    """Return a /proc file's whole text; a list of children comes in pieces."""
    descriptor = System.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=at)
    try:
        return b"".join(iter(functools.partial(System.read, descriptor, READ_BYTES), b""))
    finally:
        System.close(descriptor)
