"""Whole messages between two processes, whatever a test has mocked, patched or closed.

The system is called through C functions that are bound here, in a class: mocks replace attributes of
modules, gevent those of os, select and signal, freezegun and pyfakefs what others imported from them.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C module under signal, which has no types
import _socket
import contextlib
import fcntl
import importlib.util
import marshal
import posix
import resource
import select
from collections.abc import Iterator
from typing import Any

from pytest_imu.core import system
from pytest_imu.core.descriptor import Descriptor

Message = Any
"""What marshal knows: None, numbers, text, bytes, and tuples, lists and dicts of them."""

HEADER_BYTES = 8
"""What stands before a message: its length."""
CHUNK_BYTES = 2**20
HIGHEST_DESCRIPTOR = 4096
"""Our descriptors stand just below the limit of the process, or below this: a test may close all that
are low, and the kernel copies a table up to the highest at each fork."""
SPARE = 16

HELD = (
    *(_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT),
    *(_signal.SIGALRM, _signal.SIGVTALRM, _signal.SIGPROF),
    *(_signal.SIGUSR1, _signal.SIGUSR2, _signal.SIGCHLD),
)
"""What waits while a message is written or read; to name all signals that there are takes longer."""


def _unpatched_poll() -> Any:
    """Return select.poll from a module made afresh: gevent may have replaced it before we came."""
    spec = importlib.util.find_spec("select")
    if spec is None or spec.loader is None:  # it is compiled into this interpreter in a way of its own
        return select.poll
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.poll


class System(system.System):
    """What isolation calls of the system, beside what all measuring does."""

    IGNORE = _signal.SIG_IGN
    exit_now = staticmethod(posix._exit)  # noqa: SLF001 - its name is the system's
    fcntl = staticmethod(fcntl.fcntl)
    fork = staticmethod(posix.fork)
    kill = staticmethod(posix.kill)
    poll = staticmethod(_unpatched_poll())
    set_handler = staticmethod(_signal.signal)
    set_signal_mask = staticmethod(_signal.pthread_sigmask)
    set_wakeup_fd = staticmethod(_signal.set_wakeup_fd)
    waitpid = staticmethod(posix.waitpid)
    dump = staticmethod(marshal.dumps)
    load = staticmethod(marshal.loads)


@contextlib.contextmanager
def signals_held() -> Iterator[set[int]]:
    """Let signals wait that somebody may handle; the block gets those that waited before."""
    before: set[int] = System.set_signal_mask(_signal.SIG_BLOCK, HELD)
    try:
        yield before
    finally:
        System.set_signal_mask(_signal.SIG_SETMASK, before)


class Channel:
    """One end: good in the process that made or adopted it, while its descriptor is the same file."""

    def __init__(self, descriptor: int) -> None:
        """Take over a descriptor, under a high number."""
        self.descriptor = moved_high(descriptor)
        self._file = Descriptor(self.descriptor)
        self._unread = bytearray()
        self.adopt()

    def adopt(self) -> None:
        """Make it this process's own, after a fork."""
        self._owner = system.OwnProcess()

    @property
    def is_mine(self) -> bool:
        """Whether this is the process that it belongs to, and not one that a test has forked."""
        return self._owner.is_current

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed the descriptor, or opened another file under its number."""
        return self._file.is_ours

    @property
    def has_input(self) -> bool:
        """Whether there is something to receive, be it the end."""
        poll = System.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def send(self, message: Message) -> None:
        """Send a message whole, whatever a signal's handler raises; OSError where nobody listens."""
        body = System.dump(message)
        left = memoryview(len(body).to_bytes(HEADER_BYTES, "big") + body)
        with signals_held():
            if not self.is_open:
                raise ConnectionAbortedError  # a test has closed it
            while left:
                left = left[System.write(self.descriptor, left) :]

    def receive(self) -> list[Message]:
        """Wait for input and return the messages that it completes; EOFError where there is no more."""
        try:
            chunk = System.read(self.descriptor, CHUNK_BYTES)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            raise EOFError
        self._unread += chunk
        return list(self._completed())

    def forget(self) -> None:
        """Drop the beginning of a message whose sender has died."""
        self._unread.clear()

    def close(self) -> None:
        """Close the descriptor, unless a test has."""
        self._file.close()

    def _completed(self) -> Iterator[Message]:
        while len(self._unread) >= HEADER_BYTES:
            end = HEADER_BYTES + int.from_bytes(self._unread[:HEADER_BYTES], "big")
            if len(self._unread) < end:
                return
            yield System.load(self._unread[HEADER_BYTES:end])
            del self._unread[:end]


def channel() -> tuple[Channel, Channel]:
    """Return the two ends of a new channel."""
    # _socket's own: gevent's would not block, and pytest-socket forbids the others.
    one, other = (end.detach() for end in _socket.socketpair())
    for end in (one, other):
        posix.set_blocking(end, True)  # whatever socket.setdefaulttimeout() was told
    return Channel(one), Channel(other)


def moved_high(descriptor: int) -> int:
    """Put a descriptor under a high number, where one is free; return the number it has now."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    start = (HIGHEST_DESCRIPTOR if limit < 0 else min(limit, HIGHEST_DESCRIPTOR)) - SPARE
    try:
        high = System.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, start)
    except OSError:  # none is free up there
        return descriptor
    System.close(descriptor)
    return high
