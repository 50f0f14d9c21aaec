"""The hooks around the samples of each test, where `--imu-timeline` asks for them."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from pytest_imu.core.system import OwnProcess
from pytest_imu.core.timeline import Timeline

if TYPE_CHECKING:
    from pytest_imu.recording.recorder import Recorder


class TimelineRecorder:
    """Samples while tests run, in the process that runs them."""

    def __init__(self, recorder: Recorder, interval_ns: int) -> None:
        self._recorder = recorder
        self._interval_ns = interval_ns
        self._timeline: Timeline | None = None
        self._process: OwnProcess | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Begin anew for a test; the thread starts with the first one, behind every fork of ours."""
        if self._recorder.judge.is_silent:
            return
        if not self._is_here:  # none yet, or a child was forked, which does not have the thread
            self._process = OwnProcess()
            self._timeline = Timeline(self._interval_ns)
            self._timeline.start()
        if self._timeline is not None:
            self._timeline.begin()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Give a test's samples to its record, as its last report is made."""
        record = self._recorder.record_of(item)
        timeline = self._timeline if self._is_here and call.when == "teardown" else None
        if record is not None and timeline is not None:
            record.timeline = timeline.take()
        return (yield)

    @pytest.hookimpl
    def pytest_unconfigure(self) -> None:
        """End the thread."""
        if self._timeline is not None and self._is_here:
            self._timeline.stop()

    @property
    def _is_here(self) -> bool:
        """Whether the thread is in this process: a test may have forked it."""
        return self._process is not None and self._process.is_current
