"""Which way to know peaks serves this process."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from pytest_imu.core.counters.callgrind.command import running_tool
from pytest_imu.core.memory import platforms
from pytest_imu.core.memory.kernel import KernelPeak
from pytest_imu.core.memory.platforms import MemoryReaders
from pytest_imu.core.memory.sampled import SampledPeak
from pytest_imu.core.memory.window import PeakSource

_process_tool = functools.cache(running_tool)  # asked by each window where memory is not measured
SIMULATED = "simulated run"
"""Why memory is not measured under valgrind: its own would be in every number."""


class NotMeasuredError(Exception):
    """Memory is not measured, on purpose; the text says why."""


def choose_peak_source(
    platform: str = sys.platform,
    *,
    kernel: Callable[[], KernelPeak] = KernelPeak,
    readers: Callable[[str], MemoryReaders] = platforms.readers_for,
    tool: Callable[[], str | None] = _process_tool,
) -> PeakSource[Any]:
    """Return the best source of peaks that works here, tried once for real.

    Raises NotMeasuredError under valgrind, where none does.
    """
    if tool() is not None:
        raise NotMeasuredError(SIMULATED)
    if platform != "linux":
        return SampledPeak(readers(platform), why=f"no resettable peak on {platform}")
    try:
        source = kernel()
        source.prove()
    except (OSError, ValueError) as error:
        return SampledPeak(readers(platform), why=f"/proc refused: {error}")
    os.register_at_fork(after_in_child=source.begin_in_forked_child)
    return source


def resolution_bytes() -> int:
    """Return how far a peak of this process may be off; 0 where peaks are sampled, or not measured."""
    try:
        return peak_source().resolution_bytes or 0
    except Exception:  # noqa: BLE001 - why there is none stands in each measurement
        return 0


@functools.cache
def peak_source() -> PeakSource[Any]:  # Any: a source takes back the windows that it gave
    """Return this process's one source of peaks, chosen at the first call; raises NotMeasuredError.

    One a process, because the kernel's mark is: two that reset it would lose each other's peaks.
    """
    return choose_peak_source()
