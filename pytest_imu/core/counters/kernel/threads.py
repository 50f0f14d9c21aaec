"""The descriptors by which the threads of this process are counted: opened, switched, read, closed."""

from __future__ import annotations

import errno
import resource
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pytest_imu.core.counters.kernel.call import (
    NOT_ALLOWED,
    SWITCH_OFF,
    SWITCH_ON,
    Call,
    EventDescriptor,
    why_refused,
)
from pytest_imu.core.counters.kernel.names import DISABLED, INHERIT, INHERIT_THREAD, Attr
from pytest_imu.core.counters.source import CannotCountError
from pytest_imu.core.system import System

TASKS = "/proc/self/task"
TOO_MANY = frozenset({errno.EMFILE, errno.ENFILE})
LEFT_OUT = "not counted: it happens in the kernel alone, and :u leaves that out"
OWN_SHARE = 2
"""One in so many of the descriptors that this process may have is the most that counting takes."""


class Count(NamedTuple):
    """What an event counted, and for how long it wanted to be on the hardware and was."""

    value: int
    enabled_ns: int
    running_ns: int


Counts = Mapping[str, Count]


class Group:
    """Events of one thread, and of those that it starts, that are on the hardware together."""

    def __init__(self, event: str, number: int) -> None:
        self.events = [event]
        self._descriptors = [EventDescriptor(number)]
        self._last = [0, 0, 0]
        self._form = struct.Struct("=4Q")

    @property
    def leader(self) -> EventDescriptor:
        """The descriptor that stands for all."""
        return self._descriptors[0]

    @property
    def size(self) -> int:
        """How many descriptors it takes."""
        return len(self._descriptors)

    def add(self, event: str, number: int) -> None:
        """Take one more event in."""
        self.events.append(event)
        self._descriptors.append(EventDescriptor(number))
        self._last.append(0)
        self._form = struct.Struct(f"={len(self._last) + 1}Q")

    def advance(self) -> list[int]:
        """Return the time enabled, the time running, and each event's count since the last time."""
        data = self.leader.read(self._form.size)
        if len(data) != self._form.size:  # a descriptor of the group was closed: one event less
            raise self.leader.closed_error()
        last, self._last = self._last, list(self._form.unpack(data)[1:])
        return [new - old for new, old in zip(self._last, last, strict=True)]

    def close(self) -> None:
        """Close all descriptors that are still ours."""
        for descriptor in self._descriptors:
            descriptor.close()


class Threads:
    """All threads that there are, with the events that each is counted by.

    Opened once: the kernel counts what they start from then on by itself, whether the counting is
    switched on at that moment or not, and goes on when they have ended. So no thread that comes later
    needs a descriptor, but for one that is started by another in the moment before that has its own.
    """

    # Bound before any test runs.
    _limits = staticmethod(resource.getrlimit)

    def __init__(
        self, attrs: Mapping[str, Sequence[Attr]], call: Call, *, leave_out: int | None = None
    ) -> None:
        self._call = call
        self._inherit = INHERIT | INHERIT_THREAD
        self._is_together = True
        self._groups: list[Group] = []
        self.refused: dict[str, str] = {}
        """Why some events are not counted."""
        self.user_only: set[str] = set()
        """The events of which the kernel's own share is left out, though nobody asked for that."""
        self._attrs = {event: self._learn(event, own) for event, own in attrs.items()}
        try:
            self._open_all(leave_out)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError) and error.errno in TOO_MANY:
                raise CannotCountError(self._too_many()) from None
            raise

    def is_alive(self) -> bool:
        """Tell whether the descriptors are still ours."""
        return all(group.leader.is_ours for group in self._groups)

    def switch_on(self) -> None:
        """Count; the thread that asks for it comes last."""
        for group in reversed(self._groups):
            group.leader.switch(SWITCH_ON)

    def switch_off(self) -> None:
        """Count no more."""
        for group in self._groups:
            group.leader.switch(SWITCH_OFF)

    def advance(self) -> Counts:
        """Return what was counted since the last time, of all threads together."""
        sums: dict[str, list[int]] = {}
        for group in self._groups:
            enabled_ns, running_ns, *values = group.advance()
            for event, value in zip(group.events, values, strict=True):
                own = sums.setdefault(event, [0, 0, 0])
                own[0] += value
                own[1] += enabled_ns
                own[2] += running_ns
        return {event: self._count(event, *own) for event, own in sums.items()}

    def _count(self, event: str, value: int, enabled_ns: int, running_ns: int) -> Count:
        # The parts of an event take turns: which kind of core a thread is on decides.
        return Count(value, enabled_ns // len(self._attrs[event]), running_ns)

    def close(self) -> None:
        """Close all descriptors that are still ours."""
        for group in self._groups:
            group.close()
        self._groups = []

    def _learn(self, event: str, attrs: Sequence[Attr]) -> list[Attr]:
        """Return the parts of an event that can be counted, in the way in which they can be."""
        found = []
        for asked in attrs:
            try:
                attr = self._tried(asked)
            except OSError as error:
                if error.errno in TOO_MANY:
                    raise CannotCountError(self._too_many()) from None
                self.refused[event] = why_refused(error.errno or 0, in_kernel=bool(asked.flags))
                continue
            if attr.is_always_0:
                not_allowed = why_refused(errno.EACCES, in_kernel=True)
                self.refused[event] = LEFT_OUT if asked.is_always_0 else not_allowed
                return []
            if attr != asked:
                self.user_only.add(event)
            found.append(attr)
        if found:
            self.refused.pop(event, None)
        return found

    def _tried(self, attr: Attr) -> Attr:
        """Return the attr with which an event opens; OSError if none does."""
        try:
            self._try(attr)
        except OSError as error:
            if error.errno not in NOT_ALLOWED or attr.flags:
                raise
            attr = attr.in_user_space()
            self._try(attr)
        return attr

    def _try(self, attr: Attr) -> None:
        inherit = self._inherit
        try:
            EventDescriptor(self._open_event(attr, 0)).close()
        except OSError as error:
            if error.errno != errno.EINVAL or inherit == INHERIT:
                raise
            self._inherit = INHERIT  # before 5.13: child processes are counted too
            try:
                self._try(attr)
            except OSError:
                self._inherit = inherit  # that was not the reason
                raise

    def _open_all(self, leave_out: int | None) -> None:
        own = System.thread_id()
        self._open(own)
        self.switch_on()
        self.switch_off()
        if not all(count.running_ns for count in self.advance().values()):
            # Something else holds a part of the hardware: a group may never get onto it as a whole.
            self.close()
            self._is_together = False
            self._open(own)
        others = {int(name) for name in System.listdir(TASKS)} - {own, leave_out}
        wanted = sum(group.size for group in self._groups) * (1 + len(others))
        if wanted * OWN_SHARE > self._limit() > 0:
            raise OSError(errno.EMFILE, TASKS)
        for thread in sorted(others):
            try:
                self._open(thread)
            except ProcessLookupError:  # it has ended meanwhile
                continue

    def _open(self, thread: int) -> None:
        leading: dict[int, Group] = {}
        for event, attr in ((event, attr) for event, own in self._attrs.items() for attr in own):
            group = leading.get(attr.group)
            if group is not None and self._joins(group, event, attr, thread):
                continue
            group = Group(event, self._open_event(attr, thread))
            self._groups.append(group)
            if self._is_together or attr.is_software:
                leading[attr.group] = group

    def _joins(self, group: Group, event: str, attr: Attr, thread: int) -> bool:
        """Open an event in a group; False where the hardware does not have as many counters."""
        try:
            group.add(event, self._open_event(attr, thread, group.leader.number()))
        except OSError as error:
            if error.errno in TOO_MANY or isinstance(error, ProcessLookupError):
                raise
            return False
        return True

    def _open_event(self, attr: Attr, thread: int, group: int = -1) -> int:
        # What leads is switched on and off; what is in its group follows.
        return self._call(attr.to_bytes(self._inherit | (DISABLED if group < 0 else 0)), thread, group)

    def _limit(self) -> int:
        return self._limits(resource.RLIMIT_NOFILE)[0]

    def _too_many(self) -> str:
        return (
            f"counting takes a descriptor for each thread and event, and this process may have "
            f"{self._limit()}: ulimit -n allows more"
        )
