"""What `perf stat` prints, as numbers: every format since perf 3.11. Pure: text in, samples out.

One row is one event, either of one interval (`-I`: the row starts with its offset) or of the whole
run (a total). perf has three ways of printing it, told apart line by line:

    plain   1.006223197         85,144,535      dTLB-loads      #  1.35% of all ...  (50.00%)
    CSV     1.006223197;85144535;;dTLB-loads;611941;50.00;1.35;of all ...       (`-x SEPARATOR`)
    JSON    {"interval" : 1.006223197, "counter-value" : "85144535.000000", ...}       (`-j`)

Not read, and ignored: rows per CPU, core, socket or thread (`-A`, `--per-...`), `--metric-only`,
and the numbers of other locales than C and English, which cannot be told from one another.

The forms are those of perf's own tools/perf/util/stat-display.c (builtin-stat.c before 4.20).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

NOT_SUPPORTED = "not supported"
NOT_COUNTED = "not counted"
# As `_parse_line` spells them: one word, for the space may be what separates the columns.
_REASONS = {"<not-supported>": NOT_SUPPORTED, "<not-counted>": NOT_COUNTED}

# At most 30 digits: a 64-bit count has 20, and a garbage of 400 digits would make float() inf.
# No sign, no exponent, no "nan": perf never prints a count with one, so what has one is no count.
_NUMBER = re.compile(r"[0-9]{1,30}(?:\.[0-9]{1,30})?")
# Groups of exactly three, so that the "0,49" of a locale with decimal commas is not read as 49.
_GROUPED_NUMBER = re.compile(r"[0-9]{1,3}(?:,[0-9]{3}){1,9}(?:\.[0-9]{1,30})?")
# Nine decimals are what tells an offset from a value: perf prints values with none, two or six.
_OFFSET = re.compile(r"[0-9]{1,10}\.[0-9]{9}")
_PERCENT = re.compile(r"[0-9]{1,3}\.[0-9]{2}")
_PLAIN_ROW = re.compile(
    rf"(?:(?P<offset>{_OFFSET.pattern})\s+)?"
    r"(?P<value><not-\w+>|[0-9][0-9,.]*)\s+(?P<rest>\S.*)"
)
# "(33.33%)", in old versions "[33.33%]"; the variance, "( +-  1.55% )", must not match.
_PLAIN_PERCENT = re.compile(r"[(\[] *([0-9]{1,3}\.[0-9]{2})%[)\]]$")
# Pairs, and not json.loads: some versions print a bare nan, or junk behind the closing brace, and
# no version nests objects or escapes quotes.
_JSON_PAIR = re.compile(r'"([^"]*)"\s*:\s*(?:"([^"]*)"|([^\s,{}"]+))')
_JSON_KEYS_OF_SPLIT_ROWS = frozenset(
    ("cpu", "core", "cluster", "cache", "die", "socket", "node", "thread")
)
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
    """What perf printed of one event, in one interval or in total."""

    offset_s: float | None
    """Seconds from perf's start to the end of the interval; None in total output."""
    event: str
    """The name as the caller asked for it."""
    value: float | None
    """The count, scaled by perf where it multiplexed; None, with a reason, when there is none."""
    reason: str | None
    """NOT_SUPPORTED or NOT_COUNTED; None when there is a value."""
    unit: str
    """The unit as printed, such as "msec"; empty for counts, and for the clocks of old versions."""
    running_percent: float | None
    """Percent of the time that the event was on the hardware; None where the format does not say.

    As printed: CSV and JSON say 100 also of an event that was never enabled; plain output says
    it only when it is not 100.
    """


class _Row(NamedTuple):
    """One row: the PMU that the printed name carries ("" for none), and what it says."""

    pmu: str
    sample: EventSample


class _Name(NamedTuple):
    """An event's name, taken apart; `pmu` is "" where the name carries none."""

    pmu: str
    base: str
    modifiers: frozenset[str]


class _Found(NamedTuple):
    """Whose row it is: the event as asked for, and the PMU in the printed name ("" for none)."""

    event: str
    pmu: str


_Finder = Callable[[str], _Found | None]


def parse(text: str, *, events: Sequence[str], separator: str | None = None) -> list[EventSample]:
    r"""Return the samples of the asked-for events, in the order in which they first appear.

    `text` is what perf has printed so far and `events` are the names as given to `-e`. `separator`
    is the one given to `-x`, which must not occur in the names; without it "," and ";" are
    recognised. Nothing raises: what is not a row of an asked-for event does not count, be it
    comments, chatter or garbage.

    * A line counts once its newline is there. So the text of a file that still grows can be parsed
      at any moment; whoever knows that the last line is whole adds the newline.
    * The rows of one event at one offset are one sample. Those with different PMUs in their names
      (`cpu_core/cache-misses/` and `cpu_atom/cache-misses/`) are parts, and are summed: None only
      when all are; "not counted" when any part is, as it then is supported somewhere; and with the
      lowest running percent of the parts that counted. Parts in two texts cannot be summed: parse
      from the start of the window, not piece by piece.
    * Rows with the same PMU, or with none, are one row repeated: they are never added up, the
      first that has a value counts. A row without a PMU is the whole event, and its parts are left
      out. So a total that stands twice in the text is not doubled.
    * Different offsets are different samples, and a total (offset None) never mixes with intervals.
    """

    @cache
    def find(printed: str) -> _Found | None:
        return _find_event(printed, events)

    separators = (separator,) if separator else (",", ";")
    # For each offset and event, the row that counts of each PMU.
    found: dict[tuple[float | None, str], dict[str, EventSample]] = {}
    # What follows the last newline is a line that perf is still writing, or was killed in.
    for line in text.split("\n")[:-1]:
        row = _parse_line(line, separators, find)
        if row is None:
            continue
        parts = found.setdefault((row.sample.offset_s, row.sample.event), {})
        if row.pmu not in parts or parts[row.pmu].value is None:
            parts[row.pmu] = row.sample
    return [_merge(parts) for parts in found.values()]


def _merge(parts: Mapping[str, EventSample]) -> EventSample:
    """Return one sample for the parts of an event, by the rules in `parse`."""
    if "" in parts:
        return parts[""]
    samples = list(parts.values())
    counted = [sample for sample in samples if sample.value is not None]
    if not counted:
        return next((part for part in samples if part.reason == NOT_COUNTED), samples[0])
    percents = [part.running_percent for part in counted if part.running_percent is not None]
    return replace(
        counted[0],
        value=sum(part.value for part in counted if part.value is not None),
        running_percent=min(percents, default=None),
    )


def _parse_line(line: str, separators: Iterable[str], find: _Finder) -> _Row | None:
    """Return the row that a line holds in whichever format it is; None if it holds none."""
    line = line.strip().replace("<not ", "<not-")
    if line.startswith("#"):
        return None
    if '"counter-value"' in line:
        return _parse_json(line, find)
    for separator in separators:
        if separator in line and (row := _parse_csv(line, separator, find)):
            return row
    return _parse_plain(line, find)


def _parse_plain(line: str, find: _Finder) -> _Row | None:
    """Read `[offset] value [unit] event [(msec)] [# metric] [( +- variance% )] [(running%)]`."""
    match = _PLAIN_ROW.match(line)
    if match is None:
        return None
    # The unit is one word or missing: the event is the first word or the second.
    words = match["rest"].split()
    unit = "" if find(words[0]) else words.pop(0)
    found = find(words[0]) if words else None
    # A sentence that happens to start like a row goes on with words, a row does not.
    if found is None or (len(words) > 1 and words[1][0] not in "#(["):
        return None
    if words[1:2] == ["(msec)"]:  # before perf 4.20, the unit of clocks
        unit = "msec"
    value = match["value"]
    if _GROUPED_NUMBER.fullmatch(value):
        value = value.replace(",", "")
    percent = _PLAIN_PERCENT.search(line)
    return _row(found, match["offset"], value, unit, percent[1] if percent else "")


def _parse_csv(line: str, separator: str, find: _Finder) -> _Row | None:
    """Read `[offset] value [unit] event [cgroup] [variance%] [run-time running%] [metric unit]`.

    Which columns there are depends on version and options; the asked-for name is the landmark.
    """
    fields = [field.strip() for field in line.split(separator)]
    for column in (3, 2, 1):
        found = find(fields[column]) if column < len(fields) else None
        if found is not None:
            break
    else:
        return None
    head, tail = fields[:column], fields[column + 1 :]
    offset = head.pop(0) if _OFFSET.fullmatch(head[0]) else None
    if not head or len(head) > len(("value", "unit")):
        return None
    # The first with two decimals: the run time is whole, and the variance has its "%".
    percent = next((field for field in tail if _PERCENT.fullmatch(field)), "")
    return _row(found, offset, head[0], "".join(head[1:]), percent)


def _parse_json(line: str, find: _Finder) -> _Row | None:
    """Read one object; its numbers may be numbers or strings."""
    fields = {key: quoted or bare for key, quoted, bare in _JSON_PAIR.findall(line)}
    found = find(fields.get("event", ""))
    if found is None or not _JSON_KEYS_OF_SPLIT_ROWS.isdisjoint(fields):
        return None
    return _row(
        found,
        fields.get("interval"),
        fields.get("counter-value", ""),
        fields.get("unit", ""),
        fields.get("pcnt-running", ""),
    )


def _row(found: _Found, offset: str | None, value: str, unit: str, percent: str) -> _Row | None:
    """Return the row with its numbers read; None where the value is neither count nor reason."""
    offset_s = None if offset is None else _number(offset)
    if offset is not None and offset_s is None:
        return None  # An interval without a time must not pass for a total.
    count = _number(value)
    reason = _REASONS.get(value)
    if count is None and reason is None:
        return None
    sample = EventSample(
        offset_s=offset_s,
        event=found.event,
        value=count,
        reason=reason,
        unit=unit,
        running_percent=_number(percent),
    )
    return _Row(found.pmu, sample)


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _find_event(printed: str, events: Sequence[str]) -> _Found | None:
    """Return the asked-for event that perf prints under this name; None if it is none of them.

    perf prints a name as it was typed, with what it had to add: modifiers (`:u` for the
    unprivileged) and the PMU (on hybrid CPUs). So the asked-for name has the same base, no other
    PMU and no other modifiers; where several fit, the one that says most is meant.
    """
    name = _split_name(printed)
    if printed in events:
        return _Found(printed, name.pmu)
    fitting: list[tuple[bool, int, str]] = []
    for event in events:
        asked = _split_name(event)
        if asked.base == name.base and asked.pmu in ("", name.pmu) and asked.modifiers <= name.modifiers:
            fitting.append((asked.pmu != "", len(asked.modifiers), event))
    return _Found(max(fitting)[2], name.pmu) if fitting else None


def _split_name(name: str) -> _Name:
    match = _NAME.fullmatch(name)
    if match is None:
        return _Name("", name, frozenset())
    modifiers = (match["inner"] or "") + (match["outer"] or "")
    return _Name(match["pmu"] or "", match["base"], frozenset(modifiers))
