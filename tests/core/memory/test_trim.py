"""Trimming: over a scripted heap, and over glibc's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_imu.core.memory.allowance import Allowance
from pytest_imu.core.memory.trim import Trimmer, find_malloc_trim
from pytest_imu.core.units import MIB

MS = 1_000_000


@dataclass
class FakeHeap:
    """A heap whose trims take this long and give this much back, and the clock that they move."""

    cost_ns: int
    gives_back_mib: int = 0
    grows_mib: int = 1
    """How far the RSS moves between two windows."""
    now_ns: int = 0
    rss_bytes: int = 10_000 * MIB
    trims: int = 0

    def malloc_trim(self) -> None:
        """Trim."""
        self.trims += 1
        self.now_ns += self.cost_ns
        self.rss_bytes -= self.gives_back_mib * MIB

    def read_rss(self) -> int:
        """Return the RSS."""
        return self.rss_bytes

    def clock_ns(self) -> int:
        """Return the time."""
        return self.now_ns

    def trimmer(self, cpu_ns: Callable[[], int] | None = None) -> Trimmer:
        """Return a trimmer of this heap."""
        allowance = Allowance(clock_ns=self.clock_ns, cpu_ns=cpu_ns or self.clock_ns)
        return Trimmer(malloc_trim=self.malloc_trim, allowance=allowance)


def trimmed(heap: FakeHeap, times: int, *, between_ns: int = 0) -> int:
    """Return how many of so many trims were carried out."""
    trimmer = heap.trimmer()
    for _ in range(times):
        trimmer.settled_rss(heap.read_rss)
        heap.now_ns += between_ns
        heap.rss_bytes += heap.grows_mib * MIB
    return heap.trims


def test_settled_rss_is_that_after_the_trim() -> None:
    """What is returned is what stands once freed memory was given back."""
    heap = FakeHeap(0, gives_back_mib=30)
    assert (10_000 - 30) * MIB == heap.trimmer().settled_rss(heap.read_rss)


def test_rss_that_has_not_moved_is_not_trimmed() -> None:
    """Where the RSS stands where the last trim left it there is nothing to give back."""
    heap = FakeHeap(0, grows_mib=0)
    assert 1 == trimmed(heap, 100)
    heap.rss_bytes += 4096
    assert 2 == trimmed(heap, 100)


def test_what_is_left_out_is_no_reason() -> None:
    """A move that freed nothing is taken in."""
    heap = FakeHeap(0, grows_mib=0)
    trimmer = heap.trimmer()
    trimmer.leave_out(MIB)  # before the first trim nothing is known yet
    trimmer.settled_rss(heap.read_rss)
    heap.rss_bytes += MIB
    trimmer.leave_out(MIB)
    trimmer.settled_rss(heap.read_rss)
    assert 1 == heap.trims


@pytest.mark.parametrize(
    ("rss_moves_kib", "freed_kib", "expected"),
    [
        ([0, 4, 8], [0, 0, 0], 1),  # what small steps free is not worth a trim
        ([64, 0, 0], [0, 0, 0], 2),
        ([-64, 0, 0], [0, 0, 0], 2),
        ([0, 0, 0], [20_000, 0, 0], 2),  # freed in the heap's midst, where no page goes by itself
        ([0, 0, 0], [32, 32, 0], 2),  # in two steps
        ([0, 0, 0], [-20_000, 20_000, 0], 2),  # what was free is used again, and freed again
    ],
)
@pytest.mark.parametrize("times", [1, 8])
def test_what_was_freed_is_asked_for(
    rss_moves_kib: list[int], freed_kib: list[int], expected: int, times: int
) -> None:
    """Where the C library tells how much is free, a trim needs 64 KiB more, or an RSS as far away.

    Or so many times as much, where less is worth none.
    """
    heap, free_kib = FakeHeap(0), 300_000
    trimmer = Trimmer(
        malloc_trim=heap.malloc_trim,
        allowance=Allowance(clock_ns=heap.clock_ns, cpu_ns=heap.clock_ns),
        free_blocks=lambda: (free_kib * 1024, 1),
        worth_bytes=times * 64 * 1024,
    )
    trimmer.settled_rss(heap.read_rss)
    for rss_kib, freed in zip(rss_moves_kib, freed_kib, strict=True):
        heap.rss_bytes += rss_kib * times * 1024
        free_kib += freed * times
        trimmer.settled_rss(heap.read_rss)
    assert expected == heap.trims


def test_asking_is_charged() -> None:
    """Over many holes it takes as long as a trim, and ends as one does: 50 ms and 2 % of the run."""
    heap, asked = FakeHeap(0, grows_mib=0), 0

    def free_blocks() -> tuple[int, int]:
        nonlocal asked
        asked += 1
        heap.now_ns += 5 * MS
        return 0, 50_000

    allowance = Allowance(clock_ns=heap.clock_ns, cpu_ns=heap.clock_ns)
    trimmer = Trimmer(malloc_trim=heap.malloc_trim, allowance=allowance, free_blocks=free_blocks)
    for _ in range(100):
        trimmer.settled_rss(heap.read_rss)
    assert 11 == asked


@pytest.mark.needs_malloc_trim
def test_glibc_tells_what_is_free(run_python: Callable[..., Any]) -> None:
    """Small blocks that are freed are free bytes, whether or not the RSS moves."""
    script = """
import json
from pytest_imu.core.memory.trim import find_free_blocks
free_blocks = find_free_blocks()
blocks = [bytes(1000) for _ in range(20_000)]
pin = bytes(1000)
before = free_blocks() if free_blocks else None
del blocks
after = free_blocks() if free_blocks else None
print(json.dumps(None if after is None else [after[0] - before[0], after[1] < before[1] + 100]))
"""
    found = run_python(script)
    if found is None:
        pytest.skip("this glibc is older than 2.33, and has no mallinfo2")
    freed, is_one_hole = found
    assert is_one_hole
    assert 20_000 * 1000 <= freed <= 20_000 * 1100


def test_verdict_is_worth_a_trim() -> None:
    """With a verdict at stake it is trimmed all the same: what was freed need not show in the RSS."""
    heap = FakeHeap(100 * MS)
    trimmer = heap.trimmer()
    for _ in range(30):
        trimmer.trimmed_rss(heap.read_rss)
    assert 30 == heap.trims


@pytest.mark.parametrize("cost_ns", [0, 2_000, 100_000])
def test_cheap_trims_always_run(cost_ns: int) -> None:
    """What costs up to 0.1 ms runs before every window."""
    assert 10_000 == trimmed(FakeHeap(cost_ns), 10_000)


@pytest.mark.parametrize(("cost_ms", "gives_back_mib"), [(30, 200), (50, 200), (1, 4), (250, 1000)])
def test_dear_trims_that_pay_go_on(cost_ms: int, gives_back_mib: int) -> None:
    """A trim is paid for by what it gives back, at a quarter of a millisecond a MiB."""
    assert 1000 == trimmed(FakeHeap(cost_ms * MS, gives_back_mib), 1000)


def test_dear_trims_for_nothing_are_stopped() -> None:
    """Trims that bring nothing are stopped once they took over 50 ms and 2 % of the run.

    Six of 10 ms make 60 ms, and 60 ms of run allow 51.2.
    """
    assert 6 == trimmed(FakeHeap(10 * MS), 1000)


def test_part_that_pays_is_taken_off() -> None:
    """A trim that pays for half of its time may run twice as often."""
    assert 11 == trimmed(FakeHeap(10 * MS, gives_back_mib=20), 1000)


def test_stopped_trims_are_allowed_again() -> None:
    """When the run has gone on so long that they are under 2 % of it again, the next one runs."""
    heap = FakeHeap(10 * MS)
    trimmer = heap.trimmer()

    def trims_after_one_more() -> int:
        heap.rss_bytes += MIB
        trimmer.settled_rss(heap.read_rss)
        return heap.trims

    assert [*range(1, 7), 6, 6] == [trims_after_one_more() for _ in range(8)]
    heap.now_ns = 500 * MS - 1  # 60 ms are over 50 ms + 2 % of this
    assert 6 == trims_after_one_more()
    heap.now_ns = 500 * MS
    assert 7 == trims_after_one_more()
    assert 7 == trims_after_one_more()


def test_unpaid_trims_stay_under_their_share() -> None:
    """Over a run of 20 s, trims for nothing may take 2 % and the 50 ms that are always theirs."""
    heap = FakeHeap(10 * MS)
    unpaid_ns = trimmed(heap, 10_000, between_ns=2 * MS) * heap.cost_ns
    allowed_ns = 50 * MS + 0.02 * heap.now_ns
    assert allowed_ns - heap.cost_ns < unpaid_ns <= allowed_ns + heap.cost_ns


def test_memory_that_grows_meanwhile_is_no_debt() -> None:
    """A trim during which another thread allocates costs its time and no more."""
    heap = FakeHeap(MS, gives_back_mib=-100)
    assert 52 == trimmed(heap, 1000)


def test_busy_machine_costs_nothing() -> None:
    """What other processes ran meanwhile is in the clock's time, and not charged to the trims."""
    heap = FakeHeap(100 * MS)
    trimmer = heap.trimmer(cpu_ns=lambda: 0)
    for _ in range(1000):
        trimmer.trimmed_rss(heap.read_rss)
    assert 1000 == heap.trims


def test_reader_that_raises_is_heard() -> None:
    """What the reader raises goes to the window that asked for the trim."""

    def refuse() -> int:
        raise PermissionError

    with pytest.raises(PermissionError):
        FakeHeap(MS).trimmer().settled_rss(refuse)


def test_without_malloc_trim_nothing_is_done() -> None:
    """Where the C library cannot trim, the RSS is read once and no clock is."""

    def no_clock() -> int:
        pytest.fail("the clock was read")

    heap = FakeHeap(MS)
    trimmer = Trimmer(malloc_trim=None, allowance=Allowance(clock_ns=no_clock, cpu_ns=no_clock))
    assert heap.rss_bytes == trimmer.trimmed_rss(heap.read_rss)
    assert not trimmer.available
    assert heap.trimmer().available


@pytest.mark.needs_malloc_trim
def test_glibc_is_found() -> None:
    """Where there is glibc, its malloc_trim is found and can be called."""
    malloc_trim = find_malloc_trim()
    assert malloc_trim is not None
    assert malloc_trim() in {0, 1}


@pytest.mark.needs_malloc_trim
@pytest.mark.needs_kernel_peaks
def test_freed_memory_is_measured_again(run_python: Callable[..., Any]) -> None:
    """Small blocks that glibc kept when they were freed cost the next window what they cost the first.

    Without trimming, the next window reuses them and hardly measures anything.
    """
    size_bytes, first, again, untrimmed = run_python(SMALL_BLOCKS)
    assert 200 * MIB < size_bytes
    assert pytest.approx(size_bytes, abs=MIB // 2) == first
    assert pytest.approx(size_bytes, abs=MIB // 2) == again
    assert untrimmed < 5 * MIB


SMALL_BLOCKS = """
import json, sys
from pytest_imu import measure

block_bytes = -(-(sys.getsizeof(bytes(1000)) + 8) // 16) * 16  # as glibc rounds it up
count = 200 * 2**20 // 1040
blocks = [None] * count


def fill():
    for number in range(count):
        blocks[number] = bytes(1000)


def free():
    pins.append(bytes(1000))  # on top of the heap, so that glibc can give nothing back by itself
    for number in range(count):
        blocks[number] = None


pins, peaks = [], []
for trim in (True, True, False):
    with measure(trim=trim) as m:
        fill()
    peaks.append(m.peak_bytes)
    free()
print(json.dumps([count * block_bytes, *peaks]))
"""
