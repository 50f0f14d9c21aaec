"""Page faults that are known by construction, for every source that can count them."""

from __future__ import annotations

import inspect
import mmap
from collections.abc import Callable
from typing import Any


def touch_pages(pages: int) -> None:
    """Write to each of many fresh pages: a page fault each."""
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as block:
        for start in range(0, pages * mmap.PAGESIZE, mmap.PAGESIZE):
            block[start] = 1


_SCRIPT = """
import functools, gc, json, mmap, resource, sys, threading
from pytest_imu.core.meter import Meter
from {module} import {name}

gc.disable()
source = {name}(["page-faults"])

{touch_pages}
def counted(body):
    with Meter(counters=source) as meter:
        body()
    [reading] = meter.measurement.counters
    return reading.reason or reading.value
"""
_WINDOWS = """
def nested():
    touch_pages(1000)
    inner.append(counted(functools.partial(touch_pages, 500)))
    touch_pages(1000)

inner = []
for body in (functools.partial(touch_pages, 10), nested):
    counted(body)  # first use of the code above has faults of its own
windows = [counted(functools.partial(touch_pages, pages) if pages else int)  # int() touches nothing
           for pages in (0, 1, 100, 0, 1000, 5000)]
outer = counted(nested)
source.stop()
print(json.dumps([windows, inner[-1], outer]))
"""


def counting_script(source: type) -> str:
    """Return the beginning of a script that counts page faults by a source.

    In a process of its own: the one that runs the tests has pages that a fork has left
    write-protected, a garbage collection that may come in any window, and threads of xdist's.
    """
    text = inspect.getsource(touch_pages)
    return _SCRIPT.format(module=source.__module__, name=source.__name__, touch_pages=text)


def assert_windows_are_exact(run_python: Callable[..., Any], script: str) -> None:
    """Compare the faults of windows, of one in another and of that other with the pages touched."""
    windows, inner, outer = run_python(script + _WINDOWS)
    for pages, value in zip((0, 1, 100, 0, 1000, 5000), windows, strict=True):
        assert 0 <= value - pages <= 2
    assert 0 <= inner - 500 <= 2
    assert 0 <= outer - 2500 <= 20  # the script's own lists and calls are in it
