"""The JSON document of a run or a session, and how it is written; docs/json.md describes it."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import json
import os
import platform
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from pytest_imu.core.memory import source as memory
from pytest_imu.core.memory.trim import process_trimmer

SCHEMA = 1


def check_writable(path: Path) -> None:
    """Prove that the file can be written, making its folder; raises OSError where it cannot."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a device, and would be replaced by a file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    Path(beside).unlink()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[str]]:
    """Write beside the file and rename, so that no reader ever finds half of it; raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("w", encoding="ascii") as file:
            yield file
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write(path: Path, tests: Iterable[dict[str, Any]], environment: dict[str, Any]) -> None:
    """Write the document; raises OSError."""
    created = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    head = {"schema": SCHEMA, "created": created, "environment": environment}
    with replacing(path) as file:
        # A test a line: a person can search it, and 100,000 tests need no second copy in memory.
        file.write(json.dumps(head)[:-1] + ', "tests": [')
        for number, test in enumerate(tests):
            file.write((",\n" if number else "\n") + json.dumps(test))
        file.write("\n]}\n")


def describe_machine(*, trim: bool, version: str) -> dict[str, Any]:
    """Return what the numbers depend on: interpreter, platform, and how memory is measured."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "pytest_imu": version,
        **_describe_measuring(trim=trim),
    }


def _describe_measuring(*, trim: bool) -> dict[str, Any]:
    try:
        source = memory.peak_source()
        return {
            "peak_source": source.label,
            "peak_resolution_bytes": source.resolution_bytes,
            "trim": trim and process_trimmer().available,
        }
    except Exception as error:  # noqa: BLE001 - no fault of the measuring reaches the run
        meant = isinstance(error, memory.NotMeasuredError)
        reason = f"none ({error if meant else f'{type(error).__name__}: {error}'})"
        return {"peak_source": reason, "peak_resolution_bytes": None, "trim": False}
