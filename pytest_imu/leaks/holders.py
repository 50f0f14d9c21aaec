"""What stays after some calls: the lines that allocated it, and the kinds of objects that grew."""

from __future__ import annotations

import gc
import linecache
import tracemalloc
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pytest_imu.core.system import System
from pytest_imu.core.units import format_amount, printable

MOST_LINES = 5
MOST_KINDS = 5
WORTH = 20
"""A line is shown if it has one in so many of the bytes that the first one has."""
NOT_OURS = (
    tracemalloc.Filter(False, tracemalloc.__file__),  # noqa: FBT003 - it takes no keyword
    tracemalloc.Filter(False, __file__),  # noqa: FBT003
)
_objects = gc.get_objects  # bound here: a test may replace it


class Holders:
    """Traces what is allocated from here on; another tracer's trace goes on."""

    def __init__(self, root: Path) -> None:
        """Files under the *root* are told by their path from there."""
        self._root = root
        self._was_tracing = tracemalloc.is_tracing()
        self._before: tracemalloc.Snapshot | None = None
        self._kinds: Counter[str] = Counter()
        self._lines: list[dict[str, Any]] = []
        self._grown: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        if not self._was_tracing:
            tracemalloc.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._was_tracing:
            tracemalloc.stop()

    def begin(self) -> None:
        """Note what stands before the calls."""
        self._note()
        self.found(1)  # what this itself allocates at its first time is none of the calls'
        self._note()

    def _note(self) -> None:
        System.collect()
        self._before = tracemalloc.take_snapshot()
        self._kinds = kinds()  # with what the snapshot holds

    def found(self, calls: int) -> dict[str, Any]:
        """Return what has come since, for each of so many calls, in plain form."""
        System.collect()
        more = kinds()
        more.subtract(self._kinds)
        after = tracemalloc.take_snapshot().filter_traces(NOT_OURS)
        before = after if self._before is None else self._before.filter_traces(NOT_OURS)
        changes = sorted(after.compare_to(before, "lineno"), key=lambda one: -one.size_diff)
        grown = [one for one in changes if one.size_diff > 0]
        grown = [one for one in grown if one.size_diff * WORTH >= grown[0].size_diff]
        self._lines = [
            {
                "file": one.traceback[0].filename,
                "line": one.traceback[0].lineno,
                "text": linecache.getline(one.traceback[0].filename, one.traceback[0].lineno).strip(),
                "bytes_a_call": one.size_diff / calls,
                "blocks_a_call": one.count_diff / calls,
            }
            for one in grown[:MOST_LINES]
        ]
        self._grown = [
            {"kind": kind, "objects_a_call": number / calls}
            for kind, number in more.most_common(MOST_KINDS)
            if number * 2 >= calls
        ]
        return {"lines": self._lines, "kinds": self._grown}

    def lines(self) -> list[str]:
        """Return it as text."""
        return lines_of({"lines": self._lines, "kinds": self._grown}, self._root)


def lines_of(found: Mapping[str, Any], root: Path) -> list[str]:
    """Return what was found as text."""
    said = ["allocated in each call, and still there:"] if found["lines"] else []
    for one in found["lines"]:
        blocks = format_amount(one["blocks_a_call"], "block")
        path = Path(one["file"])
        place = path.relative_to(root).as_posix() if path.is_relative_to(root) else one["file"]
        size = f"{one['bytes_a_call']:>9,.0f} bytes in {blocks}"
        said.append(f"{size}  {printable(place)}:{one['line']}  {printable(one['text'])}".rstrip())
    if found["kinds"]:
        named = (f"{printable(one['kind'])} {one['objects_a_call']:+g}" for one in found["kinds"])
        said.append(f"objects that the garbage collector knows, a call: {', '.join(named)}")
    return said or ["no line of Python allocated what stays: it may be C code that did"]


def kinds() -> Counter[str]:
    """Return how many objects of each type the garbage collector knows."""
    counted: Counter[type] = Counter(map(type, _objects()))
    named: Counter[str] = Counter()
    for kind, number in counted.items():
        named[f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")] += number
    return named
