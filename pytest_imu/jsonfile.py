"""The JSON file: the whole run in one document; docs/json.md describes it."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import pytest_imu
from pytest_imu.core import memory, meter
from pytest_imu.rows import Row

SCHEMA = 1


def check_writable(path: Path) -> None:
    """Prove, before any test runs, that the file can be written; raises OSError where it cannot."""
    if path.is_dir():
        raise IsADirectoryError(None, "it is a folder", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    Path(beside).unlink()


def write(path: Path, rows: Sequence[Row], environment: dict[str, Any]) -> None:
    """Write beside the file and rename, so that no reader ever finds half of it; raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    created = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    head = {"schema": SCHEMA, "created": created, "environment": environment}
    try:
        with beside.open("w", encoding="ascii") as file:
            # A test a line: a person can search it, and 100,000 tests need no second copy in memory.
            file.write(json.dumps(head)[:-1] + ', "tests": [')
            for number, row in enumerate(rows):
                file.write((",\n" if number else "\n") + json.dumps(row.to_dict()))
            file.write("\n]}\n")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def describe_environment(config: pytest.Config) -> dict[str, Any]:
    """Return what the numbers depend on besides the tests."""
    source = memory.peak_source()
    plugins = {
        dist.project_name: dist.version for _, dist in config.pluginmanager.list_plugin_distinfo()
    }
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "pytest": metadata.version("pytest"),
        "pytest_imu": pytest_imu.__version__,
        "plugins": dict(sorted(plugins.items())),
        "peak_source": source.label,
        "peak_resolution_bytes": source.resolution_bytes,
        "trim": meter.process_trimmer().available,
    }
