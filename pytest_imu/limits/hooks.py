"""The hooks that set a hard limit for a part of a test, lift it, and say in its failure what it did."""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_imu.core.budgets import Budget
from pytest_imu.core.memory import platforms
from pytest_imu.core.memory.container import whole_bytes
from pytest_imu.core.memory.data_limit import DataLimit, loaded_that_abort, process_limit, stacks_bytes
from pytest_imu.core.model import Phase
from pytest_imu.core.tolerance import EXACT
from pytest_imu.core.units import MIB, format_bytes, format_mib
from pytest_imu.markers import BUDGETS
from pytest_imu.recording.recorder import Recorder
from pytest_imu.recording.warning import record_warning
from pytest_imu.settings import OPTIONS, Settings

STOPPED: pytest.StashKey[str] = pytest.StashKey()
"""Where the line about a limit that has stopped a test is kept, on the item."""
NOT_HERE = (
    "hard budgets are checked after the test: only Linux can refuse memory so that Python survives"
)
NO_THREAD = "can't start new thread"
Hook = Generator[None, object, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    """What holds for one phase of one test."""

    name: str
    room_bytes: int
    """How much the process may grow by."""
    start_bytes: int
    """Its RSS as the phase begins."""
    budget: Budget | None = None
    """None for the limit of the whole run."""

    def line(self, error: BaseException) -> str:
        """Return what is said of an error that it has caused."""
        rss_bytes = platforms.rss_bytes_or_none()
        what = "a new thread" if NO_THREAD in str(error) else "the next allocation"
        where = ""
        if rss_bytes is not None and self.budget is None:
            where = f", while this process held {format_bytes(rss_bytes)}"
        elif rss_bytes is not None:
            where = f", {format_mib(rss_bytes - self.start_bytes)} MiB above its start"
        return f"stopped by {self.name}{where}: {what} would have gone past it"


def limit_tests(config: pytest.Config, settings: Settings) -> None:
    """Register what limits tests; where the platform cannot, say so."""
    limit = process_limit()
    if limit is None:
        record_warning(config.hook, NOT_HERE, when="config")
        return
    run_bytes = _run_bytes(config, settings)
    # Behind the recorder: what comes later lies inside, and the limit is lifted before it measures.
    config.pluginmanager.register(HardLimits(config, settings, limit, run_bytes), "imu-limits")


def _run_bytes(config: pytest.Config, settings: Settings) -> int | None:
    """Return what this process may have: of several workers each has its share."""
    cap = settings.limit
    if cap is None:
        return None
    workerinput: dict[str, Any] = getattr(config, "workerinput", {})
    return cap.of(whole_bytes()) // int(workerinput.get("workercount", 1))


class HardLimits:
    """Limits a test's body by its hard budget, and all of it by the limit of the run."""

    def __init__(
        self, config: pytest.Config, settings: Settings, limit: DataLimit, run_bytes: int | None
    ) -> None:
        """*run_bytes* are what this process may have in all, if there is such a limit."""
        self._config = config
        self._settings = settings
        self._limit = limit
        self._run_bytes = run_bytes
        self._run_name = f"{OPTIONS['limit'].source(config)}={settings.limit and settings.limit.text}"
        self._warned: set[str] = set()

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Hook:
        """Limit the setup."""
        return (yield from self._limited(item, "setup"))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Hook:
        """Limit the test itself."""
        __tracebackhide__ = True  # as in the recorder
        return (yield from self._limited(item, "call"))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Hook:
        """Limit the teardown."""
        return (yield from self._limited(item, "teardown"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put in front of a failure that a limit has caused which limit that was."""
        report = yield
        line = item.stash.get(STOPPED, None)
        if line is not None:
            del item.stash[STOPPED]
            if report.failed:
                put_in_front(report, line)
        return report

    def _limited(self, item: pytest.Item, phase: Phase) -> Hook:
        __tracebackhide__ = True
        limit = self._begin(item, phase)
        if limit is None:
            return (yield)
        try:
            result = yield
        except BaseException as error:
            self._limit.lift()
            self._note(item, limit, error)
            raise
        finally:
            self._limit.lift()
        for failure in getattr(item, "_excinfo", None) or ():  # a unittest.TestCase keeps them
            self._note(item, limit, failure.value)
        return result

    def _begin(self, item: pytest.Item, phase: Phase) -> _Limit | None:
        """Set the limit of a phase; what cannot be set is said, and the test runs without."""
        try:
            limits = list(self._limits(item, phase))
            if not limits:
                return None
            limit = min(limits, key=lambda one: one.room_bytes)
            recorder: Recorder | None = self._config.pluginmanager.get_plugin("imu-recorder")
            record = None if recorder is None else recorder.record_of(item)
            if (loaded := loaded_that_abort()) and not (record is not None and record.isolated):
                why_not = f"{' and '.join(loaded)} would end the whole run where memory is refused"
                self._warn(f"{limit.name} needs --imu-isolate and sets no limit here: {why_not}")
                return None
            self._limit.set(limit.room_bytes)
        except Exception as error:  # noqa: BLE001 - no fault of ours decides about a test
            self._warn(f"no hard limit could be set: {error}")
            return None
        return limit

    def _limits(self, item: pytest.Item, phase: Phase) -> Iterator[_Limit]:
        own = item.stash.get(BUDGETS, ()) if phase == "call" else ()
        hard = [budget for budget in own if isinstance(budget, Budget) and budget.hard]
        if self._run_bytes is None and not hard:
            return
        rss_bytes = platforms.rss_bytes()
        if self._run_bytes is not None:
            room_bytes = max(0, self._run_bytes - rss_bytes)
            yield _Limit(name=self._run_name, room_bytes=room_bytes, start_bytes=rss_bytes)
        tolerance = self._settings.tolerance or EXACT
        for budget in hard:
            room_bytes = round(tolerance.over_mib(budget.limit_mib) * MIB) + stacks_bytes()
            yield _Limit(name=str(budget), room_bytes=room_bytes, start_bytes=rss_bytes, budget=budget)

    def _note(self, item: pytest.Item, limit: _Limit, error: BaseException) -> None:
        """Take in an error, if it is one that the limit causes."""
        is_refusal = (
            isinstance(error, MemoryError)
            or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
            or (isinstance(error, RuntimeError) and NO_THREAD in str(error))
        )
        if not is_refusal:
            return
        line = item.stash[STOPPED] = limit.line(error)
        recorder: Recorder | None = self._config.pluginmanager.get_plugin("imu-recorder")
        record = None if recorder is None else recorder.record_of(item)
        if record is not None and limit.budget is not None:
            record.break_now(limit.budget, line)

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            record_warning(self._config.hook, text)


def put_in_front(report: pytest.TestReport, line: str) -> None:
    """Let a failure, its line in the summary too, begin with a line of ours; its traceback stays."""
    longrepr: Any = report.longrepr  # Any: pytest has a type for each kind of failure
    chain = getattr(longrepr, "chain", None)
    traceback = chain[0][0] if chain else getattr(longrepr, "reprtraceback", None)
    crash = getattr(longrepr, "reprcrash", None)
    if traceback is None or crash is None:
        report.longrepr = f"{line}\n{longrepr}"
        return
    from _pytest._code.code import ReprEntryNative

    traceback.reprentries.insert(0, ReprEntryNative([f"{line}\n"]))
    crash.message = f"{line} ({crash.message})"
