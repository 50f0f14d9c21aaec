"""The lines behind a test's numbers, as `--imu-why` found them, ready to be shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from pytest_imu.core.units import format_count, format_mib
from pytest_imu.why.table import WORTH_BYTES

SHOWN = 10
SIZES = {"kept": "kept_bytes", "peak": "peak_bytes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Lines under a heading: each its numbers, its place and how it reads."""

    title: str
    heads: Sequence[str]
    rows: Sequence[tuple[Sequence[str], str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """What one more run told."""

    tables: Sequence[Table]
    notes: Sequence[str]


def lines_of(why: Mapping[str, Any]) -> Lines:
    """Return the tables of a test's `why`."""
    notes = [] if why["reason"] is None else [f"the lines may not be known: {why['reason']}"]
    profile = why["profile"]
    if profile is None:
        return Lines(tables=[], notes=notes or ["the second run told nothing"])
    if profile["fault"] is not None:
        notes.append(f"some readings failed: {profile['fault']}")
    if "event" in profile:
        return Lines(tables=[_counted(profile)], notes=notes)
    if not profile["is_exact"]:
        notes.append(f"{profile['label']}: a lower bound")
    costs = sorted(profile["lines"], key=lambda cost: -cost["kept_bytes"])
    kept = [cost for cost in costs if cost["kept_bytes"] >= WORTH_BYTES][:SHOWN]
    peak, whole = format_mib(profile["peak_bytes"]), format_mib(profile["kept_bytes"])
    tables = []
    if profile["is_chain_at_peak"]:
        tables.append(
            _table(f"Where the peak was reached, in a second run ({peak} MiB)", profile["chain"])
        )
    else:
        notes.append("the peak was not reached in any of these lines")
    if kept and profile["kept_bytes"] >= WORTH_BYTES:
        tables.append(_table(f"What kept the most ({whole} MiB)", kept))
    held = profile["held"]
    if held is not None and held["reason"] is None:
        texts = {(cost["file"], cost["line"]): cost["text"] for cost in profile["lines"]}
        tables.append(_held(held, texts))
    elif held is not None:
        notes.append(f"what was held is not known: {held['reason']}")
    return Lines(tables=tables, notes=notes)


def _counted(profile: Mapping[str, Any]) -> Table:
    costs = sorted(profile["lines"], key=lambda cost: -cost["count"])
    title = f"{profile['event']} by line, in a second run ({format_count(profile['count'])})"
    shown = [cost for cost in costs if cost["count"] > 0][:SHOWN]
    return _table(title, shown, {"count": "count", "largest": "most"}, format_count)


def _held(held: Mapping[str, Any], texts: Mapping[tuple[str, int], str]) -> Table:
    shown = [
        {**one, "text": texts.get((one["file"], one["line"]), "")}
        for one in held["lines"]
        if one["held_bytes"] >= WORTH_BYTES
    ][:SHOWN]
    title = f"Held at the peak, by memray ({format_mib(held['asked_bytes'])} MiB asked for)"
    return _table(title, shown, {"held": "held_bytes"})


def _table(
    title: str,
    lines: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str] = SIZES,
    form: Callable[[Any], str] = format_mib,
) -> Table:
    """Return a table of lines; *columns* are headings, and the keys of the numbers below them."""
    rows = [
        ([form(one[key]) for key in columns.values()], _place(one["file"], one["line"]), one["text"])
        for one in lines
    ]
    return Table(title=title, heads=[*columns], rows=rows)


def _place(file: str | None, line: int) -> str:
    if file is None:
        return "elsewhere"
    return f"{'/'.join(PurePath(file.replace(chr(92), '/')).parts[-2:])}:{line}"
