"""How long the session waits for an isolated test, and what it says of one that hangs."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_imu.core.memory.platforms import read_proc_file
from pytest_imu.isolation.stacks import Stacks
from pytest_imu.recording.warning import record_warning

IDLE_LOOKS = 30
"""For how many seconds a test may use no processor time, waiting in a lock, before that is said."""
_WAITING = b"S"


class TooLongError(Exception):
    """The test takes longer than `imu_isolate_timeout` allows."""


class Patience:
    """Counts the seconds in which nothing is heard of a test."""

    def __init__(self, item: pytest.Item, stacks: Stacks, limit_s: int) -> None:
        """With a *limit_s* of 0 there is no limit."""
        self._item = item
        self._stacks = stacks
        self._limit_s = limit_s
        self._waited_s = self._idle_s = 0
        self._used: bytes | None = None
        self._told = False

    def end(self) -> None:
        """Have no more limit: the test was told to end."""
        self._limit_s = 0

    def pass_second(self, pid: int | None) -> None:
        """Take in that a second has passed; TooLongError where it was the last."""
        self._waited_s += 1
        if pid is None:
            return
        used = _used_in_lock(pid)
        self._idle_s = self._idle_s + 1 if used is not None and used == self._used else 0
        self._used = used
        if self._idle_s >= IDLE_LOOKS and not self._told:
            self._told = True
            self._tell(
                f"{self._item.nodeid} has waited in a lock for {IDLE_LOOKS} s, using no processor time. "
                "A fork does not copy a library's threads; imu_isolate_timeout ends such a test."
            )
        if self._waited_s == self._limit_s:
            self._stacks.ask(pid)
        if 0 < self._limit_s < self._waited_s:  # a second later: now it has been answered
            message = f"took longer than imu_isolate_timeout = {self._limit_s} s"
            stacks = self._stacks.read()
            raise TooLongError(f"{message}, and stood at:\n{stacks}" if stacks else message)

    def _tell(self, text: str) -> None:
        terminal: Any = self._item.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:  # now: at the end of the run may be never
            terminal.ensure_newline()
            terminal.write_line(f"imu: {text}", yellow=True)
        record_warning(self._item.ihook, text, nodeid=self._item.nodeid)


def _used_in_lock(pid: int) -> bytes | None:
    """Return the processor time of a process whose main thread waits in a lock; None if it does not."""
    try:
        where = read_proc_file(f"/proc/{pid}/wchan")
        fields = read_proc_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return None
    is_waiting = fields[0] == _WAITING and where.startswith(b"futex")
    return b" ".join(fields[11:13]) if is_waiting else None
