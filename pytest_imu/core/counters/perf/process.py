"""One running `perf stat`: started, switched on and off, read, and ended on every way out."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import IO, Self

from pytest_imu.core.children.census import helper_pids
from pytest_imu.core.counters.perf.command import (
    PerfCommand,
    PerfUnavailableError,
    paranoid_level,
    perf_environment,
    why_refused,
)

TICK_MS = 2
"""How often perf prints: a window's counts are there at the first tick after its end."""
START_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 2.0
END_TIMEOUT_S = 1.0
POLL_S = 0.0002


class PerfProcess:
    """A perf that is attached to a process, and counts only between `enable()` and `disable()`."""

    # Bound before any test runs: one that stops the clock, or forbids to sleep, shall not hang this.
    _clock_s = staticmethod(time.monotonic)
    _sleep = staticmethod(time.sleep)

    def __init__(self, command: PerfCommand, events: Sequence[str], *, pid: int, tick_ms: int) -> None:
        self._log = _unlinked_file()
        self._errors = _unlinked_file()
        self._read_bytes = 0
        self._lines_a_tick: int | None = None
        control_read, self._control = os.pipe()
        self._answers, answers_write = os.pipe()
        handed = (control_read, answers_write, self._log.fileno())
        try:
            self._process = subprocess.Popen(
                [
                    *(command.path, "stat", "-p", str(pid)),
                    *("-e", ",".join(events), "-x", ";", "-I", str(tick_ms)),
                    *("-D", "-1", "--control", f"fd:{control_read},{answers_write}"),
                    *("--log-fd", str(self._log.fileno())),
                ],
                pass_fds=handed,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=perf_environment(),
                # A Ctrl-C is for the person's own program: perf is ended by us.
                start_new_session=True,
            )
        except OSError as error:
            self._close_files()
            message = f"{command.path} does not run: {error.strerror or error}"
            raise PerfUnavailableError(message) from None
        finally:
            os.close(control_read)
            os.close(answers_write)
        helper_pids().add(self.pid)

    @classmethod
    def started(
        cls,
        command: PerfCommand,
        events: Sequence[str],
        *,
        pid: int | None = None,
        tick_ms: int = TICK_MS,
    ) -> Self:
        """Start perf, on this process or on *pid*, and wait until it answers.

        Raises PerfUnavailableError with the reason why it does not.
        """
        if not command.has_control:
            message = f"perf {command.version_text} is older than 5.10, which brought --control"
            raise PerfUnavailableError(message)
        process = cls(command, events, pid=os.getpid() if pid is None else pid, tick_ms=tick_ms)
        try:
            process._tell(b"disable\n", timeout_s=START_TIMEOUT_S)
            process._learn_lines_a_tick()
        except PerfUnavailableError:
            process.stop()
            raise
        return process

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def enable(self) -> None:
        """Begin to count; what perf has printed until now is forgotten."""
        # The file is emptied while perf is writing to it, at its end: it never grows past a window.
        self._log.truncate(0)
        self._read_bytes = 0
        self._tell(b"enable\n", timeout_s=ANSWER_TIMEOUT_S)

    def disable(self) -> None:
        """Stop counting; what was counted is complete at the tick after this."""
        self._tell(b"disable\n", timeout_s=ANSWER_TIMEOUT_S)
        self._read_bytes = self._size()

    def take_output(self) -> str:
        """Wait for the tick after `disable()` and return all that perf has printed since `enable()`."""
        wanted = self._lines_a_tick or 1
        self._wait_until(lambda: self._text(self._read_bytes).count(b"\n") >= wanted, "no tick came")
        return self.output()

    def output(self) -> str:
        """Return what perf has printed since `enable()`, without waiting for anything."""
        return self._text(0).decode("utf-8", errors="replace")

    def stop(self) -> None:
        """End perf: SIGINT, which lets it end in order, then SIGTERM, then SIGKILL."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_TIMEOUT_S)
                helper_pids().discard(self.pid)
                break
        self._close_files()

    def _tell(self, order: bytes, *, timeout_s: float) -> None:
        try:
            os.write(self._control, order)
            ready, _, _ = select.select([self._answers], [], [], timeout_s)
            answer = os.read(self._answers, 64) if ready else None
        except OSError:
            answer = b""
        if answer is None:
            message = f"perf did not answer within {timeout_s:.0f} s"
            raise PerfUnavailableError(message)
        # perf ends its answer with a zero byte.
        if b"ack" not in answer:
            raise PerfUnavailableError(self._why_ended())

    def _learn_lines_a_tick(self) -> None:
        """Count the lines of one tick: an event of a hybrid CPU has a line for each kind of core."""
        self._wait_until(lambda: self._offsets()[:1] != self._offsets()[-1:], "no tick came")
        offsets = self._offsets()
        self._lines_a_tick = offsets.count(offsets[0])

    def _offsets(self) -> list[bytes]:
        lines = [line for line in self._text(0).split(b"\n")[:-1] if b";" in line]
        return [line.split(b";", 1)[0] for line in lines]

    def _wait_until(self, done: Callable[[], bool], fault: str) -> None:
        deadline = self._clock_s() + ANSWER_TIMEOUT_S
        while not done():
            if self._process.poll() is not None:
                raise PerfUnavailableError(self._why_ended())
            if self._clock_s() > deadline:
                message = f"{fault} from perf within {ANSWER_TIMEOUT_S:.0f} s"
                raise PerfUnavailableError(message)
            self._sleep(POLL_S)

    def _size(self) -> int:
        return os.fstat(self._log.fileno()).st_size

    def _text(self, start: int) -> bytes:
        return os.pread(self._log.fileno(), max(0, self._size() - start), start)

    def _why_ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_TIMEOUT_S)
        size = os.fstat(self._errors.fileno()).st_size
        said = os.pread(self._errors.fileno(), size, 0).decode("utf-8", errors="replace")
        return why_refused(said, level=paranoid_level())

    def _close_files(self) -> None:
        self._log.close()
        self._errors.close()
        os.close(self._control)
        os.close(self._answers)


def _unlinked_file() -> IO[bytes]:
    # A file and not a pipe: a pipe that is full stops perf, and a thread that drains one is counted.
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it lives as long as perf does
    # Appending, so that perf goes on at the new end after the file was emptied.
    flags = fcntl.fcntl(file.fileno(), fcntl.F_GETFL)
    fcntl.fcntl(file.fileno(), fcntl.F_SETFL, flags | os.O_APPEND)
    return file
