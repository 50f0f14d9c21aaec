"""The files that callgrind dumps its counts into: each is read once, and removed.

In as little code as will do: under valgrind all of it is translated anew after every window.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_imu.core.counters.callgrind.command import dumps_at
from pytest_imu.core.counters.callgrind.requests import Sender
from pytest_imu.core.counters.source import CannotCountError
from pytest_imu.core.system import System

PART_BYTES = 8192
END_BYTES = 1024
"""As much is read of a dump's end, where the totals stand."""

_CREATOR, _EVENTS, _TOTALS = (
    re.compile(rb"^%b:.*\n" % name, re.MULTILINE) for name in (b"creator", b"events", b"totals")
)


class Dumps:
    """The dump files of this process."""

    # Bound before any test runs, like the functions in System.
    _access = staticmethod(os.access)
    _mkdir = staticmethod(os.mkdir)
    _unlink = staticmethod(os.unlink)
    _fstat = staticmethod(os.fstat)

    def __init__(self, arguments: Sequence[str], *, pid: int, start_folder: Path) -> None:
        base = dumps_at(arguments, pid=pid, start_folder=start_folder)
        self._folder = str(base.parent)
        self._prefix = f"{base.name}."

    def take(self, send: Sender) -> Dump:
        """Let the counts be dumped, and return them; CannotCountError says why there are none."""
        self._make_folder()
        send("dump")
        parts = self._parts()
        if not parts:
            raise CannotCountError(f"callgrind wrote no dump at {self._folder}/{self._prefix}*")
        path = f"{self._folder}/{self._prefix}{max(parts)}"
        try:
            return parse_dump(self._lines_of(path))
        except (OSError, ValueError) as error:
            raise CannotCountError(str(error)) from None
        finally:
            with contextlib.suppress(OSError):
                self._unlink(path)

    def _make_folder(self) -> None:
        """Make the folder anew where it was removed: without one callgrind would end the process."""
        if self._access(self._folder, os.W_OK | os.X_OK):
            return
        try:
            self._mkdir(self._folder, 0o700)
        except OSError as error:
            raise CannotCountError(
                f"callgrind cannot write into {self._folder} any more: {error.strerror}"
            ) from None

    def _parts(self) -> list[int]:
        try:
            names = System.listdir(self._folder)
        except OSError:
            return []
        endings = (name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix))
        return [int(ending) for ending in endings if ending.isdecimal()]

    def _lines_of(self, path: str) -> str:
        """Return the lines of the header and of the end that are needed.

        No other text is made, for how long that is differs from run to run, and with it would the heap,
        on which depends what the next window counts.
        """
        descriptor = System.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            header = System.read(descriptor, PART_BYTES)
            # A command line stands in the header, and may be a long one.
            while _EVENTS.search(header) is None and (more := System.read(descriptor, PART_BYTES)):
                header += more
            end_at = max(0, self._fstat(descriptor).st_size - END_BYTES)
            end = System.pread(descriptor, END_BYTES, end_at)
        finally:
            System.close(descriptor)
        found = (_CREATOR.search(header), _EVENTS.search(header), _TOTALS.search(end))
        lines = b"".join(line[0] for line in found if line is not None)
        return lines.decode("ascii", errors="replace")


# A last-level reference is a miss of a first level; there is no other way to get there.
PUBLIC_EVENTS: Mapping[str, tuple[str, ...]] = {
    "instructions": ("Ir",),
    "cache-misses": ("ILmr", "DLmr", "DLmw"),
    "cache-references": ("I1mr", "D1mr", "D1mw"),
    "L1-dcache-load-misses": ("D1mr",),
    "L1-icache-load-misses": ("I1mr",),
    "branch-misses": ("Bcm", "Bim"),
}
"""The names that perf users know, and the costs of callgrind that add up to each."""

NOT_SUPPORTED = "not supported by callgrind"
NO_BRANCHES = "not counted: callgrind runs without --branch-sim=yes"
NO_CACHES = "not counted: callgrind runs without --cache-sim=yes"

# At most 20 digits: a 64-bit count has no more.
_NUMBERS = re.compile(r"[0-9]{1,20}(?: [0-9]{1,20})*")
_VERSION = re.compile(r"callgrind-([0-9]{1,4})\.([0-9]{1,4})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """What one dump says."""

    version: tuple[int, int]
    """The valgrind that wrote it."""
    costs: Mapping[str, int]
    """The sum over all functions of each cost, named as callgrind names it."""


def parse_dump(text: str) -> Dump:
    """Return the version and the total costs of a dump.

    Raises ValueError that names the line which is missing, or which is not as callgrind writes it.
    """
    lines = text.splitlines()
    version = _VERSION.match(_field(lines, "creator"))
    if version is None:
        raise ValueError("the dump's line 'creator:' names no version of callgrind")
    names = _field(lines, "events").split()
    totals = _field(lines, "totals")
    if not names or _NUMBERS.fullmatch(totals) is None:
        raise ValueError("the dump's line 'totals:' holds no counts")
    numbers = [int(number) for number in totals.split()]
    if len(numbers) > len(names):
        raise ValueError(f"the dump has {len(names)} events and {len(numbers)} totals")
    # callgrind leaves out the zeros at the end of a line of costs.
    numbers += [0] * (len(names) - len(numbers))
    return Dump(version=(int(version[1]), int(version[2])), costs=dict(zip(names, numbers, strict=True)))


def _field(lines: list[str], name: str) -> str:
    for line in lines:
        if line.startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    raise ValueError(f"the dump has no line '{name}:'")


def public_count(event: str, costs: Mapping[str, int]) -> int | str:
    """Return the count of an event in perf's name, or the reason why there is none.

    perf's modifier for user space (`:u`) says what callgrind does anyway: it never sees the kernel.
    """
    parts = PUBLIC_EVENTS.get(event.removesuffix(":u"))
    if parts is None:
        return NOT_SUPPORTED
    if not costs.keys() >= set(parts):
        return NO_BRANCHES if event.startswith("branch") else NO_CACHES
    return sum(costs[part] for part in parts)
