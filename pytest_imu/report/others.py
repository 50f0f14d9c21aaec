"""A test's numbers in the reports of pytest-html and allure-pytest, where those are asked for."""

from __future__ import annotations

import html
import importlib
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import pytest

from pytest_imu.core.units import format_count, format_mib, format_seconds
from pytest_imu.recording.warning import FaultsAsWarnings

if TYPE_CHECKING:
    from pytest_imu.core.budgets import Verdict
    from pytest_imu.core.model import CounterReading, Measurement
    from pytest_imu.recording.record import PhaseRecord


class HtmlReport:
    """Puts each test's numbers above its captured output, in the file that `--html` names.

    In the process that writes the file, under xdist the controller.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._guard = FaultsAsWarnings(config.hook, "--html shows no numbers")
        self._running: dict[str, list[str]] = {}
        """The lines of each test whose teardown is still to come."""
        self._by_report: WeakKeyDictionary[pytest.TestReport, list[str]] = WeakKeyDictionary()
        """The same lists, by the reports of the attempt: pytest-html shows them after the teardown."""

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in what came with a report, before the reporter takes it out of it."""
        with self._guard:
            if report.when == "setup":
                self._running[report.nodeid] = []
            lines = self._running.get(report.nodeid, [])
            lines += lines_of(report)
            self._by_report[report] = lines
            if report.when == "teardown":
                self._running.pop(report.nodeid, None)

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_html(self, report: pytest.TestReport, data: list[str]) -> None:
        """Put the numbers first among what pytest-html shows of a report."""
        with self._guard:
            if lines := self._by_report.get(report):
                data[:0] = [html.escape(f"imu: {line}") for line in lines] + [""]


class AllureReport:
    """Attaches each test's numbers to it, in the process that runs it: there allure gathers a result."""

    def __init__(self, config: pytest.Config) -> None:
        self._guard = FaultsAsWarnings(config.hook, "allure shows no numbers")
        self._lines: list[str] = []
        allure = importlib.import_module("allure")  # now: a test may empty `sys.path`
        self._attach, self._text = allure.attach, allure.attachment_type.TEXT

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # around the recorder, and also in an isolated child
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Gather what comes with the reports, and attach it with the last."""
        report = yield
        with self._guard:
            if report.when == "setup":
                self._lines = []
            self._lines += lines_of(report)
            if report.when == "teardown" and self._lines:
                self._attach("\n".join(self._lines), name="imu", attachment_type=self._text)
        return report


def lines_of(report: pytest.TestReport) -> list[str]:
    """Return what is to be said of the numbers that came with a report.

    Those of the call, of any other phase that failed, and what became of the budgets.
    """
    record: PhaseRecord | None = report.__dict__.get("imu")
    return [] if record is None else list(_lines(record, report))


def _lines(record: PhaseRecord, report: pytest.TestReport) -> Iterator[str]:
    for phase, measurement in record.phases:
        if phase == "call" or (report.failed and phase == report.when):
            yield ("" if phase == "call" else f"{phase}: ") + _of_measurement(measurement)
            yield from map(_of_counter, measurement.counters)
    yield from map(_of_verdict, record.verdicts)


def _of_measurement(measurement: Measurement) -> str:
    if measurement.source == "none":
        return f"memory n/a, {measurement.reason}; {format_seconds(measurement.duration_ns)}"
    return (
        f"peak {format_mib(measurement.peak_bytes)} MiB, "
        f"delta {format_mib(measurement.delta_bytes)} MiB, "
        f"total {format_mib(measurement.after_bytes)} MiB, "
        f"{format_seconds(measurement.duration_ns)} ({measurement.source})"
    )


def _of_counter(reading: CounterReading) -> str:
    if reading.value is None:
        return f"{reading.event} n/a, {reading.reason}"
    return f"{reading.name} {format_count(reading.value)} ({reading.source})"


def _of_verdict(verdict: Verdict) -> str:
    if verdict.outcome == "broken":
        return str(verdict.reason)  # it names the budget
    reason = "" if verdict.reason is None else f": {verdict.reason}"
    return f"{verdict.budget} {'not checked' if verdict.outcome == 'unchecked' else 'kept'}{reason}"
