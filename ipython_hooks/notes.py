"""What makes the numbers of a command mislead, in a few words each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ipython_hooks.records import CommandRecord
from pytest_imu.core.children.sampler import Memory, choose_reader
from pytest_imu.core.memory.reusable import NOTEWORTHY_BYTES, reused_in
from pytest_imu.core.units import format_mib

SHELLS_OWN_NS = 2_000_000
"""What the shell itself may take of a command's processor time, to compile it and keep its text: `pass`
took 0.1-0.6 ms. It fills no memory with what the command asked for."""


class Note(NamedTuple):
    """A few words, and the size that they speak of."""

    text: str
    size_bytes: int = 0


def notes_on(
    record: CommandRecord, *, cpu_ns: int, held_bytes: int = 0, children: Note | None = None
) -> tuple[Note, ...]:
    """Return what has to be said about a command, most important first.

    *cpu_ns* is the processor time that it took: so long it may have filled memory that was free before.
    *held_bytes* is what the traceback of one that raised keeps alive.
    """
    notes = []
    if record.raised:
        kept = f", its traceback keeps {format_mib(held_bytes)} MiB (%imu free lets go)"
        notes.append(Note(f"the command raised{kept * (held_bytes >= NOTEWORTHY_BYTES)}", held_bytes))
    measurement = record.measurement
    reused_bytes = reused_in(measurement, max(0, cpu_ns - SHELLS_OWN_NS))
    if reused_bytes:
        text = f"reused up to {format_mib(reused_bytes)} MiB kept from before"
        notes.append(Note(text, reused_bytes))
    if measurement.tracer:
        notes.append(Note(f"traced by {measurement.tracer}, the numbers include its memory"))
    if children is not None:
        notes.append(children)
    return tuple(notes)


class ChildrenNotes:
    """Tells of child processes once, as they come, with what they hold then."""

    def __init__(self, read: Callable[[], Callable[[], Iterable[Memory]]] = choose_reader) -> None:
        self._new_reader = read
        self._known = 0

    def after(self, *, had_children: bool | None) -> Note | None:
        """Return what there is to say after a command in which children may have come or gone."""
        if not had_children:
            return None
        living = list(self._new_reader()())
        known, self._known = self._known, len(living)
        if len(living) < known:  # those that were told of have ended
            return None
        if len(living) == known:
            return Note("had child processes that have ended, not counted")
        size_bytes = sum(memory.size_bytes for memory in living)
        who = "a child process holds" if len(living) == 1 else f"{len(living)} child processes hold"
        most = (
            "" if all(memory.is_pss for memory in living) else "at most "
        )  # what they share is twice in it
        return Note(f"{who} {most}{format_mib(size_bytes)} MiB, not counted", size_bytes)
