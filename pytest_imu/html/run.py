"""What a page is made of: a run's rows, what they depend on, and an earlier run beside them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_imu.history.compare import Comparison
from pytest_imu.report.rows import Row, last_attempts


@dataclass(frozen=True, kw_only=True)
class PageRun:
    """A run that is to be shown."""

    attempts: Sequence[Row]
    """Every attempt at every test."""
    environment: Mapping[str, Any]
    comparison: Comparison | None = None
    whole: bool = True
    """Whether nothing was left out: then what is not here does not exist any more."""

    @functools.cached_property
    def rows(self) -> list[Row]:
        """The attempt of each test that counted, the largest peak first."""
        rows = last_attempts(self.attempts)
        rows.sort(key=lambda row: -1 if row.call is None else row.call.peak_bytes or 0, reverse=True)
        return rows

    @functools.cached_property
    def by_nodeid(self) -> Mapping[str, Row]:
        """The rows by their tests' ids."""
        return {row.nodeid: row for row in self.rows}

    @functools.cached_property
    def places(self) -> Mapping[int, int]:
        """The place of each row among the rows, by the row's own number."""
        return {id(row): place for place, row in enumerate(self.rows)}

    @property
    def noise_bytes(self) -> int | None:
        """What is measured around nothing; None where that is not known."""
        noise: int | None = self.environment.get("noise_floor_bytes")
        return noise

    @property
    def resolution_bytes(self) -> int | None:
        """How far a kernel peak may be off; None where that is not known."""
        resolution: int | None = self.environment.get("peak_resolution_bytes")
        return resolution

    @property
    def floor_bytes(self) -> int:
        """What a limit has to be away from a number, for noise not to decide about it."""
        return max(self.noise_bytes or 0, self.resolution_bytes or 0)
