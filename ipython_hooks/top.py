"""`%imu top`: the commands that took the most, and those whose names still hold the most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ipython_hooks import wording
from ipython_hooks.records import CommandRecord, largest
from pytest_imu.core.units import format_mib, printable

if TYPE_CHECKING:
    from ipython_hooks.session import Session

Held = Mapping[int, Mapping[str, int]]
"""By the id of a record: the names that still hold what its command made, and how much of it."""


def top_lines(session: Session, count: int) -> Iterator[str]:
    """Give both tables; no command stands in both."""
    history = session.watcher.history
    still = session.names.still_held([record.grown for record in history])
    held = {id(record): names for record, names in zip(history, still, strict=True)}
    took = largest(history, by="peak_bytes", count=count)
    shown = {id(record) for record in took}
    others = [record for record in history if held[id(record)] and id(record) not in shown]
    others.sort(key=lambda record: sum(held[id(record)].values()), reverse=True)
    yield "took the most:"
    yield from _table(session, took, held)
    if others:
        yield "others that still hold the most:"
        yield from _table(session, others[:count], held)


def _table(session: Session, records: Sequence[CommandRecord], held: Held) -> Iterator[str]:
    """Give the table of these commands, each with the names that still hold what it made."""
    head, *lines = wording.history_table(records, session.options).splitlines()
    yield head
    for place, line in enumerate(lines):
        names = held[id(records[place])] if place < len(records) else {}
        sizes = [
            f"{printable(name)} {format_mib(size_bytes, decimals=session.options.decimals)}"
            for name, size_bytes in names.items()
        ]
        yield f"{line}; still there: {', '.join(sizes)}" if sizes else line
