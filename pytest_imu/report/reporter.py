"""What the controlling process does with the reports that come home: section, JSON file, warnings."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imu.comparing import BASE, missing_base, ran_whole_suite
from pytest_imu.core import outfile
from pytest_imu.core.outfile import STDOUT
from pytest_imu.core.system import OwnProcess
from pytest_imu.core.units import plural
from pytest_imu.kinds import STEP_SUMMARY
from pytest_imu.recording.warning import FaultsAsWarnings, record_warning
from pytest_imu.report.paths import begin_files
from pytest_imu.settings import Settings

if TYPE_CHECKING:
    from pytest_imu.core.model import Measurement
    from pytest_imu.history.compare import Comparison
    from pytest_imu.recording.record import PhaseRecord
    from pytest_imu.report.rows import Row, Rows
    from pytest_imu.report.section import Line

REPORTER: pytest.StashKey[Reporter] = pytest.StashKey()
"""Where the reporter is kept, on the config of the controlling process."""
RUN_PHASES = ("setup", "call", "teardown")


class Reporter:
    """Collects the rows of the whole run, under xdist of all workers, and reports them at its end."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._rows: Rows | None = None
        self._process = OwnProcess()
        self._began_ns = time.time_ns()
        self._stdout = sys.stdout
        self._environment: dict[str, Any] = {}
        self._warned = False
        self._reports_guard = FaultsAsWarnings(config.hook, "a report's numbers are lost")
        self._json_outcome: str | None = None
        self.more_notes: list[str] = []
        """What stands at the section's end, besides what is told anyway."""
        self.whole = ran_whole_suite(config)
        """Whether nothing was left out."""
        self._summary_path = settings.summary_path
        if settings.summary_path == Path(STEP_SUMMARY):
            named = os.environ.get(STEP_SUMMARY.removeprefix("$"))  # a test may change it
            self._summary_path = Path(named) if named else None
            if not named:
                self.more_notes.append(f"--imu-summary: {STEP_SUMMARY} is not set: nothing was written")
        self.skipped_budgets = 0
        """How many budgets `--no-imu` left unenforced."""
        self._noise_bytes: int | None = None
        self._first_imports: dict[str, int] = {}
        self.comparison: Comparison | None = None
        """This run beside the earlier one."""
        self._fault: str | None = None
        """Why the run failed although no test did."""
        self._log_fault: str | None = None

    def begin(self) -> None:
        """Try the files before any test runs, and describe the run while nothing is changed yet."""
        settings = self._settings
        files = settings.json_path or settings.log_path or settings.summary_path or settings.html_path
        if settings.off or not (files or BASE in self._config.stash):
            return
        with FaultsAsWarnings(self._config.hook, "the run could not be described"):
            from pytest_imu.report import jsonfile

            self._environment = jsonfile.describe_run(self._config)
        log = begin_files(self._config, settings, self._environment)
        if log is not None:
            self._config.add_cleanup(log.end_file)
            self._log_fault = None if log.error is None else str(log.error)

    def prepare(self) -> None:
        """Import what the run's end needs: then a test may have emptied `sys.path`."""
        names = ["rows", "section", "jsonfile"]
        names += ["compared"] if BASE in self._config.stash else []
        names += ["summary"] if self._settings.summary_path else []
        for name in names:
            importlib.import_module(f"pytest_imu.report.{name}")

    def hear(
        self, noise_bytes: int | None, log_fault: str | None, first_imports: Mapping[str, int]
    ) -> None:
        """Take in what a process that ran tests noted: its noise, of several the highest counts."""
        self._first_imports.update(first_imports)
        if noise_bytes is not None:
            self._noise_bytes = max(noise_bytes, self._noise_bytes or 0)
        self._log_fault = log_fault or self._log_fault

    @pytest.hookimpl
    def pytest_deselected(self) -> None:
        """Take in that some tests do not run: they are not gone."""
        self.whole = False

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in what came with a report, out of it: pytest keeps all reports until the end."""
        record: PhaseRecord | None = report.__dict__.pop("imu", None)
        if record is None and (report.when in RUN_PHASES or not self._settings.measure_all):
            return
        with self._reports_guard:
            rows = self._rows or self._gathered()
            if record is None:
                # What a crashed worker was running has no measurement, and is a row all the same.
                rows.add_crash(report)
                return
            rows.add(report, record)
            for _, measurement in record.phases:
                if measurement.source == "none":
                    self._warn_of_fault(report.nodeid, measurement)

    @pytest.hookimpl
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Compare the run, and write its files, unless this is a child that a test forked."""
        nothing_ran = self._settings.off or self._config.option.collectonly
        if nothing_ran or not self._process.is_current:
            return
        with FaultsAsWarnings(self._config.hook, "the run could not be compared"):
            self._compare(session)
        with FaultsAsWarnings(self._config.hook, "the summary could not be written"):
            self._append_summary()
        path = self._settings.json_path
        if path is None:
            return
        if self._settings.json_to_stdout:
            self._config.add_cleanup(self._print_json)  # behind all that pytest prints
            return
        with FaultsAsWarnings(self._config.hook, f"--imu-json: {path} could not be written"):
            self._json_outcome = self._write_json(path)

    def _compare(self, session: pytest.Session) -> None:
        """Hold the run against the earlier one; a run of which nothing can be compared has failed."""
        base = self._config.stash.get(BASE, None)
        if base is None:
            return
        from pytest_imu.report import compared

        rows, settings = self.attempts(), self._settings
        self.comparison = compared.comparison_of(rows, base, settings, self.environment_now())
        if settings.compare_required and rows and not self.comparison.compared:
            self._fault = compared.NOTHING_COMPARED.format(base.name)
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _append_summary(self) -> None:
        path = self._summary_path
        if path is None:
            return
        from pytest_imu.report import summary

        try:
            room = summary.MAX_BYTES - outfile.size_bytes(path)
            rows = self._gathered().last_attempts()
            text = summary.markdown(rows, self.comparison, whole=self.whole)
            outfile.append(path, summary.cut(text, room))
        except OSError as error:
            self.more_notes.append(f"--imu-summary: {path} could not be written: {error}")

    def environment_now(self) -> dict[str, Any]:
        """Return what the numbers depend on, as far as it is known by now."""
        from pytest_imu.report import jsonfile

        return jsonfile.whole_environment(
            self.attempts(), self._settings, self._environment, noise_bytes=self._noise_bytes
        )

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the section; with -q, no more than the broken budgets."""
        with FaultsAsWarnings(self._config.hook, "the section could not be printed"):
            # Beside JSON on standard output there is nothing else of ours.
            aside = self._settings.json_to_stdout
            stream = sys.stderr if aside else sys.stdout
            lines = self._lines(getattr(stream, "encoding", None) or "utf-8")
            if not lines:
                return
            terminalreporter.ensure_newline()
            writer = self._config.get_terminal_writer()
            if aside:
                writer = type(writer)(stream)
            writer.sep("=", "imu")
            for line in lines:
                writer.line(line.text, **line.markup)

    def _lines(self, encoding: str) -> list[Line]:
        notes = self._notes()
        if self._config.option.collectonly or not (self._rows or self._settings.report or notes):
            return []
        from pytest_imu.core.memory.source import resolution_bytes
        from pytest_imu.report import section

        lines = section.lines(
            self._gathered().last_attempts(),
            self._settings,
            width=self._config.get_terminal_writer().fullwidth,
            verbosity=self._config.get_verbosity(),
            encoding=encoding,
            noise_bytes=self._noise_bytes,
            first_imports=self._first_imports,
            resolution_bytes=resolution_bytes(),
            comparison=self.comparison,
            whole=self.whole,
            limit=self._limit(),
        )
        faults = [] if self._fault is None else [section.Line(self._fault, "red")]
        return lines + faults + [section.Line(text, "yellow") for text in notes]

    def attempts(self) -> list[Row]:
        """Return every attempt of every test."""
        return self._gathered().all()

    def _limit(self) -> tuple[int, str] | None:
        """Return how much memory there is for the run, and who says so; None without a limit."""
        from pytest_imu.core.memory.container import container_limit_bytes, whole_bytes

        if (cap := self._settings.limit) is not None:
            workers = max(1, len(self._config.getoption("tx", None) or ()))  # each has its share
            return cap.of(whole_bytes()) // workers, f"the limit of --imu-limit={cap.text}"
        limit_bytes = container_limit_bytes()
        return None if limit_bytes is None else (limit_bytes, "the container's limit")

    def _gathered(self) -> Rows:
        if self._rows is None:
            from pytest_imu.report.rows import Rows

            self._rows = Rows()
        return self._rows

    def _notes(self) -> list[str]:
        notes = [*self.more_notes]
        if self._settings.off:
            settings = self._settings
            paths = (settings.json_path, settings.log_path, settings.summary_path, settings.html_path)
            notes += [f"{path} not written: --no-imu" for path in paths if path is not None]
            if settings.compare_path is not None:
                notes.append(f"{settings.compare_path} not compared: --no-imu")
        elif (path := missing_base(self._settings)) is not None:
            notes.append(f"nothing compared: {path} does not exist; a run with --imu-json writes it")
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
            jsonfile.write(
                path,
                self.attempts(),
                {**self.environment_now(), "sources": self._sources()},
                comparison=self.comparison,
                stdout=self._stdout,
            )
        except OSError as error:
            return f"--imu-json: {path} could not be written: {error}"
        return None

    def _sources(self) -> dict[str, str]:
        from pytest_imu.report import jsonfile

        return jsonfile.sources_of(self.attempts(), self._config.rootpath, until_ns=self._began_ns)

    def _print_json(self) -> None:
        try:
            fault = self._write_json(STDOUT)
        except Exception as error:  # noqa: BLE001 - pytest has ended, and its exit status stands
            fault = f"--imu-json: {type(error).__name__}: {error}"
        if fault is not None:
            print(fault, file=sys.stderr)  # noqa: T201 - pytest's own summary is printed

    def _warn_of_fault(self, nodeid: str, measurement: Measurement) -> None:
        """Put the first fault of the measuring among pytest's warnings; the section has them all."""
        if self._warned:
            return
        from pytest_imu.core.memory.source import SIMULATED

        if measurement.reason == SIMULATED:
            return
        self._warned = True
        record_warning(self._config.hook, str(measurement.reason), nodeid=nodeid)
