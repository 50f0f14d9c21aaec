"""Holds a run's numbers against those of an earlier one: tables in, tables out."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_imu.core.comparable import Numbers
from pytest_imu.core.growth import (
    USUAL,
    USUAL_PERCENT_OF_EVENTS,
    Change,
    GrowthLimit,
    Increase,
    Status,
    compare,
)
from pytest_imu.history.entries import Entry, Side

WORST_FIRST: Sequence[Status] = ("grew", "unsure", "shrank", "same", "not compared")
"""Which of several numbers decides what a test is said to be."""
MACHINE = ("python", "implementation", "platform", "machine", "cpu_count", "pytest", "trim")
"""What of the environment is worth a word where it differs, besides the packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an earlier run's numbers allow now, for the process that runs the tests."""

    name: str
    floor_bytes: int
    numbers: Mapping[str, Mapping[str, Any]]
    increases: tuple[Increase, ...]

    def of(self, nodeid: str) -> tuple[GrowthLimit, ...]:
        """Return the limits of one test; none where the earlier run has no number of it."""
        plain = self.numbers.get(nodeid)
        if plain is None:
            return ()
        numbers = Numbers.from_plain(plain)
        return tuple(
            GrowthLimit(
                increase=increase,
                was=value,
                origin=self.name,
                numbers=numbers,
                floor_bytes=self.floor_bytes,
            )
            for increase in self.increases
            if (value := numbers.value(increase.subject)) is not None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One test of both runs."""

    nodeid: str
    changes: tuple[Change, ...]
    worst: Change
    """The change that decides what the test is said to be; of several the largest."""

    @classmethod
    def of(cls, nodeid: str, changes: tuple[Change, ...]) -> Compared:
        """Return a test with its changes, of which there is one at least."""
        worst = changes[0] if len(changes) == 1 else min(changes, key=_badness)
        return cls(nodeid=nodeid, changes=changes, worst=worst)

    @property
    def status(self) -> Status:
        """What the test is said to be."""
        return self.worst.status


def _badness(change: Change) -> tuple[int, float]:
    return WORST_FIRST.index(change.status), -abs(change.by or 0)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A whole run beside an earlier one."""

    base: str
    tests: Sequence[Compared]
    new: Sequence[str]
    gone: Sequence[str]
    differences: Sequence[str] = ()
    """What the numbers depend on and is another one here."""
    fails_on: frozenset[Increase] = frozenset()
    by_nodeid: Mapping[str, Compared] = field(default_factory=dict)

    @functools.cached_property
    def counts(self) -> Counter[str]:
        """How many tests are what."""
        return Counter(test.status for test in self.tests)

    @property
    def compared(self) -> int:
        """How many tests could be compared."""
        return len(self.tests) - self.counts["not compared"]

    @property
    def grown(self) -> list[tuple[str, Change]]:
        """What grew, with the test's id, largest first."""
        return sorted(self._grew(), key=lambda pair: -(pair[1].by or 0))

    @functools.cached_property
    def failed(self) -> list[tuple[str, Change]]:
        """What grew past an increase that somebody set."""
        return [pair for pair in self._grew() if pair[1].increase in self.fails_on]

    def _grew(self) -> Iterator[tuple[str, Change]]:
        for test in self.tests:
            yield from ((test.nodeid, one) for one in test.changes if one.status == "grew")


def compare_runs(
    base: Side, now: Side, increases: Sequence[Increase] = (), *, judged: bool = False
) -> Comparison:
    """Hold one run against an earlier one.

    With *judged* the tests were held to the same increases as they ran: what failed then has grown.
    """
    floor_bytes = max(base.floor_bytes, now.floor_bytes)
    watched = _watched(increases, now)
    tests = []
    for nodeid, entry in now.entries.items():
        was = base.entries.get(nodeid)
        # What is skipped in both has nothing to say; what is skipped here alone may hide something.
        if was is not None and (was.outcome, entry.outcome) != ("skipped", "skipped"):
            changes = tuple(
                _change(was, entry, increase, base=base.name, floor_bytes=floor_bytes, judged=judged)
                for increase in watched
            )
            tests.append(Compared.of(nodeid, changes))
    return Comparison(
        base=base.name,
        tests=tests,
        new=[nodeid for nodeid in now.entries if nodeid not in base.entries],
        gone=[nodeid for nodeid in base.entries if nodeid not in now.entries],
        differences=differences(base.environment, now.environment),
        fails_on=frozenset(increases),
        by_nodeid={test.nodeid: test for test in tests},
    )


def _watched(increases: Sequence[Increase], now: Side) -> tuple[Increase, ...]:
    """Return what is compared: what somebody set, and the peak, or events where there is no memory."""
    if any(increase.subject == USUAL.subject for increase in increases):
        return tuple(increases)
    known = [entry.numbers for entry in now.entries.values() if entry.numbers is not None]
    if not known or any(numbers.source != "none" for numbers in known):
        return (USUAL, *increases)
    if increases:
        return tuple(increases)
    events = dict.fromkeys(event for numbers in known for event in numbers.counts)
    usual = [Increase(subject=event, percent=USUAL_PERCENT_OF_EVENTS) for event in events]
    return tuple(usual) or (USUAL,)


def _change(
    was: Entry, entry: Entry, increase: Increase, *, base: str, floor_bytes: int, judged: bool
) -> Change:
    if was.numbers is None or entry.numbers is None:
        reason = f"{entry.outcome} here" if entry.numbers is None else f"{was.outcome} in {base}"
        return Change(increase=increase, status="not compared", was=None, now=None, reason=reason)
    change = compare(was.numbers, entry.numbers, increase, base=base, floor_bytes=floor_bytes)
    if judged and str(increase) in entry.grown:
        return replace(change, status="grew", reason=None)
    return change


def differences(base: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what the numbers depend on and is another one: "numpy 2.4.6, was 2.3.1"."""
    known = [key for key in MACHINE if key in base and key in now]
    named = [(key.replace("_", " "), base[key], now[key]) for key in known]
    before, after = (side.get("packages") or {} for side in (base, now))
    if before and after:
        names = dict.fromkeys((*after, *before))
        named += [(name, before.get(name), after.get(name)) for name in names if name != "pytest"]
    return [f"{name} {_said(new)}, was {_said(old)}" for name, old, new in named if old != new]


def _said(value: object) -> str:
    return "none" if value is None else str(value)
