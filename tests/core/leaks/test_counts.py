"""Counting what stands: exact where one thing more is kept in each call."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pytest_imu.core.leaks.counts import (
    UNKNOWN,
    growth_of,
    read_block_bytes,
    warm_up,
)
from pytest_imu.core.leaks.growth import Growth
from pytest_imu.core.system import System

CALLS = 8
needs_block_bytes = pytest.mark.skipif(
    read_block_bytes() == UNKNOWN, reason="Python's allocator does not tell the sizes of its blocks here"
)


Counted = Callable[[Callable[[], object]], Growth]


def grown(call: Callable[[], object]) -> dict[str, Any]:
    """Return what calls grow, in its plain form."""
    growth_of(lambda: None, calls=CALLS, warmup=0, limit_kib=1000)  # the first counts fill caches
    for _ in range(CALLS):
        call()
    return growth_of(call, calls=CALLS, warmup=CALLS, limit_kib=1000).to_dict()


@pytest.fixture
def counted(in_fork: Callable[[Callable[[], object]], Any]) -> Counted:
    """Return what calls grow in a forked child: it has no other thread, which may free what it kept."""
    return lambda call: Growth.from_dict(in_fork(lambda: grown(call)))


@pytest.fixture
def counted_quickly(in_fork: Callable[[Callable[[], object]], Any]) -> Counted:
    """Return the same with few full collections: no object of this suite stands aside."""

    def thawed(call: Callable[[], object]) -> dict[str, Any]:
        gc.unfreeze()
        return grown(call)

    return lambda call: Growth.from_dict(in_fork(lambda: thawed(call)))


@pytest.mark.needs_mallinfo2
@needs_block_bytes
@pytest.mark.needs_fork
def test_nothing_is_nothing(counted_quickly: Counted) -> None:
    """Code that keeps nothing grows nothing: no block, no byte. Garbage in a circle is none."""

    def call() -> None:
        circle: list[object] = [bytearray(5000)]
        circle.append(circle)

    found = counted_quickly(call)
    assert (0,) * CALLS == found.blocks == found.block_bytes == found.c_bytes
    assert (0,) * CALLS == found.descriptors == found.threads


@needs_block_bytes
@pytest.mark.needs_fork
def test_an_object_is_a_block(counted: Counted) -> None:
    """One object more is one block more, of 16 bytes."""
    kept: list[object] = [None] * 100
    places = iter(range(100))

    def call() -> None:
        kept[next(places)] = object()

    found = counted(call)
    assert ((1,) * CALLS, (16,) * CALLS) == (found.blocks, found.block_bytes)


@pytest.mark.needs_mallinfo2
@pytest.mark.needs_fork
def test_bytes_of_c_are_exact(counted: Counted) -> None:
    """5,000 bytes are 5,024 for glibc, a block of 8 MiB is a map of its own."""
    kept: list[object] = [None] * 100
    places = iter(range(100))

    def call() -> None:
        kept[next(places)] = bytearray(5000)

    assert (5024,) * CALLS == counted(call).c_bytes
    large = counted(lambda: kept.append(bytearray(2**23)))
    assert large.c_bytes is not None
    assert min(large.c_bytes) >= 2**23


@pytest.mark.needs_fork
@pytest.mark.parametrize(
    ("kept", "expected"), [([], 1), ([None] * CALLS, 1 + CALLS)], ids=["nothing grows", "it grows"]
)
def test_full_collections_are_few(
    in_fork: Callable[[Callable[[], object]], Any], kept: list[object], expected: int
) -> None:
    """All garbage is collected before the first call, and after each once something has grown."""
    grows = bool(kept)
    places = iter(range(len(kept)))
    full: list[int] = [0]

    def call() -> None:
        circle: list[object] = [bytearray(5000)]
        circle.append(circle)
        if grows:
            kept[next(places)] = object()

    def note(phase: str, about: dict[str, int]) -> None:
        full[0] += (
            phase == "stop"
            and about["generation"] == 2
            and gc.get_freeze_count() <= System.ALWAYS_FROZEN
        )

    def collections() -> int:
        warm_up()
        gc.unfreeze()
        gc.disable()
        gc.callbacks.append(note)
        found = growth_of(call, calls=CALLS, warmup=0, limit_kib=1000)
        assert (grows,) * CALLS == found.blocks
        return full[0]

    assert expected == in_fork(collections)


@needs_block_bytes
@pytest.mark.needs_fork
def test_old_garbage_is_none_of_it(counted: Counted) -> None:
    """What only the call before has kept, in a circle, is old by then, and is collected all the same."""
    kept: list[object] = [None]

    def call() -> None:
        circle: list[object] = [bytearray(5000)]
        circle.append(circle)
        kept[0] = circle

    found = counted(call)
    assert (0,) * CALLS == found.blocks == found.block_bytes
    assert 0 == found.grew(0)


@needs_block_bytes
@pytest.mark.needs_fork
def test_growth_beside_what_comes_and_goes(counted_quickly: Counted) -> None:
    """A chain of circles grows with each call, and is dropped in every fourth; 400 bytes stay."""
    chain: list[object] = []
    kept: list[object] = [None] * 100
    places = iter(range(100))

    def call() -> None:
        place = next(places)
        kept[place] = bytes(400)
        if place % 4:
            circle: list[object] = [chain[:], bytes(100)]
            circle.append(circle)
            chain[:] = [circle]
        else:
            chain.clear()

    found = counted_quickly(call)
    assert min(found.blocks) < 0
    assert found.grew(0)


@needs_block_bytes
@pytest.mark.needs_fork
def test_growth_that_begins_late(counted_quickly: Counted) -> None:
    """The calls before it are warm-ups too: what they dropped may not have been collected."""
    kept: list[object] = [None] * 100
    places = iter(range(100))

    def call() -> None:
        place = next(places)
        if place > CALLS:
            kept[place] = object()

    found = counted_quickly(call)
    assert (CALLS + 2, (1,) * CALLS) == (found.warmup, found.blocks)


@needs_block_bytes
@pytest.mark.needs_fork
def test_what_a_finalizer_keeps(counted: Counted) -> None:
    """It is there after the call, and what else the finalizer made is not, from the first call on."""
    kept: list[object] = [None] * 100
    places = iter(range(100))

    class Keeping:
        def __init__(self) -> None:
            self.circle = self

        def __del__(self) -> None:
            kept[next(places)] = object()
            circle: list[object] = []
            circle.append(circle)

    def call() -> None:
        Keeping()

    assert (1,) * CALLS == counted(call).blocks


@pytest.mark.needs_mallinfo2
def test_few_calls_prove_nothing() -> None:
    """Where fewer than 8 seem to leak, 16 decide."""
    kept: list[object] = []
    warm_up()
    found = growth_of(lambda: kept.append(bytearray(5000)), calls=2, warmup=0, limit_kib=0)
    assert (16, 16) == (found.calls, found.grew(0, parts=4))
    assert 2 == growth_of(lambda: None, calls=2, warmup=0, limit_kib=0).calls


@pytest.mark.needs_proc
def test_descriptors_and_threads(counted: Counted) -> None:
    """One more of each is one more."""
    opened: list[int] = []
    end = threading.Event()
    started: list[threading.Thread] = []

    def call() -> None:
        opened.append(os.open(os.devnull, os.O_RDONLY))
        started.append(threading.Thread(target=end.wait))
        started[-1].start()

    found = counted(call)
    assert (1,) * CALLS == found.descriptors == found.threads


def test_what_is_not_known_is_said(run_python: Callable[[str], list[Any]]) -> None:
    """Where neither allocator tells sizes, blocks decide, and the line says so.

    In a process of its own: other threads of a worker free blocks between two counts.
    """
    *sizes, line, bytes_a_call = run_python(
        """if True:
        import json
        from pytest_imu.core.leaks.counts import UNKNOWN, Tally, warm_up

        warm_up()
        unknown = {name: lambda: UNKNOWN for name in ("block_bytes", "c_bytes", "descriptors")}
        tally, kept = Tally(2, **unknown), [None] * 3
        for number in range(3):
            tally.count()
            kept[number] = object()
        found = tally.growth(1)
        sizes = found.block_bytes, found.c_bytes, found.descriptors
        print(json.dumps([*sizes, found.line(0, ""), found.bytes_a_call]))
        """
    )
    assert [None] * 3 == sizes
    assert "sizes are not known here" in line
    assert 64 == bytes_a_call
