"""The files that callgrind dumps its counts into: each is read once, and removed.

In as little code as will do: under valgrind all of it is translated anew after every window.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from pytest_imu.core.callgrind_command import option
from pytest_imu.core.callgrind_output import Dump, parse_dump
from pytest_imu.core.callgrind_requests import CallgrindUnavailableError

PART_BYTES = 8192
END_BYTES = 1024
"""As much is read of a dump's end, where the totals stand."""

_CREATOR, _EVENTS, _TOTALS = (
    re.compile(rb"^%b:.*\n" % name, re.MULTILINE) for name in (b"creator", b"events", b"totals")
)


class Dumps:
    """The dump files of this process."""

    def __init__(self, arguments: Sequence[str], *, pid: int, start_folder: Path) -> None:
        name = option(arguments, "callgrind-out-file") or "callgrind.out.%p"
        base = start_folder / name.replace("%p", str(pid))
        self._folder = str(base.parent)
        self._prefix = f"{base.name}."

    def take(self) -> Dump:
        """Return the newest dump; CallgrindUnavailableError says why there is none."""
        parts = self._parts()
        if not parts:
            message = f"callgrind wrote no dump at {self._folder}/{self._prefix}*"
            raise CallgrindUnavailableError(message)
        path = f"{self._folder}/{self._prefix}{max(parts)}"
        try:
            return parse_dump(_lines_of(path))
        except (OSError, ValueError) as error:
            raise CallgrindUnavailableError(str(error)) from None
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108 - pathlib is not free here

    def _parts(self) -> list[int]:
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 - pathlib is not free here
        except OSError:
            return []
        endings = (name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix))
        return [int(ending) for ending in endings if ending.isdecimal()]


def _lines_of(path: str) -> str:
    """Return the lines of the header and of the end that are needed.

    No other text is made, for how long that is differs from run to run, and with it would the heap, on
    which depends what the next window counts.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        header = os.read(descriptor, PART_BYTES)
        # A command line stands in the header, and may be a long one.
        while _EVENTS.search(header) is None and (more := os.read(descriptor, PART_BYTES)):
            header += more
        end = os.pread(descriptor, END_BYTES, max(0, os.fstat(descriptor).st_size - END_BYTES))
    finally:
        os.close(descriptor)
    found = (_CREATOR.search(header), _EVENTS.search(header), _TOTALS.search(end))
    return b"".join(line[0] for line in found if line is not None).decode("ascii", errors="replace")
