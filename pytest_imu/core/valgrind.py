"""Which valgrind there is, and whether it will do."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable

from pytest_imu.core.callgrind import MIN_VERSION

ASKING_TIMEOUT_S = 10
MEND = "install valgrind, {}.{} or newer".format(*MIN_VERSION)

_VERSION = re.compile(r"valgrind-([0-9]{1,4})\.([0-9]{1,4})\S*")


class ValgrindUnavailableError(Exception):
    """There is no valgrind that will do; the text is the reason, fit to be shown."""


def find_valgrind(which: Callable[[str], str | None] = shutil.which) -> tuple[str, str]:
    """Return the path of a valgrind that is new enough, and its version as it says it.

    ValgrindUnavailableError says why there is none; MEND is what to do about it.
    """
    path = which("valgrind")
    if path is None:
        message = "not installed"
        raise ValgrindUnavailableError(message)
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, timeout=ASKING_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"{path}: {error}"
        raise ValgrindUnavailableError(message) from None
    text = done.stdout.decode(errors="replace").strip()
    match = _VERSION.fullmatch(text)
    if done.returncode != 0 or match is None:
        message = f"{path} --version ends with status {done.returncode} and says {text[:80]!r}"
        raise ValgrindUnavailableError(message)
    if (int(match[1]), int(match[2])) < MIN_VERSION:
        message = f"{path} is {match[0]}, and too old"
        raise ValgrindUnavailableError(message)
    return path, match[0].removeprefix("valgrind-")
