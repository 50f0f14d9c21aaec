"""How many child processes lived during a window: a window's own numbers leave their memory out."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple

from pytest_imu.core.children.proc import GONE, child_pids, open_directory, parse_stat, read_all
from pytest_imu.core.model import ChildrenSeen

try:
    import resource
except ImportError:  # Windows has none, and tells nothing of children that have ended
    resource = None  # type: ignore[assignment]  # only called where it was found

Children = Mapping[tuple[int, float], bool]
"""A process's children by id and time of birth, since ids are reused: whether each is a zombie."""

FREE_TOOL_IDS = (4, 3)
"""The ids of sys.monitoring that the language gives to no kind of tool."""
TOOL_NAME = "pytest-imu children"
"""Ours among sys.monitoring's tools: it traces nothing but one function's start."""


@functools.cache
def helper_pids() -> set[int]:
    """Return the ids of the processes that measuring itself has started, to add to and take from.

    They are the measuring's price and not the test's: perf, and the nursery that forks tests. Neither
    the census nor the sampler counts them or their descendants. Who starts one adds its id at once, and
    takes it out when it has been waited for.
    """
    return set()


class CensusStart(NamedTuple):
    """What a window's opening found."""

    pid: int
    usage: object
    starts: int
    children: Children
    alive: int
    """How many of the children were neither zombies nor helpers."""
    error: Exception | None = None


def children_exist() -> bool:
    """Whether this process has any child, zombies included; it reaps none. 1 µs where there are none."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


# Windows, and macOS before Python 3.13, would have to look through all processes.
ANY_CHILDREN = children_exist if hasattr(os, "waitid") else None


def read_children_usage() -> object:
    """Return what changes whenever a child has been waited for: its page faults and switches add up."""
    return None if resource is None else resource.getrusage(resource.RUSAGE_CHILDREN)


class Census:
    """Counts the child processes that live during a window; it reaps none of them.

    Those alive at either end are listed by the kernel. That others were born and waited for in between
    shows in the resource usage of ended children. How many those were is known from os.fork's hooks and,
    while `watch_popen()` is in force, from `subprocess`; else the count is "or more". What os.system,
    os.posix_spawn or C code starts beside them is not seen, nor what ends while SIGCHLD is ignored.
    Where the platform has no quick way to ask, only those seen to start or end count, "or more".
    Windows share nothing here but a counter that only grows, so they may nest and overlap.
    """

    def __init__(
        self,
        *,
        any_children: Callable[[], bool] | None = ANY_CHILDREN,
        list_children: Callable[[], Children] | None = None,
        read_usage: Callable[[], object] = read_children_usage,
        helpers: Container[int] | None = None,
    ) -> None:
        self._lists = any_children is not None
        self._any = any_children or (lambda: False)
        self._list = list_children or choose_children_list()
        self._usage = read_usage
        self._helpers = helper_pids() if helpers is None else helpers
        self._starts = 0
        self._watched: tuple[int, object] | None = None
        """The id in sys.monitoring, and the code whose start is its event, kept for its end."""
        if hasattr(os, "register_at_fork"):  # Windows has no fork
            os.register_at_fork(after_in_parent=self._note_start)

    def _note_start(self, *_: object) -> None:
        self._starts += 1

    def watch_popen(self) -> bool:
        """Count the starts of `subprocess.Popen` from now on; whether this call switched it on.

        Who switches it on calls `unwatch_popen()` in the end. It is an event of one function, through
        sys.monitoring: nothing is patched, and other code runs no slower. Python 3.11 does not have it.
        """
        monitoring = getattr(sys, "monitoring", None)
        if monitoring is None or self._watched is not None:
            return False
        free = [tool for tool in FREE_TOOL_IDS if monitoring.get_tool(tool) is None]
        code = _popen_code()
        if not free or code is None:
            return False
        monitoring.use_tool_id(free[0], TOOL_NAME)
        monitoring.register_callback(free[0], monitoring.events.PY_START, self._note_start)
        monitoring.set_local_events(free[0], code, monitoring.events.PY_START)
        self._watched = free[0], code
        return True

    def unwatch_popen(self) -> None:
        """End what `watch_popen()` began, and free its id in sys.monitoring."""
        watched, self._watched = self._watched, None
        if watched is None:
            return
        tool_id, code = watched
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]  # new in 3.12
        monitoring.set_local_events(tool_id, code, 0)
        monitoring.register_callback(tool_id, monitoring.events.PY_START, None)
        monitoring.free_tool_id(tool_id)

    def open(self) -> CensusStart:
        """Look at the children there are as a window opens; 2 µs where there are none."""
        try:
            children = self._list() if self._any() else {}
            alive = sum(self._counts(*child) for child in children.items()) if children else 0
            return CensusStart(os.getpid(), self._usage(), self._starts, children, alive)
        except Exception as error:  # noqa: BLE001 - no fault of the measuring reaches the block
            return CensusStart(os.getpid(), None, 0, {}, 0, error)

    def close(self, start: CensusStart) -> ChildrenSeen | None:
        """Return how many lived since *start*, None where none did; what was refused is unknown."""
        error = start.error
        if error is None:
            try:
                return self._seen(start)
            except Exception as refused:  # noqa: BLE001 - no fault of the measuring reaches the block
                error = refused
        return ChildrenSeen(count=None, reason=f"{type(error).__name__}: {error}")

    def _seen(self, start: CensusStart) -> ChildrenSeen | None:
        children = self._list() if self._any() else {}
        reaped = self._usage() != start.usage
        if self._lists and not (reaped or children or start.alive):
            return None
        if os.getpid() != start.pid:
            return ChildrenSeen(count=None, reason="the window was opened before a fork")
        born = {child: zombie for child, zombie in children.items() if child not in start.children}
        # One that was born and died is a zombie now, and lived in this window all the same.
        born_here = sum(pid not in self._helpers for pid, _ in born)
        if self._lists and not reaped:
            count = start.alive + born_here  # the lists hold everyone
            return ChildrenSeen(count=count) if count else None
        started = max(self._starts - start.starts - (len(born) - born_here), born_here)
        # Whether those that are known to have ended in this window may be all that did.
        explained = started > born_here or any(child not in children for child in start.children)
        count = start.alive + started + (reaped and not explained)
        is_exact = self._lists and explained and self._watched is not None
        return ChildrenSeen(count=count, at_least=not is_exact) if count else None

    def _counts(self, child: tuple[int, float], is_zombie: bool) -> bool:  # noqa: FBT001 - a mapping's item
        return not is_zombie and child[0] not in self._helpers


@functools.cache
def process_census() -> Census:
    """Return this process's one census: its hook on os.fork cannot be taken out again."""
    return Census()


def _popen_code() -> object:
    """Return the code that every start by `subprocess` runs through; None where it is replaced."""
    import subprocess

    return getattr(getattr(subprocess.Popen, "_execute_child", None), "__code__", None)


def choose_children_list(proc: str = "/proc") -> Callable[[], Children]:
    """Return the quicker list of children: from /proc 0.02 ms and more a child, from psutil 1 ms."""
    if os.path.exists(f"{proc}/thread-self/children"):  # noqa: PTH110 - pathlib is not free
        return functools.partial(list_from_proc, proc)
    return list_from_psutil


def list_from_proc(proc: str = "/proc") -> Children:
    """Return this process's children as /proc lists them (Linux)."""
    children: dict[tuple[int, float], bool] = {}
    directory = open_directory(f"{proc}/self")
    try:
        pids = child_pids(directory)
    finally:
        os.close(directory)
    for pid in pids:
        try:
            stat = parse_stat(read_all(f"{proc}/{pid}/stat"))
        except GONE:
            continue  # waited for by another thread
        if stat.parent == os.getpid():  # else the id has been reused
            children[pid, stat.born] = stat.is_dead
    return children


def list_from_psutil() -> Children:
    """Return this process's children as psutil finds them, among all of the machine's processes."""
    import psutil

    children: dict[tuple[int, float], bool] = {}
    for child in psutil.Process().children():
        try:
            children[child.pid, child.create_time()] = child.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            continue
    return children
