"""Budgets: limits that a test's measurement must keep. Numbers in, verdicts out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pytest_imu.core.model import PHASES, Measurement, Phase, Source
from pytest_imu.core.units import MIB, format_limit, format_mib, mib

Metric = Literal["peak", "delta"]
BudgetPhase = Literal["call", "setup", "all"]
BUDGET_PHASES: tuple[BudgetPhase, ...] = ("call", "setup", "all")
Outcome = Literal["kept", "broken", "unchecked"]

SOURCE_WORDS: Mapping[Source, str] = {
    "kernel": "kernel high-water mark",
    "sampled": "sampled, a lower bound",
    "none": "not measured",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One limit, in MiB as its author typed it."""

    metric: Metric
    limit_mib: float
    phase: BudgetPhase = "call"
    origin: str | None = None
    """Where a default comes from, "--imu-max-peak-mib" say; None for the test's own marker."""

    @property
    def name(self) -> str:
        """The marker's name: "max_peak_mib" or "max_delta_mib"."""
        return f"max_{self.metric}_mib"

    def __str__(self) -> str:
        phase = "" if self.phase == "call" else f', phase="{self.phase}"'
        return f"{self.name}({format_limit(self.limit_mib)}{phase})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one budget; `reason` is the breach in one line, or why nothing was checked."""

    budget: Budget
    outcome: Outcome
    actual_bytes: int | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, as it stands in the JSON file."""
        return {
            "name": self.budget.name,
            "limit": self.budget.limit_mib,
            "phase": self.budget.phase,
            "origin": self.budget.origin,
            "actual": None if self.actual_bytes is None else mib(self.actual_bytes),
            "verdict": self.outcome,
            "reason": self.reason,
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Verdict:
        """Rebuild a verdict from its plain form."""
        return cls(
            budget=Budget(
                metric="peak" if plain["name"] == "max_peak_mib" else "delta",
                limit_mib=plain["limit"],
                phase=plain["phase"],
                origin=plain["origin"],
            ),
            outcome=plain["verdict"],
            actual_bytes=None if plain["actual"] is None else round(plain["actual"] * MIB),
            reason=plain["reason"],
        )


def check(budget: Budget, phases: Mapping[Phase, Measurement]) -> Verdict:
    """Hold a budget against the phases that were measured; `all` reaches from the first to the last."""
    wanted = PHASES if budget.phase == "all" else (budget.phase,)
    measured = [phases[phase] for phase in wanted if phase in phases]
    if not measured:
        return unchecked(budget, f"the test's {budget.phase} did not run")
    before_bytes = measured[0].before_bytes
    highest_bytes = _highest(measured) if budget.metric == "peak" else measured[-1].after_bytes
    if before_bytes is None or highest_bytes is None:
        reasons = [one.reason for one in measured if one.reason]
        return unchecked(budget, reasons[0] if reasons else "not measured")
    actual_bytes = highest_bytes - before_bytes
    if budget.metric == "peak":
        actual_bytes = max(0, actual_bytes)
    if actual_bytes <= budget.limit_mib * MIB:
        return Verdict(budget=budget, outcome="kept", actual_bytes=actual_bytes)
    source: Source = "kernel" if all(one.source == "kernel" for one in measured) else "sampled"
    return Verdict(
        budget=budget,
        outcome="broken",
        actual_bytes=actual_bytes,
        reason=_breach_line(budget, actual_bytes, before_bytes, source),
    )


def unchecked(budget: Budget, reason: str) -> Verdict:
    """Return the verdict on a budget that nothing could be held against."""
    return Verdict(budget=budget, outcome="unchecked", reason=reason)


def _highest(measured: list[Measurement]) -> int | None:
    peaks = [one.rss_peak_bytes for one in measured]
    known = [peak for peak in peaks if peak is not None]
    return max(known) if len(known) == len(peaks) else None


def _breach_line(budget: Budget, actual_bytes: int, before_bytes: int, source: Source) -> str:
    over_bytes = actual_bytes - budget.limit_mib * MIB
    # As many decimals as it takes to show that it is over: never "100.0 is over 100 by 0.0".
    decimals = next((n for n in range(1, 7) if round(over_bytes / MIB, n) > 0), 7)
    share = f" ({over_bytes / (budget.limit_mib * MIB):.0%})" if budget.limit_mib else ""
    share = share.replace("%", " %")
    origin = f"; limit from {budget.origin}" if budget.origin else ""
    return (
        f"{budget.metric} {format_mib(actual_bytes, decimals=decimals)} MiB is over {budget} "
        f"by {over_bytes / MIB:.{decimals}f} MiB{share}; "
        f"started at {format_mib(before_bytes)} MiB, {SOURCE_WORDS[source]}{origin}"
    )
