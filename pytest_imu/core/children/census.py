"""Whether a block had child processes: a window's own numbers leave their memory out."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from pytest_imu.core.children.proc import GONE, child_pids, open_directory, parse_stat, read_all
from pytest_imu.core.system import System


@functools.cache
def helper_pids() -> set[int]:
    """Return the ids of the processes that measuring itself has started, to add to and take from.

    They are the measuring's price and not the test's: perf, and the process that forks isolated tests.
    Neither the census nor the sampler counts them or their descendants. Who starts one adds its id at
    once, and takes it out when it has been waited for.
    """
    return set()


def standing_pids() -> set[int]:
    """Return the ids of multiprocessing's own processes, which live on behind whoever was first.

    They are its resource tracker and its fork server, and no test's children; what that one forks is.
    """
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    return {getattr(tracker, "_pid", None) or 0, fork_server_pid()}


def fork_server_pid() -> int:
    """Return the id of multiprocessing's fork server, 0 where it has none."""
    server = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    return getattr(server, "_forkserver_pid", None) or 0


class CensusStart(NamedTuple):
    """What the beginning of a block found."""

    pid: int
    usage: object
    children: frozenset[int]


NOT_ASKED = CensusStart(0, None, frozenset())
"""The beginning of a block of which others ask: whether it had children is not known."""
NOBODY = frozenset[int]()


def children_exist() -> bool:
    """Whether this process has any child, zombies included; it reaps none. 3 µs."""
    try:
        System.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def list_children(proc: str = "/proc") -> frozenset[int]:
    """Return the ids of this process's children and its fork server's, zombies included (Linux)."""
    own = _children_of(f"{proc}/self")
    server = fork_server_pid()
    return frozenset(own + _children_of(f"{proc}/{server}") if server in own else own)


def _children_of(path: str) -> list[int]:
    directory = open_directory(path)
    try:
        return child_pids(directory)
    finally:
        System.close(directory)


def read_children_usage() -> object:
    """Return what changes whenever a child has been waited for, by this process or its fork server."""
    own, server = System.getrusage(System.RUSAGE_CHILDREN), fork_server_pid()
    if not server:
        return own
    try:
        stat = parse_stat(read_all(f"/proc/{server}/stat"))
    except GONE:
        return own
    return (own, stat.reaped_faults) if stat.reaped_faults else own


class Census:
    """Tells whether any child process started or ended in a block; it reaps none of them.

    Those alive at either end are listed by the kernel. That others started and ended in between shows
    in the resource usage of children that were waited for; while SIGCHLD is ignored nobody is.
    Blocks may nest and overlap. Where the platform has no quick way to ask it is not known.
    """

    def __init__(
        self,
        *,
        any_children: Callable[[], bool] = children_exist,
        list_children: Callable[[], frozenset[int]] = list_children,
        read_usage: Callable[[], object] = read_children_usage,
        helpers: set[int] | None = None,
    ) -> None:
        self._any = any_children
        self._list = list_children
        self._usage = read_usage
        self._helpers = helper_pids() if helpers is None else helpers

    def begin(self) -> CensusStart | None:
        """Look at the children there are as a block begins; None where that is refused."""
        try:
            children = self._list() if self._any() else NOBODY
            return CensusStart(System.getpid(), self._usage(), children)
        except Exception:  # noqa: BLE001 - no fault of the measuring reaches the block
            return None

    def had_children(self, start: CensusStart | None) -> bool | None:
        """Return whether any child started or ended since *start*; None where that is not known."""
        if start is None or start is NOT_ASKED:
            return None
        try:
            if start.pid != System.getpid():  # begun before a fork
                return None
            if self._usage() != start.usage:
                return True
            changed = (self._list() if self._any() else NOBODY) ^ start.children
            return bool(changed and changed - self._helpers - standing_pids())
        except Exception:  # noqa: BLE001 - no fault of the measuring reaches the block
            return None


@functools.cache
def process_census() -> Census:
    """Return this process's census."""
    return Census()
