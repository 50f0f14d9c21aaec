"""Holds budgets against what was measured. Numbers in, verdicts out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_imu.core.budgets import AnyBudget, Budget, EventBudget, LeakBudget, Outcome, Verdict
from pytest_imu.core.comparable import Numbers
from pytest_imu.core.counters.choice import source_text
from pytest_imu.core.growth import GrowthLimit, grown_line
from pytest_imu.core.leaks.growth import Growth
from pytest_imu.core.model import PHASES, Measurement, Phase, Source
from pytest_imu.core.tolerance import EXACT, Tolerance
from pytest_imu.core.units import MIB, format_mib

FULLY_RUNNING_PERCENT = 99.5
"""Under this a count is an estimate: the event was on the hardware for a part of the time."""

SOURCE_WORDS: Mapping[Source, str] = {
    "kernel": "kernel high-water mark",
    "sampled": "sampled, a lower bound",
    "none": "not measured",
}


NOT_TO_ITS_END = "the test did not run to its end"
REUSED = "reused memory"
"""Why a number that kept its budget proves nothing: with what the test may have reused it would not."""


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
    growth: Growth | str = NOT_TO_ITS_END
    """What further calls of the test's body grew, or why there were none."""

    @property
    def floor_bytes(self) -> int:
        """What cannot be told apart."""
        return self.noise_bytes + self.resolution_bytes


NO_TERMS = Terms()


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
    if isinstance(budget, LeakBudget):
        return _check_leak(budget, terms.growth)
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
    now = _numbers_of(call, terms)
    change = limit.hold(now, floor_bytes=terms.floor_bytes)
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


def _numbers_of(call: Measurement, terms: Terms) -> Numbers:
    return Numbers.of(call, isolated=terms.isolated, counted_by=source_text([call]))


def is_doubtful(verdict: Verdict, phases: Mapping[Phase, Measurement], terms: Terms) -> bool:
    """Whether what ran before the test may have made this verdict."""
    budget = verdict.budget
    if isinstance(budget, GrowthLimit):
        call = phases.get(budget.phase)
        floor_bytes = terms.floor_bytes
        return call is not None and budget.is_doubtful(_numbers_of(call, terms), floor_bytes=floor_bytes)
    is_memory = isinstance(budget, Budget)
    return is_memory and (verdict.outcome == "broken" or verdict.reason == REUSED)


def _check_leak(budget: LeakBudget, growth: Growth | str) -> Verdict:
    if isinstance(growth, str):
        return unchecked(budget, growth)
    parts = budget.parts(growth)
    is_leak = bool(growth.grew(budget.limit_kib, parts=parts))
    over = "" if budget.origin else str(budget)
    return Verdict(
        budget=budget,
        outcome="broken" if is_leak else "kept",
        actual_bytes=round(growth.bytes_a_call),
        reason=growth.line(budget.limit_kib, over, parts=parts) if is_leak else None,
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
