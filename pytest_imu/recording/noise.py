"""The noise floor: what windows around nothing measure, in this very process."""

from __future__ import annotations

import math
from collections.abc import Callable

from pytest_imu.core.meter import Meter
from pytest_imu.core.units import MIB

FIRST_WINDOWS = 16
"""How many are taken to begin with, behind one that is not counted: it imports what windows need."""
TENTHS = 10


class NoiseFloor:
    """Opens empty windows now and then, and keeps the largest number that any of them measured."""

    def __init__(self, meter: Callable[[], Meter]) -> None:
        self._meter = meter
        self._spread_bytes: int | None = None

    def begin(self) -> None:
        """Take the first windows: 16 cost half a millisecond."""
        with self._meter():
            pass
        for _ in range(FIRST_WINDOWS):
            self.sample()

    def sample(self) -> None:
        """Take one window more: what the tests have started, a thread say, may disturb it too."""
        with self._meter() as meter:
            pass
        delta_bytes, peak_bytes = meter.delta_bytes, meter.peak_bytes
        if delta_bytes is not None and peak_bytes is not None:
            self._spread_bytes = max(self._spread_bytes or 0, abs(delta_bytes), peak_bytes)

    @property
    def floor_bytes(self) -> int | None:
        """How far a number may be off by noise: the spread, rounded up to a tenth of a MiB.

        None where no window could be read. Never 0: what is printed to a tenth is known to a tenth.
        """
        if self._spread_bytes is None:
            return None
        return math.ceil(max(1, math.ceil(self._spread_bytes * TENTHS / MIB)) * MIB / TENTHS)
