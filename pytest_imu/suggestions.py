"""`--imu-suggest`: for each test the marker that would have held it, to paste."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pytest_imu.core.memory import peak_source
from pytest_imu.core.model import Measurement
from pytest_imu.core.reusable import NOTEWORTHY_BYTES, may_be_reused
from pytest_imu.core.text import printable
from pytest_imu.core.units import MIB, format_limit
from pytest_imu.rows import Row

HEADROOM = 1.25
DIGITS = 2


def suggestion_lines(rows: Sequence[Row], noise_bytes: int | None) -> list[str]:
    """Return a line for each test whose call was measured to its end."""
    floor_bytes = max(noise_bytes or 0, peak_source().resolution_bytes or 0)
    lines = []
    for row in rows:
        call = row.phases.get("call")
        if row.outcome in ("passed", "xpassed") and call is not None and call.peak_bytes is not None:
            limit = format_limit(suggested_mib(call.peak_bytes, floor_bytes))
            marker = f"@pytest.mark.max_peak_mib({limit})"
            lines.append(f"  {marker:<32}  {printable(row.nodeid)}{_doubt(call)}")
    if not lines:
        return ["no budget to suggest: no test passed that was measured"]
    return ["suggested budgets: the measured peak and 25 % more, never under what can be told", *lines]


def suggested_mib(peak_bytes: int, floor_bytes: int) -> float:
    """Return a limit in MiB: the peak with headroom, rounded up to two digits.

    It is further from the peak than the floor: else noise would decide about it.
    """
    wanted = max(peak_bytes * HEADROOM, peak_bytes + 2 * floor_bytes) / MIB
    if wanted <= 0:
        return 0.1
    step = 10.0 ** (math.floor(math.log10(wanted)) + 1 - DIGITS)
    # Rounded twice: 1.1 / 0.1 is a little over 11, and would become 1.2.
    return round(math.ceil(round(wanted / step, 3)) * step, 6)


def _doubt(call: Measurement) -> str:
    reused_bytes = may_be_reused(call.reusable_bytes, call.duration_ns)
    if reused_bytes < NOTEWORTHY_BYTES:
        return ""
    return f"  (may need {reused_bytes / MIB:.0f} more: reused memory; ask again with --imu-isolate)"
