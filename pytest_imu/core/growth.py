"""How much a number may grow from one run to the next, and what became of it. Numbers in, words out."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pytest_imu.core.comparable import PEAK, SIZES, Numbers
from pytest_imu.core.counters.source import is_event
from pytest_imu.core.invalid import InvalidValueError, parse_number
from pytest_imu.core.units import MIB, format_limit

Status = Literal["grew", "shrank", "same", "unsure", "not compared"]
LIMIT_NAME = "imu_fail_increase"
EXPECTED = "a percentage, a number of MiB or both, such as 10%, 2 or delta:10%+2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Increase:
    """What a number may grow by: by a share of it or by an amount, whichever is more."""

    subject: str = PEAK
    """"peak", "delta" or the name of an event."""
    percent: float = 0.0
    amount: float = 0.0
    """In MiB; for an event, how many."""

    def __str__(self) -> str:
        parts = [f"{format_limit(self.percent)}%"] if self.percent or not self.amount else []
        parts += [format_limit(self.amount)] if self.amount else []
        return ("" if self.subject == PEAK else f"{self.subject}:") + "+".join(parts)

    @property
    def is_memory(self) -> bool:
        """Whether it is about bytes, and not about events."""
        return self.subject in SIZES

    def allowed(self, was: float) -> float:
        """Return how much more than *was* is still the same, in bytes or events."""
        amount = self.amount * MIB if self.is_memory else self.amount
        return max(abs(was) * self.percent / 100, amount)


USUAL = Increase(percent=10, amount=2)
"""What counts as grown where nobody has said: few suites repeat to less."""
USUAL_PERCENT_OF_EVENTS = 5


@functools.lru_cache(maxsize=64)
def parse_increase(text: str) -> Increase:
    """Return what "10%", "2", "10%+2" or "delta:10%+2" allows; raises InvalidValueError."""
    subject, _, rest = text.strip().rpartition(":")
    subject = subject or PEAK
    parts = [part.strip() for part in rest.split("+")]
    names = ["percent" if part.endswith("%") else "amount" for part in parts]
    try:
        numbers = [parse_number(part.removesuffix("%")) for part in parts]
    except ValueError:
        raise InvalidValueError(text, EXPECTED) from None
    if len(set(names)) < len(names) or not (subject in SIZES or is_event(subject)):
        raise InvalidValueError(text, EXPECTED)
    return Increase(subject=subject, **dict(zip(names, numbers, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One number of a test beside that of an earlier run."""

    increase: Increase
    status: Status
    was: float | None
    now: float | None
    reason: str | None = None
    """Why it is unsure, or was not compared."""
    alone: bool = False
    """Whether it is not the number of the test's own run, but that of one more in a clean process."""

    @property
    def by(self) -> float | None:
        """How much more it is now; negative where it is less, None where that cannot be said."""
        if self.was is None or self.now is None or self.status == "not compared":
            return None
        return self.now - self.was


MAY_BE_REUSE = "memory that was used again may make up the difference"
UNKNOWN_REUSE = "how much memory was used again is not known"


def compare(
    was: Numbers, now: Numbers, increase: Increase, *, base: str, floor_bytes: int = 0
) -> Change:
    """Hold one number of a test against that of an earlier run.

    What is no more than *floor_bytes* apart cannot be told apart. Memory that was used again makes a
    number too small by as much as was there: what that may change is unsure. Where the runs' own
    numbers do not show that it has not grown, those of clean processes decide, if both runs have one.
    """
    change = _compare(was, now, increase, base=base, floor_bytes=floor_bytes)
    if change.status in ("same", "shrank"):
        return change
    clean = was.clean_for(increase.subject), now.clean_for(increase.subject)
    if clean[0] is None or clean[1] is None or (clean[0] is was and clean[1] is now):
        return change
    change = _compare(clean[0], clean[1], increase, base=base, floor_bytes=floor_bytes)
    return replace(change, alone=clean[1] is not now)


def _compare(was: Numbers, now: Numbers, increase: Increase, *, base: str, floor_bytes: int) -> Change:
    before, after = was.value(increase.subject), now.value(increase.subject)
    reason = why_not(was, now, increase, base)
    if reason is not None or before is None or after is None:
        return Change(increase=increase, status="not compared", was=before, now=after, reason=reason)
    allowed = increase.allowed(before)
    reused: tuple[int | None, int | None] = (0, 0)
    if increase.is_memory:
        allowed = max(allowed, floor_bytes)
        if now.source == "kernel":  # a sampled number is a lower bound in any case
            reused = was.reusable_bytes, now.reusable_bytes
    status, reason = _status(before, after, allowed, reused)
    return Change(increase=increase, status=status, was=before, now=after, reason=reason)


def _status(
    before: float, after: float, allowed: float, reused: tuple[int | None, int | None]
) -> tuple[Status, str | None]:
    if reused[0] is None or reused[1] is None:
        return "unsure", UNKNOWN_REUSE
    least, most = after - before - reused[0], after - before + reused[1]
    if least > allowed:
        return "grew", None
    if most < -allowed:
        return "shrank", None
    # A test that may have shrunk more than is seen harms nobody: what counts is that it has not grown.
    sure = most <= allowed and after - before >= -allowed
    return ("same", None) if sure else ("unsure", MAY_BE_REUSE)


def why_not(was: Numbers, now: Numbers, increase: Increase, base: str) -> str | None:
    """Return why two numbers cannot be compared, as the end of a sentence; None where they can."""
    if increase.is_memory and was.source != now.source:
        return f"{_measured(now)} here, {_measured(was)} in {base}"
    if not increase.is_memory and was.counted_by != now.counted_by:
        return (
            f"counted by {now.counted_by or 'nothing'} here, by {was.counted_by or 'nothing'} in {base}"
        )
    if was.isolated != now.isolated:
        return f"isolated here, not in {base}" if now.isolated else f"isolated in {base}, not here"
    if was.tracer != now.tracer:
        return f"traced by {now.tracer or 'nothing'} here, by {was.tracer or 'nothing'} in {base}"
    for numbers, where in ((now, "here"), (was, f"in {base}")):
        if numbers.value(increase.subject) is None:
            return f"{increase.subject} n/a {where}"
    return None


def _measured(numbers: Numbers) -> str:
    return {"kernel": "kernel peaks", "sampled": "sampled", "none": "not measured"}[numbers.source]


def grown_line(change: Change, base: str) -> str:
    """Return the failure of a number that grew.

    "peak 142.1 MiB, was 117.2 in base.json: grew 24.9 MiB (21 %), over 10%+2"
    """
    was, now = change.was or 0, change.now or 0
    unit, of = (" MiB", MIB) if change.increase.is_memory else ("", 1)
    # As many decimals as it takes to show that it grew.
    fewest = 1 if unit else 0
    decimals = next((n for n in range(fewest, 7) if round((now - was) / of, n) > 0), 7)
    shown = [
        f"{value / of:,.{decimals}f}" if not unit else f"{value / of:.{decimals}f}"
        for value in (now, was, now - was)
    ]
    share = f" ({(now - was) / was * 100:.0f} %)" if was > 0 else ""
    allowed = str(change.increase).removeprefix(f"{change.increase.subject}:")
    return (
        f"{change.increase.subject} {shown[0]}{unit}, was {shown[1]} in {base}: "
        f"grew {shown[2]}{unit}{share}, over {allowed}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthLimit:
    """What a number of a test's call was in an earlier run, and how much more it may be now."""

    increase: Increase
    was: float
    """In bytes, or how many events."""
    origin: str
    """The earlier run's file."""
    numbers: Numbers | None = None
    """All that the earlier run has of the test; None in a verdict that came from another process."""
    floor_bytes: int = 0
    """What could not be told apart in the earlier run."""
    phase: Literal["call"] = "call"

    @property
    def name(self) -> str:
        """The option's name, as a budget has its marker's."""
        return LIMIT_NAME

    @property
    def metric(self) -> str:
        """What is limited: "peak", "delta" or the name of an event."""
        return self.increase.subject

    def __str__(self) -> str:
        return f"{self.name}={self.increase}"

    def hold(self, now: Numbers, *, floor_bytes: int) -> Change:
        """Hold what was measured now against it."""
        if self.numbers is None:
            return Change(increase=self.increase, status="not compared", was=self.was, now=None)
        floor_bytes = max(self.floor_bytes, floor_bytes)
        return compare(self.numbers, now, self.increase, base=self.origin, floor_bytes=floor_bytes)

    @property
    def clean(self) -> Numbers | None:
        """What the earlier run has of the test from a clean process, where that has the number."""
        return None if self.numbers is None else self.numbers.clean_for(self.increase.subject)

    def alone(self) -> GrowthLimit:
        """Return the limit that a run in a clean process is held to."""
        clean = self.clean
        was = None if clean is None else clean.value(self.increase.subject)
        return self if was is None else replace(self, numbers=clean, was=was)

    def is_doubtful(self, now: Numbers, *, floor_bytes: int) -> bool:
        """Whether it seems to have grown, and one more run, in a clean process, can tell."""
        was = self.numbers
        if was is None or self.clean is None or now.isolated:
            return False
        seems = replace(self, numbers=was._replace(isolated=False)).hold(now, floor_bytes=floor_bytes)
        return seems.status == "grew" or seems.reason == MAY_BE_REUSE

    def plain(self, actual: float | None) -> dict[str, Any]:
        """Return its own part of a verdict's plain form, in MiB as all budgets are, or in events."""
        unit = MIB if self.increase.is_memory else 1
        return {
            "event": None if self.increase.is_memory else self.increase.subject,
            "limit": (self.was + self.increase.allowed(self.was)) / unit,
            "actual": None if actual is None else actual / unit,
            "was": self.was / unit,
            "increase": str(self.increase),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> tuple[GrowthLimit, Any]:
        """Rebuild it and the number that was held against it, in bytes or in events."""
        increase, actual = parse_increase(plain["increase"]), plain["actual"]
        unit = MIB if increase.is_memory else 1
        if increase.is_memory and actual is not None:
            actual = round(actual * unit)
        return cls(increase=increase, was=plain["was"] * unit, origin=plain["origin"]), actual
