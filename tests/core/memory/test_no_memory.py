"""Windows that have no sizes, on purpose: under valgrind, whose own memory would be in them."""

from __future__ import annotations

import pytest

from pytest_imu.core.memory.no_memory import SIMULATED, NoPeak
from pytest_imu.core.memory.source import KernelPeak, choose_peak_source
from pytest_imu.core.memory.trim import Trimmer
from pytest_imu.core.meter import Meter
from pytest_imu.recording.noise import NoiseFloor


def refuse() -> int:
    """Stand for everything that must not be called."""
    pytest.fail("memory was read, or given back")


@pytest.mark.parametrize("tool", ["callgrind", "memcheck"])
def test_no_memory_is_measured_under_valgrind(tool: str) -> None:
    """Under any of valgrind's tools the source is none, and nothing of the kernel's is tried."""

    def kernel() -> KernelPeak:
        pytest.fail("the kernel's mark was tried")

    source = choose_peak_source("linux", kernel=kernel, tool=lambda: tool)
    assert ("none (simulated run)", None) == (source.label, source.resolution_bytes)


def test_window_without_sizes() -> None:
    """Its measurement has a time, a reason, a tracer, and no number; nothing is read or trimmed."""
    trimmer = Trimmer(malloc_trim=refuse, rss_bytes=refuse)
    window = NoPeak(SIMULATED).open(trimmer)
    assert (None, (None, None)) == (window.before_bytes, window.peek())
    measured = window.close(17, reusable_bytes=5, tracer="coverage")
    assert (17, "none", SIMULATED) == (measured.duration_ns, measured.source, measured.reason)
    sizes = (measured.before_bytes, measured.after_bytes, measured.rss_peak_bytes)
    assert (None, None, None) == sizes
    assert (None, None) == (measured.peak_bytes, measured.delta_bytes)
    assert (None, "coverage") == (measured.reusable_bytes, measured.tracer)


def test_noise_of_nothing_is_not_known() -> None:
    """Windows without sizes have no noise floor."""
    noise = NoiseFloor(lambda: Meter(source=NoPeak(SIMULATED)))
    noise.begin()
    assert noise.floor_bytes is None
