"""Measures the phases of each test, in the process that runs it, and holds them to their budgets."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Generator, Iterable, Iterator

import pytest

from pytest_imu.core.budgets import AnyBudget, EventBudget, Terms
from pytest_imu.core.children.census import process_census
from pytest_imu.core.counters.source import CounterSource
from pytest_imu.core.meter import Meter
from pytest_imu.core.model import CounterReading, Measurement, Phase
from pytest_imu.core.tolerance import EXACT
from pytest_imu.core.units import NANOSECONDS_PER_SECOND, mib
from pytest_imu.markers import BUDGETS
from pytest_imu.recording.noise import NoiseFloor
from pytest_imu.recording.record import ATTEMPTS, RECORD, TestRecord, combined_outcome
from pytest_imu.recording.runlog import RunLog
from pytest_imu.settings import Settings

TESTS_A_SAMPLE = 64
"""After how many tests the noise is looked at again: a window more in so many costs nothing."""


class BudgetWarning(pytest.PytestWarning):
    """A broken budget, where `imu_on_breach = warn` asks for a warning instead of a failure."""

    __module__ = "pytest_imu"  # where its users import it from


class Recorder:
    """The hooks around every test that is measured."""

    def __init__(
        self, settings: Settings, log: RunLog | None, counters: CounterSource | None = None
    ) -> None:
        self._settings = settings
        self._log = log
        self._counters = counters
        self._noise = NoiseFloor(lambda: Meter(trim=settings.trim, gc=settings.gc))
        self._watching_popen = False
        self._begun = 0
        self._kept_by_failure = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        """Measure the noise before anything else is, and see processes start from here on."""
        self._watching_popen = process_census().watch_popen()
        self._noise.begin()
        if self._counters is not None and self._settings.isolate == "off":
            self._counters.prepare()  # while nothing is mocked

    @property
    def noise_bytes(self) -> int | None:
        """How far a number may be off by noise; None where that could not be measured."""
        return self._noise.floor_bytes

    @property
    def log_fault(self) -> str | None:
        """Why a line of the run log could not be written; None where all could."""
        return None if self._log is None or self._log.error is None else str(self._log.error)

    def note_log_fault(self, fault: str) -> None:
        """Take in that an isolated test could not write its line."""
        if self._log is not None:
            self._log.error = OSError(fault)

    def begin_in_isolated_child(self) -> None:
        """Log and count from this process, which was forked to run one test."""
        if self._log is not None:
            self._log.begin_in_isolated_child()
        if self._counters is not None:
            from pytest_imu.core.counters.perf.stat import PerfStat

            self._counters = PerfStat(self._counters.events)
            self._counters.prepare()

    @pytest.hookimpl
    def pytest_unconfigure(self) -> None:
        """End what counts events, and what sees processes start."""
        if self._watching_popen:
            process_census().unwatch_popen()
        if self._counters is not None:
            self._counters.stop()

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Measure the setup."""
        __tracebackhide__ = True
        self._begin(item)
        return (yield from self._measured(item, "setup"))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Measure the test itself, and fail it where it broke a budget."""
        __tracebackhide__ = True
        return (yield from self._measured(item, "call"))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Measure the teardown, and fail it where the test as a whole broke a budget."""
        __tracebackhide__ = True
        return (yield from self._measured(item, "teardown"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Send what was measured home with the phase's report."""
        report = yield
        record = item.stash.get(RECORD, None)
        if record is not None:
            if call.excinfo is not None:
                record.note_failure(call.when)
                self._kept_by_failure |= record.keeps_memory
            self._attach(item, record, report)
        return report

    def _begin(self, item: pytest.Item) -> None:
        budgets = item.stash.get(BUDGETS, ())
        if not (budgets or self._settings.measure_all):
            return
        if self._kept_by_failure:
            self._kept_by_failure = False
            forget_last_failure()
        self._begun += 1
        if self._begun % TESTS_A_SAMPLE == 0:
            self._noise.sample()
        attempt = item.stash[ATTEMPTS] = item.stash.get(ATTEMPTS, 0) + 1
        item.stash[RECORD] = TestRecord(
            attempt=attempt, budgets=budgets, counters=self._counters_for(budgets)
        )
        if self._log is not None:
            self._log.started(item.nodeid, attempt=attempt)

    def _counters_for(self, budgets: Iterable[AnyBudget]) -> CounterSource | None:
        # Counting costs a tick of perf, so it is for those who asked: all tests, or this one.
        asked = self._settings.perf_events or any(isinstance(one, EventBudget) for one in budgets)
        return self._counters if asked else None

    def _measured(self, item: pytest.Item, phase: Phase) -> Generator[None, object, object]:
        __tracebackhide__ = True  # an error in a fixture would show these lines above its own
        record = item.stash.get(RECORD, None)
        if record is None:
            return (yield)
        # Nobody asks what a teardown kept, unless a budget reaches over the whole test.
        trim = self._settings.trim and (phase != "teardown" or bool(record.open_budgets))
        counters = record.counters if phase == "call" else None
        children = self._settings.children
        meter = Meter(trim=trim, gc=self._settings.gc, counters=counters, children=children)
        try:
            if phase == "call":
                _warm_up(item, record)
            with meter:
                result = yield
                if phase == "teardown" and record.open_budgets:
                    _release_fixture_values(item, record)
        except BaseException:
            record.passed = False
            if meter.result is not None:  # an interrupt may come before the window is open
                self._keep(item, record, phase, meter.result)
            for verdict in record.judge(last=False, terms=self._terms()) if phase == "call" else ():
                item.add_report_section("call", "imu", f"{verdict.reason}\n")
            raise
        self._keep(item, record, phase, meter.measurement)
        if record.open_budgets and phase != "setup":
            self._enforce(item, record, last=phase == "teardown")
        return result

    def _terms(self) -> Terms:
        return Terms(
            tolerance=self._settings.tolerance or EXACT,
            noise_bytes=self._noise.floor_bytes or 0,
            counts_required=self._settings.perf_required,
        )

    def _keep(
        self, item: pytest.Item, record: TestRecord, phase: Phase, measurement: Measurement
    ) -> None:
        record.phases[phase] = measurement
        if phase == "call" and self._settings.junit:
            _set_properties(item, measurement)

    def _enforce(self, item: pytest.Item, record: TestRecord, *, last: bool) -> None:
        # Not hidden from tracebacks: with all of its frames hidden pytest adds a line about that.
        broken = record.judge(last=last, terms=self._terms())
        if not broken:
            return
        lines = "\n".join(str(verdict.reason) for verdict in broken)
        if self._settings.on_breach == "warn":
            item.warn(BudgetWarning(lines))
        elif record.passed:
            record.passed = False
            pytest.fail(lines, pytrace=False)

    def _attach(self, item: pytest.Item, record: TestRecord, report: pytest.TestReport) -> None:
        report.__dict__["imu"] = record.take(report.when)
        if report.when == "teardown":
            del item.stash[RECORD]
        if self._log is not None:
            record.outcome = combined_outcome(record.outcome, report)
            if report.when == "teardown":
                self._log.ended(item.nodeid, record)


def counter_source(settings: Settings, budgets: Iterable[Iterable[AnyBudget]]) -> CounterSource | None:
    """Return one source for all events that are asked for or have a budget; None if none is."""
    budgeted = [budget.event for own in budgets for budget in own if isinstance(budget, EventBudget)]
    events = tuple(dict.fromkeys((*settings.perf_events, *budgeted)))
    if not events:
        return None
    from pytest_imu.core.counters.choice import source_of_counts

    return source_of_counts(events)


def _warm_up(item: pytest.Item, record: TestRecord) -> None:
    """Call the test's body as often as its budgets ask for, before it is measured.

    What fails there fails the test, as it would have in the call that counts.
    """
    blocks = record.new_blocks
    for _ in range(max((getattr(one, "warmup", 0) for one in record.open_budgets), default=0)):
        item.runtest()
    record.new_blocks = blocks


def forget_last_failure() -> None:
    """Let go of what the last failure's traceback keeps alive, before the next test is measured.

    pytest lets go of it as the next test's call begins, in the middle of what is measured, and what is
    in a circle, as every traceback is with the frame that caught it, goes whenever the garbage
    collector comes by.
    """
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        sys.__dict__.pop(name, None)
    gc.collect()


def _release_fixture_values(item: pytest.Item, record: TestRecord) -> None:
    # pytest drops the values of a test's fixtures only after the teardown hook has returned. What
    # the whole test keeps can be told once they are gone, so for such a budget they go a little sooner.
    if any(budget.name == "max_delta_mib" for budget in record.open_budgets):
        getattr(item, "funcargs", {}).clear()


def _set_properties(item: pytest.Item, measurement: Measurement) -> None:
    """Give the call's numbers to everything that reads user properties, JUnit XML first."""
    properties = (
        ("imu_peak_mib", _rounded_mib(measurement.peak_bytes)),
        ("imu_delta_mib", _rounded_mib(measurement.delta_bytes)),
        ("imu_total_mib", _rounded_mib(measurement.after_bytes)),
        ("imu_seconds", round(measurement.duration_ns / NANOSECONDS_PER_SECOND, 6)),
        ("imu_source", measurement.source),
        *_counter_source_properties(measurement),
        *(pair for reading in measurement.counters for pair in _event_properties(reading)),
    )
    if item.stash[ATTEMPTS] > 1:  # those of another attempt are still there
        names = {name for name, _ in properties}
        item.user_properties[:] = [pair for pair in item.user_properties if pair[0] not in names]
    item.user_properties += properties


def _counter_source_properties(measurement: Measurement) -> Iterator[tuple[str, str]]:
    sources = {reading.source for reading in measurement.counters if reading.value is not None}
    yield from (("imu_counter_source", source) for source in sources)


def _event_properties(reading: CounterReading) -> Iterator[tuple[str, float | str]]:
    name = "imu_" + re.sub(r"\W+", "_", reading.event).strip("_")
    yield name, "n/a" if reading.value is None else reading.value
    if reading.per_second is not None:
        yield f"{name}_per_second", round(reading.per_second, 1)


def _rounded_mib(size_bytes: int | None) -> float | str:
    return "n/a" if size_bytes is None else round(mib(size_bytes), 3)
