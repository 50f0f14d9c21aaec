"""How a file that the user named is written: whole or not at all, and no device replaced by it."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

STDOUT = Path("-")
"""Stands for standard output, as it does for most commands."""
PATIENCE_S = 5.0
"""How long a pipe may be without a reader, or a reader without reading, at the end of a run."""
NO_READER = "no process reads this pipe"
NO_READING = "the process that reads this pipe takes nothing"
OWN_DESCRIPTORS = ("/proc/self/fd", "/dev/fd")
CLOEXEC = getattr(os, "O_CLOEXEC", 0)
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | CLOEXEC
APPENDING = os.O_WRONLY | os.O_CREAT | os.O_APPEND | CLOEXEC
EXISTING = os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | CLOEXEC
"""Without waiting for the reader of a pipe, and without taking a terminal over."""
# Bound here: a test may replace them and not put them back.
_open, _write, _close, _dup = os.open, os.write, os.close, os.dup
_fdopen, _random_bytes, _real_path = os.fdopen, os.urandom, os.path.realpath
_poll: Any = getattr(select, "poll", None)  # Any: Windows has none
_fstat, _replace, _unlink, _sleep, _clock_s = os.fstat, os.replace, os.unlink, time.sleep, time.monotonic


_proved: dict[int, tuple[int, int]] = {}
"""What the descriptors that paths stand for were open on when they were checked."""


def check_writable(path: Path) -> None:
    """Prove that the file can be written, making its folder; raises OSError where it cannot."""
    if path == STDOUT:
        return
    found = _stat_or_none(path)
    if (own := own_descriptor(path)) is not None:
        _proved[own] = _identity(own)
        return
    if found is not None and not stat.S_ISREG(found.st_mode):
        # Not opened: who reads a pipe would find its end with the first writer's.
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return
    target = Path(_real_path(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = _open_beside(target, mode=0o600)
    _close(descriptor)
    _unlink(beside)


@contextlib.contextmanager
def writing(path: Path, *, stdout: IO[str] | None = None) -> Iterator[IO[str]]:
    """Write a file in one step, so that no reader ever finds half of it; raises OSError.

    A link is followed. A device, a pipe and standard output are written to, and not replaced.
    """
    found = None if path == STDOUT else _stat_or_none(path)
    own = own_descriptor(path)
    if path != STDOUT and own is None and (found is None or stat.S_ISREG(found.st_mode)):
        with _replacing(Path(_real_path(path)), found) as file:
            yield file
        return
    text = io.StringIO()
    yield text
    if path == STDOUT:
        out = stdout or sys.stdout
        out.write(text.getvalue())
        out.flush()
        return
    if sys.stdout is not None:
        sys.stdout.flush()  # what was printed before stands before it
    descriptor = _open_special(path) if own is None else _dup_proved(own)
    try:
        _write_all(descriptor, text.getvalue().encode("ascii"))
    finally:
        _close(descriptor)


def own_descriptor(path: Path) -> int | None:
    """Return the number of this process's descriptor that a path stands for, as /dev/stdout does."""
    folders = {_real_path(folder) for folder in OWN_DESCRIPTORS}
    for _ in range(40):  # as many links as the kernel follows
        if path.name.isdecimal() and _real_path(path.parent) in folders:
            return int(path.name)
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    return None


def append(path: Path, text: str) -> None:
    """Write a text at a file's end; raises OSError."""
    descriptor = _open(path, APPENDING, 0o666)
    try:
        _write_all(descriptor, text.encode())
    finally:
        _close(descriptor)


def size_bytes(path: Path) -> int:
    """Return how much a file has; 0 where there is none. Raises OSError."""
    found = _stat_or_none(path)
    return 0 if found is None else found.st_size


def replace_all(contents: Mapping[Path, bytes]) -> None:
    """Write several files that exist, all of them or none; raises OSError."""
    beside: dict[Path, Path] = {}
    old: dict[Path, bytes] = {}
    try:
        for path, data in contents.items():
            target = Path(_real_path(path))
            found = target.stat()
            descriptor, beside[target] = _open_beside(target, mode=0o600)
            with _fdopen(descriptor, "wb") as file:
                file.write(data)
                _keep_owner_and_mode(descriptor, found)
        for target, new in list(beside.items()):
            old[target] = target.read_bytes()
            _replace(new, target)
            del beside[target]
    except BaseException:
        for new in beside.values():
            with contextlib.suppress(OSError):
                _unlink(new)
        for target in old.keys() - beside.keys():
            target.write_bytes(old[target])
        raise


@contextlib.contextmanager
def _replacing(target: Path, old: os.stat_result | None) -> Iterator[IO[str]]:
    descriptor, beside = _open_beside(target, mode=0o666 if old is None else 0o600)
    try:
        with _fdopen(descriptor, "w", encoding="ascii") as file:
            yield file
            if old is not None:
                _keep_owner_and_mode(descriptor, old)
        _replace(beside, target)
    except BaseException:
        with contextlib.suppress(OSError):
            _unlink(beside)
        raise


def _open_beside(target: Path, *, mode: int) -> tuple[int, Path]:
    """Make a file beside the target, under a name that nobody can foresee."""
    beside = target.with_name(f".imu-{_random_bytes(8).hex()}.tmp")
    return _open(beside, NEW, mode), beside


def _keep_owner_and_mode(descriptor: int, old: os.stat_result) -> None:
    if hasattr(os, "fchown"):  # not on Windows
        # In this order, for a change of owner takes bits away; only root may give a file to others.
        with contextlib.suppress(OSError):
            os.fchown(descriptor, old.st_uid, old.st_gid)
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _open_special(path: Path) -> int:
    """Open a device or a pipe, whose reader may be a moment late."""
    deadline_s = _clock_s() + PATIENCE_S
    while True:
        try:
            return _open(path, EXISTING)
        except OSError as error:
            if error.errno != errno.ENXIO or not path.is_fifo():
                raise
            if _clock_s() > deadline_s:
                raise OSError(errno.ENXIO, NO_READER, str(path)) from None
            _sleep(0.01)


def _dup_proved(own: int) -> int:
    """Return a copy of a descriptor, unless a test has closed it and its number is another file's."""
    if _identity(own) != _proved.get(own, _identity(own)):
        raise OSError(errno.EBADF, f"descriptor {own} was closed, and is another file now")
    return _dup(own)


def _identity(descriptor: int) -> tuple[int, int]:
    found = _fstat(descriptor)
    return found.st_dev, found.st_ino


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[_write(descriptor, left) :]
        except BlockingIOError:
            if not wait_for_reader(descriptor, PATIENCE_S):
                raise TimeoutError(errno.ETIMEDOUT, NO_READING) from None


def wait_for_reader(descriptor: int, limit_s: float) -> bool:
    """Wait until a full pipe takes more; tell whether it does."""
    poll = _poll()  # not select(), which knows no descriptor from 1,024
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(limit_s * 1000))


def _stat_or_none(path: Path) -> os.stat_result | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    return found
