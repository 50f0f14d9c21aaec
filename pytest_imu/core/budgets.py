"""Budgets and verdicts: limits that a test's measurement must keep, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pytest_imu.core.counters.source import CACHE_MISSES
from pytest_imu.core.growth import LIMIT_NAME, GrowthLimit
from pytest_imu.core.leaks.growth import KIB, Growth
from pytest_imu.core.units import MIB, format_limit, mib_or_none

Metric = Literal["peak", "delta"]
BudgetPhase = Literal["call", "setup", "all"]
BUDGET_PHASES: tuple[BudgetPhase, ...] = ("call", "setup", "all")
Outcome = Literal["kept", "broken", "unchecked"]
DecidedBy = Literal["first", "alone"]
"""Which run decided: the test's own, or one more, alone in a clean process."""


LEAK_NAME = "max_growth_kib"
USUAL_CALLS, USUAL_WARMUP = 8, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One limit, in MiB as its author typed it."""

    metric: Metric
    limit_mib: float
    phase: BudgetPhase = "call"
    origin: str | None = None
    """Where a default comes from, "--imu-max-peak-mib" say; None for the test's own marker."""
    hard: bool = False
    """Whether the allocation that goes past it is refused."""

    @property
    def name(self) -> str:
        """The marker's name: "max_peak_mib" or "max_delta_mib"."""
        return f"max_{self.metric}_mib"

    def __str__(self) -> str:
        phase = "" if self.phase == "call" else f', phase="{self.phase}"'
        hard = ", hard=True" if self.hard else ""
        return f"{self.name}({format_limit(self.limit_mib)}{phase}{hard})"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBudget:
    """A limit on how often an event may happen in a test's call."""

    event: str
    limit: float
    origin: str | None = None
    phase: BudgetPhase = "call"
    warmup: int = 0
    """How often the test's body is called before it is counted."""

    @property
    def name(self) -> str:
        """The marker's name: "max_cache_misses", or "max_events" for every other event."""
        return "max_cache_misses" if self.event == CACHE_MISSES else "max_events"

    @property
    def metric(self) -> str:
        """What is limited: the event."""
        return self.event

    def __str__(self) -> str:
        event = "" if self.event == CACHE_MISSES else f'"{self.event}", '
        limit = f"{self.limit:_.0f}" if self.limit == int(self.limit) else repr(self.limit)
        warmup = f", warmup={self.warmup}" if self.warmup else ""
        return f"{self.name}({event}{limit}{warmup})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakBudget:
    """A limit on what a test's body may grow this process by in each call, in KiB."""

    limit_kib: float
    calls: int = USUAL_CALLS
    """How many calls are counted."""
    warmup: int = USUAL_WARMUP
    """How many come before; the test's own call is the first."""
    origin: str | None = None
    phase: BudgetPhase = "call"

    name = metric = LEAK_NAME

    def parts(self, growth: Growth) -> int:
        """Return in how many parts of the calls it has to grow: two, or four of twice as many calls."""
        return 2 * growth.calls // self.calls

    def __str__(self) -> str:
        return f"{self.name}({format_limit(self.limit_kib)})"


AnyBudget = Budget | EventBudget | GrowthLimit | LeakBudget


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one budget; `reason` is the breach in one line, or why nothing was checked."""

    budget: AnyBudget
    outcome: Outcome
    actual_bytes: int | None = None
    actual_count: float | None = None
    reason: str | None = None
    unreliable: bool = False
    """Whether the number is nearer to its limit than the noise floor."""
    decided_by: DecidedBy = "first"
    first_bytes: int | None = None
    """The number of the test's own run, where another run decided."""
    not_alone: str | None = None
    """Why a verdict that was in doubt could not be decided by a run alone."""

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, as it stands in the JSON file."""
        budget = self.budget
        plain: dict[str, Any] = {"name": budget.name}
        if isinstance(budget, EventBudget):
            plain |= {"event": budget.event, "limit": budget.limit, "actual": self.actual_count}
        elif isinstance(budget, GrowthLimit):
            plain |= budget.plain(self.actual_bytes if budget.increase.is_memory else self.actual_count)
        elif isinstance(budget, LeakBudget):
            actual_kib = None if self.actual_bytes is None else self.actual_bytes / KIB
            plain |= {
                "event": None,
                "limit": budget.limit_kib,
                "actual": actual_kib,
                "calls": budget.calls,
            }
        else:
            plain |= {
                "event": None,
                "limit": budget.limit_mib,
                "actual": mib_or_none(self.actual_bytes),
                "hard": budget.hard,
            }
        return plain | {
            "phase": budget.phase,
            "warmup": getattr(budget, "warmup", 0),
            "origin": budget.origin,
            "verdict": self.outcome,
            "reason": self.reason,
            "unreliable": self.unreliable,
            "decided_by": self.decided_by,
            "first": mib_or_none(self.first_bytes),
            "not_alone": self.not_alone,
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Verdict:
        """Rebuild a verdict from its plain form."""
        actual, limit, origin = plain["actual"], plain["limit"], plain["origin"]
        budget: AnyBudget
        if plain["name"] == LIMIT_NAME:
            budget, actual = GrowthLimit.from_plain(plain)
            actual_bytes, actual_count = (actual, None) if budget.increase.is_memory else (None, actual)
        elif plain["name"] == LEAK_NAME:
            calls, warmup = plain["calls"], plain["warmup"]
            budget = LeakBudget(limit_kib=limit, calls=calls, warmup=warmup, origin=origin)
            actual_bytes, actual_count = None if actual is None else round(actual * KIB), None
        elif plain["event"] is not None:
            warmup = plain["warmup"]
            budget = EventBudget(event=plain["event"], limit=limit, origin=origin, warmup=warmup)
            actual_bytes, actual_count = None, actual
        else:
            metric: Metric = "peak" if plain["name"] == "max_peak_mib" else "delta"
            budget = Budget(
                metric=metric,
                limit_mib=limit,
                phase=plain["phase"],
                origin=origin,
                hard=plain.get("hard", False),
            )
            actual_bytes, actual_count = _bytes_or_none(actual), None
        return cls(
            budget=budget,
            outcome=plain["verdict"],
            actual_bytes=actual_bytes,
            actual_count=actual_count,
            reason=plain["reason"],
            unreliable=plain["unreliable"],
            decided_by=plain["decided_by"],
            first_bytes=_bytes_or_none(plain["first"]),
            not_alone=plain["not_alone"],
        )


def _bytes_or_none(size_mib: float | None) -> int | None:
    return None if size_mib is None else round(size_mib * MIB)
