"""The run log: a JSON line about the run, one at each test's start and end, safe from a kill."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imu.core.counters.callgrind.command import running_tool
from pytest_imu.core.document import SCHEMA, encode, now, plain_test
from pytest_imu.core.memory import platforms
from pytest_imu.core.outfile import CLOEXEC, NO_READER, NO_READING, PATIENCE_S, wait_for_reader
from pytest_imu.core.system import OwnProcess

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]  # only asked for its names

if TYPE_CHECKING:
    from pytest_imu.core.budgets import Verdict
    from pytest_imu.core.leaks.growth import Growth
    from pytest_imu.core.model import Block
    from pytest_imu.recording.record import PhaseRecord, TestRecord

APPENDING = os.O_APPEND | CLOEXEC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""Without waiting for the reader of a pipe, and without taking a terminal over."""
# Bound here, before any test runs: one that replaces them shall not reach the log.
_open, _read_at, _write, _close = os.open, getattr(os, "pread", None), os.write, os.close
_fstat, _seek, _truncate = os.fstat, os.lseek, os.ftruncate
_flock, _sleep = getattr(fcntl, "flock", None), time.sleep
LOCK_TRIES, LOCK_PAUSE_S = 200, 0.005
"""How often, and with what pauses, the file is asked for while another process writes its line."""


class RunLog:
    """Appends lines to one file, which several processes may share."""

    def __init__(self, path: Path, *, worker: str | None) -> None:
        self._path = str(path)
        self._worker = worker
        self._process = OwnProcess()
        self._is_simulated = running_tool() is not None  # the RSS would be valgrind's
        self._is_file = not path.exists() or path.is_file()
        self._flags = APPENDING | (os.O_RDWR if self._is_file else os.O_WRONLY)
        self._patience_s = PATIENCE_S
        self._left_half = False
        self._held: tuple[int, os.stat_result] | None = None
        self._blocks: tuple[Block, ...] = ()
        self._verdicts: tuple[Verdict, ...] = ()
        self._why: Mapping[str, Any] | None = None
        self._growth: Growth | None = None
        self.error: Exception | None = None
        """Why the first line that could not be written was not; None where all could."""

    @classmethod
    def for_run(cls, config: pytest.Config, path: Path) -> RunLog:
        """Return this process's log; a worker's path comes from its controller."""
        workerinput: dict[str, Any] = getattr(config, "workerinput", {})
        return cls(Path(workerinput.get("imu_log_path") or path), worker=workerinput.get("workerid"))

    def begin_in_isolated_child(self) -> None:
        """Write from this process, which was forked to run one of the run's tests."""
        self._process = OwnProcess()

    def begin_file(self, environment: dict[str, Any]) -> None:
        """Create the file, or empty it, and describe the run; raises OSError where that is refused."""
        Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        # One that is there is not opened to be made: systems refuse that for another user's pipe.
        making = os.O_CREAT | os.O_TRUNC if self._is_file else 0
        try:
            descriptor = _open(self._path, self._flags | making, 0o666)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise OSError(errno.ENXIO, NO_READER, self._path) from None
            raise
        found = _fstat(descriptor)
        if stat.S_ISFIFO(found.st_mode):  # its reader would find its end with the first line's
            self._held = descriptor, found
        else:
            _close(descriptor)
        self._add(event="run", schema=SCHEMA, environment=environment, worker=self._worker)

    def end_file(self) -> None:
        """Let the reader of a pipe find its end."""
        held, self._held = self._held, None
        with contextlib.suppress(OSError):  # a test has closed it
            if held is not None and os.path.samestat(_fstat(held[0]), held[1]):
                _close(held[0])

    def started(self, nodeid: str, *, attempt: int) -> None:
        """Write that a test starts, before its setup."""
        self._blocks, self._verdicts, self._why, self._growth = (), (), None, None
        self._add(event="start", nodeid=nodeid, attempt=attempt, worker=self._worker)

    def took(self, taken: PhaseRecord) -> None:
        """Keep for the test's end what one of its reports took home."""
        self._blocks += taken.blocks
        self._verdicts += taken.verdicts
        self._why = taken.why or self._why
        self._growth = taken.growth or self._growth

    def ended(self, nodeid: str, record: TestRecord) -> None:
        """Write that a test has ended, with all that the JSON file would have of it."""
        call = record.phases.get("call")
        self._add(
            event="end",
            **plain_test(
                nodeid=nodeid,
                attempt=record.attempt,
                worker=self._worker,
                outcome=record.outcome,
                start=record.start,
                ended_ns=record.ended_ns,
                timeline=record.timeline,
                failed_by_budget=record.failed_by_budget,
                isolated=record.isolated,
                phases=record.phases,
                blocks=self._blocks,
                verdicts=self._verdicts,
                why=self._why,
                growth=self._growth,
            ),
            peak_bytes=None if call is None else call.peak_bytes,
            delta_bytes=None if call is None else call.delta_bytes,
        )

    def _add(self, **fields: Any) -> None:
        if not self._process.is_current:  # a test forked: the child's tests are not this run's
            return
        try:
            line = {
                **fields,
                "pid": self._process.pid,
                "time": now().isoformat(timespec="milliseconds"),
                "rss_bytes": self._rss_bytes(),
            }
            self._append(encode(line).encode("ascii") + b"\n")
        except Exception as error:  # noqa: BLE001 - no fault of the log reaches the test
            self.error = self.error or error

    def _rss_bytes(self) -> int | None:
        with contextlib.suppress(Exception):  # a test may have broken what it is read with
            return None if self._is_simulated else platforms.rss_bytes_or_none()
        return None

    def _append(self, line: bytes) -> None:
        # Opened for every line and written in one piece: nothing is buffered here when the kernel
        # kills the process, no line mixes with another worker's, and no test can close the file.
        descriptor = _open(self._path, self._flags)
        try:
            self._lock(descriptor)
            if self._left_half or self._ends_with_half(descriptor):
                line = b"\n" + line
            self._write_whole(descriptor, line)
        finally:
            _close(descriptor)

    def _lock(self, descriptor: int) -> None:
        """Wait, for a second at most, until no other worker is in the midst of its line.

        While a line is being written the file is longer, bit by bit, and seems to end with half a line.
        """
        if not self._is_file or _flock is None:
            return
        for _ in range(LOCK_TRIES):
            try:
                _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until it is closed
            except BlockingIOError:
                _sleep(LOCK_PAUSE_S)
            except OSError:  # a file system without locks
                return
            else:
                return

    def _ends_with_half(self, descriptor: int) -> bool:
        """Whether the last line has no end: the disk was full, or its process was killed."""
        if not self._is_file or _read_at is None:
            return False
        size = _fstat(descriptor).st_size
        return size > 0 and _read_at(descriptor, 1, size - 1) != b"\n"

    def _write_whole(self, descriptor: int, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):
                try:
                    written += _write(descriptor, line[written:])
                except BlockingIOError:
                    self._wait_for_reader(descriptor)
        except BaseException:
            self._left_half = bool(written) and not self._cut_off(descriptor, written)
            raise
        self._left_half = False

    def _wait_for_reader(self, descriptor: int) -> None:
        if not wait_for_reader(descriptor, self._patience_s):
            self._patience_s = 0  # not again for every line
            raise TimeoutError(errno.ETIMEDOUT, NO_READING, self._path) from None

    def _cut_off(self, descriptor: int, written: int) -> bool:
        """Take half a line back, where nobody has written behind it; tell whether it is gone."""
        if not self._is_file:
            return False
        with contextlib.suppress(OSError):
            end = _seek(descriptor, 0, os.SEEK_CUR)
            if _fstat(descriptor).st_size == end:
                _truncate(descriptor, end - written)
                return True
        return False
