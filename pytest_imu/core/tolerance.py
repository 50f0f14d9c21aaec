"""A tolerance: how far every budget of a run may be passed before it counts as broken."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_imu.core.invalid import parse_number
from pytest_imu.core.units import format_limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """So many MiB on top of a limit, or so many percent of it."""

    mib: float = 0.0
    percent: float = 0.0

    def __str__(self) -> str:
        return f"{format_limit(self.percent)} %" if self.percent else f"{format_limit(self.mib)} MiB"

    def __bool__(self) -> bool:
        return bool(self.mib or self.percent)

    def over_mib(self, limit_mib: float) -> float:
        """Return how many MiB a budget of *limit_mib* may really reach."""
        return limit_mib + self.mib + limit_mib * self.percent / 100

    def over_count(self, limit: float) -> float:
        """Return how many events a budget of *limit* may really reach; MiB say nothing about counts."""
        return limit + limit * self.percent / 100


EXACT = Tolerance()


def parse_tolerance(value: object) -> Tolerance:
    """Return the tolerance that "5%" or "0.5" stands for; raises ValueError."""
    text = str(value).strip()
    try:
        number = parse_number(text.removesuffix("%"))
    except ValueError:
        raise ValueError(value) from None
    return Tolerance(percent=number) if text.endswith("%") else Tolerance(mib=number)
