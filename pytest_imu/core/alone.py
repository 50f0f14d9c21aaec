"""One more run of a test, alone in a clean process, and how it decides a verdict in doubt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_imu.core.budgets import AnyBudget, Budget, Verdict
from pytest_imu.core.checks import Terms, check
from pytest_imu.core.growth import GrowthLimit
from pytest_imu.core.model import Measurement, Phase
from pytest_imu.core.units import MIB, format_mib

DIFFERS_BYTES = MIB // 2
"""How far the two numbers must be apart for the other one to be worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """What one more run of a test measured, alone in a clean process."""

    phases: Mapping[Phase, Measurement] = field(default_factory=dict)
    reason: str | None = None
    """Why there was no such run, or it tells nothing."""
    imported: Mapping[str, int] = field(default_factory=dict)
    """The bytes that each package took which was imported for this run, before it was measured."""
    lines: Mapping[str, Any] | None = None
    """The lines of the run, in plain form, where they were asked for."""
    same_process: str | None = None
    """Why it was not in another process after all."""
    imports_start_threads: bool = False
    """Whether importing them started threads that a fork does not copy."""

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, which goes from process to process."""
        return {
            "phases": {phase: measurement.to_dict() for phase, measurement in self.phases.items()},
            "reason": self.reason,
            "imported": {**self.imported},
            "lines": self.lines,
            "imports_start_threads": self.imports_start_threads,
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Alone:
        """Rebuild from the plain form what it has."""
        phases = {phase: Measurement.from_dict(one) for phase, one in plain["phases"].items()}
        return cls(**{**plain, "phases": phases})


def can_decide(budget: AnyBudget) -> bool:
    """Whether a run alone can decide about a budget."""
    if isinstance(budget, GrowthLimit):
        return budget.clean is not None
    return isinstance(budget, Budget)


def decided(first: Verdict, alone: Alone, terms: Terms) -> Verdict:
    """Return the verdict by the run alone; by the first, with the reason, where that told nothing."""
    if alone.reason is not None:
        return _undecided(first, alone.reason)
    budget = first.budget.alone() if isinstance(first.budget, GrowthLimit) else first.budget
    clean = check(budget, alone.phases, replace(terms, isolated=True))
    if clean.outcome == "unchecked":
        return _undecided(first, clean.reason or "not measured")
    first_bytes = first.actual_bytes or 0
    reason = clean.reason
    if reason is not None and abs(first_bytes - (clean.actual_bytes or 0)) >= DIFFERS_BYTES:
        reason += f"; {format_mib(first_bytes)} after earlier tests"
    return replace(clean, reason=reason, first_bytes=first_bytes, decided_by="alone")


def _undecided(first: Verdict, why: str) -> Verdict:
    return replace(first, reason=f"{first.reason}; not run alone: {why}", not_alone=why)
