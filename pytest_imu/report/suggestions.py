"""`--imu-suggest`: for each test the marker that would have held it, to paste."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_imu.core.memory.reusable import NOTEWORTHY_BYTES, likely_reused
from pytest_imu.core.memory.source import peak_source
from pytest_imu.core.model import Measurement
from pytest_imu.core.units import MIB, format_limit, printable
from pytest_imu.history.headroom import suggested_mib
from pytest_imu.report.rows import Row


def suggestion_lines(rows: Sequence[Row], noise_bytes: int | None) -> list[str]:
    """Return a line for each test function whose calls were measured to their end."""
    by_function: dict[str, list[Measurement]] = {}
    for row in rows:
        call = row.call
        if row.outcome in ("passed", "xpassed") and call is not None and call.peak_bytes is not None:
            by_function.setdefault(_function_of(row.nodeid), []).append(call)
    if not by_function:
        return ["no budget to suggest: no test passed that was measured"]
    floor_bytes = max(noise_bytes or 0, peak_source().resolution_bytes or 0)
    lines = [_line(function, calls, floor_bytes) for function, calls in by_function.items()]
    return ["suggested budgets: the measured peak and 25 % more, never under what can be told", *lines]


def _function_of(nodeid: str) -> str:
    """Return the id without the parameters: a marker stands above the function, for all of them."""
    path, separator, name = nodeid.partition("::")
    return f"{path}{separator}{name.partition('[')[0]}"


def _line(function: str, calls: Sequence[Measurement], floor_bytes: int) -> str:
    largest = max(calls, key=lambda call: call.peak_bytes or 0)
    limit = format_limit(suggested_mib(largest.peak_bytes or 0, floor_bytes))
    marker = f"@pytest.mark.max_peak_mib({limit})"
    of_several = f"  (the largest of {len(calls)})" if len(calls) > 1 else ""
    return f"  {marker:<32}  {printable(function)}{of_several}{_doubt(calls)}"


def _doubt(calls: Sequence[Measurement]) -> str:
    reused_bytes = max(likely_reused(call.reusable_bytes, call.duration_ns) for call in calls)
    if reused_bytes < NOTEWORTHY_BYTES:
        return ""
    return f"  (may need {reused_bytes / MIB:.0f} more: reused memory; ask again with --imu-isolate)"
