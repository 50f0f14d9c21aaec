"""Budgets: what is kept, broken and unchecked, and the line that a broken one prints."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_imu.core.budgets import AnyBudget, Budget, BudgetPhase, EventBudget, Metric, Verdict
from pytest_imu.core.checks import Terms, check, unchecked
from pytest_imu.core.model import CounterReading, Measurement, Phase, Source
from pytest_imu.core.tolerance import Tolerance
from pytest_imu.core.units import MIB

KIB = 1024
fuzz = settings(derandomize=True, database=None, deadline=None, max_examples=300)


def measured(
    before: float | None,
    highest: float | None,
    after: float | None,
    *,
    source: Source = "kernel",
    reason: str | None = None,
    counters: tuple[CounterReading, ...] = (),
) -> Measurement:
    """Return a measurement of these MiB."""

    def size_bytes(size_mib: float | None) -> int | None:
        return None if size_mib is None else round(size_mib * MIB)

    return Measurement(
        before_bytes=size_bytes(before),
        rss_peak_bytes=size_bytes(highest),
        after_bytes=size_bytes(after),
        duration_ns=1,
        reusable_bytes=0,
        source=source,
        reason=reason,
        counters=counters,
    )


def counted(value: float | None, **more: Any) -> dict[Phase, Measurement]:
    """Return the phases of a test whose call counted so many cache misses."""
    reading = CounterReading(event="cache-misses", value=value, **more)
    return {"call": measured(1, 1, 1, counters=(reading,))}


def budget(metric: Metric, limit_mib: float, phase: BudgetPhase = "call") -> Budget:
    """Return a budget that a marker has set."""
    return Budget(metric=metric, limit_mib=limit_mib, phase=phase)


def verdict_on(one: AnyBudget, phases: dict[Phase, Measurement]) -> tuple[str, float | None]:
    """Return the outcome and the number of MiB that was held against the limit."""
    verdict = check(one, phases)
    actual = verdict.actual_bytes
    return verdict.outcome, None if actual is None else actual / MIB


ALL: dict[Phase, Measurement] = {
    "setup": measured(100, 190, 150),
    "call": measured(150, 170, 160),
    "teardown": measured(160, 165, 105),
}


@pytest.mark.parametrize(
    ("one", "phases", "expected"),
    [
        # At the limit a budget is kept, a page above it is broken.
        (budget("peak", 100), {"call": measured(84, 184, 84)}, ("kept", 100)),
        (
            budget("peak", 100),
            {"call": measured(84, 184 + 4 / KIB, 84)},
            ("broken", 100 + 4 / KIB),
        ),
        (budget("delta", 10), {"call": measured(84, 184, 94)}, ("kept", 10)),
        (budget("delta", 10), {"call": measured(84, 184, 95)}, ("broken", 11)),
        (budget("peak", 0), {"call": measured(84, 84, 84)}, ("kept", 0)),
        (budget("peak", 0), {"call": measured(84, 85, 84)}, ("broken", 1)),
        (budget("peak", 0.5), {"call": measured(84, 84.5, 84)}, ("kept", 0.5)),
        # Memory that was given back keeps every budget; a peak is never below 0.
        (budget("delta", 0), {"call": measured(84, 84, 20)}, ("kept", -64)),
        (budget("peak", 0), {"call": measured(84, 80, 20)}, ("kept", 0)),
        # The phase that was asked for, and no other.
        (budget("peak", 30), ALL, ("kept", 20)),
        (budget("peak", 30, "setup"), ALL, ("broken", 90)),
        (budget("delta", 50, "setup"), ALL, ("kept", 50)),
        # "all" reaches from the start of the first phase to the end of the last.
        (budget("peak", 80, "all"), ALL, ("broken", 90)),
        (budget("delta", 5, "all"), ALL, ("kept", 5)),
        (budget("delta", 9, "all"), {"setup": ALL["setup"], "call": ALL["call"]}, ("broken", 60)),
        (budget("peak", 80, "all"), {"teardown": ALL["teardown"]}, ("kept", 5)),
    ],
)
def test_verdicts(one: Budget, phases: dict[Phase, Measurement], expected: tuple[str, float]) -> None:
    """A budget is held against the right number of the right phase."""
    assert expected == verdict_on(one, phases)
    assert (expected[0] == "broken") == (check(one, phases).reason is not None)


NOT_READ = measured(None, None, None, source="none", reason="memory could not be read: OSError: no")
HALF_READ = measured(100, None, 120)


@pytest.mark.parametrize(
    ("one", "phases", "expected"),
    [
        (budget("peak", 1), {"call": NOT_READ}, "memory could not be read: OSError: no"),
        (budget("delta", 1), {"call": NOT_READ}, "memory could not be read: OSError: no"),
        (budget("peak", 1), {"call": HALF_READ}, "not measured"),
        (
            budget("peak", 1, "all"),
            {**ALL, "teardown": NOT_READ},
            "memory could not be read: OSError: no",
        ),
        (budget("peak", 1), {}, "the test's call did not run"),
        (budget("peak", 1), {"setup": ALL["setup"]}, "the test's call did not run"),
        (budget("peak", 1, "setup"), {"call": ALL["call"]}, "the test's setup did not run"),
        (budget("peak", 1, "all"), {}, "the test's all did not run"),
    ],
)
def test_what_could_not_be_checked(one: Budget, phases: dict[Phase, Measurement], expected: str) -> None:
    """A number that is missing leaves the budget unchecked, with the reason, and never kept."""
    verdict = check(one, phases)
    assert ("unchecked", None, expected) == (verdict.outcome, verdict.actual_bytes, verdict.reason)


def test_delta_needs_no_peak() -> None:
    """A delta can be told where the peak could not be read."""
    assert ("kept", 20) == verdict_on(budget("delta", 20), {"call": HALF_READ})


@pytest.mark.parametrize(
    ("one", "phases", "expected"),
    [
        (
            budget("peak", 100),
            {"call": measured(84, 201.2, 87.1)},
            (
                "peak 117.2 MiB is over max_peak_mib(100) by 17.2 MiB (17 %); "
                "started at 84.0 MiB, kernel high-water mark"
            ),
        ),
        (
            budget("delta", 0.5, "setup"),
            {"setup": measured(84, 99, 86)},
            (
                'delta 2.0 MiB is over max_delta_mib(0.5, phase="setup") by 1.5 MiB (300 %); '
                "started at 84.0 MiB, kernel high-water mark"
            ),
        ),
        (
            budget("peak", 100),  # a page is 4 KiB
            {"call": measured(84, 184 + 4 / KIB, 84)},
            (
                "peak 100.004 MiB is over max_peak_mib(100) by 0.004 MiB (0 %); "
                "started at 84.0 MiB, kernel high-water mark"
            ),
        ),
        (
            budget("peak", 0, "all"),  # no share of nothing
            {"setup": measured(84, 85, 84)},
            (
                'peak 1.0 MiB is over max_peak_mib(0, phase="all") by 1.0 MiB; '
                "started at 84.0 MiB, kernel high-water mark"
            ),
        ),
        (
            budget("peak", 10),
            {"call": measured(84, 104, 84, source="sampled")},
            (
                "peak 20.0 MiB is over max_peak_mib(10) by 10.0 MiB (100 %); "
                "started at 84.0 MiB, sampled, a lower bound"
            ),
        ),
        (
            budget("peak", 10, "all"),  # one sampled phase makes the whole a lower bound
            {"setup": measured(84, 104, 84, source="sampled"), "call": measured(84, 84, 84)},
            (
                'peak 20.0 MiB is over max_peak_mib(10, phase="all") by 10.0 MiB (100 %); '
                "started at 84.0 MiB, sampled, a lower bound"
            ),
        ),
        (
            Budget(metric="peak", limit_mib=10, origin="imu_max_peak_mib in pytest.ini"),
            {"call": measured(84, 104, 84)},
            (
                "peak 20.0 MiB is over max_peak_mib(10) by 10.0 MiB (100 %); "
                "started at 84.0 MiB, kernel high-water mark; limit from imu_max_peak_mib in pytest.ini"
            ),
        ),
    ],
)
def test_breach_in_one_line(one: Budget, phases: dict[Phase, Measurement], expected: str) -> None:
    """A broken budget says by how much, where it started, how it is known, and who set it."""
    assert expected == check(one, phases).reason


@fuzz
@example(limit_mib=100.0, over_pages=1)
@example(limit_mib=99.96, over_pages=12)
@given(
    st.decimals(0, 10_000, places=2).map(float),
    st.integers(1, 10_000),
)
def test_breach_never_reads_as_kept(limit_mib: float, over_pages: int) -> None:
    """However small the breach, its line shows a number over the limit, and by more than 0."""
    highest_bytes = int(limit_mib * MIB) // 4096 * 4096 + over_pages * 4096
    call = Measurement(
        before_bytes=0,
        rss_peak_bytes=highest_bytes,
        after_bytes=0,
        duration_ns=1,
        reusable_bytes=0,
        source="kernel",
    )
    reason = check(budget("peak", limit_mib), {"call": call}).reason
    assert reason is not None
    shown = re.match(r"peak ([\d.]+) MiB is over max_peak_mib\(([\d.]+)\) by ([\d.]+) MiB", reason)
    assert shown is not None
    peak, limit, over = map(float, shown.groups())
    assert limit_mib == limit
    assert limit <= peak
    assert 0 < over


MISSES = EventBudget(event="cache-misses", limit=1000)
CLOCK = EventBudget(event="task-clock", limit=4.5)


@pytest.mark.parametrize(
    ("value", "outcome"), [(0, "kept"), (999, "kept"), (1000, "kept"), (1001, "broken")]
)
def test_counts(value: float, outcome: str) -> None:
    """At its limit an event's budget is kept, and one above it is broken."""
    verdict = check(MISSES, counted(value))
    assert (outcome, value) == (verdict.outcome, verdict.actual_count)


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        (
            counted(None, reason="not supported by this machine"),
            "cache-misses not supported by this machine",
        ),
        (counted(None, reason="perf is not installed"), "cache-misses: perf is not installed"),
        ({"call": measured(1, 1, 1)}, "cache-misses not counted"),
        ({"setup": measured(1, 1, 1)}, "the test's call did not run"),
    ],
)
def test_what_was_not_counted(phases: dict[Phase, Measurement], expected: str) -> None:
    """An event that could not be counted leaves its budget unchecked; where it must be, broken."""
    verdict = check(MISSES, phases)
    assert unchecked(MISSES, expected) == verdict
    demanded = check(MISSES, phases, Terms(counts_required=True))
    assert "broken" == demanded.outcome
    assert (
        f"max_cache_misses(1_000) could not be checked: {expected}; imu_perf_required is on"
        == demanded.reason
    )


def test_only_uncounted_events_are_demanded() -> None:
    """A verdict on memory, and one on an event that was counted, stay as they are."""
    demanding = Terms(counts_required=True)
    unread: dict[Phase, Measurement] = {"call": measured(None, None, None)}
    assert "unchecked" == check(budget("peak", 1), unread, demanding).outcome
    assert check(MISSES, counted(1)) == check(MISSES, counted(1), demanding)
    assert check(MISSES, counted(2e3)) == check(MISSES, counted(2e3), demanding)


@pytest.mark.parametrize(
    ("one", "reading", "expected"),
    [
        (
            MISSES,
            CounterReading(event="cache-misses", value=8823),
            "cache-misses 8,823 is over max_cache_misses(1_000) by 7,823 (782 %)",
        ),
        (
            EventBudget(event="instructions", limit=0),
            CounterReading(event="instructions", value=1_234_567),
            'instructions 1,234,567 is over max_events("instructions", 0) by 1,234,567',
        ),
        (
            MISSES,
            CounterReading(event="cache-misses", value=2000, running_percent=46.0),
            (
                "cache-misses 2,000 is over max_cache_misses(1_000) by 1,000 (100 %); "
                "scaled, counted 46 % of the time"
            ),
        ),
        (
            MISSES,
            CounterReading(event="cache-misses", value=2000, running_percent=100.0),
            "cache-misses 2,000 is over max_cache_misses(1_000) by 1,000 (100 %)",
        ),
        (
            MISSES,
            CounterReading(event="cache-misses", value=2000, source="callgrind"),
            "cache-misses 2,000 is over max_cache_misses(1_000) by 1,000 (100 %); simulated",
        ),
        (
            CLOCK,  # milliseconds
            CounterReading(event="task-clock", value=4.93),
            'task-clock 4.9 is over max_events("task-clock", 4.5) by 0.4 (10 %)',
        ),
        (
            CLOCK,
            CounterReading(event="task-clock", value=4.503),
            'task-clock 4.503 is over max_events("task-clock", 4.5) by 0.003 (0 %)',
        ),
    ],
)
def test_breach_of_a_count(one: EventBudget, reading: CounterReading, expected: str) -> None:
    """A broken budget on an event says by how much, and whether the count was scaled."""
    assert expected == check(one, {"call": measured(1, 1, 1, counters=(reading,))}).reason


@pytest.mark.parametrize(
    ("one", "name", "written"),
    [
        (budget("peak", 100), "max_peak_mib", "max_peak_mib(100)"),
        (budget("delta", 0.5, "all"), "max_delta_mib", 'max_delta_mib(0.5, phase="all")'),
        (MISSES, "max_cache_misses", "max_cache_misses(1_000)"),
        (
            EventBudget(event="instructions", limit=1e6),
            "max_events",
            'max_events("instructions", 1_000_000)',
        ),
        (CLOCK, "max_events", 'max_events("task-clock", 4.5)'),
        (
            EventBudget(event="cache-misses", limit=5, warmup=1),
            "max_cache_misses",
            "max_cache_misses(5, warmup=1)",
        ),
    ],
)
def test_budget_is_written_like_its_marker(one: AnyBudget, name: str, written: str) -> None:
    """A budget is named, and written, as its author would type the marker."""
    assert (name, written) == (one.name, str(one))


def test_plain_form() -> None:
    """The plain form is the JSON file's: what was asked for in MiB, what came of it, and why."""
    verdict = check(budget("peak", 100), {"call": measured(84, 201.25, 87)})
    assert {
        "name": "max_peak_mib",
        "event": None,
        "limit": 100,
        "actual": 117.25,
        "hard": False,
        "phase": "call",
        "warmup": 0,
        "origin": None,
        "verdict": "broken",
        "reason": verdict.reason,
        "unreliable": False,
        "decided_by": "first",
        "first": None,
        "not_alone": None,
    } == verdict.to_dict()


verdicts = st.builds(
    Verdict,
    budget=st.builds(
        Budget,
        metric=st.sampled_from(["peak", "delta"]),
        limit_mib=st.floats(0, 1e9),
        phase=st.sampled_from(["setup", "call", "all"]),
        origin=st.none() | st.text(),
    ),
    outcome=st.sampled_from(["kept", "broken", "unchecked"]),
    actual_bytes=st.none() | st.integers(-(2**50), 2**50),
    reason=st.none() | st.text(),
)


@fuzz
@given(verdicts)
def test_verdict_comes_back_from_json(verdict: Verdict) -> None:
    """Through its plain form and JSON a verdict comes back equal, to the byte."""
    assert verdict == Verdict.from_dict(json.loads(json.dumps(verdict.to_dict())))


@pytest.mark.parametrize(
    "verdict",
    [
        check(MISSES, counted(8823.0)),
        check(EventBudget(event="cache-misses", limit=5, origin="--imu-perf"), counted(3.0)),
        unchecked(CLOCK, "not counted"),
    ],
)
def test_verdict_on_a_count_comes_back_from_json(verdict: Verdict) -> None:
    """So does a verdict on an event."""
    assert verdict == Verdict.from_dict(json.loads(json.dumps(verdict.to_dict())))


def call_of(
    peak_mib: float, *, reusable_mib: float | None = 0, source: Source = "kernel"
) -> dict[Phase, Any]:
    """Return a call that began at 50 MiB and needed *peak_mib* more."""
    reusable_bytes = None if reusable_mib is None else round(reusable_mib * MIB)
    call = measured(50, 50 + peak_mib, 50, source=source)
    return {"call": dataclasses.replace(call, reusable_bytes=reusable_bytes)}


@pytest.mark.parametrize(
    ("peak_mib", "reusable_mib", "expected"),
    [
        (60, 0, ("kept", None)),
        (60, 40, ("kept", None)),  # 60 and 40 is not over 100
        (60, 40.1, ("unchecked", "reused memory")),  # however quick it was: threads fill it at once
        (100, 0.1, ("unchecked", "reused memory")),
        (60, None, ("unchecked", "the amount of reused memory is not known")),
        (101, 400, ("broken", "peak 101.0 MiB is over max_peak_mib(100) by 1.0 MiB (1 %)")),
        (101, None, ("broken", "peak 101.0 MiB is over max_peak_mib(100) by 1.0 MiB (1 %)")),
    ],
)
def test_reused_memory_leaves_a_kept_budget_unchecked(
    peak_mib: float, reusable_mib: float | None, expected: tuple[str, str | None]
) -> None:
    """What is kept by the peak, and would not be with what may have been reused, proves nothing."""
    phases = call_of(peak_mib, reusable_mib=reusable_mib)
    verdict = check(budget("peak", 100), phases)
    reason = None if verdict.reason is None else verdict.reason.partition(";")[0]
    assert expected == (verdict.outcome, reason)
    assert round(peak_mib * MIB) == verdict.actual_bytes


def test_sampled_peak_is_a_lower_bound_in_any_case() -> None:
    """Where peaks are sampled, which every report says, what was reused is no further reason."""
    phases = call_of(60, reusable_mib=None, source="sampled")
    assert "kept" == check(budget("peak", 100), phases).outcome


def test_reused_memory_may_hide_what_is_kept() -> None:
    """What a test keeps may be in memory that was there already, so the same holds for its delta."""
    assert "unchecked" == check(budget("delta", 1), call_of(60, reusable_mib=400)).outcome
    assert "kept" == check(budget("delta", 500), call_of(60, reusable_mib=400)).outcome


def test_whole_test_may_have_reused_what_was_free_as_it_began() -> None:
    """Over all phases it counts what was free before the setup."""
    setup = dataclasses.replace(measured(50, 50, 50), reusable_bytes=200 * MIB)
    phases: dict[Phase, Measurement] = {"setup": setup, **call_of(60)}
    assert "unchecked" == check(budget("peak", 100, phase="all"), phases).outcome
    assert "kept" == check(budget("peak", 100), phases).outcome


@pytest.mark.parametrize(
    ("tolerance", "kept_mib", "broken_mib", "words"),
    [
        (Tolerance(mib=5), 105, 105.1, "max_peak_mib(100) plus its tolerance of 5 MiB by 0.1 MiB"),
        (Tolerance(percent=10), 110, 112, "max_peak_mib(100) plus its tolerance of 10 % by 2.0 MiB"),
        (Tolerance(), 100, 101, "max_peak_mib(100) by 1.0 MiB"),
    ],
)
def test_tolerance_is_added_to_a_limit(
    tolerance: Tolerance, kept_mib: float, broken_mib: float, words: str
) -> None:
    """A budget breaks only beyond its tolerance, and the line says by how much beyond."""
    terms = Terms(tolerance=tolerance)
    assert "kept" == check(budget("peak", 100), call_of(kept_mib), terms).outcome
    broken = check(budget("peak", 100), call_of(broken_mib), terms)
    assert "broken" == broken.outcome
    assert f"is over {words}" in str(broken.reason)


def test_tolerance_of_counts() -> None:
    """A share is added to a limit of events; MiB are not."""
    assert "kept" == check(MISSES, counted(1_100), Terms(tolerance=Tolerance(percent=10))).outcome
    broken = check(MISSES, counted(1_200), Terms(tolerance=Tolerance(percent=10)))
    assert (
        "cache-misses 1,200 is over max_cache_misses(1_000) plus its tolerance of 10 % by 100 (10 %)"
        == broken.reason
    )
    broken = check(MISSES, counted(1_200), Terms(tolerance=Tolerance(mib=10)))
    assert "cache-misses 1,200 is over max_cache_misses(1_000) by 200 (20 %)" == broken.reason


@pytest.mark.parametrize(
    ("peak_mib", "expected"),
    [(99, False), (99.8, False), (99.95, True), (100, True), (100.05, True), (100.25, False)],
)
def test_nearer_than_the_noise_is_unreliable(peak_mib: float, expected: bool) -> None:  # noqa: FBT001 - a table's column
    """A number nearer to its limit than the noise floor is marked, on either side of the limit."""
    verdict = check(budget("peak", 100), call_of(peak_mib), Terms(noise_bytes=round(0.2 * MIB)))
    assert expected == verdict.unreliable
    assert ("broken" if peak_mib > 100 else "kept") == verdict.outcome


def test_unreliable_verdict_has_a_plain_form() -> None:
    """The mark is in the plain form, and comes back from it."""
    verdict = check(budget("peak", 100), call_of(100), Terms(noise_bytes=MIB))
    assert verdict.to_dict()["unreliable"] is True
    assert verdict == Verdict.from_dict(verdict.to_dict())
