"""The nursery's own side: the loop that forks children and waits for them, and a child's way home."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn, Protocol

END = b"\n"
ANSWER = b"!"
"""What the session sends back for a line whose sender waits."""
CHUNK_BYTES = 2**16
PARENT_LOOK_S = 1.0
"""How often the nursery looks whether the session lives: what a test has forked may hold its socket."""
HIGH_DESCRIPTOR = 200
"""From here on is the descriptor on which lines go home: a test may close all those that are low."""

ASKS = b"?"
TELLS = b"."
"""How a line begins whose sender waits for the answer, and how one that nobody waits for."""


HELD = frozenset(
    {
        *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
        *(signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF),
        *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD),
    }
)
"""What waits while a line is written; to name all signals that there are takes Python 0.3 ms."""


class Send(Protocol):
    """A child's way to send lines home."""

    def __call__(self, line: bytes, /, *, wait: bool) -> None:
        """Send a line; with *wait*, return when the session has done what it does for it."""


Work = Callable[[int, Send], None]


class Home:
    """A child's way to send lines home."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._identity = _identity(descriptor)
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def send(self, line: bytes, /, *, wait: bool) -> None:
        """Send a line; with *wait*, return when the session has done what it does for it.

        Raises RuntimeError where the test has closed the descriptor; what a test has forked is silent.
        """
        if os.getpid() != self._owner:
            return
        # Whole or not at all, whatever a signal's handler raises.
        with self._lock, signals_held():
            if _identity(self._descriptor) != self._identity:
                message = "the test has closed the descriptor on which its result goes home"
                raise RuntimeError(message)
            left = memoryview((ASKS if wait else TELLS) + line + END)
            while left:
                left = left[os.write(self._descriptor, left) :]
            if wait:
                os.read(self._descriptor, len(ANSWER))


@dataclass(frozen=True, slots=True, kw_only=True)
class Originals:
    """The session's way with signals, which each child gets back."""

    handlers: dict[int, Any]  # Any: a function or one of signal's own constants
    wakeup: int

    def restore(self) -> None:
        """Give every signal the handler that it had in the session."""
        signal.set_wakeup_fd(self.wakeup)
        for number, handler in self.handlers.items():
            signal.signal(number, handler)


def serve(
    orders: socket.socket,
    lines: socket.socket,
    work: Work,
    *,
    prepare: Callable[[], None],
    parent: int,
    mask: set[int],
) -> NoReturn:
    """Fork children until the session closes its end, or is no more; never returns.

    It is entered with all signals held; *mask* are those that the session itself held.
    """
    try:
        server = _Server(orders, lines, work, parent=parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        prepare()
        server.run()
    except BaseException:  # noqa: BLE001 - the nursery must never come back to the session's code
        traceback.print_exc()
    finally:
        os._exit(1)


class _Server:
    """The nursery's loop."""

    def __init__(self, orders: socket.socket, lines: socket.socket, work: Work, *, parent: int) -> None:
        self._orders = orders
        self._home = _moved_high(lines.detach())
        self._work = work
        self._parent = parent
        self._child: int | None = None
        self._unread = b""
        self._wakeup, self._alarm = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(self._alarm, False)
        self._originals = _take_signals(self._alarm)

    def run(self) -> None:
        """Wait for orders and for the child's end; end with the session."""
        poll = select.poll()
        poll.register(self._orders, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        try:
            while os.getppid() == self._parent:
                ready = {descriptor for descriptor, _ in poll.poll(PARENT_LOOK_S * 1000)}
                if self._wakeup in ready:
                    os.read(self._wakeup, CHUNK_BYTES)
                self._look_after_child()
                if self._orders.fileno() in ready and not self._take_orders():
                    return
        finally:
            self._end_child()
            os._exit(0)

    def _take_orders(self) -> bool:
        chunk = self._orders.recv(CHUNK_BYTES)
        *whole, self._unread = (self._unread + chunk).split(END)
        for order in whole:
            word, _, number = order.decode().partition(" ")
            if word == "run":
                self._begin(int(number))
            elif self._child is not None:
                os.kill(self._child, int(number))
        return bool(chunk)

    def _begin(self, number: int) -> None:
        _drain(self._home)
        try:
            child = fork()
        except OSError as error:
            self._answer(f"failed could not be forked: {error.strerror or error}")
            return
        if child == 0:
            self._be_child(number)
        self._child = child
        self._answer(f"started {child}")

    def _be_child(self, number: int) -> NoReturn:
        status = 1
        try:
            self._orders.close()
            os.close(self._wakeup)
            os.close(self._alarm)
            self._originals.restore()
            self._work(number, Home(self._home).send)
            status = 0
        except BaseException:  # noqa: BLE001 - a child must never come back to the nursery's loop
            traceback.print_exc()
        finally:
            os._exit(status)

    def _look_after_child(self) -> None:
        if self._child is None:
            return
        pid, status = os.waitpid(self._child, os.WNOHANG)
        if pid:
            self._child = None
            self._answer(f"ended {status}")

    def _answer(self, answer: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # the session is no more, which the loop finds out
            self._orders.sendall(answer.encode() + END)

    def _end_child(self) -> None:
        if self._child is not None:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)


def fork() -> int:
    """Fork, without Python's warning of threads: it is the session that knows of them, and asked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


@contextlib.contextmanager
def signals_held() -> Iterator[set[int]]:
    """Let signals wait that somebody may handle; the block gets those that waited before."""
    before: set[int] = set(signal.pthread_sigmask(signal.SIG_BLOCK, HELD))
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _take_signals(alarm: int) -> Originals:
    """Make the nursery deaf to Ctrl-C, mortal by the other signals, and awake when a child ends."""

    def wake(_number: int, _frame: FrameType | None) -> None:
        """Exist: only what Python handles writes to the descriptor that wakes the loop."""

    wanted: dict[int, Any] = {  # Any: as in Originals
        signal.SIGINT: signal.SIG_IGN,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGCHLD: wake,
    }
    # None stands for a handler that was not set by Python, and cannot be given back by it.
    found = {number: signal.getsignal(number) for number in wanted}
    originals = Originals(
        handlers={number: handler for number, handler in found.items() if handler is not None},
        wakeup=signal.set_wakeup_fd(alarm, warn_on_full_buffer=False),
    )
    for number in originals.handlers:
        signal.signal(number, wanted[number])
    return originals


def _moved_high(descriptor: int) -> int:
    try:
        high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH_DESCRIPTOR)
    except OSError:  # more than this process may have
        return descriptor
    os.close(descriptor)
    return high


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _drain(descriptor: int) -> None:
    """Forget the answers that came for a child which had ended."""
    with socket.socket(fileno=os.dup(descriptor)) as unread, contextlib.suppress(BlockingIOError):
        while unread.recv(CHUNK_BYTES, socket.MSG_DONTWAIT):
            continue
