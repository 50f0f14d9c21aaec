"""The session as JSON, in the shape of the file that `pytest --imu-json` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest_imu
from ipython_hooks.records import CommandRecord
from pytest_imu.core import document
from pytest_imu.core.counters.choice import source_text


def save(path: Path, records: Sequence[CommandRecord]) -> None:
    """Write every command as a test of that name; raises OSError."""
    counted = source_text(record.measurement for record in records)
    environment = {
        **document.describe_machine(trim=True, version=pytest_imu.__version__),
        "counter_source": counted,
    }
    document.write(path, map(test_of, records), environment)


def test_of(record: CommandRecord) -> dict[str, Any]:
    """Return a command as one of the document's tests: its call alone, named by its source."""
    number = "" if record.number is None else f"In [{record.number}]: "
    test = document.plain_test(
        nodeid=number + record.command,
        attempt=1,
        worker=None,
        outcome="failed" if record.raised else "passed",
        phases={"call": record.measurement},
    )
    return {**test, "cell_id": record.cell_id, "notes": list(record.notes)}
