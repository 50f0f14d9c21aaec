"""Measures the phases of each test, in the process that runs it, and holds them to their budgets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterable

import pytest

from pytest_imu.core.budgets import AnyBudget, EventBudget
from pytest_imu.core.children.census import NOT_ASKED, CensusStart, process_census
from pytest_imu.core.counters.source import CounterSource
from pytest_imu.core.imports import count_modules, new_modules
from pytest_imu.core.meter import Meter
from pytest_imu.core.system import System
from pytest_imu.core.units import NANOSECONDS_PER_SECOND
from pytest_imu.markers import BUDGETS
from pytest_imu.recording.judge import Explains, Judge, RunAgain, RunAlone
from pytest_imu.recording.location import point_at_test
from pytest_imu.recording.noise import NoiseFloor
from pytest_imu.recording.properties import set_properties
from pytest_imu.recording.record import TestRecord, combined_outcome
from pytest_imu.recording.runlog import RunLog
from pytest_imu.recording.teardown import forget_last_failure, kept_between
from pytest_imu.recording.warmup import warm_up
from pytest_imu.settings import Settings

CallAgain = Callable[[pytest.Item, TestRecord], None]
TESTS_A_SAMPLE = 64
"""After how many tests the noise is looked at again: a window more in so many costs nothing."""


class Recorder:
    """The hooks around every test that is measured.

    Its own hooks and those of `SetupEnd` lie innermost, so that no other plugin's work is in a number.
    A teardown is measured only where a budget asks for it (`TeardownRecorder`).
    """

    def __init__(
        self,
        settings: Settings,
        log: RunLog | None,
        counters: CounterSource | None = None,
        run_alone: RunAlone | None = None,
        *,
        explainer: Explains | None = None,
        call_again: CallAgain | None = None,
    ) -> None:
        """*call_again* calls a test's body more often, for the record's `growth`."""
        self._settings = settings
        self._log = log
        self._counters = counters
        self._noise = NoiseFloor(lambda: Meter(trim=settings.trim, gc=settings.gc))
        self.judge = Judge(settings, self._noise, run_alone, explainer)
        self._item: pytest.Item | None = None
        self._record: TestRecord | None = None
        self._last = 0, ""
        """The test that ran last: its object's number, so as not to keep it alive, and its id."""
        self._isolated = False
        self._begun = 0
        self._run_again: RunAgain | None = None
        self._call_again = call_again
        self._modules_before = 0
        self._had_failure = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        """Measure the noise before anything else is."""
        self._noise.begin()
        if self._counters is not None and self._settings.isolate == "off":
            self._counters.prepare()  # while nothing is mocked

    @pytest.hookimpl(tryfirst=True)  # not a wrapper, which costs more: all of those have begun by now
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin to measure the setup."""
        budgets = item.stash.get(BUDGETS, ())
        if budgets or self._settings.measure_all:
            self._begin(item, budgets)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Measure the test itself, and fail it where it broke a budget."""
        __tracebackhide__ = True  # an error in the test would show these lines above its own
        record = self.record_of(item)
        if record is None:
            return (yield)
        meter = self._meter(record, record.census, counters=record.counters)
        try:
            self._begin_call(item, record, meter)
            result = yield
            self._end_call(item, record, meter)
            if self._call_again is not None and record.passed:
                self._call_again(item, record)
        except BaseException:
            record.passed = False
            self._end_call(item, record, meter)
            for verdict in record.judge(last=False, terms=self.judge.terms(record)):
                item.add_report_section("call", "imu", f"{verdict.reason}\n")
            raise
        if record.open_budgets:
            self.judge.enforce(item, record, last=False)
        if record.passed:
            self.judge.explain_passed(item, record)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Send what was measured home with the phase's report."""
        report = yield
        record = self.record_of(item)
        if record is not None:
            self._attach(item, record, report, failed=call.excinfo is not None)
        return report

    @pytest.hookimpl
    def pytest_unconfigure(self) -> None:
        """End what counts events, and what an interrupted test left open."""
        if self._record is not None:
            self._record.end_setup()
        if self._counters is not None:
            self._counters.stop()

    def record_of(self, item: pytest.Item) -> TestRecord | None:
        """Return what is measured of a test that runs; None where it is not measured."""
        return self._record if item is self._item else None

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

    def begin_in_isolated_child(self, run_again: RunAgain) -> None:
        """Log and count from this process, which was forked to run one test.

        *run_again* measures it once more where it was the first to import much.
        """
        self._run_again = run_again
        self.judge.run_again_by(run_again)
        self._modules_before = count_modules()
        self._isolated = True
        if self._log is not None:
            self._log.begin_in_isolated_child()
        if self._counters is not None:
            self._counters = self._counters.anew()
            self._counters.prepare()

    def begin_alone(self) -> None:
        """Measure in a process that was forked to run one test once more; decide and log nothing."""
        self._log = self._counters = self._call_again = None
        self.judge.be_silent()

    def _begin(self, item: pytest.Item, budgets: tuple[AnyBudget, ...]) -> None:
        before, attempt = self._record, 1
        current = id(item), item.nodeid
        if before is not None:
            before.end_setup()  # no report came for it: the test was interrupted in its setup
            if self._last == current:
                attempt = before.attempt + 1
            if self._had_failure and before.keeps_memory:
                forget_last_failure()
        self._had_failure = False
        self._begun += 1
        if self._begun % TESTS_A_SAMPLE == 0:
            self._noise.sample()
        record = TestRecord(
            attempt=attempt,
            budgets=budgets,
            counters=self._counters_for(budgets),
            isolated=self._isolated,
        )
        if not self._settings.children:  # where they are sampled each window tells of its own
            record.census = process_census().begin()
        if self._log is not None:
            self._log.started(current[1], attempt=attempt)
        # Whether there were children is told at the call's end, of both.
        record.setup_meter = meter = self._meter(record, record.census and NOT_ASKED)
        meter.__enter__()
        if before is not None:
            record.before = kept_between(self._last[1], before, meter.opened_at_bytes)
        self._item, self._record, self._last = item, record, current

    def _begin_call(self, item: pytest.Item, record: TestRecord, meter: Meter) -> None:
        record.end_setup(call_follows=True)
        if record.open_budgets:
            warm_up(item, record)
        meter.__enter__()

    def _end_call(self, item: pytest.Item, record: TestRecord, meter: Meter) -> None:
        if not meter.is_open:  # an interrupt, or a warm-up's failure, came before it was
            return
        meter.__exit__(None, None, None)
        record.phases["call"] = meter.measurement
        if self._run_again is not None and record.passed:
            modules = new_modules(self._modules_before)
            record.measure_again(functools.partial(self._run_again, item, modules=modules))
        if self._settings.junit:
            set_properties(item, record.phases["call"], is_first=record.attempt == 1)

    def _meter(
        self, record: TestRecord, census: CensusStart | None, *, counters: CounterSource | None = None
    ) -> Meter:
        asked = self._settings
        return Meter(
            trim=asked.trim,
            gc=asked.gc,
            counters=counters,
            children=asked.children,
            census=census,
            for_verdict=record.has_memory_budget,
        )

    def _counters_for(self, budgets: Iterable[AnyBudget]) -> CounterSource | None:
        # Counting costs, a tick of perf say, so it is for those who asked: all tests, or this one.
        if self._counters is None or self._settings.perf_events:
            return self._counters
        return self._counters if any(isinstance(one, EventBudget) for one in budgets) else None

    def _attach(
        self, item: pytest.Item, record: TestRecord, report: pytest.TestReport, *, failed: bool
    ) -> None:
        is_last = report.when == "teardown"
        if failed or is_last:
            record.end_setup()
        if failed and report.when is not None:
            self._had_failure = True
            record.note_failure(report.when)
            point_at_test(item, report, self.judge.enforce.__code__.co_filename)
        if is_last:
            self._item = None
            record.ended_ns = System.perf_counter_ns()
            if record.open_budgets:
                record.judge(last=True, terms=self.judge.terms(record))
        if record.alone_ns:
            report.duration -= record.alone_ns / NANOSECONDS_PER_SECOND
            record.alone_ns = 0
        if record.new_why is not None:
            report.sections.append(("imu: why", record.new_why["text"]))
        report.__dict__["imu"] = taken = record.take()
        if self._log is not None:
            self._log.took(taken)
            record.outcome = combined_outcome(record.outcome, report)
            if is_last:
                self._log.ended(item.nodeid, record)


class SetupEnd:
    """The hook behind all that sets a test up, but inside of what other plugins wrap around it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """End the setup's window; after a setup that fails the report does."""
        record = self._recorder.record_of(item)
        if record is not None:
            record.end_setup(call_follows=True)


def counter_source(settings: Settings, budgets: Iterable[Iterable[AnyBudget]]) -> CounterSource | None:
    """Return one source for all events that are asked for or have a budget; None if none is."""
    budgeted = [budget.event for own in budgets for budget in own if isinstance(budget, EventBudget)]
    events = tuple(dict.fromkeys((*settings.perf_events, *budgeted)))
    if not events:
        return None
    from pytest_imu.core.counters.choice import source_of_counts

    return source_of_counts(events, choice=settings.counters)
