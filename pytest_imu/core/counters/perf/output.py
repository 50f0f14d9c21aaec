"""What `perf stat -I MS -x ';'` prints, as numbers. Pure: text in, samples out.

One row is one event in one interval, and starts with the interval's offset from perf's start:

    0.050102096;56;;page-faults;611941;100.00;91.512;K/sec
    0.050102096;<not supported>;;cache-misses;0;100.00;;

The form is that of perf's own tools/perf/util/stat-display.c since 5.10.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

SEPARATOR = ";"
NOT_SUPPORTED = "not supported"
NOT_COUNTED = "not counted"
NOT_BELIEVED = "not counted: perf printed an invalid count"

_REASONS = {"<not supported>": NOT_SUPPORTED, "<not counted>": NOT_COUNTED}
_OFFSET = re.compile(r"[0-9]{1,10}\.[0-9]{9}")
# No sign, no exponent, no "nan": perf never prints a count with one, so what has one is no count.
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_LONGEST_NUMBER = 32
"""Digits of a 64-bit count, a point, and decimals: what is longer is not turned into a number."""
_COUNT_LIMIT = 2**64
# Only the letters that perf knows as modifiers: the ":sched_switch" of a tracepoint is none.
_MODIFIERS = "[ukhIGHpPSDWebRX]"
# Three places for modifiers: "cache-misses:u"; "cpu_core/cache-misses/u"; and, in perf 5.13 to 6.4,
# "cpu_core/cache-misses:u/".
_NAME = re.compile(
    rf"(?:(?P<pmu>[^/]+)/)?(?P<base>[^/]+?)(?::(?P<inner>{_MODIFIERS}+))?"
    rf"(?:/:?(?P<outer>{_MODIFIERS}*))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSample:
    """What perf printed of one event in one interval."""

    offset_s: float
    """Seconds from perf's start to the end of the interval."""
    event: str
    """The name as the caller asked for it."""
    value: float | None
    """The count, scaled by perf where it multiplexed, or milliseconds of a clock; None, with a reason,
    when there is none."""
    reason: str | None
    """NOT_SUPPORTED, NOT_COUNTED or NOT_BELIEVED; None when there is a value."""
    running_percent: float | None
    """Percent of the time that the event was on the hardware; 100 also where it was never enabled."""


class _Name(NamedTuple):
    """An event's name, taken apart; `pmu` is "" where the name carries none."""

    pmu: str
    base: str
    modifiers: frozenset[str]


def parse(text: str, *, events: Sequence[str]) -> list[EventSample]:
    """Return the samples of the asked-for events, in the order in which they first appear.

    `text` is what perf has printed so far and `events` are the names as given to `-e`. Nothing
    raises: what is not a row of an asked-for event does not count, be it comments or garbage.

    * A line counts once its newline is there, so the text of a file that still grows can be parsed.
    * The rows of one event at one offset are one sample. Those with different PMUs in their names
      (`cpu_core/cache-misses/` and `cpu_atom/cache-misses/`) are parts, and are summed: None only
      when all are; "not counted" when any part is, as it then is supported somewhere; and with the
      lowest running percent of the parts that counted.
    * Rows with the same PMU, or with none, are one row repeated: the first that has a value counts.
      A row without a PMU is the whole event, and its parts are left out.
    """

    @cache
    def find(printed: str) -> tuple[str, str] | None:
        return _find_event(printed, events)

    # For each offset and event, the row that counts of each PMU.
    found: dict[tuple[float, str], dict[str, EventSample]] = {}
    # What follows the last newline is a line that perf is still writing, or was killed in.
    for line in text.split("\n")[:-1]:
        fields = line.strip().split(SEPARATOR)
        if len(fields) < len(("offset", "value", "unit", "event", "run time", "percent")):
            continue
        offset, value, _, printed, _, percent = fields[:6]
        named = find(printed)
        if named is None or not _OFFSET.fullmatch(offset):
            continue
        event, pmu = named
        count, reason = _read(value)
        if count is None and reason is None:
            continue
        sample = EventSample(
            offset_s=float(offset),
            event=event,
            value=count,
            reason=reason,
            running_percent=_read(percent)[0],
        )
        parts = found.setdefault((sample.offset_s, event), {})
        if pmu not in parts or parts[pmu].value is None:
            parts[pmu] = sample
    return [_merge(parts) for parts in found.values()]


def _read(text: str) -> tuple[float | None, str | None]:
    """Return a number, or the reason why there is none; None and None where *text* is neither."""
    if _NUMBER.fullmatch(text) is None:
        return None, _REASONS.get(text)
    whole = text.partition(".")[0]
    if len(text) > _LONGEST_NUMBER or int(whole) >= _COUNT_LIMIT:
        return None, NOT_BELIEVED
    return int(whole) if whole == text else float(text), None


def _merge(parts: Mapping[str, EventSample]) -> EventSample:
    """Return one sample for the parts of an event, by the rules in `parse`."""
    if "" in parts:
        return parts[""]
    samples = list(parts.values())
    reasons = {sample.reason: sample for sample in reversed(samples)}
    counted = [sample for sample in samples if sample.value is not None]
    if NOT_BELIEVED in reasons or not counted:
        return reasons.get(NOT_BELIEVED) or reasons.get(NOT_COUNTED) or samples[0]
    percents = [part.running_percent for part in counted if part.running_percent is not None]
    return replace(
        counted[0],
        value=sum(part.value for part in counted if part.value is not None),
        running_percent=min(percents, default=None),
    )


def _find_event(printed: str, events: Sequence[str]) -> tuple[str, str] | None:
    """Return the asked-for event that perf prints under this name, and the PMU in that; None if none is.

    perf prints a name as it was typed, with what it had to add: modifiers (`:u` for the
    unprivileged) and the PMU (on hybrid CPUs). So the asked-for name has the same base, no other
    PMU and no other modifiers; where several fit, the one that says most is meant.
    """
    name = _split_name(printed)
    if printed in events:
        return printed, name.pmu
    fitting: list[tuple[bool, int, str]] = []
    for event in events:
        asked = _split_name(event)
        if asked.base == name.base and asked.pmu in ("", name.pmu) and asked.modifiers <= name.modifiers:
            fitting.append((asked.pmu != "", len(asked.modifiers), event))
    return (max(fitting)[2], name.pmu) if fitting else None


def _split_name(name: str) -> _Name:
    match = _NAME.fullmatch(name)
    if match is None:
        return _Name("", name, frozenset())
    modifiers = (match["inner"] or "") + (match["outer"] or "")
    return _Name(match["pmu"] or "", match["base"], frozenset(modifiers))
