"""A tolerance: how far every budget of a run may be passed before it counts as broken."""

from __future__ import annotations

import math
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for all budgets of a run."""

    tolerance: Tolerance = EXACT
    """What is added to every limit."""
    noise_bytes: int = 0
    """What is nearer to its limit than this is decided by noise."""
    counts_required: bool = False
    """Whether a count that could not be had breaks its budget."""
    unknown_reuse: str = "the amount of reused memory is not known"
    """Why a number that kept its budget proves nothing where the reusable part is not known."""
    resolution_bytes: int = 0
    """How far a peak may be off."""
    isolated: bool = False
    """Whether the tests of this process run in it alone."""


NO_TERMS = Terms()


def parse_tolerance(value: object) -> Tolerance:
    """Return the tolerance that "5%" or "0.5" stands for; raises ValueError."""
    text = str(value).strip()
    is_share = text.endswith("%")
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(value)
    return Tolerance(percent=number) if is_share else Tolerance(mib=number)
