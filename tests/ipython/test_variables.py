"""`%imu vars`: which names hold memory, against what the kernel says of making them."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from ipython_hooks.variables.holders import names_of, others_of
from ipython_hooks.variables.kinds import describe
from ipython_hooks.variables.rows import Look, look_at, table
from ipython_hooks.variables.walk import OBJECTS_OF_A_VALUE, Walk
from pytest_imu.core.units import MIB

Shell = Callable[..., Any]
PLENTY_NS = 10**10

MADE_AND_MEASURED = """
import json, os
from ipython_hooks.variables.walk import Walk
from pytest_imu.core.meter import measure

class Plain:
    def __init__(self, number):
        self.number, self.name = number, str(number)

class Slotted:
    __slots__ = ("number", "name")
    def __init__(self, number):
        self.number, self.name = number, str(number)

words = [f"word {number}" for number in range(1_000)]
many = range(1_000, 101_000)
makers = {
    "ints": lambda: list(many),
    "strings": lambda: [str(number) for number in many],
    "few strings": lambda: [words[number % 1_000] for number in many] * 5,
    "tuples": lambda: [(number, number / 7) for number in many],
    "dicts": lambda: [{"number": number, "name": str(number)} for number in many],
    "dict": lambda: {number: str(number) for number in many},
    "dict of lists": lambda: {str(one): [*range(one, one + 100)] for one in range(300, 1_900)},
    "set": lambda: {str(number) for number in many},
    "plain": lambda: [Plain(number) for number in many],
    "slotted": lambda: [Slotted(number) for number in many],
    "nested": lambda: [[[number + 300 for number in range(50)]] * 2 for _ in range(3_300)],
}
for name, make in makers.items():
    if os.fork():  # each starts with the same free memory: next to none
        os.wait()
        continue
    with measure() as meter:
        value = make()
    print(json.dumps([name, meter.delta_bytes, Walk(10**10).held_by(value).size_bytes]), flush=True)
    os._exit(0)
"""


def held(*values: object) -> Any:
    """Return what values hold, with all the time there is."""
    return Walk(PLENTY_NS).held_by(*values)


class FakeShell:
    """A shell with a namespace, and nothing more."""

    def __init__(self, **names: object) -> None:
        self.user_ns: dict[str, Any] = {"__name__": "__main__", **names}
        self.user_ns_hidden: dict[str, Any] = {}


def rows_of(**names: object) -> dict[str, tuple[float, str]]:
    """Return the rows of a namespace: names, MiB and what the first one is."""
    look = look_at(FakeShell(**names))
    return {
        ", ".join(sorted(row.names)): (
            round(row.size_bytes / MIB, 1),
            describe(row.values[0], row.size_bytes),
        )
        for row in look.rows
    }


@pytest.mark.needs_kernel_peaks
@pytest.mark.needs_malloc_trim
def test_containers_are_reckoned_right() -> None:
    """What containers of many small objects hold is about what the kernel counted."""
    command = [sys.executable, "-c", MADE_AND_MEASURED]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found = map(json.loads, done.stdout.splitlines())
    ratios = {name: reckoned / made for name, made, reckoned in found}
    assert 11 == len(ratios)
    assert {} == {name: ratio for name, ratio in ratios.items() if not 0.88 <= ratio <= 1.1}


@pytest.mark.needs_numpy
def test_who_owns_a_buffer() -> None:
    """A view stands for all that it keeps alive; names that share it have one row."""
    import numpy as np

    def block(count: float) -> Any:
        return np.ones(int(count * MIB), np.int8)

    whole = block(8)
    found = rows_of(
        a=whole,
        same=whole,
        part=whole[5:10].reshape(5, 1),
        window=np.lib.stride_tricks.sliding_window_view(whole, 10),
        spread=np.broadcast_to(block(1), (100, MIB)),
        lonely=block(16)[:10],
        buffer=np.frombuffer(bytearray(3 * MIB), np.int8)[:2],
        inside={"deep": [block(5)]},
        views=[block(4)[place:] for place in range(3)] * 400,
    )
    assert {
        "a, part, same, window": 8,
        "spread": 1,
        "lonely": 16,
        "buffer": 3,
        "inside": 5,
        "views": 12,
    } == {names: size for names, (size, _) in found.items()}
    assert "ndarray 8,388,608 of int8" == found["a, part, same, window"][1]
    assert "ndarray 10 of int8, a view that keeps all of it alive" == found["lonely"][1]


@pytest.mark.needs_numpy
def test_files_and_objects_in_arrays(tmp_path: Any) -> None:
    """An array that is a file holds nothing; an array of objects holds them."""
    import numpy as np

    path = tmp_path / "file.npy"
    np.save(path, np.ones(MIB, np.int8))
    objects = np.array([*range(1_000, 101_000)], dtype=object)
    found = rows_of(
        mapped=np.load(path, mmap_mode="r"), plain=np.asarray(np.load(path, "r")), objects=objects
    )
    assert (0.0, 0.0) == (found["mapped"][0], found["plain"][0])
    assert 8 * 100_000 + 32 * 100_000 == pytest.approx(held(objects).size_bytes, rel=0.05)


@pytest.mark.needs_pandas
def test_frames() -> None:
    """A frame holds its blocks, its index and its strings; a small slice keeps all of it alive."""
    import numpy as np

    pd: Any = importlib.import_module("pandas")  # Any: it has no types
    numbers = np.ones((MIB, 4))
    frame = pd.DataFrame(numbers, index=pd.Index(np.arange(MIB) * 2), copy=False)
    found = rows_of(frame=frame, head=frame.iloc[:5], numbers=numbers)
    assert {"frame, head, numbers": (40.0, "DataFrame 1,048,576 x 4")} == found
    texts = pd.DataFrame({"text": [f"some text {number}" for number in range(100_000)]}, dtype=object)
    assert 8 * 100_000 + 64 * 100_000 == pytest.approx(held(texts).size_bytes, rel=0.1)
    column = pd.Series([f"some text {number}" for number in range(100_000)])
    assert held(column).size_bytes >= 100_000 * len("some text 1234")


def test_lists_that_share_their_elements() -> None:
    """A copy of a list has a table of its own, and the same elements."""
    numbers = list(range(1_000, 201_000))
    found = rows_of(numbers=numbers, copy=numbers[:], others=list(range(1_000, 201_000)))
    table_bytes, elements_bytes = 8 * 200_000, 32 * 200_000
    assert {"copy, numbers", "others"} == found.keys()
    assert (2 * table_bytes + elements_bytes) / MIB == pytest.approx(found["copy, numbers"][0], rel=0.05)
    assert (table_bytes + elements_bytes) / MIB == pytest.approx(found["others"][0], rel=0.05)


def test_nothing_of_a_value_is_run() -> None:
    """No method and no property of a value is called, and no module or class is looked into."""

    def run(*_: object) -> None:
        raise AssertionError

    method: Any = run

    class Trap:
        held = (bytearray(MIB),)

        def __init__(self) -> None:
            self.mine = bytearray(2 * MIB)
            self.module = sys
            self.again = self

        __getattribute__ = __len__ = __iter__ = __sizeof__ = __eq__ = method
        __hash__: Any = None
        __class__ = property(method)

    class TrappedList(list[Any]):
        __len__ = __iter__ = __reversed__ = __getitem__ = __sizeof__ = method

    class TrappedDict(dict[Any, Any]):
        __len__ = __iter__ = __contains__ = keys = values = method

    assert 2.0 == round(held(Trap()).size_bytes / MIB, 1)
    assert {
        "trap": (2.0, "Trap"),
        "trapped": (3.0, "TrappedList of 1"),
        "mapping": (4.0, "TrappedDict of 1"),
    } == rows_of(
        trap=Trap(),
        trapped=TrappedList([bytearray(3 * MIB)]),
        mapping=TrappedDict({1: bytearray(4 * MIB)}),
    )
    generator = (value for value in [bytearray(3 * MIB)])
    assert 3.0 == round(held(generator).size_bytes / MIB, 1)
    kept = bytearray(MIB)
    assert 1.0 == round(held(lambda: kept).size_bytes / MIB, 1)
    assert 0.0 == round(held(sys, Trap, threading.Lock(), None).size_bytes / MIB, 1)


def test_time_is_bounded() -> None:
    """Where there is no time left, what was seen is said to be a part, and no object is looked at."""
    times = iter(range(10**6))
    walk = Walk(3, clock_ns=lambda: next(times))
    found = walk.held_by([[number] for number in range(400)])
    assert found.is_partial
    assert walk.is_over
    wide = [[object() for _ in range(100)] for _ in range(200)]
    found = held(wide)
    assert found.is_partial
    assert len(found.pieces) <= OBJECTS_OF_A_VALUE
    rows = table(look_at(FakeShell(wide=wide)), top=5, total_bytes=None, width=80)
    assert rows[1].lstrip().startswith("0.1+  wide  list of 200")
    assert "+ at least: there was no time to see all of it" in rows


def test_look_of_a_large_namespace_is_short(benchmark_ns: Callable[[Callable[[], object]], int]) -> None:
    """Twenty million objects under two hundred names take no longer than is allowed."""
    million = [*range(1_000, 1_001_000)]
    names = {f"list_{number}": million[number:] for number in range(20)}
    frames = {f"dict_{number}": {"a": [[number] for number in range(50)]} for number in range(200)}
    shell = FakeShell(**names, **frames, queue=deque(million))
    assert benchmark_ns(lambda: look_at(shell)) <= 40_000_000


@pytest.fixture
def benchmark_ns() -> Callable[[Callable[[], object]], int]:
    """Return a function that tells how much of the processor's time a call takes, at its best."""
    from time import thread_time_ns

    def taken(call: Callable[[], object]) -> int:
        times = []
        for _ in range(3):
            start = thread_time_ns()
            call()
            times.append(thread_time_ns() - start)
        return min(times)

    return taken


def test_table() -> None:
    """The table fits its width, cuts long names, and says what no name explains."""
    names = {
        "a": bytearray(30 * MIB),
        "b" * 90: bytearray(20 * MIB),
        "c\x1b": bytearray(2 * MIB),
        "d": 1,
    }
    look = look_at(FakeShell(**names))
    for width in (40, 80, 200):
        lines = table(look, top=3, total_bytes=100 * MIB, width=width)
        assert max(map(len, lines[:4])) <= width
    assert [
        " MiB  names",
        f"30.0  {'a':40}  bytearray of 31,457,280",
        f"20.0  {'b' * 18}...{'b' * 19}  bytearray of 20,971,520",
        " 2.0  " + "c\\x1b".ljust(40) + "  bytearray of 2,097,152",
    ] == lines[:4]
    assert "all of these hold 52.0 of 100.0 MiB" == lines[-2]
    assert "48.0 are in no name: Python itself, modules, what is kept free" == lines[-1]
    assert "0.0 in 1 other name" == lines[4]
    untouched = table(look, top=3, total_bytes=MIB, width=80)[-2]
    assert "all of these hold 52.0 MiB, more than the 1.0 that are in memory:" == untouched
    assert "all of these hold 0.0 MiB" == table(Look(), top=3, total_bytes=None, width=80)[-1]


def test_what_stands_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last error's variables, caches of modules and of functions are found."""
    import functools
    import types

    module = types.ModuleType("imu_test_module")
    vars(module).update(__file__="/home/me/module.py", CACHE={1: bytearray(MIB), 2: bytearray(MIB)})
    monkeypatch.setitem(sys.modules, "imu_test_module", module)
    installed = types.ModuleType("imu_test_installed")
    vars(installed).update(SMALL=[bytearray(MIB)], LONG=[bytearray(100) for _ in range(20_000)])
    monkeypatch.setitem(sys.modules, "imu_test_installed", installed)

    def fail() -> None:
        lost = bytearray(4 * MIB)
        raise ValueError(len(lost))

    try:
        fail()
    except ValueError as error:
        monkeypatch.setattr(sys, "last_value", error, raising=False)
    shell = FakeShell(a=1, _=bytearray(MIB), _i1="x", _oh={3: bytearray(2 * MIB)}, In=[], sys=sys)
    assert ["a", "Out[3]", "_"] == [name for name, _ in names_of(shell)]
    found = {name: held(value).size_bytes / MIB for name, value in others_of(lambda: False)}
    assert 4 <= found["the last error (ValueError)"]
    assert 2 == round(found["imu_test_module.CACHE"], 1)
    assert 2 <= found["imu_test_installed.LONG"] < 4
    assert "imu_test_installed.SMALL" not in found

    @functools.lru_cache
    def cached(count: int) -> bytearray:
        return bytearray(count)

    cached(3 * MIB)
    assert 3 == round(held(cached).size_bytes / MIB)


def test_a_namespace_that_changes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another thread changes while it is looked at is seen in part, and no error comes of it."""
    value: dict[int, object] = dict.fromkeys(range(10_000))
    walk = Walk(PLENTY_NS)

    def change(*_: object) -> None:
        value.clear()
        raise RuntimeError

    monkeypatch.setattr(walk, "sample", change)
    assert walk.held_by(value).is_partial


def test_in_a_shell(shell: Shell) -> None:
    """`%imu vars` shows names, outputs and what the last error holds; a wrong number is refused."""
    seen = shell("""
        run("a = bytearray(30 * 2**20); b = a; c = memoryview(a)[:5]")
        run("bytearray(20 * 2**20);")
        run("def fail(size): lost = bytearray(size); 1 / 0")
        run("fail(10 * 2**20)")
        run("bytes(5 * 2**20).count")
        seen["vars"] = run("%imu vars")
        seen["one"] = run("%imu vars 1")
        seen["wrong"] = error("%imu vars x")
    """)
    rows = [line.split() for line in seen["vars"]]
    assert ["MiB", "names"] == rows[0]
    assert ["30.0", "a,", "b,", "c"] == rows[1][:4]
    assert ["10.0", "the", "last", "error", "(ZeroDivisionError)"] == rows[2][:5]
    assert ["5.0", "Out[6],", "_"] == rows[3][:3]
    assert ["30.0", "a,", "b,", "c"] == seen["one"][1].split()[:4]
    assert re.fullmatch(r"15\.[01] in \d+ other names", seen["one"][2])
    message = "UsageError: invalid value 'x' for %imu vars: expected a whole number, 1 or more"
    assert [message] == seen["wrong"]
