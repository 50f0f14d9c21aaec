"""The noise floor: the furthest from nothing that windows around nothing measured."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pytest_imu.core.memory.platforms import high_water_batch_bytes
from pytest_imu.core.memory.window import Settle, Sizes
from pytest_imu.core.meter import Meter
from pytest_imu.core.units import MIB
from pytest_imu.recording.noise import FIRST_WINDOWS, NoiseFloor

START = 100 * MIB


@dataclass
class Scripted:
    """A source of windows that measure what they are told, one after the other; None breaks."""

    results: Iterator[tuple[int, int] | None]
    label: str = "scripted"
    resolution_bytes: int | None = None
    before_bytes: int = START

    def open(self, _settle: Settle | None = None) -> Scripted:
        """Begin a window."""
        return self

    def close(self, _window: Scripted, _settle: Settle | None = None) -> Sizes:
        """End it, with the next result."""
        result = next(self.results)
        if result is None:
            raise OSError("no /proc")
        delta_bytes, peak_bytes = result
        return Sizes(START, START + delta_bytes, START + peak_bytes, "kernel")

    def peek(self, _window: Scripted) -> tuple[int, int]:
        """Return nothing of interest."""
        return START, START


def floor_after(*results: tuple[int, int] | None) -> int | None:
    """Return the floor after a window that does not count, these, and others that measure nothing."""
    source = Scripted(iter([(90 * MIB, 90 * MIB), *results, *[(0, 0)] * FIRST_WINDOWS]))
    floor = NoiseFloor(lambda: Meter(trim=False, source=source))
    floor.begin()
    return floor.floor_bytes


@pytest.mark.parametrize(
    ("result", "expected_mib"),
    [
        ((0, 0), 0.1),
        ((1, 1), 0.1),
        ((4096, 8192), 0.1),
        ((0, MIB // 10 + 1), 0.2),
        ((-MIB // 2, 0), 0.5),
        ((0, 3 * MIB), 3.0),
    ],
)
def test_spread_is_rounded_up(result: tuple[int, int], expected_mib: float) -> None:
    """The largest peak or delta, of either sign, counts, rounded up to a tenth of a MiB and never 0."""
    floor_bytes = floor_after((0, 0), result)
    assert floor_bytes is not None
    assert expected_mib == round(floor_bytes / MIB, 4)


def test_first_window_does_not_count() -> None:
    """The first one imports what windows need, so its 90 MiB are no noise."""
    assert floor_after() == floor_after((0, 0))


def test_windows_that_cannot_be_read() -> None:
    """Where nothing could be read there is no floor, and where something could, it counts."""
    assert None is floor_after(*[None] * FIRST_WINDOWS)
    assert floor_after((0, 0)) == floor_after(*[None] * (FIRST_WINDOWS - 1), (0, 0))


def test_later_windows_raise_it() -> None:
    """A window taken later counts as much as the first ones."""
    source = Scripted(iter([*[(0, 0)] * (FIRST_WINDOWS + 1), (0, 2 * MIB), (0, 0)]))
    floor = NoiseFloor(lambda: Meter(trim=False, source=source))
    floor.begin()
    floor.sample()
    floor.sample()
    assert floor.floor_bytes == 2 * MIB


@pytest.mark.needs_kernel_peaks
def test_a_quiet_process_has_little(run_python: object) -> None:
    """In a fresh process the floor is a tenth of a MiB, the least that is said; or what one CPU holds
    back, where the process was moved to another one meanwhile.
    """
    script = """
from pytest_imu.core.meter import Meter
from pytest_imu.recording.noise import NoiseFloor
floor = NoiseFloor(Meter)
floor.begin()
print(floor.floor_bytes)
"""
    assert callable(run_python)
    moved_bytes = high_water_batch_bytes() + 2 * mmap.PAGESIZE
    floors = {math.ceil(size * 10 / MIB) for size in (1, moved_bytes)}
    assert round(run_python(script) * 10 / MIB) in floors
