"""Known answers for several windows at once: each has the peak that lies between its own two ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from pytest_imu import measure
from pytest_imu.core.meter import Meter

pytestmark = [
    pytest.mark.needs_kernel_peaks,
    pytest.mark.needs_fork,
    pytest.mark.usefixtures("steady_memory"),
]

MIB = 2**20
BOUND_MIB = 0.5

# Every size is above 32 MiB: glibc never makes that on a heap, which may hold room from before.
NESTED = (
    ("open", "outer"),
    ("spike", 60),
    ("open", "inner"),
    ("spike", 40),
    ("close", "inner"),
    ("spike", 50),
    ("close", "outer"),
)
INNER_IS_HIGHEST = (
    ("open", "outer"),
    ("hold", 40),
    ("open", "middle"),
    ("hold", 50),
    ("open", "inner"),
    ("spike", 60),
    ("close", "inner"),
    ("drop", 50),
    ("close", "middle"),
    ("drop", 40),
    ("close", "outer"),
)
OVERLAPPING = (
    ("open", "first"),
    ("hold", 40),
    ("open", "second"),
    ("spike", 70),
    ("close", "first"),
    ("drop", 40),
    ("open", "third"),
    ("spike", 130),
    ("close", "second"),
    ("hold", 50),
    ("close", "third"),
    ("drop", 50),
)
SCHEDULES = [
    (NESTED, {"outer": (60, 0), "inner": (40, 0)}),
    (INNER_IS_HIGHEST, {"outer": (150, 0), "middle": (110, 0), "inner": (60, 0)}),
    (OVERLAPPING, {"first": (110, 40), "second": (90, -40), "third": (130, 50)}),
]

Numbers = Mapping[str, tuple[float, float]]


def within(expected: Numbers) -> Any:
    """Return what equals peaks and deltas in bytes that are so many MiB, within the bound."""
    return {
        name: [pytest.approx(mib * MIB, abs=BOUND_MIB * MIB) for mib in pair]
        for name, pair in expected.items()
    }


def numbers(meters: Mapping[str, Meter]) -> dict[str, tuple[int | None, int | None]]:
    """Return the peak and the delta of each meter."""
    assert {"kernel"} == {meter.source for meter in meters.values()}
    return {name: (meter.peak_bytes, meter.delta_bytes) for name, meter in meters.items()}


def play(steps: Sequence[tuple[str, Any]]) -> object:
    """Open and close windows, and touch memory, in this order."""
    held: dict[int, bytes] = {}
    meters: dict[str, Meter] = {}
    for action, what in steps:
        if action == "open":
            meters[what] = measure().__enter__()
        elif action == "close":
            meters[what].__exit__(None, None, None)
        elif action == "hold":
            held[what] = b"x" * (what * MIB)
        elif action == "drop":
            del held[what]
        else:
            assert "spike" == action
            len(b"x" * (what * MIB))
    return numbers(meters)


@pytest.mark.parametrize(
    ("steps", "expected"), SCHEDULES, ids=["nested", "inner highest", "overlapping"]
)
def test_schedule(
    steps: Sequence[tuple[str, Any]],
    expected: Numbers,
    in_fork: Callable[[Callable[[], object]], Any],
) -> None:
    """Windows that nest or overlap do not take each other's peaks."""
    assert within(expected) == in_fork(lambda: play(steps))


def test_windows_of_two_threads(in_fork: Callable[[Callable[[], object]], Any]) -> None:
    """Two threads measure at once: each sees the memory of both, while its own window is open."""

    def measured() -> object:
        both, meters = threading.Barrier(2), {"early": measure(), "late": measure()}

        def early() -> None:
            with meters["early"]:
                held = b"x" * (40 * MIB)
                both.wait()  # the late one opens on top of it
                both.wait()
                del held
            both.wait()

        def late() -> None:
            both.wait()
            with meters["late"]:
                len(b"x" * (60 * MIB))
                both.wait()
                both.wait()  # the early one has closed
                len(b"x" * (110 * MIB))

        threads = [threading.Thread(target=work) for work in (early, late)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return numbers(meters)

    assert within({"early": (100, 0), "late": (70, -40)}) == in_fork(measured)


def test_windows_of_two_tasks(in_fork: Callable[[Callable[[], object]], Any]) -> None:
    """Two asyncio tasks measure at once: each sees the memory of both, while its own window is open."""

    def measured() -> object:
        meters = {"early": measure(), "late": measure()}

        async def early() -> None:
            with meters["early"]:
                held = b"x" * (40 * MIB)
                await asyncio.sleep(0)
                del held

        async def late() -> None:
            with meters["late"]:
                len(b"x" * (60 * MIB))
                await asyncio.sleep(0)
                len(b"x" * (110 * MIB))

        async def main() -> None:
            await asyncio.gather(early(), late())

        asyncio.run(main())
        return numbers(meters)

    assert within({"early": (100, 0), "late": (70, -40)}) == in_fork(measured)
