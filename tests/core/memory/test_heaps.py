"""What glibc keeps at the tops of the heaps of threads: read from its own account, held against RSS."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_imu.core.memory.memstream import written_by
from pytest_imu.core.memory.reusable import free_in_thread_heaps, parse_malloc_info
from pytest_imu.core.units import MIB

# Recorded from glibc 2.36's malloc_info(); most of the lines of sizes of the first heap are left out,
# so that its own top is wrong, which nobody asks for.
ONE_HEAP = b"""\
<malloc version="1">
<heap nr="0">
<sizes>
  <size from="33" to="33" total="33" count="1"/>
  <unsorted from="44897" to="44897" total="44897" count="1"/>
</sizes>
<total type="fast" count="0" size="0"/>
<total type="rest" count="69" size="127876"/>
<system type="current" size="1421312"/>
<system type="max" size="1630208"/>
<aspace type="total" size="1421312"/>
<aspace type="mprotect" size="1421312"/>
</heap>
"""
# A hole of 5.6 MiB under blocks that live, and a top of 1280 bytes.
SECOND_HEAP = b"""\
<heap nr="1">
<sizes>
  <size from="2209" to="2209" total="2209" count="1"/>
  <unsorted from="7009" to="585505" total="5862063" count="15"/>
</sizes>
<total type="fast" count="0" size="0"/>
<total type="rest" count="17" size="5865552"/>
<system type="current" size="6524928"/>
<system type="max" size="6524928"/>
<aspace type="total" size="6524928"/>
<aspace type="mprotect" size="6524928"/>
<aspace type="subheaps" size="1"/>
</heap>
"""
# Small blocks that were just freed are listed, and counted in a total of their own.
THIRD_HEAP = b"""\
<heap nr="2">
<sizes>
  <size from="81" to="96" total="2208" count="23"/>
</sizes>
<total type="fast" count="23" size="2208"/>
<total type="rest" count="1" size="129232"/>
<system type="current" size="135168"/>
<system type="max" size="135168"/>
<aspace type="total" size="135168"/>
<aspace type="mprotect" size="135168"/>
<aspace type="subheaps" size="1"/>
</heap>
"""
END = b"""\
<total type="fast" count="23" size="2208"/>
<total type="rest" count="87" size="6122660"/>
<total type="mmap" count="3" size="610304"/>
<system type="current" size="8081408"/>
<system type="max" size="8290304"/>
<aspace type="total" size="8081408"/>
<aspace type="mprotect" size="8081408"/>
</malloc>
"""
# Recorded from glibc 2.43's: small blocks that were just freed have no total of their own any more.
FIRST_OF_2_43 = b"""\
<malloc version="1">
<heap nr="0">
<sizes>
  <size from="33" to="33" total="231" count="7"/>
  <unsorted from="129" to="129" total="129" count="1"/>
</sizes>
<total type="rest" count="210" size="150833"/>
<system type="current" size="2674688"/>
<system type="max" size="2838528"/>
<aspace type="total" size="2674688"/>
<aspace type="mprotect" size="2674688"/>
</heap>
"""
SECOND_OF_2_43 = b"""\
<heap nr="1">
<sizes>
</sizes>
<total type="rest" count="1" size="20972432"/>
<system type="current" size="20975616"/>
<system type="max" size="20975616"/>
<aspace type="total" size="20975616"/>
<aspace type="mprotect" size="20975616"/>
<aspace type="subheaps" size="1"/>
</heap>
"""
# A hole under blocks that live, and a top.
THIRD_OF_2_43 = b"""\
<heap nr="2">
<sizes>
  <size from="33" to="33" total="99" count="3"/>
  <size from="49" to="49" total="49" count="1"/>
  <size from="97" to="97" total="194" count="2"/>
  <size from="113" to="113" total="113" count="1"/>
  <size from="129" to="129" total="129" count="1"/>
  <size from="145" to="145" total="145" count="1"/>
  <size from="161" to="161" total="161" count="1"/>
  <size from="177" to="177" total="354" count="2"/>
  <size from="241" to="241" total="482" count="2"/>
  <size from="289" to="289" total="578" count="2"/>
  <size from="305" to="305" total="610" count="2"/>
  <size from="353" to="353" total="353" count="1"/>
  <size from="369" to="369" total="1845" count="5"/>
  <size from="401" to="401" total="401" count="1"/>
  <size from="417" to="417" total="417" count="1"/>
  <size from="753" to="753" total="753" count="1"/>
  <size from="7057" to="7153" total="70666" count="10"/>
  <size from="7281" to="7601" total="22323" count="3"/>
  <size from="60049" to="60049" total="2101715" count="35"/>
  <size from="67105" to="67105" total="268420" count="4"/>
  <unsorted from="241" to="241" total="241" count="1"/>
</sizes>
<total type="rest" count="81" size="2603472"/>
<system type="current" size="2912256"/>
<system type="max" size="2912256"/>
<aspace type="total" size="2912256"/>
<aspace type="mprotect" size="2912256"/>
<aspace type="subheaps" size="1"/>
</heap>
"""
END_OF_2_43 = b"""\
<total type="rest" count="212" size="42095697"/>
<total type="mmap" count="3" size="610304"/>
<system type="current" size="44625920"/>
<system type="max" size="44789760"/>
<aspace type="total" size="44625920"/>
<aspace type="mprotect" size="44625920"/>
</malloc>
"""
ANOTHER_TOTAL = SECOND_OF_2_43.replace(b"</sizes>", b'</sizes>\n<total type="new" count="9" size="9"/>')
WITHOUT_TOTALS = SECOND_HEAP.replace(b"<total", b"<sum")
LISTS_MORE_THAN_IT_HAS = SECOND_HEAP.replace(b'size="5865552"', b'size="5"')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ONE_HEAP + END, 0),
        (ONE_HEAP + SECOND_HEAP + END, 1_280),
        (ONE_HEAP + SECOND_HEAP + THIRD_HEAP + END, 1_280 + 129_232),
        (ONE_HEAP + SECOND_HEAP, 1_280),
        (FIRST_OF_2_43 + END_OF_2_43, 0),
        (FIRST_OF_2_43 + SECOND_OF_2_43 + THIRD_OF_2_43 + END_OF_2_43, 20_972_432 + 133_424),
        (b"", None),
        (b"<malloc version='2'/>", None),
        (END, None),
        (ONE_HEAP + WITHOUT_TOTALS + THIRD_HEAP + END, None),
        (FIRST_OF_2_43 + ANOTHER_TOTAL + THIRD_OF_2_43 + END_OF_2_43, None),
        (ONE_HEAP + SECOND_HEAP[:-9], None),
        (ONE_HEAP + LISTS_MORE_THAN_IT_HAS + THIRD_HEAP + END, None),
    ],
    ids=[
        "first heap alone",
        "a thread's",
        "two threads'",
        "cut off after a heap",
        "2.43: first heap alone",
        "2.43: two threads'",
        "empty",
        "another version",
        "no heaps",
        "no totals",
        "a total of another kind",
        "cut off inside a heap",
        "lists more than it has",
    ],
)
def test_account(text: bytes, expected: int | None) -> None:
    """The tops of all heaps but the first add up; what is not of that form tells nothing."""
    assert expected == parse_malloc_info(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, 0), (b"", None), (ONE_HEAP + SECOND_HEAP + END, 1_280)],
    ids=["no such function", "no stream", "an account"],
)
def test_only_a_library_without_heaps_has_none(text: bytes | None, expected: int | None) -> None:
    """A C library that has no `malloc_info()` (musl, macOS) has no such heaps; one that has, and tells
    nothing that is understood, has an unknown amount.
    """
    assert expected == free_in_thread_heaps(account=lambda: text)


@pytest.mark.needs_malloc_trim
@pytest.mark.needs_proc
@pytest.mark.parametrize(("threads", "mib_each"), [(1, 50), (8, 20)])
def test_tops_are_what_stays_resident(
    run_python: Callable[..., tuple[int, int]], threads: int, mib_each: int
) -> None:
    """After threads have freed blocks of 1 MiB, and a trim, the RSS has kept just what is told."""
    script = """
import ctypes, json, sys, threading
from concurrent.futures import ThreadPoolExecutor
from pytest_imu.core.memory.reusable import free_in_thread_heaps
from pytest_imu.core.memory.platforms import rss_bytes

threads, blocks = int(sys.argv[1]), int(sys.argv[2])
pool, together = ThreadPoolExecutor(threads), threading.Barrier(threads)
trim = ctypes.CDLL(None).malloc_trim

def work(blocks):
    together.wait()  # so that each thread has work; none waits while it holds its blocks, since what
    # Python needs to wait would lie above them and outlive them
    [b"x" * length for length in [2**20 - 64] * blocks]

def told_and_resident():
    trim(0)
    return free_in_thread_heaps(), rss_bytes()

len(b"x" * (31 << 20))  # freed once: from now on glibc keeps twice as much at the top of each heap
list(pool.map(work, [1] * threads))
told_before, resident_before = told_and_resident()
list(pool.map(work, [blocks] * threads))
told, resident = told_and_resident()
print(json.dumps([told - told_before, resident - resident_before]))
"""
    told, resident = run_python(script, str(threads), str(mib_each))

    assert pytest.approx(threads * (mib_each - 1) * MIB, abs=MIB // 2) == resident
    assert pytest.approx(resident, abs=MIB // 2) == told


@pytest.mark.needs_malloc_trim
@pytest.mark.needs_proc
def test_asking_leaves_nothing(run_python: Callable[..., tuple[int, int]]) -> None:
    """Five thousand answers leave no memory behind, even where no garbage is collected."""
    script = """
import gc, json
from pytest_imu.core.memory.memstream import written_by
from pytest_imu.core.memory.platforms import rss_bytes

gc.disable()
shortest = min(len(written_by("malloc_info", 0)) for _ in range(1000))
before = rss_bytes()
for _ in range(5000):
    written_by("malloc_info", 0)
print(json.dumps([shortest, rss_bytes() - before]))
"""
    shortest, growth = run_python(script)

    assert 500 < shortest
    assert growth < MIB  # a text or a ctypes function a call, 0.8 KiB at the least, would be 4 MiB


def test_unknown_function_writes_nothing() -> None:
    """A C library that has no such function tells nothing, and that is not an empty text."""
    assert None is written_by("imu_has_no_such_function", 0)
