"""`--imu-suggest`: for each test the marker that would have held it, to paste."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pytest_imu.core.memory.reusable import reused_in
from pytest_imu.core.memory.source import peak_source
from pytest_imu.core.model import Measurement
from pytest_imu.core.units import MIB, format_limit, plural, printable
from pytest_imu.history.headroom import suggested_mib
from pytest_imu.report.rows import Row
from pytest_imu.settings import Settings

SUGGESTED_FROM_MIB = 5
"""Where `--imu-min-mib` does not say otherwise: below, a budget is mostly one on the allocator."""


def suggestion_lines(rows: Sequence[Row], settings: Settings, noise_bytes: int | None) -> list[str]:
    """Return a line for each test function whose calls were measured to their end, and are large."""
    by_function = calls_by_function(rows)
    if not by_function:
        return ["no budget to suggest: no test passed that was measured"]
    least_mib = SUGGESTED_FROM_MIB if settings.min_mib is None else settings.min_mib
    floor_bytes = max(noise_bytes or 0, peak_source().resolution_bytes or 0)
    largest = {function: max(map(_peak_bytes, calls)) for function, calls in by_function.items()}
    lines = [
        _line(function, calls, floor_bytes, way_out=_way_out(settings))
        for function, calls in by_function.items()
        if largest[function] >= least_mib * MIB
    ]
    small = len(by_function) - len(lines)
    of_small = f"{plural(small, 'test')} under {format_limit(least_mib)} MiB left out"
    more = f"{of_small}; --imu-min-mib=0 suggests for all" if small else ""
    if not lines:
        return [f"no budget to suggest: {more}"]
    heading = "suggested budgets: the measured peak and 25 % more"
    return [heading, *lines, *([more] if more else [])]


def calls_by_function(rows: Sequence[Row]) -> dict[str, list[Measurement]]:
    """Return the calls that were measured to their end, by the function that a marker stands above."""
    by_function: dict[str, list[Measurement]] = {}
    for row in rows:
        call = row.call
        if row.outcome in ("passed", "xpassed") and call is not None and call.peak_bytes is not None:
            by_function.setdefault(function_of(row.nodeid), []).append(call)
    return by_function


def _peak_bytes(call: Measurement) -> int:
    return call.peak_bytes or 0


def _way_out(settings: Settings) -> str:
    """Return how to have a better number, where there is a way that was not taken."""
    return "; run again with --imu-isolate" if settings.isolate == "off" and hasattr(os, "fork") else ""


def function_of(nodeid: str) -> str:
    """Return the id without the parameters: a marker stands above the function, for all of them."""
    path, separator, name = nodeid.partition("::")
    return f"{path}{separator}{name.partition('[')[0]}"


def _line(function: str, calls: Sequence[Measurement], floor_bytes: int, *, way_out: str) -> str:
    limit = format_limit(suggested_mib(max(map(_peak_bytes, calls)), floor_bytes))
    marker = f"@pytest.mark.max_peak_mib({limit})"
    of_several = f"  (the largest of {len(calls)})" if len(calls) > 1 else ""
    return f"  {marker:<32}  {printable(function)}{of_several}{_doubt(calls, way_out)}"


def _doubt(calls: Sequence[Measurement], way_out: str) -> str:
    reused_bytes = max(map(reused_in, calls))
    if not reused_bytes:
        return ""
    return f"  (may need up to {reused_bytes / MIB:.0f} more: reused memory{way_out})"
