"""The fork server's own side: the loop that forks children and waits for them."""

from __future__ import annotations

import contextlib
import os
import posix
import select
import signal
import traceback
from collections.abc import Collection, Sequence
from typing import Any, NoReturn, Protocol

from pytest_imu.isolation.channel import Channel, Message, System

LOOK_S = 1.0
"""How long the server waits at a time. It counts these looks, and reads no clock: a machine or a job
that was suspended has lost no patience."""
TEARDOWN_LOOKS = 5
"""How many looks a child may take to tear its fixtures down once it was told to end."""
STOPPED_LOOKS = 5
"""How many looks a child may stand stopped, until someone lets it go on."""

CUT_OFF = 254
"""The exit status of a child that can tell nothing else any more."""


class Workshop(Protocol):
    """What is done in the processes that are forked."""

    def prepare(self, descriptors: Collection[int]) -> None:
        """Get the server ready, before its first child; these descriptors are its own."""

    def import_modules(self, names: Sequence[str]) -> dict[str, int]:
        """Import modules in the server; return the bytes that each package took."""

    def work(self, task: Message, channel: Channel) -> None:
        """Do a piece of work, in a child, and tell the session of it."""

    def close(self) -> None:
        """Clear up in the server, after its last child."""


def serve(
    orders: Channel, lines: Channel, workshop: Workshop, *, mask: set[int], detached: bool
) -> NoReturn:
    """Fork once more, and then children until the session closes its ends or is no more; never returns.

    It is entered with all signals held; *mask* are those that the session itself held.
    """
    status = 1
    try:
        session = posix.getppid()
        if detached:
            posix.setsid()
        if System.fork() == 0:
            server = _Server(orders, lines, workshop, session=session, detached=detached)
            System.set_signal_mask(signal.SIG_SETMASK, mask)
            workshop.prepare(server.descriptors)
            server.run()
        status = 0
    except BaseException:  # noqa: BLE001 - it must never come back to the session's code
        traceback.print_exc()
    finally:
        System.exit_now(status)


class _Server:
    """The loop. It runs no test, so nothing here is mocked."""

    def __init__(
        self, orders: Channel, lines: Channel, workshop: Workshop, *, session: int, detached: bool
    ) -> None:
        for end in (orders, lines):
            end.adopt()
        self._orders = orders
        self._lines = lines
        self._workshop = workshop
        self._detached = detached
        self._child: int | None = None
        self._looks_left: int | None = None
        """Until the child is sent the next signal; None where it may take its time."""
        self._next_signal: int = signal.SIGKILL
        self._is_ending = False
        self._stopped_by: str | None = None
        self._wakeup, self._alarm = posix.pipe()
        for descriptor in (self._wakeup, self._alarm):
            posix.set_blocking(descriptor, False)
        # By this it knows that the session has ended, though what a test has forked holds its channel.
        self._session = _pidfd(session)
        self._wakeup_before = System.set_wakeup_fd(self._alarm, warn_on_full_buffer=False)
        # Only what Python handles writes to the descriptor that wakes the loop.
        wanted: dict[int, Any] = {signal.SIGINT: System.IGNORE, signal.SIGCHLD: lambda *_: None}
        self._handlers_before = {
            number: System.set_handler(number, handler) for number, handler in wanted.items()
        }

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that it has open for itself."""
        own = (self._orders.descriptor, self._lines.descriptor, self._wakeup, self._alarm)
        return (*own, *self._session)

    def run(self) -> None:
        """Wait for orders and for the child's end; end with the session."""
        self._orders.send(System.getpid())
        poll = System.poll()
        for descriptor in (self._orders.descriptor, self._wakeup, *self._session):
            poll.register(descriptor, select.POLLIN)
        try:
            while True:
                ready = {descriptor for descriptor, _ in poll.poll(LOOK_S * 1000)}
                if self._wakeup in ready:
                    System.read(self._wakeup, select.PIPE_BUF)
                self._look_after_child()
                if not ready:
                    self._lose_patience()
                if ready.intersection(self._session):
                    return
                if self._orders.descriptor in ready and not self._take_orders():
                    return
        finally:
            if self._child is not None:
                System.kill(self._child, signal.SIGKILL)
                System.waitpid(self._child, 0)
            self._workshop.close()

    def _take_orders(self) -> bool:
        """Do what the session asks for; whether there may be more to do."""
        try:
            orders = self._orders.receive()
        except EOFError:
            return False
        for order in orders:
            match order["do"]:
                case "run":
                    self._begin(order["task"])
                case "import":
                    self._tell({"imported": self._workshop.import_modules(order["names"])})
                case "end":
                    self._is_ending = True
                    self._next_signal, self._looks_left = signal.SIGINT, order["looks"]
                    if not self._looks_left:
                        self._send_next_signal()
                case "kill":
                    self._next_signal = signal.SIGKILL
                    self._send_next_signal()
                case _:
                    return False
        return True

    def _begin(self, task: Message) -> None:
        self._looks_left = self._stopped_by = None
        self._is_ending = False
        try:
            child = System.fork()
        except OSError as error:
            self._tell({"ended": f"could not be forked: {error.strerror or error}"})
            return
        if child == 0:
            self._be_child(task)
        self._child = child

    def _be_child(self, task: Message) -> NoReturn:
        status = 1
        try:
            self._tell({"child": System.getpid()})  # before all else: its test may end the server
            for descriptor in self.descriptors:
                if descriptor != self._lines.descriptor:
                    System.close(descriptor)
            if self._detached:
                posix.setpgid(0, 0)
            self._lines.adopt()
            System.set_wakeup_fd(self._wakeup_before)
            for signal_number, handler in self._handlers_before.items():
                if handler is not None:  # one that was not set by Python cannot be given back by it
                    System.set_handler(signal_number, handler)
            self._workshop.work(task, self._lines)
            status = 0
        except ConnectionAbortedError:
            status = CUT_OFF
        except BaseException:  # noqa: BLE001 - a child must never come back to the server's loop
            traceback.print_exc()
        finally:
            System.exit_now(status)

    def _look_after_child(self) -> None:
        if self._child is None:
            return
        pid, status = System.waitpid(self._child, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        if not pid:
            return
        if os.WIFSTOPPED(status):
            self._stopped_by = signal_name(os.WSTOPSIG(status))
            self._next_signal, self._looks_left = signal.SIGKILL, STOPPED_LOOKS
        elif os.WIFCONTINUED(status):
            self._stopped_by = None
            if not self._is_ending:
                self._looks_left = None
        else:
            self._child = None
            self._tell({"ended": self._why(os.waitstatus_to_exitcode(status))})

    def _why(self, exit_code: int) -> str:
        if exit_code == CUT_OFF:
            return "closed the descriptor on which its result was to be sent"
        if exit_code >= 0:
            return f"ended with status {exit_code} before the test did"
        if self._stopped_by is not None and exit_code == -signal.SIGKILL:
            return f"was stopped by {self._stopped_by}, and killed because nothing continued it"
        return f"was killed by {signal_name(-exit_code)}"

    def _lose_patience(self) -> None:
        if self._looks_left is not None:
            self._looks_left -= 1
            if self._looks_left < 0:
                self._send_next_signal()

    def _send_next_signal(self) -> None:
        if self._child is not None:
            System.kill(self._child, self._next_signal)
        self._next_signal, self._looks_left = signal.SIGKILL, TEARDOWN_LOOKS

    def _tell(self, answer: Message) -> None:
        with contextlib.suppress(OSError):  # the session is no more, which the loop finds out
            self._orders.send(answer)


def _pidfd(pid: int) -> tuple[int, ...]:
    """Return a descriptor that can be read when a process has ended, where the system has such."""
    try:
        return (posix.pidfd_open(pid),)  # Linux 5.3 and newer
    except (AttributeError, OSError):
        return ()


def signal_name(number: int) -> str:
    """Return a signal's name and number."""
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:  # a real-time signal has none
        return f"signal {number}"
