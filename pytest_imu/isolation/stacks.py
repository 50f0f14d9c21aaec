"""Where each thread of a child stands, asked by a signal: also of a child that hangs in a lock."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import tempfile

from pytest_imu.isolation.channel import System

ASKED_BY = getattr(signal, "SIGRTMAX", signal.SIGUSR2) - 3
"""The signal that asks: one that nobody uses, where the system has some."""


class Stacks:
    """A file that the session shares with its children, into which faulthandler writes."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it stands as long as the session

    def be_askable(self) -> None:
        """Let this process, and what it forks, write its stacks when it is asked."""
        with contextlib.suppress(RuntimeError, ValueError, OSError, AttributeError):
            faulthandler.register(ASKED_BY, file=self._file, all_threads=True)

    def ask(self, pid: int) -> None:
        """Ask a child; what it answers can be read as soon as it has run."""
        with contextlib.suppress(OSError):
            self._file.truncate(0)
            self._file.seek(0)
            System.kill(pid, ASKED_BY)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self) -> str:
        """Return what was answered."""
        with contextlib.suppress(OSError, ValueError):
            return os.pread(self._file.fileno(), 2**20, 0).decode(errors="replace").strip("\0")
        return ""
