"""Runs that never were, as pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_imu.core.budgets import Budget, Outcome, Verdict
from pytest_imu.core.comparable import Numbers
from pytest_imu.core.model import Measurement, Start
from pytest_imu.core.units import MIB
from pytest_imu.history.compare import Comparison
from pytest_imu.history.entries import Entry, Side
from pytest_imu.html.page import page
from pytest_imu.html.run import PageRun
from pytest_imu.report.compared import comparison_of
from pytest_imu.report.rows import Row
from pytest_imu.settings import Settings

SECOND = 10**9
BEGAN_NS = 1_700_000_000 * SECOND
ENVIRONMENT = {
    "python": "3.11.7",
    "pytest_imu": "0.1.0",
    "peak_resolution_bytes": MIB // 2,
    "noise_floor_bytes": MIB // 10,
    "counter_source": None,
    "packages": {"numpy": "2.4.6"},
}


def measurement(
    peak_mib: float = 10, *, kept_mib: float = 0, before_mib: float = 50, **more: Any
) -> Measurement:
    """Return what a phase of one second needed."""
    usual: dict[str, Any] = {"duration_ns": SECOND, "source": "kernel", "reusable_bytes": 0}
    return Measurement(
        before_bytes=round(before_mib * MIB),
        after_bytes=round((before_mib + kept_mib) * MIB),
        rss_peak_bytes=round((before_mib + max(peak_mib, kept_mib)) * MIB),
        **{**usual, **more},
    )


def row(
    nodeid: str = "tests/test_it.py::test_it", peak_mib: float = 10, *, second: float = 0, **more: Any
) -> Row:
    """Return a test that passed, and began so many seconds after the run."""
    began_ns = round(second * SECOND)
    usual = {
        "outcome": "passed",
        "call": measurement(peak_mib),
        "start": Start(BEGAN_NS + began_ns, began_ns),
    }
    return Row(nodeid=nodeid, **{**usual, **more})


def verdict(outcome: Outcome, limit_mib: float = 5, reason: str | None = None) -> Verdict:
    """Return what became of a budget that reached 10 MiB."""
    budget = Budget(metric="peak", limit_mib=limit_mib)
    return Verdict(budget=budget, outcome=outcome, actual_bytes=10 * MIB, reason=reason)


def page_of(rows: Sequence[Row], **more: Any) -> str:
    """Return the page of a run."""
    return page(PageRun(attempts=rows, **{"environment": ENVIRONMENT, **more}), Settings(report=True))


def compared(rows: Sequence[Row], was_mib: Mapping[str, float]) -> Comparison:
    """Return tests beside an earlier run, in which they had these peaks."""
    entries = {
        nodeid: Entry(
            nodeid=nodeid,
            attempt=1,
            worker=None,
            outcome="passed",
            numbers=Numbers.of(measurement(peak_mib), isolated=False, counted_by=None),
        )
        for nodeid, peak_mib in was_mib.items()
    }
    base = Side(name="base.json", environment=ENVIRONMENT, entries=entries)
    return comparison_of(rows, base, Settings(report=True), ENVIRONMENT)


def many(count: int) -> list[Row]:
    """Return so many tests of three workers, with names of a usual length."""
    rows = []
    for number in range(count):
        folder, file = (
            ("core", "io", "models/deep")[number % 3],
            ("load", "frame", "text")[number % 7 % 3],
        )
        name = f"tests/{folder}/test_{file}.py::TestThings::test_number_{number}[small-{number % 5}]"
        rows.append(
            row(
                name,
                number % 97 / 3,
                second=number // 3 * 2,
                worker=f"gw{number % 3}",
                setup=measurement(number % 13, before_mib=50 + number % 50, duration_ns=SECOND // 2),
                verdicts=(verdict("kept", 20),) if number % 4 == 0 else (),
            )
        )
    return rows


HOSTILE = (
    "<script>hostile=1</script>",
    "</script><script>hostile=1</script>",
    "</noscript><img src=x onerror=hostile=1>",
    '"><img src=http://127.0.0.1:9/x onerror=hostile=1>',
    "' onmouseover='hostile=1",
    "javascript:hostile=1",
    "<!--<script>",
    "]]>",
    "{{ 7*191 }}{% raw %}",
    "nul\0esc\x1b[31m\u202eright-to-left\u2028\u2029\ud800",
    "<style>*{display:none}</style>",
    "&lt;b&gt;",
    "\u05d0\u05d1" * 50,
    "x" * 100_000,
)
"""Texts that a test, its parameters or a file can have, and that must not do anything."""
