"""Lines and what they needed, as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath
from typing import TypeVar

from pytest_imu.core.units import align_right, cut_middle, format_count, format_mib, printable
from pytest_imu.why.profile import CountProfile, LineCost, LineCount, LineProfile, text_of

NOT_INSTALLED = "memray is not installed"
DIFFERS_PERCENT = 20
"""How far two numbers for the same thing may be apart before that is said."""
LEAST_TEXT_WIDTH = 20
WORTH_BYTES = 2**19
"""What is under this is not worth a word: the kernel's mark is not exact to less."""
SHARED = "* with its neighbours: each was too short to be read by itself"
L = TypeVar("L", LineCost, LineCount)
Columns = dict[str, Callable[[LineCost], str]]


def chain_lines(profile: LineProfile, root: PurePath, *, width: int) -> list[str]:
    """Return the lines that were running at the peak, outermost first."""
    if not profile.is_chain_at_peak:
        return ["the peak was not reached in any of these lines"]
    return _table(profile.chain, _columns(profile, "kept", "peak"), root, width=width)


def kept_lines(profile: LineProfile, root: PurePath, *, top: int, width: int) -> list[str]:
    """Return the lines that kept the most, as many as *top*; 0 is for all."""
    costs = sorted(profile.lines, key=lambda cost: cost.kept_bytes, reverse=True)
    worth = [cost for cost in costs if cost.kept_bytes >= WORTH_BYTES]
    if not worth:
        return ["no line kept anything"]
    return _table(worth[: top or None], _columns(profile, "kept", "peak"), root, width=width)


def all_lines(profile: LineProfile, root: PurePath, *, width: int) -> list[str]:
    """Return every line that was run, file by file."""
    columns = _columns(profile, "hits", "kept", "largest", "peak", "total")
    return _table(profile.lines, columns, root, width=width)


def count_lines(profile: CountProfile, root: PurePath, *, top: int, width: int) -> list[str]:
    """Return the lines in which an event happened most, as many as *top*; with 0 all that were run."""
    lines: Sequence[LineCount] = profile.lines
    if top:
        counted = sorted(lines, key=lambda line: line.count, reverse=True)
        lines = [line for line in counted if line.count > 0][:top]
    if not lines:
        return ["none of them in any of these lines"]
    columns: dict[str, Callable[[LineCount], str]] = {
        "hits": _hits,
        "count": lambda line: ("*" if _shares(line) else "") + format_count(line.count),
        "largest": lambda line: format_count(line.most),
    }
    shared = [SHARED] if any(map(_shares, lines)) else []
    return [*_table(lines, columns, root, width=width), *shared]


def _shares(line: LineCount) -> bool:
    return line.shared * 100 > abs(line.count)


def held_lines(profile: LineProfile, root: PurePath, *, top: int, width: int) -> list[str]:
    """Return what was held at the peak, by the lines that asked for it; nothing without memray."""
    held = profile.held
    if held is None or held["reason"] == NOT_INSTALLED:
        return []
    if held["reason"] is not None:
        return [f"what was held is not known: {printable(held['reason'])}"]
    asked_bytes = held["asked_bytes"]
    shown = [one for one in held["lines"] if one["held_bytes"] >= WORTH_BYTES][: top or None]
    places = ["" if one["file"] is None else _place(one["file"], one["line"], root) for one in shown]
    place_width = max(map(len, places), default=0)
    lines = [f"held at the peak, by memray ({format_mib(asked_bytes)} MiB asked for):"]
    for one, place in zip(shown, places, strict=True):
        text = "elsewhere" if one["file"] is None else text_of(one["file"], one["line"])
        text = cut_middle(printable(text), max(LEAST_TEXT_WIDTH, width - place_width - 10))
        lines.append(f"{format_mib(one['held_bytes']):>6}  {place:{place_width}}  {text}")
    if abs(asked_bytes - profile.peak_bytes) * 100 > DIFFERS_PERCENT * profile.peak_bytes:
        if asked_bytes > profile.peak_bytes:
            why = "more than the peak: what is asked for and never touched takes no memory"
        else:
            why = "less than the peak: it does not see small objects, nor what allocators keep free"
        lines.append(f"memray's {format_mib(asked_bytes)} is {why}")
    return lines


def shared_lines(costs: Iterable[LineCost]) -> list[str]:
    """Return what has to be known of numbers that lines share with their neighbours."""
    if any(is_shared(cost) for cost in costs):
        return [SHARED]
    return []


def _columns(profile: LineProfile, *names: str) -> Columns:
    sampled = "" if profile.is_exact else "~"
    known: Columns = {
        "hits": _hits,
        "kept": lambda cost: ("*" if is_shared(cost) else "") + format_mib(cost.kept_bytes),
        "largest": lambda cost: format_mib(cost.most_kept_bytes),
        "peak": lambda cost: sampled + format_mib(cost.peak_bytes),
        "total": lambda cost: format_mib(cost.total_bytes),
    }
    return {name: known[name] for name in names}


def _hits(line: LineCost | LineCount) -> str:
    return f"{line.hits:,}" + ("+" if line.has_more_hits else "")


def _table(
    costs: Sequence[L], columns: dict[str, Callable[[L], str]], root: PurePath, *, width: int
) -> list[str]:
    cells = [[*columns], *([cell(cost) for cell in columns.values()] for cost in costs)]
    numbers: list[str] = align_right([[cell.rjust(6) for cell in row] for row in cells])
    places = [_place(cost.file, cost.line, root) for cost in costs]
    place_width = max(map(len, places), default=0)
    text_width = max(LEAST_TEXT_WIDTH, width - len(numbers[0]) - place_width - 4)
    lines = [numbers[0]]
    for row, place, cost in zip(numbers[1:], places, costs, strict=True):
        text = cut_middle(printable(cost.text), text_width)
        lines.append(f"{row}  {place:{place_width}}  {text}".rstrip())
    return lines


def is_shared(cost: LineCost) -> bool:
    """Whether how much of what it kept is its own is not known."""
    return cost.shared_bytes >= WORTH_BYTES


def _place(file: str, line: int, root: PurePath) -> str:
    path = PurePath(file)
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return f"{printable(name)}:{line}"
