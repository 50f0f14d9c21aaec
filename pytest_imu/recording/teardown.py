"""What a test's teardown needs and keeps: measured where a budget asks for it, else told by its ends."""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from pytest_imu.core.memory.reusable import NOTEWORTHY_BYTES
from pytest_imu.core.meter import Meter
from pytest_imu.core.system import System
from pytest_imu.recording.record import TeardownKept, TestRecord
from pytest_imu.settings import Settings

if TYPE_CHECKING:
    from pytest_imu.recording.recorder import Recorder


class TeardownRecorder:
    """The hook around a teardown, for runs in which a budget reaches over the whole test."""

    def __init__(self, recorder: Recorder, settings: Settings) -> None:
        self._recorder = recorder
        self._settings = settings

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Measure the teardown, and fail it where the test as a whole broke a budget."""
        __tracebackhide__ = True  # as in the recorder
        record = self._recorder.record_of(item)
        if record is None or not record.open_budgets:
            return (yield)
        record.end_setup()
        meter = Meter(
            trim=self._settings.trim, gc=self._settings.gc, for_verdict=record.has_memory_budget
        )
        try:
            with meter:
                result = yield
                _release_fixture_values(item, record)
        except BaseException:
            record.passed = False
            raise
        finally:
            if meter.result is not None:  # an interrupt may come before the window is open
                record.phases["teardown"] = meter.result
        self._recorder.judge.enforce(item, record, last=True)
        return result


def kept_between(nodeid: str, before: TestRecord, rss_bytes: int | None) -> TeardownKept | None:
    """Return what a test left behind between the end of its call and the next test's beginning."""
    call = before.phases.get("call")
    if call is None or call.after_bytes is None or rss_bytes is None or "teardown" in before.phases:
        return None
    kept_bytes = rss_bytes - call.after_bytes
    if kept_bytes < NOTEWORTHY_BYTES:
        return None
    return TeardownKept(nodeid=nodeid, attempt=before.attempt, kept_bytes=kept_bytes)


def forget_last_failure() -> None:
    """Let go of what the last failure's traceback keeps alive, before the next test is measured.

    pytest lets go of it as the next test's call begins, in the middle of what is measured, and what is
    in a circle, as every traceback is with the frame that caught it, goes whenever the garbage
    collector comes by.
    """
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        sys.__dict__.pop(name, None)
    System.collect()


def _release_fixture_values(item: pytest.Item, record: TestRecord) -> None:
    # pytest drops the values of a test's fixtures only after the teardown hook has returned. What
    # the whole test keeps can be told once they are gone, so for such a budget they go a little sooner.
    if any(budget.name == "max_delta_mib" for budget in record.open_budgets):
        getattr(item, "funcargs", {}).clear()
