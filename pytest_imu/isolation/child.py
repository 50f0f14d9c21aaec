"""What an isolated test does in its child, and what it sends: all that reporters must hear of."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Generator, Sequence
from typing import Any

import pytest

from pytest_imu.core.alone import Alone
from pytest_imu.isolation import coverage_data as child_coverage
from pytest_imu.isolation.channel import Channel, Message
from pytest_imu.isolation.clean import CleanMemory, import_modules
from pytest_imu.isolation.file_pages import FilePages
from pytest_imu.isolation.messages import flush_output, plain, plain_warning
from pytest_imu.isolation.protocol import run_protocol, take_over
from pytest_imu.isolation.stacks import Stacks
from pytest_imu.isolation.timeouts import timeouts_paused
from pytest_imu.recording.recorder import Recorder


class Child:
    """What is done with isolated tests: prepared in the process that forks, and run in its children."""

    _end_logging = staticmethod(logging.shutdown)  # a test may have mocked it

    def __init__(self, session: pytest.Session, file_pages: FilePages, stacks: Stacks) -> None:
        """*file_pages* are those of the session's process."""
        self._session = session
        self._channel: Channel | None = None  # none before there is a child
        self._number = self._asked = 0
        self._memory = CleanMemory(file_pages)
        self._stacks = stacks
        self._kept: list[object] = []

    def prepare(self, descriptors: Collection[int]) -> None:  # noqa: ARG002 - the children keep theirs
        """Make the process ready that forks."""
        child_coverage.begin_in_server()
        self._stacks.be_askable()
        self._kept = take_over(self._session, self)
        self._memory.begin_in_child()
        self._memory.clean()

    def import_modules(self, names: Sequence[str]) -> dict[str, int]:
        """Import what a test has brought in, so that it is no other's need."""
        sizes = import_modules(names)
        self._memory.clean()
        return sizes

    def close(self) -> None:
        """Leave all as it is: the session's own folders are its to remove."""

    def work(self, task: Message, channel: Channel) -> None:
        """Run a test's whole protocol; what it tells is sent, and last how it was left."""
        self._memory.begin_in_child()
        if task["modules"]:
            self.import_modules(task["modules"])
        self._number, self._channel = task["number"], channel
        item = self._session.items[self._number]
        config = item.config
        recorder: Recorder | None = config.pluginmanager.get_plugin("imu-recorder")
        if recorder is not None:
            recorder.begin_in_isolated_child(self._measure_again)
        left = run_protocol(item)
        log_fault = None
        if recorder is not None:
            recorder.pytest_unconfigure()
            log_fault = recorder.log_fault
        flush_output(config)
        self._end_logging()
        self._send(
            "left",
            left=left,
            shouldstop=self._session.shouldstop,
            shouldfail=self._session.shouldfail,
            log_fault=log_fault,
            coverage=child_coverage.collected(),
        )

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        """Tell the session which phase begins, so that it is known where a child dies."""
        __tracebackhide__ = True  # as in the recorder
        self._send("phase", when="setup")
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Tell the session which phase begins."""
        __tracebackhide__ = True  # as in the recorder
        self._send("phase", when="call")
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        """Tell the session which phase begins."""
        __tracebackhide__ = True  # as in the recorder
        self._send("phase", when="teardown")
        return (yield)

    @pytest.hookimpl
    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Send that an attempt at the test begins."""
        self._send_call("pytest_runtest_logstart", nodeid=nodeid, location=location)

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send a report in pytest's own plain form."""
        config = self._session.config
        # Asked here too: pytest fails the test whose subtests have failed as it is asked for the
        # status, and how many have is known in the process that ran them.
        config.hook.pytest_report_teststatus(report=report, config=config)
        data = config.hook.pytest_report_to_serializable(config=config, report=report)
        self._send_call("pytest_runtest_logreport", report=plain(data))

    @pytest.hookimpl
    def pytest_runtest_logfinish(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Send that an attempt at the test has ended."""
        self._send_call("pytest_runtest_logfinish", nodeid=nodeid, location=location)

    @pytest.hookimpl
    def pytest_warning_recorded(
        self,
        warning_message: warnings.WarningMessage,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None,
    ) -> None:
        """Send a warning in plain form; those of the collection, told again here, are known there."""
        warning = plain_warning(warning_message)
        arguments = {"when": when, "nodeid": nodeid, "location": location}
        self._send_call("pytest_warning_recorded", warning_message=warning, **arguments)

    def _send_call(self, hook: str, **arguments: Any) -> None:
        """Have the session call a hook; reports wait until it has, with their output around them."""
        # What is printed for a report comes behind what this process has printed, and before its next.
        waits = hook in {"pytest_runtest_logstart", "pytest_runtest_logreport"}
        if waits:
            flush_output(self._session.config)
            self._asked += 1
        token = (self._number, self._asked) if waits else None
        self._send("hook", name=hook, arguments=arguments, waits=token)
        if self._channel is not None and self._channel.is_mine:
            while waits and token not in self._channel.receive():
                continue  # an answer that a child before this one did not live to read

    def _measure_again(
        self, item: pytest.Item, first_ns: int, modules: Sequence[str] = (), **rest: Message
    ) -> Alone:
        """Have the session run the test once more, in a process that has imported these modules."""
        if self._channel is None or not self._channel.is_mine:
            return Alone(reason="the test has forked")
        with timeouts_paused(item):
            self._send("again", first_ns=first_ns, modules=[*modules], rest=rest)
            while True:
                for answer in self._channel.receive():
                    if isinstance(answer, dict):
                        return Alone.from_dict(answer)

    def _send(self, what: str, **fields: Any) -> None:
        """Send a message; what a test has forked is silent."""
        if self._channel is not None and self._channel.is_mine:
            self._channel.send({"what": what, **fields})
