"""The run log: one JSON line when a test starts and one when it ends, safe from a kill."""

from __future__ import annotations

import datetime as dt
import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imu.core.counters.callgrind.command import running_tool
from pytest_imu.core.memory import platforms

if TYPE_CHECKING:
    from pytest_imu.recording.record import TestRecord


class RunLog:
    """Appends lines to one file, which several processes may share."""

    # Bound before any test runs: one that stops the clock shall not stop the log's.
    _now = staticmethod(functools.partial(dt.datetime.now, dt.UTC))

    def __init__(self, path: Path, *, worker: str | None) -> None:
        self._path = path
        self._worker = worker
        self._pid = os.getpid()
        self._is_simulated = running_tool() is not None  # the RSS would be valgrind's
        self.error: OSError | None = None
        """The last line's failure, if any line could not be written."""

    @classmethod
    def for_run(cls, config: pytest.Config, path: Path) -> RunLog:
        """Return this process's log; a worker's path comes from its controller."""
        workerinput: dict[str, Any] = getattr(config, "workerinput", {})
        return cls(Path(workerinput.get("imu_log_path") or path), worker=workerinput.get("workerid"))

    def begin_in_isolated_child(self) -> None:
        """Write from this process, which was forked to run one of the run's tests."""
        self._pid = os.getpid()

    def begin_file(self) -> None:
        """Create the file, or empty it; raises OSError where that is refused."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_bytes(b"")

    def started(self, nodeid: str, *, attempt: int) -> None:
        """Write that a test starts, before its setup."""
        self._write(event="start", nodeid=nodeid, attempt=attempt)

    def ended(self, nodeid: str, record: TestRecord) -> None:
        """Write that a test has ended, with what its call used."""
        call = record.phases.get("call")
        self._write(
            event="end",
            nodeid=nodeid,
            attempt=record.attempt,
            outcome=record.outcome,
            peak_bytes=None if call is None else call.peak_bytes,
            delta_bytes=None if call is None else call.delta_bytes,
        )

    def _write(self, **fields: Any) -> None:
        if os.getpid() != self._pid:  # a test forked: the child's tests are not this run's
            return
        line = {
            **fields,
            "worker": self._worker,
            "pid": self._pid,
            "time": self._now().isoformat(timespec="milliseconds"),
            "rss_bytes": None if self._is_simulated else platforms.rss_bytes_or_none(),
        }
        # Opened for every line and written in one piece: nothing is buffered here when the kernel
        # kills the process, no line mixes with another worker's, and no test can close the file.
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0))
            try:
                os.write(descriptor, json.dumps(line).encode() + b"\n")
            finally:
                os.close(descriptor)
        except OSError as error:
            self.error = error
