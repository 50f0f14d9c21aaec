"""The line profiler against known answers: what each line keeps, and what it needs at its peak."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

import pytest

from pytest_imu.core.memory.kernel import KernelPeak, KernelWindow
from pytest_imu.core.memory.platforms import readers_for
from pytest_imu.core.memory.sampled import SampledPeak
from pytest_imu.core.memory.window import Settle
from pytest_imu.core.units import MIB
from pytest_imu.why.counting import CountSource
from pytest_imu.why.lines import LineProfiler, under
from pytest_imu.why.profile import LineCost, LineProfile
from pytest_imu.why.readings import OF_MEMORY
from pytest_imu.why.table import chain_lines

pytestmark = [
    pytest.mark.needs_kernel_peaks,
    pytest.mark.needs_malloc_trim,
    pytest.mark.usefixtures("steady_memory"),
]

BLOCK_MIB = 40
"""So large that glibc maps it, whatever was freed before."""
BOUND_MIB = 0.5
HIDDEN = "size = len(block(2) + block(1))"


def block(count: int) -> bytearray:
    """Return so much memory, touched."""
    return bytearray(count * BLOCK_MIB * MIB)


def profiled(work: Callable[[], object]) -> LineProfile:
    """Run a function under the profiler, with what it calls in this file."""
    with LineProfiler(lambda file: file == __file__) as profiler:
        work()
    return profiler.profile()


def line(profile: LineProfile, text: str) -> LineCost:
    """Return the one line with this text."""
    [found] = [one for one in profile.lines if one.text == text]
    return found


def assert_cost(cost: LineCost, *, kept: float, peak: float) -> None:
    """Compare what a line kept and needed, in blocks, to the bound."""
    assert abs(cost.kept_bytes / MIB - kept * BLOCK_MIB) <= BOUND_MIB, cost
    assert abs(cost.peak_bytes / MIB - peak * BLOCK_MIB) <= BOUND_MIB, cost


def test_hidden_temporary() -> None:
    """What is made and freed within a line shows there, though the line keeps nothing."""

    def work() -> None:
        kept = block(1)
        hidden()
        del kept

    def hidden() -> int:
        size = len(block(2) + block(1))
        return -size

    profile = profiled(work)
    assert_cost(line(profile, "kept = block(1)"), kept=1, peak=1)
    assert_cost(line(profile, HIDDEN), kept=0, peak=6)
    assert_cost(line(profile, "hidden()"), kept=0, peak=6)
    assert_cost(line(profile, "del kept"), kept=-1, peak=0)
    assert ["hidden()", HIDDEN] == [one.text for one in profile.chain]
    assert profile.is_chain_at_peak
    assert profile.is_exact
    assert abs(profile.peak_bytes / MIB - 7 * BLOCK_MIB) <= BOUND_MIB
    assert abs(profile.kept_bytes / MIB) <= BOUND_MIB
    assert profile == LineProfile.from_dict(profile.to_dict())


FREED_IN_THE_HEAP = """
import json
from pytest_imu.core.units import MIB
from pytest_imu.why.counting import CountSource
from pytest_imu.why.lines import LineProfiler

def work():
    a = bytearray(8 * MIB)
    b = bytearray(8 * MIB)
    del a
    c = bytearray(4 * MIB)
    del b, c
    d = bytearray(9 * MIB)

block = bytearray(20 * MIB)
del block  # up to that size glibc takes blocks from its heap ever after
profiler = LineProfiler()
profiler.add_function(work)
with profiler:
    work()
lines = profiler.profile().lines
print(json.dumps([(one.kept_bytes / MIB, one.peak_bytes / MIB) for one in lines]))
"""


def test_what_is_freed_in_the_heap_is_given_back(run_python: Callable[[str], Any]) -> None:
    """Memory that glibc would keep for the next line is in that line all the same."""
    found = run_python(FREED_IN_THE_HEAP)
    expected = [[8, 8], [8, 8], [-8, 0], [4, 4], [-12, 0], [9, 9]]
    assert [pytest.approx(sizes, abs=BOUND_MIB) for sizes in expected] == found


def test_recursion_is_counted_once() -> None:
    """A line that calls its own function has its memory once, and all of its hits."""

    def down(depth: int) -> list[object]:
        mine = block(1)
        return [mine, *(down(depth - 1) if depth else [])]

    held: list[object] = []
    profile = profiled(lambda: held.extend(down(2)))
    assert_cost(line(profile, "mine = block(1)"), kept=3, peak=1)
    call = line(profile, "return [mine, *(down(depth - 1) if depth else [])]")
    assert_cost(call, kept=2, peak=2)
    assert 3 == call.hits


def test_generator_that_holds() -> None:
    """What a generator keeps is its own lines'; what its user keeps meanwhile is not."""

    def make() -> Iterator[int]:
        own = block(1)
        yield 1
        own += block(1)
        yield len(own)

    def use() -> None:
        held = []
        for _ in make():
            held.append(block(1))  # noqa: PERF401 - a line of its own

    profile = profiled(use)
    assert_cost(line(profile, "own = block(1)"), kept=1, peak=1)
    assert_cost(
        line(profile, "held.append(block(1))  # noqa: PERF401 - a line of its own"), kept=2, peak=1
    )
    first = line(profile, "yield 1")
    assert_cost(first, kept=0, peak=0)
    assert 1 == first.hits


def test_coroutines() -> None:
    """A coroutine's lines have what they keep, whatever else runs while they wait."""

    async def wait() -> bytearray:
        await asyncio.sleep(0)
        mine = block(2)
        await asyncio.sleep(0)
        return mine

    async def both() -> None:
        await asyncio.gather(wait(), wait())

    profile = profiled(lambda: asyncio.run(both()))
    assert_cost(line(profile, "mine = block(2)"), kept=4, peak=2)
    waits = [one for one in profile.lines if one.text == "await asyncio.sleep(0)"]
    assert [(2, 0), (2, 0)] == [(one.hits, round(one.kept_bytes / MIB)) for one in waits]


def test_exception_leaves_functions() -> None:
    """What is left by an exception ends there, and the caller's lines go on."""

    def fail() -> None:
        lost = block(1)
        raise ValueError(len(lost))

    def catch() -> None:
        try:
            fail()
        except ValueError:
            after = block(2)
            del after

    profile = profiled(catch)
    assert_cost(line(profile, "lost = block(1)"), kept=1, peak=1)
    assert_cost(line(profile, "after = block(2)"), kept=2, peak=2)
    assert_cost(line(profile, "del after"), kept=-3, peak=0)  # the exception goes there, and its frames


def test_thread() -> None:
    """A thread's lines are read too; the line that waits for it has their memory as well."""

    def work() -> None:
        mine = block(3)
        del mine

    def wait() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    profile = profiled(wait)
    assert_cost(line(profile, "mine = block(3)"), kept=3, peak=3)
    waiting = max(one.peak_bytes for one in profile.lines if one.text.startswith("thread."))
    assert abs(waiting / MIB - 3 * BLOCK_MIB) <= BOUND_MIB


def test_list_of_ints_and_three_levels() -> None:
    """Small objects count as large blocks do, three levels down as at the top."""

    def top() -> object:
        return middle()

    def middle() -> object:
        return low()

    def low() -> object:
        return list(range(1000, 1_001_000))  # of one size at once: a list that grows leaves holes

    held: list[object] = []
    profile = profiled(lambda: held.append(top()))
    costs = [line(profile, text) for text in ("return middle()", "return low()")]
    [inner] = [one for one in profile.lines if one.text.startswith("return list(range")]
    costs.append(inner)
    list_bytes = sys.getsizeof(held[0])
    for cost in costs:
        assert 0 <= cost.kept_bytes - list_bytes <= 32 * 1_000_000 + BOUND_MIB * MIB
        assert 1 == cost.hits


def test_callers_have_what_is_below_them() -> None:
    """To the last byte, where nothing else moves."""
    taken_bytes = 0

    def top() -> None:
        middle()

    def middle() -> None:
        low()

    def low() -> None:
        nonlocal taken_bytes
        taken_bytes += 37_064_704

    source = CountSource("scripted", lambda: taken_bytes, lambda: None)
    with LineProfiler(lambda file: file == __file__, source=source) as profiler:
        top()
    profile = profiler.profile()
    texts = ("middle()", "low()", "taken_bytes += 37_064_704")
    assert [37_064_704] * 3 == [line(profile, text).kept_bytes for text in texts]


def test_c_call_that_keeps_the_gil() -> None:
    """The peak of a call into C is exact, though no other thread could have run meanwhile."""

    def work() -> str:
        return hashlib.sha256(repr(block(1)).encode()).hexdigest()

    profile = profiled(work)
    cost = line(profile, "return hashlib.sha256(repr(block(1)).encode()).hexdigest()")
    assert cost.peak_bytes >= 8 * BLOCK_MIB * MIB  # four characters a byte, and their bytes
    assert abs(cost.kept_bytes) <= BOUND_MIB * MIB


def test_line_that_moves_late() -> None:
    """A line that was hit a thousand times for nothing is still charged with what it takes then."""

    def loop(held: list[bytearray]) -> None:
        for number in range(20 * OF_MEMORY.exact_hits):
            wanted = number == 15 * OF_MEMORY.exact_hits
            if wanted:
                held.append(block(1))
            late = block(1) if number == 18 * OF_MEMORY.exact_hits else None
            del late

    profile = profiled(lambda: loop([]))
    assert_cost(line(profile, "held.append(block(1))"), kept=1, peak=1)
    late = line(profile, "late = block(1) if number == 18 * OF_MEMORY.exact_hits else None")
    assert_cost(late, kept=1, peak=1)
    assert 20 * OF_MEMORY.exact_hits == late.hits or late.has_more_hits
    assert_cost(line(profile, "wanted = number == 15 * OF_MEMORY.exact_hits"), kept=0, peak=0)


def test_large_lines_beside_short_ones() -> None:
    """In a long loop of short lines those that take memory are charged with it, to the last hit."""

    def loop() -> None:
        held = []
        for number in range(5_000):
            small = number + 1
            if small % 500 == 0:
                held.append(bytes(range(256)) * (40 * 4096))
        del held

    profile = profiled(loop)
    assert_cost(line(profile, "held.append(bytes(range(256)) * (40 * 4096))"), kept=10, peak=1)
    assert_cost(line(profile, "del held"), kept=-10, peak=0)
    quiet = line(profile, "small = number + 1")
    assert_cost(quiet, kept=0, peak=0)
    assert 5_000 == quiet.hits or quiet.has_more_hits


def test_lines_that_never_move_cost_little() -> None:
    """They are read now and then, or switched off: not at each of a hundred thousand hits."""
    readings = 0

    def loop() -> None:
        number = 0
        while number < 100_000:
            number += 1

    with LineProfiler(lambda file: file == __file__) as profiler:
        opened = profiler._readings.open

        def open_counted() -> object:
            nonlocal readings
            readings += 1
            return opened()

        profiler._readings.open = open_counted  # type: ignore[method-assign]  # to count its calls
        loop()
    assert_cost(line(profiler.profile(), "number += 1"), kept=0, peak=0)
    assert 2 * OF_MEMORY.exact_hits <= readings <= 20_000


OWN_MEMORY = """
import ctypes, json, linecache
from pytest_imu.why.counting import CountSource
from pytest_imu.why.lines import LineProfiler

# Ten functions, since where a line of a function is, Python looks for from its beginning.
functions = [f"def work_{number}():\\n" + "    x = 1\\n" * 1_000 for number in range(10)]
namespace = {}
exec(compile("".join(functions), "work.py", "exec"), namespace)
ctypes.CDLL(None).malloc_trim(0)  # what is noted finds no memory that stands ready
with LineProfiler(lambda file: file == "work.py") as profiler:
    for number in range(10):
        namespace[f"work_{number}"]()
linecache.cache["work.py"] = 0, None, [], "work.py"  # not to be looked for in files ten thousand times
profile = profiler.profile()
print(json.dumps([profile.kept_bytes, *(line.kept_bytes for line in profile.lines)]))
"""


def test_own_memory_is_in_no_line() -> None:
    """Ten thousand lines that take nothing keep nothing, whatever the profiler notes of each.

    In a process of its own: what others freed moves pages, and over so many lines that adds up.
    """
    command = [sys.executable, "-c", OWN_MEMORY]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    kept_bytes, *lines = json.loads(done.stdout)
    assert 10_000 == len(lines)
    assert sum(map(abs, lines)) <= BOUND_MIB * MIB
    assert abs(kept_bytes) <= BOUND_MIB * MIB


def test_sampled_peaks_are_not_called_exact() -> None:
    """Where peaks are sampled, what a line keeps is still read at its ends."""

    def work() -> None:
        kept = block(1)
        del kept

    source = SampledPeak(readers_for(sys.platform), why="for a test")
    with LineProfiler(lambda file: file == __file__, source=source) as profiler:
        work()
    profile = profiler.profile()
    assert not profile.is_exact
    assert "sampled (for a test)" == profile.label
    assert_cost(line(profile, "kept = block(1)"), kept=1, peak=1)
    shown = "\n".join(chain_lines(profile, PurePath(__file__).parent, width=80))
    kept, peak = line(profile, "kept = block(1)").kept_bytes, line(profile, "kept = block(1)").peak_bytes
    numbers = rf"{kept / MIB:.1f} +~{peak / MIB:.1f}"
    assert re.search(rf"{numbers} +test_lines\.py:\d+ +kept = block\(1\)", shown)


def test_faults_are_said_and_harm_nobody() -> None:
    """Where memory cannot be read, the code runs as it would, and the profile says why."""

    class Refusing(KernelPeak):
        def open(self, settle: Settle | None = None) -> KernelWindow:
            if self._open_windows:
                raise OSError("refused")
            return super().open(settle)

    with LineProfiler(lambda file: file == __file__, source=Refusing()) as profiler:
        assert BLOCK_MIB * MIB == len(block(1))
    assert "OSError: refused" == profiler.profile().fault


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there sys.monitoring is used")
def test_another_trace_function_is_said() -> None:
    """Code that traces itself is not followed from there on, and the profile says so."""

    def work() -> None:
        sys.settrace(None)

    assert "RuntimeError: the code set a trace function of its own" == profiled(work).fault


def test_trace_functions_are_put_back() -> None:
    """After it, whoever traced before goes on."""

    def before(*_: object) -> None:
        return None

    found = sys.gettrace(), threading.gettrace()
    sys.settrace(before)
    try:
        profiled(lambda: None)
        assert before is sys.gettrace()
    finally:
        sys.settrace(found[0])
    assert found[1] is threading.gettrace()


def test_which_files() -> None:
    """A project's files are those under its root that are no installed library's."""
    is_wanted = under("/srv/project")
    assert is_wanted("/srv/project/package/module.py")
    assert not is_wanted("/srv/projects/module.py")
    assert not is_wanted("/srv/project/venv/lib/python3/site-packages/numpy/core.py")
    assert not is_wanted("<string>")
