"""What can be configured, as those who read it see it; `ImuMagics` has the traits."""

from __future__ import annotations

from typing import Protocol

from pytest_imu.core.counters.source import CounterChoice

STYLES = ("auto", "ancestor", "short", "off")


class Options(Protocol):
    """The traits of `ImuMagics` that others read; the help of each stands there."""

    decimals: int
    command_width: int
    style: str
    min_mib: float | None
    raw_samples: bool
    trim: bool
    gc: bool
    live_interval_s: float
    live_after_s: float
    counters: CounterChoice
    perf_idle_s: float
