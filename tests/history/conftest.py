"""For all tests of history: documents as `--imu-json` writes them, from a few numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.core import document
from pytest_imu.core.model import CounterReading, Measurement
from pytest_imu.core.units import MIB

ENVIRONMENT: Mapping[str, Any] = {
    "python": "3.11.7",
    "peak_source": "kernel high-water mark",
    "trim": True,
    "peak_resolution_bytes": MIB // 2,
    "noise_floor_bytes": MIB // 10,
    "counter_source": None,
    "plugins": {},
    "packages": {},
}


class Documents:
    """Makes documents in a folder, and their parts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def test(
        nodeid: str,
        peak_mib: float = 10,
        *,
        before_mib: float = 0,
        outcome: str = "passed",
        reusable_mib: float | None = 0,
        budgets: Sequence[Mapping[str, Any]] = (),
        counts: Mapping[str, float] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Return one of a document's tests, which kept half of its peak."""
        call = Measurement(
            before_bytes=round(before_mib * MIB),
            after_bytes=round((before_mib + peak_mib / 2) * MIB),
            rss_peak_bytes=round((before_mib + peak_mib) * MIB),
            duration_ns=10**9,
            source="kernel",
            reusable_bytes=None if reusable_mib is None else round(reusable_mib * MIB),
            counters=tuple(CounterReading(event=event, value=n) for event, n in (counts or {}).items()),
        )
        plain = document.plain_test(
            nodeid=nodeid,
            attempt=1,
            worker=None,
            outcome=outcome,
            phases={} if outcome == "skipped" else {"call": call},
            blocks=(),
            verdicts=(),
        )
        return {**plain, "budgets": list(budgets), **more}

    @staticmethod
    def budget(name: str = "max_peak_mib", limit: float = 5, **more: Any) -> dict[str, Any]:
        """Return what became of a budget: it is broken, unless something else is said."""
        plain = {
            "name": name,
            "event": None,
            "limit": limit,
            "actual": 10.0,
            "phase": "call",
            "warmup": 0,
            "origin": None,
            "verdict": "broken",
            "reason": "peak 10.0 MiB is over max_peak_mib(5) by 5.0 MiB (100 %)",
            "unreliable": False,
            "decided_by": "first",
            "first": None,
            "not_alone": None,
        }
        return {**plain, **more}

    def write(self, name: str, *tests: Mapping[str, Any], **environment: Any) -> str:
        """Write a document and return its path as text."""
        path = self.folder / name
        document.write(path, map(dict, tests), {**ENVIRONMENT, **environment})
        return str(path)

    def log(self, name: str, *events: Mapping[str, Any] | str) -> str:
        """Write a run log and return its path as text; a text is a line as it stands."""
        run = {"event": "run", "schema": 1, "environment": ENVIRONMENT, "worker": None}
        lines = [one if isinstance(one, str) else json.dumps(one) for one in (run, *events)]
        return self.text(name, "".join(f"{line}\n" for line in lines))

    def text(self, name: str, text: str | bytes) -> str:
        """Write a file as it stands and return its path as text."""
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)


@pytest.fixture
def documents(tmp_path: Path) -> Documents:
    """Return what makes documents in this test's folder."""
    return Documents(tmp_path)
