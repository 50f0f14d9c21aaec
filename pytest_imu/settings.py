"""Command line and ini file, read once, checked before anything runs, kept as one frozen Settings."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pytest

from pytest_imu.core.counters.source import CACHE_MISSES, check_event
from pytest_imu.options import OPTIONS

if TYPE_CHECKING:
    from pytest_imu.core.budgets import Budget, Metric
    from pytest_imu.core.tolerance import Tolerance

SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()
"""Where the settings are kept, on the config."""
SortKey = Literal["peak", "delta", "total", "time", "name"]
OnBreach = Literal["fail", "warn"]
Isolate = Literal["off", "budgets", "all"]
Simulate = Literal["off", "budgets", "all"]
ACCEPTED = {
    "bool": "true or false",
    "int": "a whole number from 0",
    "float": "a number of MiB from 0",
    "string": "a text",
    "imu_sort": f"one of {', '.join(get_args(SortKey))}",
    "imu_on_breach": f"one of {', '.join(get_args(OnBreach))}",
    "imu_isolate": f"one of {', '.join(get_args(Isolate))}",
    "imu_simulate": f"one of {', '.join(get_args(Simulate))}",
}
"""What an option takes, by its name where it has words of its own, else by its kind."""
TURN_ON = ("imu", "imu_perf", "imu_suggest", "imu_children", "imu_simulate")
"""The flags that ask for the report, by themselves or because they have nothing to say without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the user asked for, checked."""

    off: bool
    report: bool
    top: int
    sort: SortKey
    min_mib: float
    default_budgets: tuple[Budget, ...]
    tolerance: Tolerance | None
    suggest: bool
    isolate: Isolate
    children: bool
    perf_events: tuple[str, ...]
    perf_required: bool
    simulate: Simulate
    caches: str | None
    """None stands for the usual ones."""
    warmup: int
    json_path: Path | None
    log_path: Path | None
    on_breach: OnBreach
    trim: bool
    gc: bool
    junit: bool

    @property
    def measure_all(self) -> bool:
        """Whether tests without a budget of their own are measured too."""
        wanted = self.report or self.json_path or self.log_path or self.default_budgets
        return bool(wanted) and not self.off

    @classmethod
    def from_config(cls, config: pytest.Config) -> Settings:
        """Read the command line and the ini file; pytest.UsageError names the source of a bad value."""
        values = _Values(config)
        simulate = values.simulate()
        return cls(
            off=bool(config.option.no_imu),
            report=any(config.getoption(name) not in (None, False, "off") for name in TURN_ON)
            or bool(values.ini("imu", ACCEPTED["bool"])),
            top=values.read("imu_top", parse_count),
            sort=values.read("imu_sort", _one_of(get_args(SortKey))),
            min_mib=values.read("imu_min_mib", parse_mib),
            default_budgets=(
                *values.default_budget("imu_max_peak_mib", "peak"),
                *values.default_budget("imu_max_delta_mib", "delta"),
            ),
            tolerance=values.read("imu_tolerance", _parse_tolerance),
            suggest=values.read("imu_suggest", bool),
            isolate=values.read("imu_isolate", _parse_isolate),
            # The thread that samples them would be counted.
            children=values.read("imu_children", bool) and simulate == "off",
            perf_events=values.read("imu_perf", parse_events)
            or (() if simulate == "off" else (CACHE_MISSES,)),
            perf_required=values.read("imu_perf_required", bool),
            simulate=simulate,
            caches=values.read("imu_caches", _parse_caches),
            warmup=values.read("imu_warmup", parse_count),
            json_path=values.path("imu_json"),
            log_path=values.path("imu_log"),
            on_breach=values.read("imu_on_breach", _one_of(get_args(OnBreach))),
            trim=values.read("imu_trim", bool),
            gc=values.read("imu_gc", bool),
            junit=values.read("imu_junit", bool),
        )


def read_simulate(config: pytest.Config) -> Simulate:
    """Read this one option, before all others are; pytest.UsageError names the source of a bad value."""
    return _Values(config).simulate()


class _Values:
    """Looks one option up: command line, then ini file, then its default."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._options = {option.name: option for option in OPTIONS}

    def read(self, name: str, parse: Callable[[Any], Any]) -> Any:
        """Return the parsed value, or the default where neither source has one."""
        value, origin = self._find(name)
        if value is None:
            return self._options[name].default
        try:
            return parse(value)
        except ValueError as error:
            message = f"{origin}: {error}"
            raise pytest.UsageError(message) from None

    def default_budget(self, name: str, metric: Metric) -> tuple[Budget, ...]:
        """Return the budget that every test has by default, if one was asked for."""
        limit_mib = self.read(name, parse_mib)
        if limit_mib is None:
            return ()
        from pytest_imu.core.budgets import Budget

        return (Budget(metric=metric, limit_mib=limit_mib, origin=self._find(name)[1]),)

    def simulate(self) -> Simulate:
        """Return what is to be simulated."""
        which: Simulate = self.read("imu_simulate", _parse_simulate)
        return which

    def path(self, name: str) -> Path | None:
        """Return a path as seen from where pytest was started."""
        value = self.read(name, _parse_path)
        return None if value is None else Path(self._config.invocation_params.dir, value)

    def ini(self, name: str, accepted: str) -> Any:
        """Return the ini file's value; a value that pytest itself cannot read is a usage error."""
        try:
            return self._config.getini(name)
        except (ValueError, TypeError, pytest.UsageError) as error:
            message = f"{self._ini_origin(name)}: {error}; accepted: {accepted}"
            raise pytest.UsageError(message) from None

    def _find(self, name: str) -> tuple[Any, str]:
        option = self._options[name]
        if option.on_command_line and (value := self._config.getoption(name)) is not None:
            return value, option.flag
        if not option.in_ini:
            return None, option.flag
        accepted = ACCEPTED.get(name, ACCEPTED[option.kind])
        return self.ini(name, accepted), self._ini_origin(name)

    def _ini_origin(self, name: str) -> str:
        overrides = getattr(self._config.option, "override_ini", None) or ()
        if any(override.split("=", 1)[0].strip() == name for override in overrides):
            return f"-o {name}"
        where = self._config.inipath.name if self._config.inipath else "the ini file"
        return f"{name} in {where}"


def parse_count(value: object) -> int:
    """Return a whole number from 0; ValueError says what is accepted."""
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if number < 0:
        message = f"{value!r} is not accepted; {ACCEPTED['int']} is"
        raise ValueError(message)
    return number


def parse_mib(value: object) -> float:
    """Return a finite number of MiB from 0; ValueError says what is accepted."""
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not (math.isfinite(number) and number >= 0):
        message = f"{value!r} is not accepted; {ACCEPTED['float']} is"
        raise ValueError(message)
    return number


def parse_events(value: str) -> tuple[str, ...]:
    """Return the events of a list with commas; ValueError says what is accepted."""
    _refuse_path(value, "--imu-perf=EVENTS")
    return tuple(dict.fromkeys(check_event(event.strip()) for event in value.split(",")))


def _refuse_path(value: str, spelling: str) -> None:
    """Say what happened where argparse took the word behind a bare flag for its value."""
    if value and Path(value).exists():
        flag = spelling.partition("=")[0]
        message = f"{value!r} is a path; write {spelling} with '=', or {flag} after the paths"
        raise ValueError(message)


def _one_of(accepted: tuple[str, ...]) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in accepted:
            message = f"{value!r} is not accepted; one of {', '.join(accepted)} is"
            raise ValueError(message)
        return value

    return parse


def _parse_isolate(value: str) -> str:
    if value not in get_args(Isolate):
        _refuse_path(value, "--imu-isolate=all")
    which = _one_of(get_args(Isolate))(value)
    if which != "off" and not hasattr(os, "fork"):
        message = f"{value!r} needs a platform that can fork, and {sys.platform} cannot; off is accepted"
        raise ValueError(message)
    return which


def _parse_simulate(value: str) -> str:
    if value not in get_args(Simulate):
        _refuse_path(value, "--imu-simulate=all")
    return _one_of(get_args(Simulate))(value)


def _parse_caches(value: str) -> str:
    from pytest_imu.core.counters.callgrind.command import parse_caches

    return parse_caches(value)


def _parse_tolerance(value: object) -> Tolerance:
    from pytest_imu.core.tolerance import parse_tolerance

    return parse_tolerance(value)


def _parse_path(value: str) -> str:
    if not value:
        message = "'' is not accepted; the path of a file is"
        raise ValueError(message)
    return value
