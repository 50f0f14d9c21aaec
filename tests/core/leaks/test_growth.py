"""The rule of growth a call, as a table: what is a leak, and the words for it."""

from __future__ import annotations

import pytest

from pytest_imu.core.budgets import LeakBudget, Verdict
from pytest_imu.core.checks import Terms, check
from pytest_imu.core.leaks.growth import NO_C_BYTES, NO_SIZES, Counts, Growth
from pytest_imu.core.model import Measurement

CALL = Measurement(before_bytes=1, after_bytes=1, rss_peak_bytes=1, duration_ns=1, source="kernel")
NOTHING = (0,) * 8


def growth(
    c_bytes: tuple[int, ...] | None = NOTHING,
    *,
    blocks: tuple[int, ...] | None = None,
    block_bytes: tuple[int, ...] | None = NOTHING,
    descriptors: tuple[int, ...] | None = None,
    threads: tuple[int, ...] | None = None,
) -> Growth:
    """Return a growth with these changes."""
    calls = len(c_bytes or blocks or NOTHING)
    none = (0,) * calls
    return Growth(
        warmup=3,
        blocks=blocks or none,
        block_bytes=none if block_bytes == NOTHING else block_bytes,
        c_bytes=c_bytes,
        descriptors=descriptors or none,
        threads=threads or none,
    )


@pytest.mark.parametrize(
    ("changes", "limit_kib", "calls"),
    [
        ((0,) * 8, 0, 0),
        ((5024,) * 8, 1, 8),
        ((5024,) * 8, 4.90625, 0),  # exactly the limit
        ((16,) * 8, 0, 8),
        ((16,) * 8, 1, 0),
        ((0, 0, 0, 5024, 0, 0, 0, 5024), 1, 2),  # every fourth call
        ((5024, 0, 0, 0, 5024, 0, 0, 0), 1, 2),
        ((0, 0, 0, 5024, 0, 0, 0, 5024), 2, 0),  # 1.2 KiB a call
        ((40_000, 0, 0, 0, 0, 0, 0, 0), 1, 0),  # a cache that fills once
        ((0, 0, 0, 0, 0, 0, 0, 40_000), 1, 0),
        ((0, 0, 0, 40_000, 0, 0, 0, -40_000), 1, 0),
        ((1072, -1072) * 4, 0, 0),  # a thread's, which come and go
        ((-1072, 1072) * 4, 0, 0),
        ((9000, -8000) * 4, 0.1, 4),  # it breathes, and rises with it
        ((-5024,) * 8, 0, 0),
        ((5024, 5024), 1, 2),
        ((5024, 0), 1, 0),
        ((5024, 0, 5024), 1, 2),
    ],
)
def test_rule(changes: tuple[int, ...], limit_kib: float, calls: int) -> None:
    """A leak rises in both halves of the calls, and by more than the limit a call."""
    assert calls == growth(changes).grew(limit_kib)


@pytest.mark.parametrize(
    ("changes", "calls"),
    [
        ((0, 0, 0, 5000) * 4, 4),
        (
            (0, 5000, 0, 0, 0, 0, 5000, 0) + (0,) * 8,
            0,
        ),  # two caches, one in each half of the first series
        ((0, 5000, 0, 0, 0, 0, 5000, 0, 0, 5000, 0, 0, 0, 0, 0, 0), 0),
        ((0, 1072, 0, 0, -1072, 1072, 0, 0, 0, -1072, 1072, 0, 0, 0, 0, 1072), 0),  # threads that end
        ((1,) * 16, 16),
        ((1008,) * 7 + (0,) * 9, 0),  # freed blocks that C keeps
        ((9000, -9000, 9000, -9000, 9100, -9000, 9000, -9000) * 2, 0),  # it breathes, and rises twice
    ],
)
def test_rule_of_the_second_series(changes: tuple[int, ...], calls: int) -> None:
    """With as many calls more it has to rise in each quarter."""
    assert calls == growth(changes).grew(0, parts=4)


def test_one_object_a_call_is_a_leak_whatever_c_frees_meanwhile() -> None:
    """C's allocator may join two free blocks, and part them again, by itself."""
    found = growth((-32, 32, *(0,) * 6), blocks=(1,) * 8, block_bytes=(16,) * 8)
    assert 8 == found.grew(0)


def test_descriptors_and_threads_have_no_size() -> None:
    """They are a leak whatever the limit is."""
    assert 8 == growth(descriptors=(1,) * 8).grew(1000)
    assert 8 == growth(threads=(1,) * 8).grew(1000)
    assert 0 == growth(threads=(1, -1) * 4).grew(0)


@pytest.mark.parametrize(
    ("found", "limit_kib", "line"),
    [
        (
            growth((5024,) * 8, blocks=(2, 3, *(2,) * 6), block_bytes=(64, 128, *(64,) * 6)),
            1,
            "grows by 4.9 KiB and 2 blocks a call, over LIMIT: 8 of 8 calls after 3 warm-ups",
        ),
        (
            growth(blocks=(12,) * 8, block_bytes=(1152,) * 8),
            1,
            "grows by 12 blocks (1.1 KiB) a call, over LIMIT: 8 of 8 calls after 3 warm-ups",
        ),
        (
            growth(blocks=(1,) * 8, block_bytes=(16,) * 8),
            0,
            "grows by 1 block a call, over LIMIT: 8 of 8 calls after 3 warm-ups",
        ),
        (
            growth((0, 0, 0, 5024) * 2),
            1,
            "grows by 1.2 KiB a call, over LIMIT: 2 of 8 calls after 3 warm-ups",
        ),
        (
            growth((0, 32, 0, 32, 32, 0, 64, 0), blocks=(1,) * 8, block_bytes=(16,) * 8),
            0,
            "grows by 1 block a call, over LIMIT: 8 of 8 calls after 3 warm-ups",
        ),
        (
            growth((48, 48), descriptors=(1, 1), threads=(2, 2)),
            1,
            "grows by 48 bytes, 1 descriptor and 2 threads a call: 2 of 2 calls after 3 warm-ups",
        ),
        (
            growth(None, blocks=(20,) * 8, block_bytes=(2048,) * 8),
            1,
            "grows by 20 blocks (2.0 KiB) a call, over LIMIT: 8 of 8 calls after 3 warm-ups; "
            + NO_C_BYTES,
        ),
        (
            growth(None, blocks=(20,) * 8, block_bytes=None),
            1,
            f"grows by 20 blocks a call, over LIMIT: 8 of 8 calls after 3 warm-ups; {NO_SIZES}",
        ),
    ],
)
def test_line(found: Growth, limit_kib: float, line: str) -> None:
    """The line says by how much, in how many calls, and what is not known."""
    assert line == found.line(limit_kib, "LIMIT")


def test_changes_are_those_between_counts() -> None:
    """What is unknown at one moment is unknown in all."""
    counts = [Counts(5, 100, -1, 3, 1), Counts(7, 190, -1, 3, 2), Counts(7, 180, 50, 4, 2)]
    found = Growth.of(counts, warmup=1)
    expected = Growth(
        warmup=1,
        blocks=(2, 0),
        block_bytes=(90, -10),
        c_bytes=None,
        descriptors=(0, 1),
        threads=(1, 0),
    )
    assert expected == found
    assert found == Growth.from_dict(found.to_dict())
    assert 40 == found.bytes_a_call


@pytest.mark.parametrize(
    ("budget", "found", "outcome", "reason"),
    [
        (LeakBudget(limit_kib=1), growth((16,) * 8), "kept", None),
        (
            LeakBudget(limit_kib=1),
            growth((5024,) * 8),
            "broken",
            "grows by 4.9 KiB a call, over max_growth_kib(1): 8 of 8 calls after 3 warm-ups",
        ),
        (
            LeakBudget(limit_kib=0, origin="--imu-leaks"),
            growth((5024,) * 8),
            "broken",
            "grows by 4.9 KiB a call: 8 of 8 calls after 3 warm-ups",
        ),
        (LeakBudget(limit_kib=0), growth((0, 5024, 0, 0, 0, 0, 5024, *(0,) * 9)), "kept", None),
        (LeakBudget(limit_kib=0), "it is a generator", "unchecked", "it is a generator"),
    ],
)
def test_verdict(budget: LeakBudget, found: Growth | str, outcome: str, reason: str | None) -> None:
    """A budget is held against what the calls grew, and comes back from its plain form."""
    verdict = check(budget, {"call": CALL}, Terms(growth=found))
    assert (outcome, reason) == (verdict.outcome, verdict.reason)
    assert verdict == Verdict.from_dict(verdict.to_dict())
    assert "the test's call did not run" == check(budget, {}).reason
