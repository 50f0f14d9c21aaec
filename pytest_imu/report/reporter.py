"""What the controlling process does with the reports that come home: section, JSON file, warnings."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imu.core.units import plural
from pytest_imu.recording.warning import record_warning
from pytest_imu.settings import Settings

if TYPE_CHECKING:
    from pytest_imu.core.model import Measurement
    from pytest_imu.recording.runlog import RunLog
    from pytest_imu.report.rows import Rows

REPORTER: pytest.StashKey[Reporter] = pytest.StashKey()
"""Where the reporter is kept, on the config of the controlling process."""
RUN_PHASES = ("setup", "call", "teardown")


def run_log(config: pytest.Config, settings: Settings) -> RunLog | None:
    """Return this process's run log, if one was asked for."""
    if settings.log_path is None:
        return None
    from pytest_imu.recording.runlog import RunLog

    return RunLog.for_run(config, settings.log_path)


def check_paths(config: pytest.Config, settings: Settings) -> None:
    """Prove, before any test runs, that the files asked for can be written; else a usage error."""
    if settings.off:
        return
    if settings.json_path is not None:
        from pytest_imu.core import document

        with _naming("--imu-json"):
            document.check_writable(settings.json_path)
    if (log := run_log(config, settings)) is not None:
        with _naming("--imu-log"):
            log.begin_file()


@contextlib.contextmanager
def _naming(flag: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        message = f"{flag}: {error}; accepted: the path of a file that can be written"
        raise pytest.UsageError(message) from None


class Reporter:
    """Collects the rows of the whole run, under xdist of all workers, and reports them at its end."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._rows: Rows | None = None
        self._pid = os.getpid()
        self._warned = False
        self._json_outcome: str | None = None
        self.skipped_budgets = 0
        """How many budgets `--no-imu` left unenforced."""
        self._noise_bytes: int | None = None
        self._log_fault: str | None = None

    def hear(self, noise_bytes: int | None, log_fault: str | None) -> None:
        """Take in what a process that ran tests noted: its noise, of several the highest counts."""
        if noise_bytes is not None:
            self._noise_bytes = max(noise_bytes, self._noise_bytes or 0)
        self._log_fault = log_fault or self._log_fault

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in what came with a report, out of it: pytest keeps all reports until the end."""
        if not self._is_wanted(report):
            return
        self._gathered().add(report)
        record = report.__dict__.pop("imu", None)
        if record is not None and not self._warned:
            self._warn_of_fault(report.nodeid, record.measurement)

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        """Write the JSON file, unless this is a child that a test forked."""
        path = self._settings.json_path
        nothing_ran = self._settings.off or self._config.option.collectonly
        if path is not None and not nothing_ran and os.getpid() == self._pid:
            self._json_outcome = self._write_json(path)

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the section; with -q, no more than the broken budgets."""
        notes = self._notes()
        if self._config.option.collectonly or not (self._rows or self._settings.report or notes):
            return
        from pytest_imu.report import section

        lines = section.lines(
            self._gathered().last_attempts(),
            self._settings,
            width=self._config.get_terminal_writer().fullwidth,
            verbosity=self._config.get_verbosity(),
            encoding=getattr(sys.stdout, "encoding", None) or "utf-8",
            noise_bytes=self._noise_bytes,
        )
        lines += [section.Line(text, "yellow") for text in notes]
        if lines:
            terminalreporter.write_sep("=", "imu")
            for line in lines:
                terminalreporter.write_line(line.text, **line.markup)

    def _gathered(self) -> Rows:
        if self._rows is None:
            from pytest_imu.report.rows import Rows

            self._rows = Rows()
        return self._rows

    def _is_wanted(self, report: pytest.TestReport) -> bool:
        # What a crashed worker was running has no measurement, and is a row all the same.
        return hasattr(report, "imu") or (self._settings.measure_all and report.when not in RUN_PHASES)

    def _notes(self) -> list[str]:
        notes = []
        if self._settings.off:
            paths = (self._settings.json_path, self._settings.log_path)
            notes += [f"{path} not written: --no-imu" for path in paths if path is not None]
        if self.skipped_budgets:
            notes.append(f"{plural(self.skipped_budgets, 'budget')} not enforced: --no-imu")
        if self._json_outcome is not None:
            notes.append(self._json_outcome)
        if self._log_fault is not None:
            notes.append(f"--imu-log: a line could not be written: {self._log_fault}")
        return notes

    def _write_json(self, path: Path) -> str | None:
        from pytest_imu.report import jsonfile

        try:
            jsonfile.write(path, self._gathered().all(), self._config, noise_bytes=self._noise_bytes)
        except OSError as error:
            return f"--imu-json: {path} could not be written: {error}"
        return None

    def _warn_of_fault(self, nodeid: str, measurement: Measurement | None) -> None:
        """Put the first fault of the measuring among pytest's warnings; the section has them all."""
        if measurement is None or measurement.source != "none":
            return
        from pytest_imu.core.memory.no_memory import SIMULATED

        if measurement.reason == SIMULATED:
            return
        self._warned = True
        record_warning(self._config.hook, str(measurement.reason), nodeid=nodeid)
