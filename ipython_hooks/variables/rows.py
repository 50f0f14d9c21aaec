"""Names that hold memory, those that share a buffer together, and the table of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ipython_hooks.variables.held import Held
from ipython_hooks.variables.holders import Holder, is_of_library, names_of, others_of
from ipython_hooks.variables.kinds import describe
from ipython_hooks.variables.walk import Walk, own_bytes
from pytest_imu.core.system import without_collector
from pytest_imu.core.units import MIB, align_right, cut_middle, format_mib, plural, printable

NAMES_NS, OTHERS_NS = 22_000_000, 8_000_000
"""So much of the processor's time there is to look at names, and then at the rest."""
SHOWN_BYTES = MIB // 20
"""What is less would be shown as 0.0."""
SHARED_BYTES = 2**16
"""What two names share of this size puts them into one row."""
WORTH_BYTES = 2**19
"""What is not one of a person's own names is worth a row from here on."""
LONGEST_NAMES = 40
MOST_UNSEEN = 5
LIKELY_LARGE_BYTES = 2**30


@dataclass(slots=True, eq=False)
class Row:
    """Names that hold the same memory, or one name."""

    names: list[str] = field(default_factory=list)
    values: list[object] = field(default_factory=list)
    held: Held = field(default_factory=Held)
    """What they hold together."""

    @property
    def size_bytes(self) -> int:
        """How much that is."""
        return self.held.size_bytes

    def take(self, other: Row) -> None:
        """Take in the names of another row, which hold some of the same."""
        self.names += other.names
        self.values += other.values
        self.held.take(other.held)


@dataclass(slots=True)
class Look:
    """What was seen of a namespace."""

    rows: list[Row] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    """Names for which there was no time."""

    @property
    def size_bytes(self) -> int:
        """What all names hold; what two rows share is counted once."""
        whole = Held()
        for row in self.rows:
            whole.take(row.held)
        return whole.size_bytes


@without_collector()
def look_at(shell: Any) -> Look:  # Any: shells have no common type
    """Return which names hold what, and what else does."""
    look = Look()
    barred = (shell, shell.user_ns, shell.user_ns_hidden)
    _take(look, Walk(NAMES_NS, barred=barred), sorted(names_of(shell), key=likely_bytes, reverse=True))
    walk = Walk(OTHERS_NS, barred=barred)
    _take(look, walk, others_of(lambda: walk.is_over), least_bytes=WORTH_BYTES)
    if walk.is_over:
        look.unseen.append("some modules")
    look.rows.sort(key=lambda row: row.size_bytes, reverse=True)
    return look


def likely_bytes(holder: Holder) -> int:
    """Return what comes first while there is time: what libraries hold, then what is long."""
    value = holder[1]
    return LIKELY_LARGE_BYTES if is_of_library(type(value)) else own_bytes(value)


def _take(look: Look, walk: Walk, holders: Iterable[Holder], *, least_bytes: int = 0) -> None:
    known: dict[int, Held] = {}
    places: dict[Hashable, Row] = {
        key: row for row in look.rows for key, size in row.held.pieces.items() if size >= SHARED_BYTES
    }
    for name, value in holders:
        held = known.get(id(value))
        if held is None:
            if walk.is_over:
                if least_bytes:  # there are too many of them to be named
                    return
                look.unseen.append(name)
                continue
            held = known[id(value)] = walk.held_by(value)
        if held.size_bytes < least_bytes:
            continue
        _place(look, places, name, value, held)


def _place(look: Look, places: dict[Hashable, Row], name: str, value: object, held: Held) -> None:
    """Put a holder into the row of those it shares memory with, or into one of its own."""
    large = [key for key, size_bytes in held.pieces.items() if size_bytes >= SHARED_BYTES]
    rows = {id(row): row for key in large if (row := places.get(key)) is not None}
    row, *others = rows.values() or [Row()]
    if not rows:
        look.rows.append(row)
    for other in others:
        row.take(other)
        look.rows.remove(other)
        places.update(dict.fromkeys(other.held.pieces.keys() & places.keys(), row))
    row.take(Row([name], [value], held))
    places.update(dict.fromkeys(large, row))


def table(look: Look, *, top: int, total_bytes: int | None, width: int) -> list[str]:
    """Return the rows that hold the most, and what all names hold of the process's memory."""
    rows = [row for row in look.rows[:top] if row.size_bytes >= SHOWN_BYTES]
    names = [_names(row) for row in rows]
    names_width = max(map(len, names), default=0)
    numbers = align_right([["MiB"], *([_size(row)] for row in rows)])
    lines = [f"{numbers[0]}  names"]
    for number, name, row in zip(numbers[1:], names, rows, strict=True):
        what = describe(row.values[0], row.size_bytes)
        lines.append(f"{number}  {name:{names_width}}  {what}".rstrip()[:width])
    return [*lines, *_about(look, rows, total_bytes)]


def _names(row: Row) -> str:
    return cut_middle(printable(", ".join(row.names)), LONGEST_NAMES)


def _size(row: Row) -> str:
    """Return a row's size, with ~ where it is reckoned from samples, and + where it was seen in part."""
    held = row.held
    return f"{'~' * held.is_estimate}{format_mib(held.size_bytes)}{'+' * held.is_partial}"


def _about(look: Look, shown: Sequence[Row], total_bytes: int | None) -> list[str]:
    """Return what stands below the table."""
    lines = []
    if len(shown) < len(look.rows):
        others = Look(rows=look.rows[len(shown) :])
        count = sum(len(row.names) for row in others.rows)
        lines.append(f"{format_mib(others.size_bytes)} in {plural(count, 'other name')}")
    if look.unseen:
        names = printable(", ".join(look.unseen[:MOST_UNSEEN])) + ", ..." * (
            len(look.unseen) > MOST_UNSEEN
        )
        lines.append(f"there was no time to look at {names}")
    if any(row.held.is_estimate for row in shown):
        lines.append("~ reckoned from some of the elements")
    if any(row.held.is_partial for row in shown):
        lines.append("+ at least: there was no time to see all of it")
    held_bytes = look.size_bytes
    held = f"all of these hold {format_mib(held_bytes)}"
    if total_bytes is None:
        return [*lines, f"{held} MiB"]
    if held_bytes > total_bytes:
        total = f"more than the {format_mib(total_bytes)} that are in memory"
        return [*lines, f"{held} MiB, {total}:", "some of it was never touched, or is swapped out"]
    rest = f"{format_mib(total_bytes - held_bytes)} are in no name"
    total = f"{held} of {format_mib(total_bytes)} MiB"
    return [*lines, total, f"{rest}: Python itself, modules, what is kept free"]
