"""Where each thread of a child stands, asked by a signal: also of a child that hangs in a lock."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import posix
import signal
import tempfile

from pytest_imu.core.descriptor import ClosedError, Descriptor
from pytest_imu.isolation.channel import System, moved_high

MOST_BYTES = 2**20
ASKED_BY = signal.SIGRTMAX - 3 if hasattr(signal, "SIGRTMAX") else signal.SIGUSR2
"""The signal that asks: one that nobody uses, where the system has some."""


class Stacks:
    """A file that the session shares with its children, into which faulthandler writes."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as file:
            self._file = Descriptor(moved_high(os.dup(file.fileno())))

    def be_askable(self) -> None:
        """Let this process, and what it forks, write its stacks when it is asked."""
        with contextlib.suppress(RuntimeError, ValueError, OSError, AttributeError, ClosedError):
            faulthandler.register(ASKED_BY, file=self._file.number(), all_threads=True)

    def ask(self, pid: int) -> None:
        """Ask a child; what it answers can be read as soon as it has run."""
        with contextlib.suppress(OSError, ClosedError):
            posix.ftruncate(self._file.number(), 0)
            posix.lseek(self._file.number(), 0, os.SEEK_SET)
            System.kill(pid, ASKED_BY)

    def close(self) -> None:
        """Close the file, unless a test has."""
        self._file.close()

    def read(self) -> str:
        """Return what was answered."""
        with contextlib.suppress(OSError, ClosedError):
            return posix.pread(self._file.number(), MOST_BYTES, 0).decode(errors="replace").strip("\0")
        return ""
