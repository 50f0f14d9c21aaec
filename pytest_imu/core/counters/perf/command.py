"""Finding a perf that works, and saying why there is none."""

from __future__ import annotations

import mmap
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from pytest_imu.core.children.proc import read_all
from pytest_imu.core.counters.asking import ask
from pytest_imu.core.counters.source import UNKNOWN_EVENT, CannotCountError
from pytest_imu.core.units import printable

OLDEST_VERSION = (5, 10)
"""The first perf whose `stat` has --control, by which one perf serves a whole session."""
LINUX_TOOLS = Path("/usr/lib")
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
VERSION_TIMEOUT_S = 5.0
REFUSALS = ("paranoid", "permission", "not permitted", "operations is limited")
"""What perf says, in lower case, when the kernel or a container does not let it count."""

_VERSION = re.compile(r"perf version (\d+)\.(\d+)")
_UNKNOWN_EVENT = re.compile(
    r"event syntax error: '([^']*)'|unknown or unsupported event '([^']*)'", re.IGNORECASE
)


class HungError(CannotCountError):
    """perf does not do in time what it was told to."""


class HungPerf:
    """The perf that has hung, known to this process and all that it forks: it is not tried twice."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)  # what a child writes there is seen here

    def note(self, path: str, reason: str) -> None:
        """Take in that this perf has hung."""
        self._shared[:] = f"{path}\0{reason}".encode()[: mmap.PAGESIZE].ljust(mmap.PAGESIZE, b"\0")

    def check(self, path: str) -> None:
        """Raise HungError if this perf has hung before."""
        hung, _, reason = self._shared[:].rstrip(b"\0").decode(errors="replace").partition("\0")
        if hung == path:
            raise HungError(reason)


HUNG = HungPerf()


@dataclass(frozen=True, slots=True, kw_only=True)
class PerfCommand:
    """A perf that runs."""

    path: str
    version: tuple[int, int]

    @property
    def has_control(self) -> bool:
        """Whether `perf stat` takes --control."""
        return self.version >= OLDEST_VERSION

    @property
    def version_text(self) -> str:
        """The version as people write it."""
        return ".".join(map(str, self.version))


def find_perf(
    *, on_path: str | None = None, tools: Path = LINUX_TOOLS, platform: str = sys.platform
) -> PerfCommand:
    """Return the perf to use: the one on PATH, or one that the distribution's wrapper did not find.

    Raises CannotCountError with the reason where there is none that runs.
    """
    if platform != "linux":
        raise CannotCountError(f"perf is part of Linux, and this is {platform}")
    found = on_path or shutil.which("perf")
    packaged = sorted(map(str, tools.glob("linux-tools*/**/perf")), key=_numbers, reverse=True)
    candidates = ([found] if found else []) + packaged
    if not candidates:
        raise CannotCountError("perf is not installed")
    faults = []
    for path in candidates:
        try:
            return PerfCommand(path=path, version=_version_of(path))
        except HungError:
            raise
        except CannotCountError as error:
            faults.append(error)
    raise faults[0]


def _numbers(path: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path)]


def _version_of(path: str) -> tuple[int, int]:
    HUNG.check(path)
    try:
        status, output = ask(
            [path, "--version"], timeout_s=VERSION_TIMEOUT_S, environment=perf_environment()
        )
    except TimeoutError:
        message = f"{path} --version did not end within {VERSION_TIMEOUT_S:.0f} s"
        HUNG.note(path, message)
        raise HungError(message) from None
    except OSError as error:
        raise CannotCountError(f"{path} does not run: {error.strerror or error}") from None
    version = _VERSION.search(output)
    if status == 0 and version is not None:
        return int(version[1]), int(version[2])
    if "not found for kernel" in output:
        message = f"{path} is the distribution's wrapper, without a perf for this kernel"
    else:
        message = f"{path} --version says: {first_line(output) or 'nothing'}"
    raise CannotCountError(message)


def perf_environment() -> dict[str, str]:
    """Return the environment for perf: numbers in the C locale, no colours, no pager."""
    return {**os.environ, "LC_ALL": "C", "PERF_PAGER": "cat"}


def paranoid_level(path: Path = PARANOID) -> int | None:
    """Return the kernel's perf_event_paranoid; None where there is none to read."""
    # As all that may be asked while a test hides files: with nothing that it can replace.
    try:
        return int(read_all(str(path)))
    except (OSError, ValueError):
        return None


def why_refused(stderr: str, *, level: int | None) -> str:
    """Return, in one line, why perf ended, from what it said."""
    unknown = _UNKNOWN_EVENT.search(stderr)
    if unknown is not None:
        return f"{UNKNOWN_EVENT} {(unknown[1] or unknown[2])!r}"
    lowered = stderr.lower()
    if any(word in lowered for word in REFUSALS):
        where = "unknown" if level is None else str(level)
        return f"perf was refused (perf_event_paranoid is {where}; a container may refuse it too)"
    return f"perf ended: {first_line(stderr) or 'it said nothing'}"


def first_line(text: str) -> str:
    """Return the first line that says something, without what perf prints of its own switches."""
    lines = [printable(line.strip())[:200] for line in text.splitlines()]
    return next((line for line in lines if line and not line.startswith("Events ")), "")
