"""The session's end of the process that forks: it asks for children and hears of them.

Three processes: the session; the fork server, which was forked before any test ran, forks a child for
each isolated test, waits for it and says how it ended; and the child, which runs the test. The server is
not the session's child, so that no test can wait for it, and stands in a session of its own.
"""

from __future__ import annotations

import contextlib
import select
import signal
import warnings
from collections import deque
from collections.abc import Sequence

import pytest

from pytest_imu.core.children.census import helper_pids
from pytest_imu.isolation.channel import Message, System, channel, signals_held
from pytest_imu.isolation.forkserver_process import LOOK_S, Workshop, serve

IMPORT_LOOKS = 60
"""How many seconds the server may take to import what a test has brought in."""
START_LIMIT_S = 60
"""How long the server may take to say that it is there."""


class ForkServer:
    """The session's end. One child runs at a time."""

    # Bound here, as all is that a test may have mocked when a server is started again.
    _ignore_warnings = staticmethod(warnings.filterwarnings)

    def __init__(self, workshop: Workshop, *, detached: bool = True) -> None:
        """Fork the server, and let it and its children do what the *workshop* says.

        A *detached* server has no terminal, and its children are groups of their own, which no signal
        reaches but theirs.
        """
        self._orders, orders = channel()
        self._lines, lines = channel()
        self.pid: int | None = None
        self.child: int | None = None
        """The child that runs, as far as is known."""
        self._events: deque[Message] = deque()
        # Python's warning of threads in a process that forks is not for those who asked for this one.
        self._ignore_warnings("ignore", category=DeprecationWarning, module=__name__.replace(".", r"\."))
        with contextlib.suppress(OSError, EOFError):  # then it is lost, as each test will say
            try:
                with signals_held() as mask:
                    middle = System.fork()
                    if middle == 0:
                        self._orders.close()
                        self._lines.close()
                        serve(orders, lines, workshop, mask=mask, detached=detached)
                    with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored here
                        System.waitpid(middle, 0)
            finally:
                orders.close()
                lines.close()
            self.pid = self._hear_pid()
            helper_pids().add(self.pid)

    @property
    def is_mine(self) -> bool:
        """Whether this is the process that made it, and not one that a test has forked."""
        return self._orders.is_mine

    @property
    def is_lost(self) -> bool:
        """Whether it can fork no more: it has ended, or a test has closed the way to it."""
        is_open = self._orders.is_open and self._lines.is_open
        return self.pid is None or not is_open or self._orders.has_input  # only its end could be there

    def begin(self, task: Message) -> None:
        """Ask for a child that does this piece of work; how that went is told by `next_event()`."""
        self.child = None
        self._lines.forget()
        self._events.clear()
        self._order({"do": "run", "task": task})

    def import_modules(self, names: Sequence[str]) -> dict[str, int]:
        """Have the server import modules, for all children to come; return the bytes each package took.

        Nothing where the server is lost, or they take too long.
        """
        self._order({"do": "import", "names": [*names]})
        try:
            while not isinstance(event := self.next_event(IMPORT_LOOKS), str):
                if "imported" in event:
                    return dict(event["imported"])
        except TimeoutError:
            self.kill()
        return {}

    def end(self, looks: int) -> None:
        """Have the child end: give it so many seconds, then interrupt it, and at last kill it."""
        self._order({"do": "end", "looks": looks})

    def kill(self) -> None:
        """Kill the child."""
        self._order({"do": "kill"})

    def kill_and_wait(self) -> None:
        """Kill the child, and wait until it has ended."""
        self.kill()
        while not isinstance(self.next_event(), str):
            continue

    def next_event(self, looks: int | None = None) -> Message:
        """Return the child's next message, a dict, or how it ended, in words about the child process.

        TimeoutError where nothing has come in so many seconds.
        """
        waited = 0
        while not self._events:
            if waited == looks:
                raise TimeoutError
            poll = System.poll()
            for end in (self._lines, self._orders):
                poll.register(end.descriptor, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll(LOOK_S * 1000)}
            if not ready and self.pid is not None:
                waited += 1
                with contextlib.suppress(OSError):
                    System.kill(self.pid, signal.SIGCONT)  # a test may have stopped it
                continue
            # An exception that a signal's handler raises shall not lose what was just read.
            with signals_held():
                try:
                    self._take_in(ready)
                except EOFError:
                    self._note_loss()
        return self._events.popleft()

    def answer(self, token: Message) -> None:
        """Let the child go on that waits for this answer."""
        with contextlib.suppress(OSError):  # it may have died since
            self._lines.send(token)

    def close(self) -> None:
        """End the server, and the child where one still runs."""
        if self.is_mine:
            self._order({"do": "close"})  # what a test has forked may hold the channel open
            self._orders.close()
            self._lines.close()
        helper_pids().difference_update((self.pid,))

    def _hear_pid(self) -> int:
        poll = System.poll()
        poll.register(self._orders.descriptor, select.POLLIN)
        if not poll.poll(START_LIMIT_S * 1000):
            raise EOFError
        return int(self._orders.receive()[0])

    def _order(self, order: Message) -> None:
        with contextlib.suppress(OSError):  # a server that has died is found out by next_event()
            self._orders.send(order)

    def _take_in(self, ready: set[int]) -> None:
        if self._lines.descriptor in ready:
            self._events.extend(self._lines.receive())
            return
        for answer in self._orders.receive():
            if "child" in answer:
                self.child = answer["child"]
                continue
            if "imported" in answer:
                self._events.append(answer)
                continue
            while self._lines.has_input:  # what it sent before it ended
                self._events.extend(self._lines.receive())
            self.child = None
            self._events.append(answer["ended"])

    def _note_loss(self) -> None:
        """Take in that the server itself is no more, and let no child of its outlive it."""
        self.pid = None
        if self.child is not None:
            with contextlib.suppress(OSError):
                System.kill(self.child, signal.SIGKILL)
        self._events.append("was lost: the process that forks isolated tests has ended")


class EndsForkServer:
    """The hooks that end the process that forks."""

    _server: ForkServer | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """End it with the session."""
        self._close()

    @pytest.hookimpl
    def pytest_unconfigure(self) -> None:
        """End it where the session did not come to its own end."""
        self._close()

    def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
