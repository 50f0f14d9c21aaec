"""What the user asked for: read once, checked before anything runs, frozen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imu.core.counters.source import CACHE_MISSES
from pytest_imu.core.invalid import InvalidValueError
from pytest_imu.core.outfile import STDOUT
from pytest_imu.declared import Declared
from pytest_imu.kinds import STEP_SUMMARY
from pytest_imu.options import Option

if TYPE_CHECKING:
    from pytest_imu.core.budgets import AnyBudget, Metric

SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()
"""Where the settings are kept, on the config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Declared):
    """What the user asked for, checked."""

    default_budgets: tuple[AnyBudget, ...] = ()
    """What every test is held to unless its own markers say otherwise."""

    @property
    def measure_all(self) -> bool:
        """Whether tests without a budget of their own are measured too."""
        files = self.json_path or self.log_path or self.summary_path or self.html_path
        wanted = self.report or files or self.default_budgets
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
            # The threads that sample would be counted.
            values["children"], values["timeline_ns"] = False, None
            if values["counters"] not in ("auto", "callgrind"):
                error = InvalidValueError(values["counters"], "auto or callgrind with --imu-simulate")
                raise pytest.UsageError(error.of(OPTIONS["counters"].source(config)))
            values["perf_events"] = values["perf_events"] or (CACHE_MISSES,)
        if values["compare_path"] is not None:
            events = (one.subject for one in values["fail_increase"] if not one.is_memory)
            values["perf_events"] = tuple(dict.fromkeys((*values["perf_events"], *events)))
        values["report"] |= any(
            one.turns_on and config.getoption(one.name) not in (None, "off") for one in OPTIONS.values()
        )
        for name in ("json_path", "log_path", "compare_path", "summary_path", "html_path", "why_keep"):
            if values[name] not in (None, STDOUT, Path(STEP_SUMMARY)):
                values[name] = config.invocation_params.dir / values[name]
        return cls(**values, default_budgets=tuple(_default_budgets(config, values)))


OPTIONS: dict[str, Option] = {
    one.name: one.metadata["option"] for one in fields(Settings) if "option" in one.metadata
}
"""Every option, by its field's name."""


def _default_budgets(config: pytest.Config, values: dict[str, Any]) -> Iterator[AnyBudget]:
    metrics: dict[str, Metric] = {"max_peak_mib": "peak", "max_delta_mib": "delta"}
    for name, metric in metrics.items():
        if values[name] is not None:
            from pytest_imu.core.budgets import Budget

            origin = OPTIONS[name].source(config)
            hard = values["hard"] and metric == "peak"
            yield Budget(metric=metric, limit_mib=values[name], origin=origin, hard=hard)
    if values["leaks"] is not None:
        from pytest_imu.core.budgets import LeakBudget

        warmup, calls = values["leaks"]
        origin = OPTIONS["leaks"].source(config)
        yield LeakBudget(limit_kib=0, calls=calls, warmup=warmup, origin=origin)
