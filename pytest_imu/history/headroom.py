"""The limit that a measured number suggests, wherever one is suggested or written."""

from __future__ import annotations

import math

from pytest_imu.core.units import MIB

HEADROOM_PERCENT = 25.0
DIGITS = 2
LEAST_MIB = 0.1


def suggested_mib(
    size_bytes: float, floor_bytes: int, *, headroom_percent: float = HEADROOM_PERCENT
) -> float:
    """Return a limit in MiB: the number with headroom, rounded up to two digits.

    It is further from the number than the floor: else noise would decide about it.
    """
    wanted = max(size_bytes * (1 + headroom_percent / 100), size_bytes + 2 * floor_bytes) / MIB
    return rounded_up(wanted) if wanted > 0 else LEAST_MIB


def suggested_count(count: float, *, headroom_percent: float = HEADROOM_PERCENT) -> float:
    """Return a limit on events: the count with headroom, rounded up to two digits."""
    wanted = count * (1 + headroom_percent / 100)
    return rounded_up(wanted) if wanted > 0 else 1


def rounded_up(wanted: float) -> float:
    """Return a number over 0 rounded up to two digits."""
    step = 10.0 ** (math.floor(math.log10(wanted)) + 1 - DIGITS)
    # Rounded twice: 1.1 / 0.1 is a little over 11, and would become 1.2.
    return round(math.ceil(round(wanted / step, 3)) * step, 6)
