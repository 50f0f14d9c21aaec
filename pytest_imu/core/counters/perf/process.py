"""One running `perf stat`: started, switched on and off, read, and ended on every way out.

It is nobody's child here, and in a session of its own: a test that waits for all its children, or
signals its own group, does not meet it.
"""

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
from typing import Self

from pytest_imu.core.children.proc import parse_stat, read_all
from pytest_imu.core.counters.perf.command import (
    HUNG,
    HungError,
    PerfCommand,
    paranoid_level,
    perf_environment,
    why_refused,
)
from pytest_imu.core.counters.perf.output import SEPARATOR
from pytest_imu.core.counters.source import CannotCountError, LostError
from pytest_imu.core.descriptor import Descriptor
from pytest_imu.core.system import System

TICK_MS = 2
"""How often perf prints: a window's counts are there at the first tick after its end."""
LAUNCH_TIMEOUT_S = 5.0
START_TIMEOUT_S = 5.0
FIRST_TICK_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 2.0
END_TIMEOUT_S = 1.0
POLL_S = 0.0002
LAUNCH = '"$@" >/dev/null & echo $$ $!'
"""The shell ends at once; what it has started lives on, and its numbers are told."""


class PerfDescriptor(Descriptor):
    """One of the descriptors by which a perf is heard and told."""

    def closed_error(self) -> LostError:
        """Return what is raised where somebody else has closed it."""
        return LostError("the descriptors by which perf is read were closed")


class PerfProcess:
    """A perf that is attached to a process, and counts only between `enable()` and `disable()`."""

    # Bound before any test runs: one that stops the clock, or replaces what reads, shall not hang this.
    _clock_s = staticmethod(time.monotonic)
    _sleep = staticmethod(time.sleep)
    _truncate = staticmethod(os.ftruncate)
    _fstat = staticmethod(os.fstat)
    _killpg = staticmethod(os.killpg)
    _waitpid = staticmethod(os.waitpid)
    _poll = staticmethod(select.poll)

    def __init__(self, command: PerfCommand, events: Sequence[str], *, pid: int, tick_ms: int) -> None:
        self._command = command
        self._read_bytes = 0
        self._lines_a_tick: int | None = None
        self._group, self.pid = 0, 0
        self._born: int | None = None
        self._log, self._errors = (PerfDescriptor(_unnamed_file()) for _ in range(2))
        control_read, control = os.pipe()
        answers, answers_write = os.pipe()
        self._control, self._answers = PerfDescriptor(control), PerfDescriptor(answers)
        try:
            try:
                self._launch(
                    [
                        *(command.path, "stat", "-p", str(pid)),
                        *("-e", ",".join(events), "-x", SEPARATOR, "-I", str(tick_ms)),
                        *("-D", "-1", "--control", f"fd:{control_read},{answers_write}"),
                        *("--log-fd", str(self._log.number())),
                    ],
                    handed=(control_read, answers_write, self._log.number()),
                )
            finally:
                os.close(control_read)
                os.close(answers_write)
            self._tell(b"disable\n", timeout_s=START_TIMEOUT_S)
            self._learn_lines_a_tick()
        except BaseException:
            self.stop()
            raise

    def _launch(self, words: Sequence[str], *, handed: Sequence[int]) -> None:
        try:
            launched = subprocess.run(
                ["/bin/sh", "-c", LAUNCH, "sh", *words],
                pass_fds=handed,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors.number(),
                env=perf_environment(),
                start_new_session=True,
                timeout=LAUNCH_TIMEOUT_S,
                check=False,
            )
            self._group, self.pid = map(int, launched.stdout.split())
        except subprocess.TimeoutExpired:
            raise HungError(
                f"{self._command.path} was not started within {LAUNCH_TIMEOUT_S:.0f} s"
            ) from None
        except (OSError, ValueError) as error:
            raise CannotCountError(f"{self._command.path} does not run: {error}") from None
        self._born = self._born_now()

    @classmethod
    def started(
        cls,
        command: PerfCommand,
        events: Sequence[str],
        *,
        pid: int | None = None,
        tick_ms: int = TICK_MS,
    ) -> Self:
        """Start perf, on this process or on *pid*, and wait until it answers and ticks.

        Raises CannotCountError with the reason why it does not.
        """
        if not command.has_control:
            raise CannotCountError(
                f"perf {command.version_text} is older than 5.10, which brought --control"
            )
        HUNG.check(command.path)
        try:
            return cls(command, events, pid=os.getpid() if pid is None else pid, tick_ms=tick_ms)
        except HungError as error:
            HUNG.note(command.path, str(error))
            raise

    def is_alive(self) -> bool:
        """Tell whether perf runs, and can be reached."""
        held = (self._log, self._control, self._answers)
        return all(one.is_ours for one in held) and not self._hears_the_end()

    def enable(self) -> None:
        """Begin to count; what perf has printed until now is forgotten."""
        # The file is emptied while perf is writing to it, at its end: it never grows past a window.
        self._truncate(self._log.number(), 0)
        self._read_bytes = 0
        self._tell(b"enable\n", timeout_s=ANSWER_TIMEOUT_S)

    def disable(self) -> None:
        """Stop counting; what was counted is complete at the tick after this."""
        self._tell(b"disable\n", timeout_s=ANSWER_TIMEOUT_S)
        self._read_bytes = self._size(self._log)

    def take_output(self) -> str:
        """Wait for the tick after `disable()` and return all that perf has printed since `enable()`."""
        wanted = self._lines_a_tick or 1
        self._wait_until(
            lambda: self._text(self._log, self._read_bytes).count(b"\n") >= wanted, ANSWER_TIMEOUT_S
        )
        return self.output()

    def output(self) -> str:
        """Return what perf has printed since `enable()`, without waiting for anything."""
        return self._text(self._log).decode("utf-8", errors="replace")

    def stop(self) -> None:
        """End perf and all that it has started: SIGTERM, which lets it end in order, then SIGKILL."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self._runs():
                break
            with contextlib.suppress(OSError):
                self._killpg(self._group, number)
            deadline = self._clock_s() + END_TIMEOUT_S
            while self._runs() and self._clock_s() < deadline:
                self._sleep(POLL_S)
        if self.pid:
            # Where this process takes the orphans of its own tree, in a container say, perf is one.
            with contextlib.suppress(OSError):
                self._waitpid(self.pid, os.WNOHANG)
        for descriptor in (self._log, self._errors, self._control, self._answers):
            descriptor.close()

    def _runs(self) -> bool:
        """Tell whether the process that was started runs, and not another one with its number."""
        return self._born is not None and self._born_now() == self._born

    def _born_now(self) -> int | None:
        """Return when the process with perf's number was born; None if none runs."""
        try:
            stat = parse_stat(read_all(f"/proc/{self.pid}/stat"))
        except (OSError, ValueError):
            return None
        return None if stat.is_dead else stat.born

    def _tell(self, order: bytes, *, timeout_s: float) -> None:
        # Not written to a perf that has ended: where a test lets SIGPIPE kill, that would be the end.
        answer = b""
        if not self._hears_the_end():
            System.write(self._control.number(), order)
            if not self._hears(select.POLLIN, timeout_s):
                raise HungError(f"perf did not answer within {timeout_s:.0f} s")
            answer = System.read(self._answers.number(), 64)
        # perf ends its answer with a zero byte.
        if b"ack" not in answer:
            raise LostError(self._why_ended())

    def _hears_the_end(self) -> bool:
        return self._hears(0, 0)

    def _hears(self, what: int, timeout_s: float) -> bool:
        """Wait until perf does what is waited for, or has ended, which is always told."""
        poll = self._poll()  # and not select(), which knows no number over 1023
        poll.register(self._answers.number(), what)
        return bool(poll.poll(timeout_s * 1000))

    def _learn_lines_a_tick(self) -> None:
        """Count the lines of one tick: an event of a hybrid CPU has a line for each kind of core."""
        self._wait_until(lambda: self._offsets()[:1] != self._offsets()[-1:], FIRST_TICK_TIMEOUT_S)
        offsets = self._offsets()
        self._lines_a_tick = offsets.count(offsets[0])

    def _offsets(self) -> list[bytes]:
        lines = [line for line in self._text(self._log).split(b"\n")[:-1] if b";" in line]
        return [line.split(b";", 1)[0] for line in lines]

    def _wait_until(self, done: Callable[[], bool], timeout_s: float) -> None:
        deadline = self._clock_s() + timeout_s
        while not done():
            if self._hears_the_end():
                raise LostError(self._why_ended())
            if self._clock_s() > deadline:
                raise HungError(f"no tick came from perf within {timeout_s:.0f} s")
            self._sleep(POLL_S)

    def _size(self, file: Descriptor) -> int:
        return self._fstat(file.number()).st_size

    def _text(self, file: Descriptor, start: int = 0) -> bytes:
        return System.pread(file.number(), max(0, self._size(file) - start), start)

    def _why_ended(self) -> str:
        deadline = self._clock_s() + END_TIMEOUT_S
        while self._runs() and self._clock_s() < deadline:
            self._sleep(POLL_S)
        said = self._text(self._errors).decode("utf-8", errors="replace")
        return why_refused(said, level=paranoid_level())


def _unnamed_file() -> int:
    # A file and not a pipe: a pipe that is full stops perf, and a thread that drains one is counted.
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("imu-perf")
    else:
        number, path = tempfile.mkstemp(prefix="imu-")
        os.unlink(path)  # noqa: PTH108 - the descriptor is what counts
    # Appending, so that perf goes on at the new end after the file was emptied.
    fcntl.fcntl(number, fcntl.F_SETFL, fcntl.fcntl(number, fcntl.F_GETFL) | os.O_APPEND)
    return number
