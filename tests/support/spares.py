"""Lets xdist's workers be forks, too: of the run's own process, from before pytest began in it."""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

SPARES = 2
"""As many as most runs have workers; what more they need is started anew, as xdist does it."""
MOST_BYTES = 2**20


class Spare:
    """A process that waits to become a worker, or for the end of who forked it.

    It is as much of a `Popen` as execnet asks for.
    """

    def __init__(self, become_worker: Callable[[dict[str, Any]], None]) -> None:
        """Fork it; *become_worker* gets, in it, what `start` was told."""
        self._connection, theirs = socket.socketpair()
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._connection.close()
            with theirs:
                message, descriptors, *_ = socket.recv_fds(theirs, MOST_BYTES, 2)
                while message and not message.endswith(b"\n"):  # one receive gives 36 kB at most
                    message += theirs.recv(MOST_BYTES)
            if not message:
                os._exit(0)
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
                os.close(descriptor)
            become_worker(json.loads(message))
            sys.exit()
        theirs.close()

    def start(self, program: str) -> None:
        """Let it run a program here, with pipes as its standard input and output."""
        its_input, ours_to_write = os.pipe()
        ours_to_read, its_output = os.pipe()
        order = {"arguments": [program], "environment": dict(os.environ), "folder": str(Path.cwd())}
        message = json.dumps(order).encode() + b"\n"
        with self._connection:
            rights = array.array("i", [its_input, its_output])
            socket.send_fds(self._connection, [message], rights)
        os.close(its_input)
        os.close(its_output)
        self.stdin: IO[bytes] = os.fdopen(ours_to_write, "wb")
        self.stdout: IO[bytes] = os.fdopen(ours_to_read, "rb")

    def wait(self) -> int:
        """Return the exit status, -N for signal N."""
        if self._status is None:
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def kill(self) -> None:
        """End it, unless it was waited for."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)


def keep_spares(arguments: Sequence[str], run_program: Callable[[dict[str, Any]], None]) -> None:
    """Fork spares for a run that has workers, and let execnet take them as long as there are some."""
    if "xdist" not in arguments:
        return
    from execnet import gateway_io
    from execnet.gateway_base import Popen2IO

    spares = [Spare(run_program) for _ in range(SPARES)]

    program = gateway_io.popen_bootstrapline
    started = gateway_io.Popen2IOMaster.__init__

    def taken_or_started(self: Any, args: list[str], execmodel: Any) -> None:
        if not spares or args != [sys.executable, "-u", "-c", program]:
            started(self, args, execmodel)
            return
        self.popen = spares.pop(0)
        self.popen.start(program)
        Popen2IO.__init__(self, self.popen.stdin, self.popen.stdout, execmodel)

    gateway_io.Popen2IOMaster.__init__ = taken_or_started  # type: ignore[method-assign]  # the seam
