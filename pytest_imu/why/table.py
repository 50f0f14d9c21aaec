"""Lines and what they needed, as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath

from pytest_imu.core.units import align_right, cut_middle, format_mib, printable
from pytest_imu.why.profile import LineCost, LineProfile, text_of

NOT_INSTALLED = "memray is not installed"
DIFFERS_PERCENT = 20
"""How far two numbers for the same thing may be apart before that is said."""
LEAST_TEXT_WIDTH = 20
WORTH_BYTES = 2**19
"""What is under this is not worth a word: the kernel's mark is not exact to less."""
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
        return ["* with its neighbours: each was too short to be read by itself"]
    return []


def _columns(profile: LineProfile, *names: str) -> Columns:
    sampled = "" if profile.is_exact else "~"
    known: Columns = {
        "hits": lambda cost: f"{cost.hits:,}" + ("+" if cost.has_more_hits else ""),
        "kept": lambda cost: ("*" if is_shared(cost) else "") + format_mib(cost.kept_bytes),
        "largest": lambda cost: format_mib(cost.most_kept_bytes),
        "peak": lambda cost: sampled + format_mib(cost.peak_bytes),
        "total": lambda cost: format_mib(cost.total_bytes),
    }
    return {name: known[name] for name in names}


def _table(costs: Sequence[LineCost], columns: Columns, root: PurePath, *, width: int) -> list[str]:
    cells = [[*columns], *([cell(cost) for cell in columns.values()] for cost in costs)]
    numbers = align_right([[cell.rjust(6) for cell in row] for row in cells])
    places = [_place(cost.file, cost.line, root) for cost in costs]
    place_width = max(map(len, places), default=0)
    text_width = max(LEAST_TEXT_WIDTH, width - len(numbers[0]) - place_width - 4)
    rows = [
        f"{row}  {place:{place_width}}  {cut_middle(printable(cost.text), text_width)}".rstrip()
        for row, place, cost in zip(numbers[1:], places, costs, strict=True)
    ]
    return [numbers[0], *rows]


def is_shared(cost: LineCost) -> bool:
    """Whether how much of what it kept is its own is not known."""
    return cost.shared_bytes >= WORTH_BYTES


def _place(file: str, line: int, root: PurePath) -> str:
    path = PurePath(file)
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return f"{printable(name)}:{line}"
