"""A process that forks on demand: a child for each piece of work, out of a process that did none.

Three processes: the session asks for children; the nursery, forked from it once, forks them, waits
for them and says how each ended; a child does one piece of work and sends lines home. It knows
nothing of pytest. What is used of the system (sockets, signals, fork) is what every Unix has.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pytest_imu.isolation.forkserver_process import (
    ANSWER,
    ASKS,
    CHUNK_BYTES,
    END,
    Work,
    fork,
    serve,
    signals_held,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a child ended: all that it sent was handed out before."""

    exit_code: int | None
    """As subprocess has it: negative is a signal's number; None where there is no telling."""
    fault: str | None = None
    """Why there is no telling, or why there was no child."""

    @property
    def why(self) -> str:
        """The end in words, as the end of a sentence about the child."""
        if self.exit_code is None:
            return str(self.fault)
        if self.exit_code >= 0:
            return f"ended with status {self.exit_code} before the test did"
        return f"was killed by {signal_name(-self.exit_code)}"


class Nursery:
    """The session's end. One child runs at a time; it is only good in the process that made it."""

    def __init__(self, work: Work, *, prepare: Callable[[], None] = lambda: None) -> None:
        """Fork the nursery, which calls *prepare* once; each child calls *work*.

        *work* gets the number that was asked for and a way to send lines home.
        """
        self._owner = os.getpid()
        self._orders, orders = socket.socketpair()
        self._lines, lines = socket.socketpair()
        for end in (self._orders, self._lines):
            end.settimeout(0)
        with signals_held() as mask:
            self.pid = fork()
            if self.pid == 0:
                self._orders.close()
                self._lines.close()
                serve(orders, lines, work, prepare=prepare, parent=self._owner, mask=mask)
        orders.close()
        lines.close()
        self._child: int | None = None
        self._unread = b""
        self._unread_answers = b""
        self._events: deque[bytes | Ended] = deque()
        self._owes_answer = False
        self._fault: str | None = None

    @property
    def is_mine(self) -> bool:
        """Whether this is the process that made it, and not one that a test has forked."""
        return os.getpid() == self._owner

    def begin(self, number: int) -> None:
        """Ask for a child that does this piece of work; how that went is told by `next_event()`."""
        self._unread, self._child, self._owes_answer = b"", None, False
        self._events.clear()
        if self._fault is None:
            self._order(f"run {number}")
        else:
            self._events.append(Ended(exit_code=None, fault=self._fault))

    def signal(self, number: int) -> None:
        """Send the running child a signal; nothing happens where it has ended."""
        self._order(f"signal {number}")

    def next_event(self, timeout_s: float | None = None) -> bytes | Ended | None:
        """Return the child's next line, or how it ended, or None after *timeout_s* without either.

        A child that waits does so until the next event is asked for: what the session prints for a
        line comes before what the child prints after it.
        """
        if self._owes_answer:
            self._owes_answer = False
            with contextlib.suppress(OSError):  # it may have died since
                self._lines.send(ANSWER)
        while not self._events:
            poll = select.poll()
            poll.register(self._lines, select.POLLIN)
            poll.register(self._orders, select.POLLIN)
            ready = poll.poll(None if timeout_s is None else timeout_s * 1000)
            if not ready:
                return None
            # An exception that a signal's handler raises shall not lose what was just read.
            with signals_held():
                self._take_in({descriptor for descriptor, _ in ready})
        event = self._events.popleft()
        if isinstance(event, Ended):
            return event
        self._owes_answer = event.startswith(ASKS)
        return event[len(ASKS) :]

    def close(self) -> None:
        """End the nursery, and the child where one still runs, and wait for it."""
        if not self.is_mine or self._lines.fileno() < 0:
            return
        self._orders.close()
        self._lines.close()
        if self._fault is None:
            os.waitpid(self.pid, 0)

    def _order(self, order: str) -> None:
        with contextlib.suppress(OSError):  # a nursery that has died is found out by next_event()
            self._orders.send(order.encode() + END)

    def _take_in(self, ready: set[int]) -> None:
        if self._lines.fileno() in ready:
            self._take_lines()
        if self._orders.fileno() in ready:
            self._take_answers()

    def _take_lines(self) -> None:
        while chunk := receive(self._lines):
            *whole, self._unread = (self._unread + chunk).split(END)
            self._events.extend(line for line in whole if line)

    def _take_answers(self) -> None:
        chunk = receive(self._orders)
        if chunk is None:
            return
        if not chunk:
            self._note_death()
        *whole, self._unread_answers = (self._unread_answers + chunk).split(END)
        for answer in whole:
            word, _, rest = answer.decode().partition(" ")
            if word == "started":
                self._child = int(rest)
                continue
            self._take_lines()  # what it sent before it ended
            self._child = None
            self._events.append(
                Ended(exit_code=None, fault=rest)
                if word == "failed"
                else Ended(exit_code=os.waitstatus_to_exitcode(int(rest)))
            )

    def _note_death(self) -> None:
        """Take in that the nursery itself is no more, and let no child of its outlive it."""
        _, status = os.waitpid(self.pid, 0)
        why = Ended(exit_code=os.waitstatus_to_exitcode(status)).why
        self._fault = f"was lost: the process that forks {why}"
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
        self._take_lines()
        self._events.append(Ended(exit_code=None, fault=self._fault))


def receive(source: socket.socket) -> bytes | None:
    """Return what is there, b"" at the end; None where there is nothing yet."""
    try:
        return source.recv(CHUNK_BYTES)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        return b""


def signal_name(number: int) -> str:
    """Return a signal's name and number."""
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:  # a real-time signal has none
        return f"signal {number}"
