"""How much processor time measuring may spend on what only helps."""

from __future__ import annotations

import functools
from collections.abc import Callable

from pytest_imu.core.system import System

MAX_SHARE = 0.02
"""How much of the time since the first look may be spent."""
GRACE_NS = 50_000_000
"""What may be spent in any case, so that the first tries of a run are always made."""


class Allowance:
    """Processor time for trims that bring nothing back, and for asking the allocators.

    It is charged the thread's own time: on a busy machine others run meanwhile, which is no cost.
    """

    def __init__(
        self,
        *,
        max_share: float = MAX_SHARE,
        clock_ns: Callable[[], int] = System.perf_counter_ns,
        cpu_ns: Callable[[], int] = System.thread_time_ns,
    ) -> None:
        self.cpu_ns = cpu_ns
        self._max_share = max_share
        self._clock_ns = clock_ns
        self._first_ns: int | None = None
        self._spent_ns = 0

    @property
    def is_left(self) -> bool:
        """Whether more may be spent now."""
        now_ns = self._clock_ns()
        if self._first_ns is None:
            self._first_ns = now_ns
        return self._spent_ns <= GRACE_NS + self._max_share * (now_ns - self._first_ns)

    def charge(self, cost_ns: int) -> None:
        """Take in what was spent."""
        self._spent_ns += max(0, cost_ns)


@functools.cache
def process_allowance() -> Allowance:
    """Return this process's one allowance: its share of the run's time is counted once."""
    return Allowance()
