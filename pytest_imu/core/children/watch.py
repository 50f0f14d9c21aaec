"""A block's child processes: whether there were any, and where asked for what they held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_imu.core.children.census import CensusStart, process_census
from pytest_imu.core.model import ChildrenMemory

if TYPE_CHECKING:
    from pytest_imu.core.children.sampler import ChildrenSampler


class ChildrenWatch:
    """Watches from `begin()` to `end()`; with *sample*, a thread reads what all of them hold."""

    def __init__(self, *, sample: bool) -> None:
        self._sample = sample
        self._start: CensusStart | None = None
        self._sampler: ChildrenSampler | None = None

    def begin(self) -> None:
        """Look at the children there are; raises where the sampler cannot be started."""
        self._start = process_census().begin()
        if self._sample:
            from pytest_imu.core.children.sampler import ChildrenSampler

            self._sampler = ChildrenSampler()
            self._sampler.start()

    def end(self) -> tuple[bool | None, ChildrenMemory | None]:
        """Return whether any child started or ended, and what all held where they were sampled."""
        had_children = process_census().had_children(self._start)
        sampler, self._sampler = self._sampler, None
        sampled = None if sampler is None else sampler.stop().beside(had_children=had_children)
        return had_children, sampled
