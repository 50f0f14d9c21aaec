"""PeakSampler over scripted readers."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable

import pytest

from pytest_imu.core.memory.sampler import PeakSampler

A_MINUTE_S = 60.0
AT_ONCE_S = 0.0001
LIMIT_S = 30.0
"""How long a test waits for a thread that samples at once; it fails when that is not enough."""


class Script:
    """A reader that gives these readings, raising those that are errors, and then the last of them."""

    def __init__(self, readings: Iterable[int | Exception]) -> None:
        self.left = list(readings)
        self.taken = 0
        self.threads: list[str] = []
        self.all_taken = threading.Event()

    def __call__(self) -> int:
        """Return or raise the next reading."""
        self.taken += 1
        self.threads.append(threading.current_thread().name)
        reading = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if self.taken >= 5:
            self.all_taken.set()
        if isinstance(reading, Exception):
            raise reading
        return reading


def sampled(script: Script) -> PeakSampler:
    """Return a sampler that has taken at least the script's first five readings, ended."""
    sampler = PeakSampler(script, interval_s=AT_ONCE_S)
    sampler.start()
    assert script.all_taken.wait(timeout=LIMIT_S)
    sampler.stop()
    return sampler


@pytest.mark.parametrize(("first", "last", "expected"), [(100, 300, 300), (300, 100, 300), (0, 0, 0)])
def test_first_and_last_reading_are_taken(first: int, last: int, expected: int) -> None:
    """A window that ends before the first sample has two readings, both by the caller's thread."""
    script = Script([first, last])
    sampler = PeakSampler(script, interval_s=A_MINUTE_S)
    sampler.start()
    assert expected == sampler.stop()
    assert [threading.current_thread().name] * 2 == script.threads


def test_highest_of_the_samples_is_kept() -> None:
    """What only the thread has seen is the peak, wherever among the samples it stands."""
    script = Script([100, 200, 500, 300, 100])
    assert 500 == sampled(script).peak_bytes
    assert "imu-sampler" in script.threads


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([OSError("first"), 200, OSError("third"), 500, 100], 500),
        ([300, OSError("gone"), OSError("gone"), ValueError("odd"), OSError("gone")], 300),
        ([OSError("a"), OSError("b"), OSError("c"), OSError("d"), 100], 100),
    ],
)
def test_readings_that_raise_are_skipped(readings: list[int | Exception], expected: int) -> None:
    """A reader that sometimes raises ends neither the thread nor the caller, and its error is kept."""
    sampler = sampled(Script(readings))
    assert expected == sampler.peak_bytes
    assert isinstance(sampler.error, OSError | ValueError)


def test_reader_that_always_raises_gives_none() -> None:
    """Where no reading succeeded there is no peak, and never a 0."""
    error = OSError("no such process")
    sampler = sampled(Script([error]))
    assert None is sampler.peak_bytes
    assert error is sampler.error


def test_nothing_is_read_after_the_end() -> None:
    """When stop() has returned the thread is gone, and no further reading is taken."""
    script = Script([100])
    sampler = PeakSampler(script, interval_s=AT_ONCE_S)
    sampler.start()
    (thread,) = (one for one in threading.enumerate() if one.name == "imu-sampler")
    assert script.all_taken.wait(timeout=LIMIT_S)
    sampler.stop()
    assert not thread.is_alive()
    assert "imu-sampler" != script.threads[-1]


def test_end_waits_for_no_interval() -> None:
    """stop() returns at once, however long the interval; it would be a minute here."""
    sampler = PeakSampler(lambda: 100, interval_s=A_MINUTE_S)
    sampler.start()
    ended = threading.Event()

    def stop() -> None:
        sampler.stop()
        ended.set()

    threading.Thread(target=stop, daemon=True).start()
    assert ended.wait(timeout=LIMIT_S)


def test_sampler_that_was_not_started_reads_once() -> None:
    """stop() without start() takes the last reading and ends no thread."""
    assert 100 == PeakSampler(lambda: 100).stop()


def test_thread_ends_with_the_interpreter(run_python: Callable[..., object]) -> None:
    """A window that is never closed does not keep the process from ending."""
    script = """
from pytest_imu.core.memory.sampler import PeakSampler
PeakSampler(lambda: 100).start()
print(1)
"""
    assert 1 == run_python(script)


def test_samplers_are_independent() -> None:
    """Samplers whose times overlap each keep their own peak."""
    counter = itertools.count(1)
    first = PeakSampler(lambda: next(counter), interval_s=A_MINUTE_S)
    second = PeakSampler(lambda: next(counter), interval_s=A_MINUTE_S)
    first.start()
    second.start()
    assert 3 == first.stop()
    assert 4 == second.stop()
