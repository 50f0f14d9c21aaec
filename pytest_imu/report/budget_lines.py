"""What the section says of budgets: broken, unchecked, kept by a run alone, or decided by noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_imu.core.budgets import Verdict
from pytest_imu.core.checks import REUSED
from pytest_imu.core.growth import GrowthLimit
from pytest_imu.core.units import format_mib, plural, printable
from pytest_imu.report.rows import Row

WAYS_OUT = {REUSED: "; --imu-isolate=budgets runs these tests where there is none"}


def broken_budgets(rows: Sequence[Row]) -> list[tuple[Row, Verdict]]:
    """Return every broken budget, with its test."""
    return [(row, verdict) for row in rows for verdict in row.verdicts if verdict.outcome == "broken"]


def broken_lines(rows: Sequence[Row]) -> list[str]:
    """Return every broken budget, a line each."""
    return [f"{printable(row.nodeid)}: {verdict.reason}" for row, verdict in broken_budgets(rows)]


def unchecked_budgets(rows: Sequence[Row]) -> list[tuple[Row, Verdict, str]]:
    """Return every budget that nothing could be held against although its test passed, and why.

    What is unsure beside an earlier run is told there.
    """
    return [
        (row, verdict, _why_unchecked(row, verdict.reason or ""))
        for row, verdict in _verdicts_of_passed(rows)
        if verdict.outcome == "unchecked" and not isinstance(verdict.budget, GrowthLimit)
    ]


def _why_unchecked(row: Row, reason: str) -> str:
    return reason + ("" if row.isolated else WAYS_OUT.get(reason, ""))


def unchecked_lines(rows: Sequence[Row]) -> list[str]:
    """Return every budget that nothing could be held against although its test passed, by reason."""
    named: dict[str, list[str]] = {}
    for row, verdict, why in unchecked_budgets(rows):
        names = named.setdefault(printable(why), [])
        names.append(f"  {printable(row.nodeid)}: {verdict.budget}{_reached(verdict)}")
    return [
        line
        for reason, names in named.items()
        for line in (f"{plural(len(names), 'budget')} not checked: {reason}", *names)
    ]


def kept_alone_lines(rows: Sequence[Row]) -> list[str]:
    """Return all that a run of the test alone has decided to be kept, with both numbers."""
    budgets, same = [], []
    for row, verdict in _verdicts_of_passed(rows):
        if (verdict.decided_by, verdict.outcome) == ("alone", "kept"):
            budget, name = verdict.budget, printable(row.nodeid)
            first = f"{format_mib(verdict.first_bytes)} after earlier tests"
            alone = f"{format_mib(verdict.actual_bytes)} alone"
            if isinstance(budget, GrowthLimit):
                was = f"was {format_mib(round(budget.was))} in {printable(budget.origin)}"
                same.append(f"{name}: {budget.metric} {alone}, {was}; {first}")
            else:
                budgets.append(f"{name}: {budget}: {alone}, {first}")
    return [
        *_below(f"{plural(len(budgets), 'budget')} kept alone", budgets),
        *_below(f"{plural(len(same), 'number')} did not grow alone", same),
    ]


def _below(heading: str, lines: Sequence[str]) -> list[str]:
    """Return the lines under their heading, or behind it where there is only one."""
    if len(lines) == 1:
        return [f"{heading}: {lines[0]}"]
    return [f"{heading}:", *(f"  {line}" for line in lines)] if lines else []


def unreliable_lines(rows: Sequence[Row], noise_bytes: int | None) -> list[str]:
    """Return every budget that noise decides: its number is nearer to the limit than that."""
    names = [
        f"  {printable(row.nodeid)}: {verdict.budget} {verdict.outcome}{_reached(verdict)}"
        for row in rows
        for verdict in row.verdicts
        if verdict.unreliable
    ]
    if not names:
        return []
    noise = f"the noise of {format_mib(noise_bytes)} MiB"
    return [f"{plural(len(names), 'budget')} unreliable, nearer to the limit than {noise}:", *names]


def _verdicts_of_passed(rows: Sequence[Row]) -> Iterator[tuple[Row, Verdict]]:
    for row in rows:
        if row.outcome in ("passed", "xpassed"):
            for verdict in row.verdicts:
                yield row, verdict


def _reached(verdict: Verdict) -> str:
    """Return how far the number came, where there is one."""
    if verdict.actual_bytes is None:
        return ""
    return f" at {format_mib(verdict.actual_bytes, decimals=2)} MiB"
