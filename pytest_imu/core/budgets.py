"""Budgets: limits that a test's measurement must keep. Numbers in, verdicts out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pytest_imu.core.counters.choice import source_text
from pytest_imu.core.counters.source import CACHE_MISSES
from pytest_imu.core.growth import LIMIT_NAME, GrowthLimit, Numbers, grown_line
from pytest_imu.core.model import PHASES, Measurement, Phase, Source
from pytest_imu.core.tolerance import EXACT, NO_TERMS, Terms, Tolerance
from pytest_imu.core.units import MIB, format_limit, format_mib, mib

Metric = Literal["peak", "delta"]
BudgetPhase = Literal["call", "setup", "all"]
BUDGET_PHASES: tuple[BudgetPhase, ...] = ("call", "setup", "all")
Outcome = Literal["kept", "broken", "unchecked"]
DecidedBy = Literal["first", "alone"]
"""Which run decided: the test's own, or one more, alone in a clean process."""

FULLY_RUNNING_PERCENT = 99.5
"""Under this a count is an estimate: the event was on the hardware for a part of the time."""

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

    def __str__(self) -> str:
        event = "" if self.event == CACHE_MISSES else f'"{self.event}", '
        limit = f"{self.limit:_.0f}" if self.limit == int(self.limit) else repr(self.limit)
        warmup = f", warmup={self.warmup}" if self.warmup else ""
        return f"{self.name}({event}{limit}{warmup})"


AnyBudget = Budget | EventBudget | GrowthLimit


REUSED = "reused memory"
"""Why a number that kept its budget proves nothing: with what the test may have reused it would not."""


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
        else:
            plain |= {
                "event": None,
                "limit": budget.limit_mib,
                "actual": _mib_or_none(self.actual_bytes),
            }
        return plain | {
            "phase": budget.phase,
            "warmup": budget.warmup if isinstance(budget, EventBudget) else 0,
            "origin": budget.origin,
            "verdict": self.outcome,
            "reason": self.reason,
            "unreliable": self.unreliable,
            "decided_by": self.decided_by,
            "first": _mib_or_none(self.first_bytes),
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
        elif plain["event"] is not None:
            warmup = plain["warmup"]
            budget = EventBudget(event=plain["event"], limit=limit, origin=origin, warmup=warmup)
            actual_bytes, actual_count = None, actual
        else:
            metric: Metric = "peak" if plain["name"] == "max_peak_mib" else "delta"
            budget = Budget(metric=metric, limit_mib=limit, phase=plain["phase"], origin=origin)
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


def _mib_or_none(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else mib(size_bytes)


def _bytes_or_none(size_mib: float | None) -> int | None:
    return None if size_mib is None else round(size_mib * MIB)


def check(budget: AnyBudget, phases: Mapping[Phase, Measurement], terms: Terms = NO_TERMS) -> Verdict:
    """Hold a budget against the phases that were measured; `all` reaches from first to last."""
    verdict = _check(budget, phases, terms)
    if terms.counts_required and isinstance(budget, EventBudget):
        return _required(verdict)
    return verdict


def _check(budget: AnyBudget, phases: Mapping[Phase, Measurement], terms: Terms) -> Verdict:
    wanted = PHASES if budget.phase == "all" else (budget.phase,)
    measured = [phases[phase] for phase in wanted if phase in phases]
    if not measured:
        return unchecked(budget, f"the test's {budget.phase} did not run")
    if isinstance(budget, EventBudget):
        return _check_events(budget, measured[0], terms.tolerance)
    if isinstance(budget, GrowthLimit):
        return _check_growth(budget, measured[0], terms)
    return _check_memory(budget, measured, terms)


def _check_events(budget: EventBudget, call: Measurement, tolerance: Tolerance) -> Verdict:
    readings = [reading for reading in call.counters if reading.event == budget.event]
    if not readings or readings[0].value is None:
        reason = (readings[0].reason if readings else None) or "not counted"
        return unchecked(budget, event_reason(budget.event, reason))
    actual, allowed = readings[0].value, tolerance.over_count(budget.limit)
    if actual <= allowed:
        return Verdict(budget=budget, outcome="kept", actual_count=actual)
    over = actual - allowed
    share = f" ({over / budget.limit:.0%})".replace("%", " %") if budget.limit else ""
    # Whole numbers, unless it takes decimals to show that it is over: milliseconds have them.
    decimals = next((n for n in range(7) if round(over, n) > 0), 7)
    limit = _with_tolerance(budget, tolerance if tolerance.percent else EXACT)
    reason = f"{readings[0].name} {actual:,.{decimals}f} is over {limit} by {over:,.{decimals}f}{share}"
    percent = readings[0].running_percent
    if percent is not None and percent < FULLY_RUNNING_PERCENT:
        reason += f"; scaled, counted {percent:.0f} % of the time"
    if readings[0].is_simulated:
        reason += "; simulated"
    return Verdict(budget=budget, outcome="broken", actual_count=actual, reason=reason)


def _check_growth(limit: GrowthLimit, call: Measurement, terms: Terms) -> Verdict:
    now = Numbers.of(call, isolated=terms.isolated, counted_by=source_text([call]))
    change = limit.hold(now, floor_bytes=terms.noise_bytes + terms.resolution_bytes)
    outcomes: Mapping[str, Outcome] = {"grew": "broken", "same": "kept", "shrank": "kept"}
    outcome = outcomes.get(change.status, "unchecked")
    in_bytes = limit.increase.is_memory
    return Verdict(
        budget=limit,
        outcome=outcome,
        actual_bytes=now.size_bytes(limit.increase.subject) if in_bytes else None,
        actual_count=None if in_bytes else change.now,
        reason=grown_line(change, limit.origin) if outcome == "broken" else change.reason,
    )


def event_reason(event: str, reason: str) -> str:
    """Return why an event has no value: "cache-misses not supported by this machine"."""
    return f"{event} {reason}" if reason.startswith("not ") else f"{event}: {reason}"


def _check_memory(budget: Budget, measured: list[Measurement], terms: Terms) -> Verdict:
    before_bytes = measured[0].before_bytes
    highest_bytes = _highest(measured) if budget.metric == "peak" else measured[-1].after_bytes
    if before_bytes is None or highest_bytes is None:
        reasons = [one.reason for one in measured if one.reason]
        return unchecked(budget, reasons[0] if reasons else "not measured")
    actual_bytes = highest_bytes - before_bytes
    if budget.metric == "peak":
        actual_bytes = max(0, actual_bytes)
    allowed_bytes = terms.tolerance.over_mib(budget.limit_mib) * MIB
    unreliable = abs(actual_bytes - allowed_bytes) < terms.noise_bytes
    outcome: Outcome = "kept" if actual_bytes <= allowed_bytes else "broken"
    reason = None
    if outcome == "broken":
        source: Source = "kernel" if all(one.source == "kernel" for one in measured) else "sampled"
        reason = _breach_line(budget, actual_bytes, before_bytes, source, terms.tolerance)
    elif measured[0].source == "kernel":  # what is sampled is a lower bound in any case, and says so
        outcome, reason = _kept_for_sure(actual_bytes, allowed_bytes, measured[0].reusable_bytes, terms)
    return Verdict(
        budget=budget,
        outcome=outcome,
        actual_bytes=actual_bytes,
        reason=reason,
        unreliable=unreliable and outcome != "unchecked",
    )


def _kept_for_sure(
    actual_bytes: int, allowed_bytes: float, reusable_bytes: int | None, terms: Terms
) -> tuple[Outcome, str | None]:
    """Return the verdict on a number within its limit, which the test may have kept by reuse alone."""
    if reusable_bytes is None:
        return "unchecked", terms.unknown_reuse
    return ("unchecked", REUSED) if actual_bytes + reusable_bytes > allowed_bytes else ("kept", None)


def unchecked(budget: AnyBudget, reason: str) -> Verdict:
    """Return the verdict on a budget that nothing could be held against."""
    return Verdict(budget=budget, outcome="unchecked", reason=reason)


def _required(verdict: Verdict) -> Verdict:
    """Return the verdict where counts must be had: an event that was not counted breaks its budget."""
    if verdict.outcome != "unchecked":
        return verdict
    reason = f"{verdict.budget} could not be checked: {verdict.reason}; imu_perf_required is on"
    return Verdict(budget=verdict.budget, outcome="broken", reason=reason)


def _highest(measured: list[Measurement]) -> int | None:
    peaks = [one.rss_peak_bytes for one in measured]
    known = [peak for peak in peaks if peak is not None]
    return max(known) if len(known) == len(peaks) else None


def _breach_line(
    budget: Budget, actual_bytes: int, before_bytes: int, source: Source, tolerance: Tolerance
) -> str:
    over_bytes = actual_bytes - tolerance.over_mib(budget.limit_mib) * MIB
    # As many decimals as it takes to show that it is over: never "100.0 is over 100 by 0.0".
    decimals = next((n for n in range(1, 7) if round(over_bytes / MIB, n) > 0), 7)
    share = f" ({over_bytes / (budget.limit_mib * MIB):.0%})" if budget.limit_mib else ""
    share = share.replace("%", " %")
    origin = f"; limit from {budget.origin}" if budget.origin else ""
    return (
        f"{budget.metric} {format_mib(actual_bytes, decimals=decimals)} MiB is over "
        f"{_with_tolerance(budget, tolerance)} by {over_bytes / MIB:.{decimals}f} MiB{share}; "
        f"started at {format_mib(before_bytes)} MiB, {SOURCE_WORDS[source]}{origin}"
    )


def _with_tolerance(budget: AnyBudget, tolerance: Tolerance) -> str:
    return f"{budget} plus its tolerance of {tolerance}" if tolerance else str(budget)
