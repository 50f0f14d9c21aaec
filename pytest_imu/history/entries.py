"""What of a run's tests is compared with another's: each test once, with its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pytest_imu.core.comparable import DELTA, PEAK, Numbers, told_apart
from pytest_imu.core.growth import LIMIT_NAME, parse_increase
from pytest_imu.core.model import SOURCES
from pytest_imu.core.units import MIB, plural
from pytest_imu.history.load import Run, read, read_all
from pytest_imu.history.merge import joined_environment

NOTHING: frozenset[str] = frozenset()
LIMITED = {"max_peak_mib": PEAK, "max_delta_mib": DELTA}
"""Which number a budget is about, by its name."""


class Entry(NamedTuple):
    """What of one attempt at a test is compared."""

    nodeid: str
    attempt: int
    worker: str | None
    outcome: str
    numbers: Numbers | None
    """None where its call did not run to its end."""
    grown: frozenset[str] = frozenset()
    """The increases, as text, that it was held to as it ran and that it was over."""


def entry_of(test: Mapping[str, Any], environment: Mapping[str, Any], *_: object) -> Entry:
    """Return what is compared of one of a document's tests."""
    call, outcome, budgets = test["phases"]["call"], test["outcome"], test["budgets"]
    ended = outcome in ("passed", "xpassed") or test["failed_by_budget"]
    numbers = None
    if call is not None and ended:
        counters, counted = call["counters"], None
        if counters:
            user_only = any(reading["user_only"] for reading in counters.values())
            counted = told_apart(environment.get("counter_source"), user_only=user_only)
        numbers = Numbers(
            peak_bytes=call["peak_bytes"],
            delta_bytes=call["delta_bytes"],
            reusable_bytes=call["reusable_bytes"],
            source=SOURCES[call["source"]],
            tracer=call["tracer"],
            isolated=test["isolated"],
            counted_by=counted,
            counts={event: reading["value"] for event, reading in counters.items()},
        )
        if budgets:
            numbers = numbers.with_clean(clean_sizes(budgets))
    return Entry(
        nodeid=test["nodeid"],
        attempt=test["attempt"],
        worker=test["worker"],
        outcome=outcome,
        numbers=numbers,
        grown=frozenset(
            budget["increase"]
            for budget in budgets
            if budget["name"] == LIMIT_NAME and budget["verdict"] == "broken"
        )
        if budgets
        else NOTHING,
    )


def clean_sizes(budgets: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return what a test measured in a clean process, from the budgets that this has decided."""
    return {
        LIMITED.get(budget["name"]) or parse_increase(budget["increase"]).subject: round(
            budget["actual"] * MIB
        )
        for budget in budgets
        if budget["decided_by"] == "alone"
        and (budget["event"], budget["phase"]) == (None, "call")
        and budget["actual"] is not None
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two runs: each of its tests once."""

    name: str
    environment: Mapping[str, Any]
    entries: Mapping[str, Entry]

    @property
    def floor_bytes(self) -> int:
        """What the run could not tell apart."""
        noise = self.environment.get("noise_floor_bytes")
        return (noise or 0) + (self.environment.get("peak_resolution_bytes") or 0)

    def to_plain(self) -> dict[str, Any]:
        """Return what limits are made of, as it goes to an xdist worker."""
        numbers = {
            nodeid: entry.numbers.to_plain()
            for nodeid, entry in self.entries.items()
            if entry.numbers is not None
        }
        return {"name": self.name, "floor_bytes": self.floor_bytes, "numbers": numbers}


def counting(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Return, by id, the last attempt at each test; of several processes' the largest peak's."""
    found: dict[str, Entry] = {}
    for entry in entries:
        held = found.get(entry.nodeid)
        if held is None or _counts_more(entry, held):
            found[entry.nodeid] = entry
    return found


def _counts_more(entry: Entry, held: Entry) -> bool:
    if entry.worker == held.worker:
        return entry.attempt > held.attempt
    return _peak_bytes(entry) > _peak_bytes(held)


def _peak_bytes(entry: Entry) -> int:
    return -1 if entry.numbers is None else entry.numbers.peak_bytes or 0


def read_side(name: str) -> Side:
    """Read one side of a comparison from a file; raises UnusableFileError."""
    return _side([read(name, entry_of)])


def read_sides(base: Sequence[str], now: Sequence[str]) -> tuple[Side, Side]:
    """Read both sides of a comparison, each from a file or from several; raises UnusableFileError."""
    runs = read_all([*base, *now], entry_of)
    return _side(runs[: len(base)]), _side(runs[len(base) :])


def _side(runs: Sequence[Run[Entry]]) -> Side:
    entries = (entry for run in runs for entry in run.tests)
    name = Path(runs[0].name).name if len(runs) == 1 else plural(len(runs), "file")
    return Side(name=name, environment=joined_environment(runs), entries=counting(entries))
