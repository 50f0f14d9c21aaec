"""Growth: what a number may grow by, what may be reuse, what cannot be compared, and the line."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_imu.core.alone import Alone, decided
from pytest_imu.core.budgets import Verdict
from pytest_imu.core.checks import Terms, check
from pytest_imu.core.comparable import Numbers
from pytest_imu.core.growth import (
    GrowthLimit,
    Increase,
    compare,
    grown_line,
    parse_increase,
)
from pytest_imu.core.invalid import InvalidValueError
from pytest_imu.core.model import CounterReading, Measurement
from pytest_imu.core.units import MIB

fuzz = settings(derandomize=True, database=None, deadline=None, max_examples=300)


def numbers(peak: float | None = 100, *, reusable: float | None = 0, **more: Any) -> Numbers:
    """Return the numbers of a test that peaked at so many MiB."""

    def size_bytes(size_mib: float | None) -> int | None:
        return None if size_mib is None else round(size_mib * MIB)

    values: dict[str, Any] = {
        "peak_bytes": size_bytes(peak),
        "delta_bytes": 0,
        "reusable_bytes": size_bytes(reusable),
        "source": "kernel",
    }
    return Numbers(**(values | more))


@pytest.mark.parametrize(
    ("text", "subject", "percent", "amount"),
    [
        ("10%", "peak", 10, 0),
        ("2", "peak", 0, 2),
        ("10%+2", "peak", 10, 2),
        ("2+10%", "peak", 10, 2),
        ("0", "peak", 0, 0),
        ("delta:10%+2.5", "delta", 10, 2.5),
        ("instructions:5%", "instructions", 5, 0),
        ("cpu/event=0x3c/u:5%+1000", "cpu/event=0x3c/u", 5, 1000),
    ],
)
def test_increases_are_read(text: str, subject: str, percent: float, amount: float) -> None:
    """A share, an amount or both, of the peak unless something else stands in front."""
    increase = parse_increase(text)
    assert (subject, percent, amount) == (increase.subject, increase.percent, increase.amount)
    assert increase == parse_increase(str(increase))


@pytest.mark.parametrize(
    "text", ["", "x", "10%+2+3", "10%+5%", "1+2", "-1", "nan%", "inf", "delta:", "a b:5%", "1e999", "%"]
)
def test_other_increases_are_refused(text: str) -> None:
    """What is no increase is refused, whatever is wrong with it."""
    with pytest.raises(InvalidValueError, match="such as 10%, 2 or delta:10%"):
        parse_increase(text)


@pytest.mark.parametrize(
    ("was", "now", "status"),
    [
        (100, 100, "same"),
        (100, 110, "same"),
        (100, 110.1, "grew"),
        (100, 90, "same"),
        (100, 89.9, "shrank"),
        (5, 7, "same"),  # 40 %, but no more than 2 MiB
        (5, 7.1, "grew"),
        (0, 2.1, "grew"),
    ],
)
def test_a_number_grew_past_both(was: float, now: float, status: str) -> None:
    """It takes more than the share and more than the MiB."""
    change = compare(numbers(was), numbers(now), parse_increase("10%+2"), base="base.json")
    assert (status, None) == (change.status, change.reason)


def test_what_noise_can_do_is_the_same() -> None:
    """Nothing is called grown that is nearer than the noise and the resolution."""
    change = compare(numbers(1), numbers(1.5), parse_increase("1%"), base="b", floor_bytes=MIB)
    assert "same" == change.status


@pytest.mark.parametrize(
    ("was_reusable", "now", "now_reusable", "status"),
    [
        (0, 100, 10, "same"),
        (0, 100, 10.1, "unsure"),  # it may have needed 110.1
        (5, 112, 0, "unsure"),  # it may have needed 105 before
        (5, 115.1, 0, "grew"),
        (0, 80, 15, "unsure"),
        (0, 80, 5, "shrank"),
        (15, 100, 0, "same"),
        (None, 100, 0, "unsure"),
        (0, 200, None, "unsure"),
    ],
)
def test_what_may_be_reuse_is_unsure(
    was_reusable: float | None, now: float, now_reusable: float | None, status: str
) -> None:
    """Memory that was used again widens a number: where that decides, nothing is decided."""
    was = numbers(100, reusable=was_reusable)
    change = compare(was, numbers(now, reusable=now_reusable), parse_increase("10%+2"), base="b")
    assert status == change.status
    assert (change.reason is not None) == (status == "unsure")


def test_sampled_numbers_are_compared_as_they_are() -> None:
    """A sampled peak is a lower bound with and without reuse, and that is not known of it."""
    was, now = (numbers(mib, reusable=None, source="sampled") for mib in (100, 120))
    assert "grew" == compare(was, now, parse_increase("10%"), base="b").status


@pytest.mark.parametrize(
    ("was", "now", "increase", "reason"),
    [
        ({"source": "sampled"}, {}, "1%", "kernel peaks here, sampled in base.json"),
        ({}, {"isolated": True}, "1%", "isolated here, not in base.json"),
        ({"isolated": True}, {}, "1%", "isolated in base.json, not here"),
        ({}, {"tracer": "coverage"}, "1%", "traced by coverage here, by nothing in base.json"),
        ({"peak_bytes": None}, {}, "1%", "peak n/a in base.json"),
        ({}, {"delta_bytes": None}, "delta:1%", "delta n/a here"),
        ({}, {}, "instructions:1%", "instructions n/a here"),
        (
            {"counted_by": "callgrind, simulated caches I1=1"},
            {"counted_by": "perf"},
            "instructions:1%",
            "counted by perf here, by callgrind, simulated caches I1=1 in base.json",
        ),
    ],
)
def test_like_is_compared_with_like(
    was: dict[str, Any], now: dict[str, Any], increase: str, reason: str
) -> None:
    """What was measured in another way is not compared, and says why."""
    change = compare(numbers(**was), numbers(**now), parse_increase(increase), base="base.json")
    assert ("not compared", reason, None) == (change.status, change.reason, change.by)


def test_other_allocations_do_not_matter_to_counts() -> None:
    """Events are compared where peaks are not measured at all."""
    was, now = (
        numbers(None, source="none", counts={"instructions": n}, counted_by="perf") for n in (1000, 1051)
    )
    change = compare(was, now, parse_increase("instructions:5%"), base="base.json")
    assert "instructions 1,051, was 1,000 in base.json: grew 51 (5 %), over 5%" == grown_line(
        change, "base.json"
    )


@pytest.mark.parametrize(
    ("was", "now", "increase", "line"),
    [
        (
            117.2,
            142.1,
            "10%+2",
            "peak 142.1 MiB, was 117.2 in base.json: grew 24.9 MiB (21 %), over 10%+2",
        ),
        (0, 3, "2", "peak 3.0 MiB, was 0.0 in base.json: grew 3.0 MiB, over 2"),
        (100, 100.01, "0", "peak 100.01 MiB, was 100.00 in base.json: grew 0.01 MiB (0 %), over 0%"),
    ],
)
def test_the_line_of_what_grew(was: float, now: float, increase: str, line: str) -> None:
    """It says what it is, what it was, by how much, and what is allowed; never "grew 0.0"."""
    change = compare(numbers(was), numbers(now), parse_increase(increase), base="base.json")
    shown = grown_line(change, "base.json")
    assert line == shown


sizes = st.integers(0, 2**40)
reused = st.one_of(st.none(), st.integers(0, 2**34))


@fuzz
@given(was=sizes, now=sizes, was_reused=reused, now_reused=reused, floor=st.integers(0, 2**24))
def test_sure_words_hold_whatever_was_reused(
    was: int, now: int, was_reused: int | None, now_reused: int | None, floor: int
) -> None:
    """What grew or shrank did, and what is the same hides no growth, whatever the true peaks are."""
    increase = Increase(percent=10, amount=2)
    sides = (
        numbers(peak_bytes=was, reusable_bytes=was_reused),
        numbers(peak_bytes=now, reusable_bytes=now_reused),
    )
    change = compare(*sides, increase, base="b", floor_bytes=floor)
    allowed = max(increase.allowed(was), floor)
    least, most = now - was - (was_reused or 0), now - was + (now_reused or 0)
    match change.status:
        case "grew":
            assert least > allowed
        case "shrank":
            assert most < -allowed
        case "same":
            assert most <= allowed
        case _:
            assert "unsure" == change.status


# --- as a budget --------------------------------------------------------------------------------


def measured(peak_mib: float, *, reusable_bytes: int | None = 0, **more: Any) -> Measurement:
    """Return the measurement of a call."""
    return Measurement(
        before_bytes=0,
        after_bytes=0,
        rss_peak_bytes=round(peak_mib * MIB),
        duration_ns=1,
        source="kernel",
        reusable_bytes=reusable_bytes,
        **more,
    )


def limit(was: Numbers, text: str = "10%+2") -> GrowthLimit:
    """Return the limit that an earlier run sets."""
    increase = parse_increase(text)
    return GrowthLimit(
        increase=increase, was=was.value(increase.subject) or 0, origin="base.json", numbers=was
    )


@pytest.mark.parametrize(
    ("now", "outcome"), [(110, "kept"), (80, "kept"), (111, "broken"), (10**4, "broken")]
)
def test_it_is_judged_as_a_budget_is(now: float, outcome: str) -> None:
    """What grew breaks it, in the one line; a test that shrank keeps it."""
    verdict = check(limit(numbers(100)), {"call": measured(now)})
    assert outcome == verdict.outcome
    assert round(now * MIB) == verdict.actual_bytes
    assert (verdict.reason is not None) == (outcome == "broken")


def test_what_cannot_be_said_is_unchecked() -> None:
    """What may be reuse, and what was measured in another way, breaks nothing and keeps nothing."""
    unsure = check(limit(numbers(100)), {"call": measured(100, reusable_bytes=20 * MIB)})
    other = check(limit(numbers(100)), {"call": measured(200)}, Terms(isolated=True))
    assert ["unchecked", "unchecked"] == [unsure.outcome, other.outcome]
    assert "isolated here, not in base.json" == other.reason


def test_the_terms_of_the_run_widen_it() -> None:
    """The noise of this run and the resolution of its peaks count too."""
    terms = Terms(noise_bytes=MIB, resolution_bytes=MIB)
    verdicts = [check(limit(numbers(1), "0"), {"call": measured(n)}, terms) for n in (3, 3.1)]
    assert ["kept", "broken"] == [verdict.outcome for verdict in verdicts]


def test_a_verdict_crosses_to_another_process() -> None:
    """Its plain form is JSON, in MiB or events, and is read back whole but for the earlier numbers."""
    call = measured(150, counters=(CounterReading(event="instructions", value=9.5),))
    was = numbers(100, counts={"instructions": 3.5}, counted_by="perf")
    for text, expected in (("10%+2", (100, 110, 150)), ("instructions:100%", (3.5, 7, 9.5))):
        verdict = check(limit(was, text), {"call": call})
        plain = json.loads(json.dumps(verdict.to_dict()))
        assert expected == (plain["was"], plain["limit"], plain["actual"])
        assert ("broken", text) == (plain["verdict"], plain["increase"])
        again = Verdict.from_dict(plain)
        assert isinstance(again.budget, GrowthLimit)
        assert dataclasses.replace(verdict, budget=again.budget) == again
        assert plain == again.to_dict()
        assert Numbers.from_plain(json.loads(json.dumps(was.to_plain()))) == was


# --- clean numbers ------------------------------------------------------------------------------


def clean(own: float, alone: float | None, **more: Any) -> Numbers:
    """Return the numbers of a test: the peak of its own run, and that of another, alone."""
    return numbers(own, **more).with_clean({} if alone is None else {"peak": round(alone * MIB)})


@pytest.mark.parametrize(
    ("was", "now", "status", "by"),
    [
        (clean(100, 50), clean(150, 51), "same", 1),
        (clean(100, 50), clean(150, 60), "grew", 10),
        (clean(100, 50), clean(100, 60), "same", 0),  # like its own number: nobody ran it alone for that
        (clean(100, None), clean(150, 51), "grew", 50),
        (clean(100, 50), clean(150, None), "grew", 50),
        (clean(100, 50, reusable=30), clean(120, 50), "same", 0),
        (numbers(50, isolated=True), clean(150, 51), "same", 1),
        (clean(100, 50), numbers(60, isolated=True), "grew", 10),
        (numbers(50, isolated=True), clean(150, None), "not compared", None),
        (clean(100, 50, source="sampled"), clean(150, 51), "not compared", None),
        (clean(100, 50, tracer="coverage"), clean(150, 51), "not compared", None),
    ],
)
def test_clean_numbers_are_compared_with_clean_ones(
    was: Numbers, now: Numbers, status: str, by: float | None
) -> None:
    """Where the runs' own numbers do not settle it, and both have one from a clean process."""
    change = compare(was, now, parse_increase("10%+2"), base="base.json")
    assert (status, by) == (change.status, change.by and change.by / MIB)


@pytest.mark.parametrize(
    ("was", "now", "text", "expected"),
    [
        (clean(100, 50), numbers(150), "10%", True),
        (clean(100, 50), numbers(100), "10%", False),
        (clean(100, 50), numbers(100, reusable=20), "10%", True),
        (clean(100, 50), numbers(100, reusable=None), "10%", False),  # nor would it be known alone
        (clean(100, None), numbers(150), "10%", False),
        (clean(100, 50, delta_bytes=0), numbers(100, delta_bytes=9 * MIB), "delta:1", False),
        (numbers(50, isolated=True), numbers(150), "10%", True),
        (numbers(50, isolated=True), numbers(50), "10%", False),
        (numbers(50, isolated=True), numbers(150, isolated=True), "10%", False),
        (numbers(50, isolated=True), numbers(150, tracer="coverage"), "10%", False),
    ],
)
def test_what_seems_to_have_grown_is_in_doubt(
    was: Numbers, now: Numbers, text: str, expected: object
) -> None:
    """Where the earlier run has the clean number that one more run could be held against."""
    assert expected is limit(was, text).is_doubtful(now, floor_bytes=0)


def test_the_run_alone_decides() -> None:
    """It is held to the clean number; where it tells nothing the first verdict stands, with why."""
    own = limit(clean(100, 50))
    first = check(own, {"call": measured(150)})
    said = []
    for alone in (
        Alone(phases={"call": measured(60)}),
        Alone(phases={"call": measured(51)}),
        Alone(reason="it failed in its call"),
    ):
        verdict = decided(first, alone, Terms())
        said.append((verdict.outcome, verdict.decided_by, verdict.to_dict()["was"], verdict.reason))
    line = "peak {}.0 MiB, was {}.0 in base.json: grew {}.0 MiB ({} %), over 10%+2"
    assert [
        ("broken", "alone", 50, line.format(60, 50, 10, 20) + "; 150.0 after earlier tests"),
        ("kept", "alone", 50, None),
        (
            "broken",
            "first",
            100,
            line.format(150, 100, 50, 50) + "; not run alone: it failed in its call",
        ),
    ] == said


def test_clean_numbers_go_to_workers() -> None:
    """Their plain form is JSON and is read back whole."""
    was = clean(100, 50)
    assert was == Numbers.from_plain(json.loads(json.dumps(was.to_plain())))
