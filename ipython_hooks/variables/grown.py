"""Which names made a command's memory: those that are new, or hold more than they did."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from ipython_hooks.variables.holders import LAST_OUTPUTS, names_of
from ipython_hooks.variables.rows import likely_bytes
from ipython_hooks.variables.walk import Walk
from pytest_imu.core.system import without_collector
from pytest_imu.core.units import MIB

LIMIT_NS = 10_000_000
"""So much of the processor's time may go into it, and only where memory has moved."""
WORTH_BYTES = MIB
MOST_NAMES = 3
LEAST_PERCENT, MOST_PERCENT = 5, 125
"""What is named is not much less than what the command kept, and not more: containers are reckoned."""
Grown = tuple[tuple[str, int], ...]
"""Names, and how many bytes more each holds."""


class GrowingNames:
    """Knows what each name held when it last looked."""

    def __init__(self, shell: Any) -> None:  # Any: shells have no common type
        self._shell = shell
        self._sizes: dict[str, int | None] = {}
        """What each name held; None where there was no time to look."""
        self._large: dict[str, tuple[int, int]] = {}
        """Of those that are worth a name: their value's id, and the number of commands before it."""
        self._commands = 0

    @without_collector()
    def look(self) -> dict[str, int]:
        """See what names hold now; return how much more or less that is than when last looked."""
        before, self._sizes = self._sizes, {}
        large, self._large = self._large, {}
        for name, value, size_bytes in self._attributed(before):
            self._sizes[name] = size_bytes
            if size_bytes is not None and size_bytes >= WORTH_BYTES:
                known, since = large.get(name, (None, 0))
                self._large[name] = (id(value), since if known == id(value) else self._commands)
        changes = {}
        for name in before | self._sizes:
            was, now = before.get(name, 0), self._sizes.get(name, 0)
            if was is not None and now is not None:
                changes[name] = now - was
        return changes

    def after_command(self, kept_bytes: int | None) -> Grown:
        """Return the names that made what a command kept, and how much of it each did.

        A command that kept next to nothing, and left large names alone, costs nothing.
        """
        try:
            return self._grown(kept_bytes or 0)
        finally:
            self._commands += 1

    def still_held(self, grown: Sequence[Grown]) -> list[dict[str, int]]:
        """Return what names hold now of what commands made; *grown* has what was said of each."""
        self.look()
        left = {name: self._sizes.get(name) or 0 for name in self._large}
        held: list[dict[str, int]] = [{} for _ in grown]
        for command in reversed(range(len(grown))):
            for name, more_bytes in grown[command]:
                still_bytes = min(more_bytes, left.get(name, 0))
                if still_bytes >= WORTH_BYTES and command >= self._large[name][1]:
                    held[command][name] = still_bytes
                    left[name] -= still_bytes
        return held

    def _grown(self, kept_bytes: int) -> Grown:
        namespace = self._shell.user_ns
        is_as_it_was = all(id(namespace.get(name)) == known for name, known in self._large_names())
        if abs(kept_bytes) < WORTH_BYTES and is_as_it_was:
            return ()
        changes = self.look()
        least_bytes = max(WORTH_BYTES, kept_bytes * LEAST_PERCENT / 100)
        # What has grown by more than there was room for did so unseen, in commands before.
        given_back = -sum(change for change in changes.values() if change < 0)
        most_bytes = (kept_bytes + given_back) * MOST_PERCENT / 100 + WORTH_BYTES
        grown = [item for item in changes.items() if least_bytes <= item[1] <= most_bytes]
        grown.sort(key=lambda item: -item[1])
        return tuple(grown[:MOST_NAMES]) if kept_bytes >= WORTH_BYTES else ()

    def _large_names(self) -> Iterator[tuple[str, int]]:
        """Give the large names of the namespace itself, with their ids when last looked."""
        return ((name, known) for name, (known, _) in self._large.items() if name.isidentifier())

    def _attributed(self, before: dict[str, int | None]) -> Iterator[tuple[str, object, int | None]]:
        """Give each name and what it holds; what names share is the one's that had it already."""
        walk = Walk(LIMIT_NS, barred=(self._shell, self._shell.user_ns, self._shell.user_ns_hidden))
        holders = sorted(names_of(self._shell), key=likely_bytes, reverse=True)
        holders.sort(key=lambda holder: (holder[0] in LAST_OUTPUTS, holder[0] not in before))
        taken: set[Hashable] = set()
        for name, value in holders:
            if walk.is_over:
                yield name, value, None
                continue
            pieces = walk.held_by(value).pieces
            yield name, value, sum(size for key, size in pieces.items() if key not in taken)
            taken.update(pieces)
