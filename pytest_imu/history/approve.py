"""Puts a run's numbers into the limits of its tests: what to change, and what to leave alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_imu.core.units import MIB, format_limit, printable
from pytest_imu.history.adding import NO_DEFINITION, added, wants_marker
from pytest_imu.history.headroom import suggested_count, suggested_mib
from pytest_imu.history.marks import SIZES, Marker, Marks, Subject
from pytest_imu.history.source import Edit, SourceFile, digest
from pytest_imu.history.wishes import ChangedError, Measured, Plan, Wishes

FAR_TOO_WIDE = 2
"""How many times as much as would be suggested a limit may be before `--tighten` lowers it."""
UNDERSCORES_FROM = 10_000


@dataclass(slots=True)
class _Limit:
    """One literal in a file, and every test that it limits."""

    marker: Marker
    held: list[tuple[Measured, Mapping[str, Any]]] = field(default_factory=list)


def plan(
    tests: Iterable[Measured],
    environment: Mapping[str, Any],
    wishes: Wishes,
    read: Callable[[str], bytes],
) -> Plan:
    """Return what a run changes; raises ChangedError for a file that is another one now."""
    floor_bytes = max(
        environment.get("noise_floor_bytes") or 0, environment.get("peak_resolution_bytes") or 0
    )
    planned = Plan()
    by_file: dict[str, list[Measured]] = {}
    for test in tests:
        by_file.setdefault(test.nodeid.partition("::")[0], []).append(test)
    for name, own in by_file.items():
        file = _File(name, own, wishes, floor_bytes, planned)
        if not file.has_something_to_do:
            continue
        try:
            data = read(name)
            if environment.get("sources", {}).get(name) != digest(data):
                raise ChangedError(f"{printable(name)} has changed since the run; run its tests again")
            marks = Marks(SourceFile(data))
        except (OSError, ValueError, SyntaxError) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "msg", None) or error
            planned.leave(name, f"it cannot be read ({reason})")
            continue
        if edits := file.edits(marks):
            planned.files[Path(name)] = (marks.source, edits)
    return planned


class _File:
    """The tests of one file."""

    def __init__(
        self, name: str, tests: Sequence[Measured], wishes: Wishes, floor_bytes: int, planned: Plan
    ) -> None:
        self._name = name
        self._tests = tests
        self._wishes = wishes
        self._floor_bytes = floor_bytes
        self._plan = planned

    @property
    def has_something_to_do(self) -> bool:
        """Whether any of its tests asks for a change."""
        wishes = self._wishes
        return self._name.endswith(".py") and any(
            wishes.covers(test.nodeid)
            and (
                any(budget["verdict"] == "broken" for budget in test.budgets)
                or (wishes.tighten and test.budgets)
                or (wishes.add and wants_marker(test, wishes, self._floor_bytes))
            )
            for test in self._tests
        )

    def edits(self, marks: Marks) -> list[Edit]:
        """Return the changes of this file; what cannot be changed is noted in the plan."""
        limits: dict[tuple[int, int], _Limit] = {}
        for test in self._tests:
            for budget in test.budgets:
                found = self._find(marks, test, budget)
                if isinstance(found, Marker):
                    place = marks.source.span(found.limit)
                    limits.setdefault(place, _Limit(found)).held.append((test, budget))
                elif budget["verdict"] == "broken" and self._wishes.covers(test.nodeid):
                    self._plan.leave(test.nodeid, found)
        edits = []
        for (start, end), limit in limits.items():
            new = self._new_limit(limit)
            if new is not None and new != limit.marker.value:
                old = marks.source.segment(limit.marker.limit)
                edits.append(Edit(start=start, end=end, new=_written(new, old)))
        if self._wishes.add:
            edits += added(
                marks,
                self._tests,
                wishes=self._wishes,
                floor_bytes=self._floor_bytes,
                planned=self._plan,
            )
        return edits

    def _find(self, marks: Marks, test: Measured, budget: Mapping[str, Any]) -> Marker | str:
        """Return the marker that set a budget, or why it cannot be changed."""
        if budget["origin"] is not None:
            return f"its limit is that of {budget['origin']}"
        found = marks.find(test.names)
        if found is None:
            return NO_DEFINITION
        own: list[Marker] | str = []
        for place in marks.places(found, test.parameters):
            if own := place if isinstance(place, str) else _about(place, budget):
                break
        if isinstance(own, str):
            return own
        if len(own) == 1:
            return _checked(marks, own[0], budget)
        where = "several times in one place" if own else "not in this file"
        return f"its {budget['name']} is {where}"

    def _new_limit(self, limit: _Limit) -> float | None:
        """Return what a limit should be; None where it shall stay."""
        broken = [pair for pair in limit.held if pair[1]["verdict"] == "broken"]
        covered = [pair for pair in (broken or limit.held) if self._wishes.covers(pair[0].nodeid)]
        if not covered:
            return None
        sure = [pair for pair in limit.held if _is_sure(*pair)]
        if broken:
            for test, budget in broken:
                if (test, budget) not in sure:
                    self._plan.leave(test.nodeid, test.doubt or "its number is not known")
            if not any(pair in sure for pair in broken):
                return None
            return self._suggested(sure)
        old = limit.marker.value or 0
        settled = len(sure) == len(limit.held) and not any(
            test.may_be_reuse or budget["verdict"] != "kept" or budget["unreliable"]
            for test, budget in sure
        )
        if not (self._wishes.tighten and settled):
            return None
        new = self._suggested(sure)
        return new if old > FAR_TOO_WIDE * new else None

    def _suggested(self, held: Sequence[tuple[Measured, Mapping[str, Any]]]) -> float:
        most = max(budget["actual"] for _, budget in held)
        headroom_percent = self._wishes.headroom_percent
        if held[0][1]["name"] in SIZES:
            return suggested_mib(most * MIB, self._floor_bytes, headroom_percent=headroom_percent)
        return suggested_count(most, headroom_percent=headroom_percent)


def _about(place: Sequence[Marker], budget: Mapping[str, Any]) -> list[Marker] | str:
    """Return those of a place's markers that are about the same as a budget."""
    subject: Subject = ("max_events", budget["event"])
    if budget["name"] in SIZES:
        subject = (budget["name"], budget["phase"])
    if any(one.subject == (subject[0], None) for one in place):
        return f"what a {subject[0]} is about is not written out"
    return [one for one in place if one.subject == subject]


def _checked(marks: Marks, marker: Marker, budget: Mapping[str, Any]) -> Marker | str:
    if marker.value is None:
        return f"{budget['name']}({marks.source.segment(marker.limit)}) is not a number"
    if marker.value != budget["limit"]:
        written = marks.source.segment(marker.limit)
        limit = format_limit(budget["limit"])
        return f"{budget['name']} is {written} in the file, and was {limit} in the run"
    return marker


def _written(limit: float, old: str) -> str:
    """Return a limit as its author would write it."""
    whole = limit == int(limit)
    return (
        f"{int(limit):_}"
        if whole and ("_" in old) and limit >= UNDERSCORES_FROM
        else format_limit(limit)
    )


def _is_sure(test: Measured, budget: Mapping[str, Any]) -> bool:
    """Whether a budget's number can be taken: nothing speaks against it, or a run alone told it."""
    known = budget["actual"] is not None
    return known and (test.doubt is None or budget["decided_by"] == "alone")
