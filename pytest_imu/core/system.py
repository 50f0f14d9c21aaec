"""The system's own functions, as they were before any test could put a mock in their place.

They stand in a class and not in the module: libraries that fake a file system or a clock look through
the names of every module, and replace there what they find.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]  # only asked for its names


def _missing(*_: object, **__: object) -> Any:  # Any: it stands for functions of all types
    """Stand for a function that this platform does not have."""
    raise OSError("this platform cannot be asked")


class System:
    """What measuring calls while a test's mocks may be active."""

    open = os.open
    close = os.close
    read = os.read
    write = os.write
    listdir = os.listdir
    stat = os.stat
    # From the C module under os: a plugin may have replaced it before we came.
    getpid: Callable[[], int] = importlib.import_module(os.name).getpid
    collect = gc.collect
    freeze = gc.freeze
    unfreeze = gc.unfreeze
    get_freeze_count = gc.get_freeze_count
    ALWAYS_FROZEN = gc.get_freeze_count() if sys.version_info[:2] == (3, 12) else 0
    """How many objects stand aside by themselves: Python 3.12 does so with immortal ones."""
    perf_counter_ns = time.perf_counter_ns
    WALL_AHEAD_NS = time.time_ns() - time.perf_counter_ns()
    """How far the wall clock is ahead of that one, told once: tests set the wall clock."""
    thread_time_ns = time.thread_time_ns
    thread_id = threading.get_native_id
    pread: Callable[[int, int, int], bytes] = getattr(os, "pread", _missing)
    waitid: Callable[[int, int, int], object] = getattr(os, "waitid", _missing)
    getrusage: Callable[[int], Any] = getattr(resource, "getrusage", _missing)
    RUSAGE_SELF: int = getattr(resource, "RUSAGE_SELF", 0)
    RUSAGE_CHILDREN: int = getattr(resource, "RUSAGE_CHILDREN", -1)


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Keep the garbage collector away meanwhile: beside millions of objects it takes long."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class OwnProcess:
    """Remembers the process that made an object: a test may fork, and its child has a copy of all."""

    def __init__(self) -> None:
        self.pid = System.getpid()

    @property
    def is_current(self) -> bool:
        """Whether that process is the one that asks."""
        return System.getpid() == self.pid
