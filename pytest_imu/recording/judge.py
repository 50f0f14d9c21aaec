"""Holds tests to their budgets: when a verdict is due, who decides it, and what a broken budget does."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import pytest

from pytest_imu.core.alone import Alone
from pytest_imu.core.budgets import LeakBudget, Verdict
from pytest_imu.core.checks import Terms
from pytest_imu.core.memory.reusable import why_unknown
from pytest_imu.core.memory.source import resolution_bytes
from pytest_imu.core.tolerance import EXACT
from pytest_imu.recording.noise import NoiseFloor
from pytest_imu.recording.record import TestRecord, Why
from pytest_imu.settings import Settings

RunAlone = Callable[[pytest.Item, int], Alone]
"""Runs a test once more, alone in a clean process; gets how long it took the first time, in ns."""
RunAgain = Callable[..., Alone]
"""The same, with the modules that are to be imported first, and the lines that are to be followed."""
Verdicts = Sequence[Verdict]


class Explains(Protocol):
    """Finds the lines behind a test's numbers."""

    run_again: RunAgain

    def explain(self, item: pytest.Item, first_ns: int, record: TestRecord, broken: Verdicts) -> Why:
        """Return what another run tells of a test that has just passed, or broken these budgets."""


class BudgetWarning(pytest.PytestWarning):
    """A broken budget, where `imu_on_breach = warn` asks for a warning instead of a failure."""

    __module__ = "pytest_imu"  # where its users import it from


class Judge:
    """Decides about budgets and fails the tests that break them."""

    def __init__(
        self,
        settings: Settings,
        noise: NoiseFloor,
        run_alone: RunAlone | None,
        explainer: Explains | None = None,
    ) -> None:
        """*run_alone* runs a test once more where a verdict is in doubt; None leaves it in doubt."""
        self._settings = settings
        self._noise = noise
        self._run_alone = run_alone
        self._explainer = explainer
        self.is_silent = False
        """Whether it decides nothing in this process: it was forked to measure one test once more."""

    def be_silent(self) -> None:
        """Decide nothing in this process: it was forked to measure one test once more."""
        self.is_silent = True

    def run_again_by(self, run_again: RunAgain) -> None:
        """Have explaining runs made in another way: this process was forked to run one test."""
        if self._explainer is not None:
            self._explainer.run_again = run_again

    def terms(self, record: TestRecord) -> Terms:
        """Return what holds for all budgets of a test now."""
        return Terms(
            tolerance=self._settings.tolerance or EXACT,
            noise_bytes=self._noise.floor_bytes or 0,
            counts_required=self._settings.perf_required,
            unknown_reuse=why_unknown(),
            resolution_bytes=resolution_bytes(),
            isolated=record.isolated,
            **({} if record.growth is None else {"growth": record.growth}),
        )

    def enforce(self, item: pytest.Item, record: TestRecord, *, last: bool) -> None:
        """Hold the budgets that can be decided now against what was measured; fail for a broken one."""
        # Not hidden from tracebacks: with all of its frames hidden pytest adds a line about that.
        if self.is_silent:
            return
        # A unittest.TestCase keeps its failures for its report.
        may_run = self._run_alone is not None and not getattr(item, "_excinfo", None)
        run_alone = functools.partial(self._alone, item, record) if may_run else None
        broken = record.judge(last=last, terms=self.terms(record), run_alone=run_alone)
        if not broken:
            return
        self._explain(item, record, broken)
        lines = "\n".join(str(verdict.reason) for verdict in broken)
        if self._settings.on_breach == "warn":
            item.warn(BudgetWarning(lines))
        elif record.passed:
            record.passed, record.failed_by_budget = False, True
            pytest.fail(lines, pytrace=False)

    def explain_passed(self, item: pytest.Item, record: TestRecord) -> None:
        """Find the lines behind a test whose call has passed, where that is asked for all tests."""
        if self._settings.why == "all" and record.new_why is None and not self.is_silent:
            self._explain(item, record, [])

    def _explain(self, item: pytest.Item, record: TestRecord, broken: Verdicts) -> None:
        # What grows with each call is explained where it was called again.
        told = [verdict for verdict in broken if not isinstance(verdict.budget, LeakBudget)]
        if self._explainer is not None and record.passed and (told or not broken):
            explain = self._explainer.explain
            record.new_why = record.timed_alone(lambda first_ns: explain(item, first_ns, record, told))

    def _alone(self, item: pytest.Item, record: TestRecord) -> Alone:
        """Return what the test measures alone, in one more run of it at the most."""
        if record.alone is None and self._run_alone is not None:
            record.alone = record.timed_alone(functools.partial(self._run_alone, item))
        return record.alone or Alone(reason="no process can run it alone")
