"""Calls a test's body again, after its own call has passed, and counts what each call leaves."""

from __future__ import annotations

import functools
from dataclasses import replace
from types import GeneratorType
from typing import Any

import pytest

from pytest_imu.core.budgets import LeakBudget
from pytest_imu.core.leaks.counts import growth_of, warm_up
from pytest_imu.core.leaks.growth import Growth
from pytest_imu.core.system import System
from pytest_imu.core.units import printable
from pytest_imu.isolation.timeouts import timeouts_paused
from pytest_imu.leaks.holders import Holders
from pytest_imu.markers import BUDGETS
from pytest_imu.recording.record import TestRecord
from pytest_imu.recording.undo import Fixtures
from pytest_imu.settings import Settings

NOT_SEEN = "another plugin runs its body in a way of its own"
SUBTESTS = "its body cannot be called again: each call would report its subtests once more"
PASSES_ON = (KeyboardInterrupt, pytest.exit.Exception)
"""What ends the whole run, whoever asks for it."""


class CannotCallAgainError(Exception):
    """A test's body was not called again; the text says why."""


class Calls:
    """Counts what further calls of a test's body leave."""

    def __init__(self, settings: Settings) -> None:
        self._explains = settings.why != "off"
        self._fixtures: Fixtures | None = None
        self._body: _Body | None = None
        self._has_subtests = False
        """Whether the test that runs has reported subtests of its own."""
        warm_up()  # before any test has mocked what it counts with

    @pytest.hookimpl(tryfirst=True)  # not a wrapper: all of those, the timeouts too, have begun by now
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Note how the fixtures of a test stand before its own call."""
        budgets = item.stash.get(BUDGETS, ())
        is_counted = any(isinstance(budget, LeakBudget) for budget in budgets)
        self._fixtures = Fixtures(item) if is_counted else None
        self._has_subtests = False

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note that the test which runs reports subtests, by `self.subTest` or the fixture."""
        self._has_subtests |= hasattr(report, "context")

    def count_growth(self, item: pytest.Item, record: TestRecord) -> None:
        """Call the body of a test that has just passed as often as its budget asks for.

        A call that fails, fails a test whose own marker asks for it. A test of a run that asks for all
        of them has passed, and its budget is unchecked.
        """
        budgets = [budget for budget in record.open_budgets if isinstance(budget, LeakBudget)]
        # A unittest.TestCase keeps its failures for its report.
        if not budgets or _failures_of(item):
            return
        [budget] = budgets
        begin_ns = System.perf_counter_ns()
        try:
            record.growth = self._growth(item, record, budget)
        except CannotCallAgainError as error:
            record.growth = str(error)
        except Exception as error:  # noqa: BLE001 - no fault of ours decides about a test
            self._raise_the_tests_own(error)
            what = printable(str(error))
            record.growth = f"its growth could not be counted: {type(error).__name__}: {what}"
        finally:
            record.alone_ns += System.perf_counter_ns() - begin_ns

    def _raise_the_tests_own(self, error: Exception) -> None:
        """Raise what a call of the body has raised; no fault of ours decides about a test."""
        body, self._body = self._body, None
        if isinstance(error, (*PASSES_ON, CannotCallAgainError)) or (
            body is not None and error is body.failure
        ):
            raise error

    def _growth(self, item: pytest.Item, record: TestRecord, budget: LeakBudget) -> Growth:
        if self._has_subtests:
            raise CannotCallAgainError(SUBTESTS)
        if (why_not := _why_not(item)) is not None:
            raise CannotCallAgainError(why_not)
        fixtures, self._fixtures = self._fixtures, None
        if fixtures is None:
            raise CannotCallAgainError(NOT_SEEN)
        with fixtures:
            body = self._body = _Body(item, record, fixtures, budget)
            body.call(budget.warmup - 1)  # the test's own call was the first
            growth = growth_of(
                functools.partial(body.call, 1),
                calls=budget.calls,
                warmup=budget.warmup,
                limit_kib=budget.limit_kib,
                around=functools.partial(timeouts_paused, item),  # each call then has its whole time
            )
            if self._explains and growth.grew(budget.limit_kib, parts=budget.parts(growth)):
                growth = self._explained(item, body, budget, growth)
        return growth

    def _explained(self, item: pytest.Item, body: _Body, budget: LeakBudget, growth: Growth) -> Growth:
        try:
            with Holders(item.config.rootpath) as holders:
                body.call(1)
                holders.begin()
                body.call(budget.calls)
                growth = replace(growth, why=holders.found(budget.calls))
            said = holders.lines()
        except Exception as error:  # noqa: BLE001 - no fault of ours decides about a test
            self._raise_the_tests_own(error)
            said = [f"the lines are not known: {type(error).__name__}: {printable(str(error))}"]
        item.add_report_section("call", "imu: growth", "\n".join(said))
        return growth


class _Body:
    """A test's body, to be called again."""

    def __init__(
        self, item: pytest.Item, record: TestRecord, fixtures: Fixtures, budget: LeakBudget
    ) -> None:
        self._item = item
        self._record = record
        self._blocks = record.new_blocks
        self._fixtures = fixtures
        self._budget = budget
        self._called = 1
        self.failure: BaseException | None = None
        """What a call has raised that fails the test."""

    def call(self, times: int) -> None:
        """Call it so many times; raises CannotCallAgainError, or what failed the test."""
        for _ in range(times):
            self._called += 1
            with timeouts_paused(self._item):  # each call then has its whole time
                self._fixtures.forget_call()
            try:
                self._item.runtest()
            except PASSES_ON:
                raise
            except BaseException as error:  # noqa: BLE001 - also what pytest.fail and SystemExit raise
                self._fail(error)
            finally:
                self._record.new_blocks = self._blocks  # those of its own call
            for failure in _failures_of(self._item):
                self._fail(failure.value)
        self._fixtures.forget_call()

    def _fail(self, error: BaseException) -> None:
        """Let the test fail by what one of its later calls raised, or say why there are no more."""
        where = f"call {self._called} of its body"
        failures = _failures_of(self._item)
        if self._budget.origin is None and not isinstance(error, pytest.skip.Exception):
            error.add_note(f"in {where}, for {self._budget}")
            if not failures:
                self.failure = error
                raise error
        else:
            failures.clear()
        raise CannotCallAgainError(
            f"its body cannot be called again: {where} raised {type(error).__name__}"
        )


def _failures_of(item: pytest.Item) -> list[Any]:  # Any: pytest's own ExceptionInfo
    """Return what a unittest.TestCase keeps of its failures; nothing for other tests."""
    failures: list[Any] | None = getattr(item, "_excinfo", None)
    return failures or []


def _why_not(item: pytest.Item) -> str | None:
    """Return why a body cannot be called again; None where it can be tried."""
    values: dict[str, object] = getattr(item, "funcargs", None) or {}
    for name, value in values.items():
        if type(value) is GeneratorType and value.gi_frame is None:
            return (
                "its body cannot be called again: "
                f"the fixture {name!r} is a generator, and its first call has consumed it"
            )
    return None
