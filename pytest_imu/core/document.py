"""The JSON document of a run or a session, and how it is written; docs/json.md describes it."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from pytest_imu.core.budgets import Verdict
from pytest_imu.core.leaks.growth import Growth
from pytest_imu.core.memory import source as memory
from pytest_imu.core.memory.container import container_limit_bytes
from pytest_imu.core.memory.trim import process_trimmer
from pytest_imu.core.model import PHASES, Block, Measurement, Phase, Start
from pytest_imu.core.outfile import writing

SCHEMA = 1
# Bound here: a test may replace them and not put them back.
encode = json.JSONEncoder().encode
"""Return a value as JSON, on one line and in ASCII."""
now = functools.partial(dt.datetime.now, dt.UTC)
"""Return the time, with its zone."""


def write(
    path: Path,
    tests: Iterable[dict[str, Any]],
    environment: dict[str, Any],
    *,
    stdout: IO[str] | None = None,
) -> None:
    """Write the document; raises OSError."""
    write_encoded(path, map(encode, tests), environment, stdout=stdout)


def write_encoded(
    path: Path, tests: Iterable[str], environment: dict[str, Any], *, stdout: IO[str] | None = None
) -> None:
    """Write a document of tests that are JSON already; raises OSError."""
    created = now().isoformat(timespec="seconds")
    head = {"schema": SCHEMA, "created": created, "environment": environment}
    with writing(path, stdout=stdout) as file:
        # A test a line: a person can search it, and 100,000 tests need no second copy in memory.
        file.write(encode(head)[:-1] + ', "tests": [')
        for number, test in enumerate(tests):
            file.write((",\n" if number else "\n") + test)
        file.write("\n]}\n")


def plain_test(
    *,
    nodeid: str,
    attempt: int,
    worker: str | None,
    outcome: str | None,
    start: Start | None = None,
    ended_ns: int | None = None,
    isolated: bool = False,
    failed_by_budget: bool = False,
    phases: Mapping[Phase, Measurement],
    blocks: Iterable[Block] = (),
    verdicts: Iterable[Verdict] = (),
    teardown_kept_bytes: int | None = None,
    why: Mapping[str, Any] | None = None,
    growth: Growth | None = None,
    timeline: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return one of the document's tests."""
    return {
        "nodeid": nodeid,
        "attempt": attempt,
        "worker": worker,
        "started_at": None if start is None else start.text,
        "started_ns": None if start is None else start.clock_ns,
        "ended_ns": ended_ns,
        "outcome": outcome,
        "failed_by_budget": failed_by_budget,
        "isolated": isolated,
        "phases": {phase: phases[phase].to_dict() if phase in phases else None for phase in PHASES},
        "teardown_kept_bytes": teardown_kept_bytes,
        "blocks": [block.to_dict() for block in blocks],
        "budgets": [verdict.to_dict() for verdict in verdicts],
        "why": why,
        "growth": None if growth is None else growth.to_dict(),
        "timeline": timeline,
    }


def describe_machine(*, trim: bool, version: str) -> dict[str, Any]:
    """Return what the numbers depend on: interpreter, platform, and how memory is measured."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": _platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "memory_limit_bytes": container_limit_bytes(),
        "pytest_imu": version,
        **_describe_measuring(trim=trim),
    }


def installed_packages() -> dict[str, str]:
    """Return the version of each package that is installed, by the names of the folders that say so.

    `importlib.metadata` would open each of them, which takes a hundred times as long.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for entry in Path(folder).iterdir():
                name, dash, version = entry.stem.partition("-")
                if dash and entry.suffix == ".dist-info":
                    found.setdefault(name.replace("_", "-").lower(), version)
    return dict(sorted(found.items()))


def _platform() -> str:
    # Like platform.platform(), which before Python 3.12 starts the program uname: a child of the run.
    libc = "".join(platform.libc_ver())
    return "-".join(
        (platform.system(), platform.release(), platform.machine(), *(["with", libc] if libc else []))
    )


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
