"""Every option, declared as a field of Settings: read once, checked before anything runs, frozen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imu.core.counters.source import CACHE_MISSES
from pytest_imu.core.outfile import STDOUT
from pytest_imu.kinds import (
    CACHES,
    COUNT,
    EVENTS,
    FILE,
    FLAG,
    ISOLATE,
    ON_BREACH,
    SECONDS,
    SIZE,
    SORT,
    TOLERANCE,
    WHICH,
    WHY,
    OnBreach,
    SortKey,
    Which,
    WhyWhich,
)
from pytest_imu.options import Option, option

if TYPE_CHECKING:
    from pytest_imu.core.budgets import Budget, Metric
    from pytest_imu.core.tolerance import Tolerance

SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()
"""Where the settings are kept, on the config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the user asked for, checked."""

    report: bool = option("imu", FLAG, "Report the memory of every test.", default=False, turns_on=True)
    off: bool = option(
        "no_imu", FLAG, "Measure nothing and enforce no budgets.", default=False, in_ini=False
    )
    top: int = option("imu_top", COUNT, "Show the first N rows; 0 shows all.", default=10)
    sort: SortKey = option("imu_sort", SORT, "Sort the rows by KEY.", default="peak")
    min_mib: float | None = option(
        "imu_min_mib",
        SIZE,
        "Show rows, and suggest budgets, only for peaks of at least MIB.",
        default=None,
        usual="0, and 5 for --imu-suggest",
    )
    max_peak_mib: float | None = option(
        "imu_max_peak_mib",
        SIZE,
        "Fail tests whose peak is over MIB. A max_peak_mib marker takes precedence.",
        default=None,
    )
    max_delta_mib: float | None = option(
        "imu_max_delta_mib",
        SIZE,
        "Fail tests that keep more than MIB. A max_delta_mib marker takes precedence.",
        default=None,
    )
    tolerance: Tolerance | None = option(
        "imu_tolerance",
        TOLERANCE,
        "Allow tests to exceed their budgets by this much: MiB, or a percentage.",
        default=None,
    )
    suggest: bool = option(
        "imu_suggest",
        FLAG,
        "Print a max_peak_mib marker for each test that passed.",
        default=False,
        in_ini=False,
        turns_on=True,
    )
    perf_events: tuple[str, ...] = option(
        "imu_perf",
        EVENTS,
        "Count these events in each test with perf; --imu-perf alone counts cache-misses.",
        default=(),
        bare=CACHE_MISSES,
        turns_on=True,
    )
    simulate: Which = option(
        "imu_simulate",
        WHICH,
        "Count events under valgrind, in all tests or only in those with an event budget.",
        default="off",
        bare="all",
        turns_on=True,
    )
    caches: str | None = option(
        "imu_caches",
        CACHES,
        "The caches that --imu-simulate simulates.",
        default=None,
        usual="I1=32768,8,64 D1=32768,8,64 LL=8388608,16,64",
        on_command_line=False,
    )
    warmup: int = option(
        "imu_warmup",
        COUNT,
        "Call a test with an event budget this many times before counting.",
        default=0,
        on_command_line=False,
    )
    children: bool = option(
        "imu_children",
        FLAG,
        "Report the memory of each test's child processes as well.",
        default=False,
        turns_on=True,
    )
    isolate: Which = option(
        "imu_isolate",
        ISOLATE,
        "Run each test, or only those with a budget, in a process of its own.",
        default="off",
        bare="all",
    )
    isolate_timeout_s: int = option(
        "imu_isolate_timeout",
        SECONDS,
        "End an isolated test after N seconds, and show where it was; 0 never does.",
        default=0,
        on_command_line=False,
    )
    why: WhyWhich = option(
        "imu_why",
        WHY,
        "Run tests that broke a memory budget, or all, once more, and show the lines behind the peak.",
        default="off",
        bare="broken",
    )
    why_top: int = option(
        "imu_why_top",
        COUNT,
        "Show N lines of what was kept, or held at the peak; 0 shows all.",
        default=5,
    )
    why_keep: Path | None = option(
        "imu_why_keep",
        FILE,
        "Keep memray's file of each such run in the folder PATH, for `memray flamegraph`.",
        default=None,
        in_ini=False,
    )
    why_timeout_s: int = option(
        "imu_why_timeout",
        SECONDS,
        "End that run after N seconds, or ten times the first run's time if that is longer.",
        default=30,
        on_command_line=False,
    )
    json_path: Path | None = option(
        "imu_json", FILE, "Write all measurements to PATH as JSON.", default=None, in_ini=False
    )
    log_path: Path | None = option(
        "imu_log",
        FILE,
        "Write a JSON line to PATH when a test starts and when it ends.",
        default=None,
        in_ini=False,
    )
    confirm: bool = option(
        "imu_confirm",
        FLAG,
        "Where earlier tests may have decided about a memory budget, run the test once more, alone.",
        default=True,
        on_command_line=False,
    )
    on_breach: OnBreach = option(
        "imu_on_breach",
        ON_BREACH,
        "What a broken budget does: fail the test, or only warn.",
        default="fail",
        on_command_line=False,
    )
    perf_required: bool = option(
        "imu_perf_required",
        FLAG,
        "Fail tests whose event budgets could not be checked.",
        default=False,
        on_command_line=False,
    )
    trim: bool = option(
        "imu_trim",
        FLAG,
        "Return freed memory to the system before measuring (glibc only).",
        default=True,
        on_command_line=False,
    )
    gc: bool = option(
        "imu_gc",
        FLAG,
        "Run a full garbage collection before measuring.",
        default=False,
        on_command_line=False,
    )
    junit: bool = option(
        "imu_junit",
        FLAG,
        "Add imu_* properties to each test of the JUnit XML.",
        default=True,
        on_command_line=False,
    )
    default_budgets: tuple[Budget, ...] = ()
    """What every test is held to unless its own markers say otherwise."""

    @property
    def measure_all(self) -> bool:
        """Whether tests without a budget of their own are measured too."""
        wanted = self.report or self.json_path or self.log_path or self.default_budgets
        return bool(wanted or self.why == "all") and not self.off

    @property
    def json_to_stdout(self) -> bool:
        """Whether standard output is for the JSON, and nothing else of ours goes there."""
        return self.json_path == STDOUT and not self.off

    @classmethod
    def from_config(cls, config: pytest.Config) -> Settings:
        """Read the command line and the ini file; pytest.UsageError names the source of a bad value."""
        values = {name: one.read(config) for name, one in OPTIONS.items()}
        if values["simulate"] != "off":
            values["children"] = False  # the thread that samples them would be counted
            values["perf_events"] = values["perf_events"] or (CACHE_MISSES,)
        values["report"] |= any(
            one.turns_on and config.getoption(one.name) not in (None, "off") for one in OPTIONS.values()
        )
        for name in ("json_path", "log_path", "why_keep"):
            if values[name] not in (None, STDOUT):
                values[name] = config.invocation_params.dir / values[name]
        return cls(**values, default_budgets=tuple(_default_budgets(config, values)))


OPTIONS: dict[str, Option] = {
    one.name: one.metadata["option"] for one in fields(Settings) if "option" in one.metadata
}
"""Every option, by its field's name."""


def read_simulate(config: pytest.Config) -> Which:
    """Read this one option, before all others are; pytest.UsageError names the source of a bad value."""
    which: Which = OPTIONS["simulate"].read(config)
    return which


def _default_budgets(config: pytest.Config, values: dict[str, Any]) -> Iterator[Budget]:
    metrics: dict[str, Metric] = {"max_peak_mib": "peak", "max_delta_mib": "delta"}
    for name, metric in metrics.items():
        if values[name] is not None:
            from pytest_imu.core.budgets import Budget

            origin = OPTIONS[name].source(config)
            yield Budget(metric=metric, limit_mib=values[name], origin=origin)
