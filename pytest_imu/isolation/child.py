"""What an isolated test does in its child, and what it sends: all that reporters must hear of."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import traceback
import warnings
from collections.abc import Generator
from typing import Any

import pytest

from pytest_imu.isolation import coverage_data as child_coverage
from pytest_imu.isolation.channel import Channel
from pytest_imu.isolation.messages import flush_output, plain, plain_warning
from pytest_imu.recording.recorder import Recorder

RELAYED = (
    "pytest_runtest_logstart",
    "pytest_runtest_logreport",
    "pytest_runtest_logfinish",
    "pytest_warning_recorded",
)
"""The hooks that reporters listen to: in a child nobody hears them but the session."""


class Child:
    """A test's run in its child, made ready in the process that forks."""

    _end_logging = staticmethod(logging.shutdown)  # a test may have mocked it

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._channel: Channel | None = None  # none before there is a child
        self._number = self._asked = 0
        self._kept = _forget_fixtures(session)
        config = session.config
        for caller in (getattr(config.hook, name) for name in RELAYED):
            for listener in caller.get_hookimpls():
                caller._remove_plugin(listener.plugin)  # noqa: SLF001 - pluggy unregisters all or nothing
        config.pluginmanager.register(self, "imu-child")  # 1 ms, once

    def run(self, number: int, channel: Channel) -> None:
        """Run a test's whole protocol; what it tells is sent, and last how it was left."""
        self._number, self._channel = number, channel
        begin_anew = getattr(sys.modules.get("gevent"), "reinit", None)
        if begin_anew is not None:  # or its loop would share the session's own descriptors
            begin_anew()
        item = self._session.items[number]
        config = item.config
        recorder: Recorder | None = config.pluginmanager.get_plugin("imu-recorder")
        if recorder is not None:
            recorder.begin_in_isolated_child()
        left = self._run_protocol(item)
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

    def _run_protocol(self, item: pytest.Item) -> dict[str, Any] | None:
        """Return what left the protocol, or None; whatever it was, fixtures are finalised."""
        left: dict[str, Any] | None = None
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        except pytest.exit.Exception as error:
            left = {"by": "exit", "reason": plain(error.msg), "returncode": plain(error.returncode)}
        except KeyboardInterrupt as error:
            left = {"by": "interrupt", "where": _innermost(error)}
        except BaseException:  # noqa: BLE001 - a SystemExit, too, would end no more than this child
            left = {"by": "error", "text": traceback.format_exc()}
        if left is not None:
            self._finalise()
        return left

    def _finalise(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C shall not leave servers behind
        try:
            self._session._setupstate.teardown_exact(None)  # noqa: SLF001 - as pytest's runner ends it
        except BaseException:  # noqa: BLE001 - what left the protocol counts; this is said besides
            traceback.print_exc()

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

    def _send(self, what: str, **fields: Any) -> None:
        """Send a message; what a test has forked is silent."""
        if self._channel is not None and self._channel.is_mine:
            self._channel.send({"what": what, **fields})


def _forget_fixtures(session: pytest.Session) -> list[object]:
    """Let no fixture be set up here: they are the session's, where the fork came amid its tests.

    Return all that must be kept, for a generator that is dropped would run its teardown.
    """
    stack = session._setupstate.stack  # noqa: SLF001 - there is no public way
    kept: list[object] = [stack.copy()]
    definitions = gc.get_objects() if stack else []
    stack.clear()
    for definition in definitions:
        if isinstance(definition, pytest.FixtureDef):  # where pytest has them, no two versions agree
            kept += [definition.cached_result, definition._finalizers.copy()]  # noqa: SLF001 - as above
            definition.cached_result = None
            definition._finalizers.clear()  # noqa: SLF001 - as above
    return kept


def _innermost(error: BaseException) -> str:
    """Return the file and line where an error was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"
