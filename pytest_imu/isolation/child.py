"""What an isolated test does in its child, and what it sends home: all that reporters must hear of."""

from __future__ import annotations

import logging
import signal
import traceback
from collections.abc import Callable, Generator, Mapping
from typing import Any

import pytest

from pytest_imu.isolation import coverage_data as child_coverage
from pytest_imu.isolation.forkserver_process import Send
from pytest_imu.isolation.messages import Message, encode, flush_output, plain_warning
from pytest_imu.recording.recorder import Recorder

RELAYED = (
    "pytest_runtest_logstart",
    "pytest_runtest_logreport",
    "pytest_runtest_logfinish",
    "pytest_warning_recorded",
)
"""The hooks that reporters listen to: in a child they are not called, and in the session they are."""


class Child:
    """A test's run in its child, made ready in the process that forks."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._item: Any = None  # Any: the test, as soon as there is one
        self._send: Any = None  # Any: a Send, as soon as there is one
        session.config.pluginmanager.register(self, "imu-child")  # 1 ms, once

    def run(self, item: pytest.Item, send: Send) -> None:
        """Run the test's whole protocol; what it tells goes home, and last how it was left."""
        self._item, self._send = item, send
        config = item.config
        recorder: Recorder | None = config.pluginmanager.get_plugin("imu-recorder")
        if recorder is not None:
            recorder.begin_in_isolated_child()
        self._divert(config)
        left = self._run_protocol()
        log_fault = None
        if recorder is not None:
            recorder.pytest_unconfigure()
            log_fault = recorder.log_fault
        flush_output(config)
        logging.shutdown()
        self._tell(
            "left",
            left=left,
            shouldstop=self._session.shouldstop,
            shouldfail=self._session.shouldfail,
            log_fault=log_fault,
            coverage=child_coverage.collected(),
        )

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        """Tell home which phase begins, so that it is known where a child dies."""
        __tracebackhide__ = True  # as in the recorder
        self._tell("phase", when="setup")
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Tell home which phase begins."""
        __tracebackhide__ = True  # as in the recorder
        self._tell("phase", when="call")
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        """Tell home which phase begins."""
        __tracebackhide__ = True  # as in the recorder
        self._tell("phase", when="teardown")
        return (yield)

    def _run_protocol(self) -> Message | None:
        """Return what left the protocol, or None; whatever it was, fixtures are finalised."""
        left: Message | None = None
        try:
            self._item.config.hook.pytest_runtest_protocol(item=self._item, nextitem=None)
        except pytest.exit.Exception as error:
            left = {"by": "exit", "reason": error.msg, "returncode": error.returncode}
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

    def _divert(self, config: pytest.Config) -> None:
        """Let what reporters listen to go home, whether a plugin calls it on the item or the config."""
        callers = {name: _HomeCaller(name, self._tell_hook) for name in RELAYED}
        found = self._session.gethookproxy
        self._session.__dict__["gethookproxy"] = lambda fspath: _Diverted(found(fspath), callers)
        config.hook.__dict__.update(callers)

    def _tell_hook(self, name: str, arguments: Mapping[str, Any]) -> None:
        plain = dict(arguments)
        if "report" in plain:
            config, report = self._item.config, plain["report"]
            if name == "pytest_runtest_logreport":
                # Asked here too: pytest fails the test whose subtests have failed as it is asked for the
                # status, and how many have is known in the process that ran them.
                config.hook.pytest_report_teststatus(report=report, config=config)
            plain["report"] = config.hook.pytest_report_to_serializable(config=config, report=report)
        if "warning_message" in plain:
            plain["warning_message"] = plain_warning(plain["warning_message"])
        # What is printed for a report comes behind what this process has printed, and before its next.
        wait = name in {"pytest_runtest_logstart", "pytest_runtest_logreport"}
        if wait:
            flush_output(self._item.config)
        self._tell("hook", name=name, arguments=plain, wait=wait)

    def _tell(self, what: str, *, wait: bool = False, **fields: Any) -> None:
        self._send(encode({"what": what, **fields}), wait=wait)


class _HomeCaller:
    """Stands for a hook's caller, and calls it at home."""

    def __init__(self, name: str, tell: Callable[[str, Mapping[str, Any]], None]) -> None:
        self._name = name
        self._tell = tell

    def __call__(self, **arguments: Any) -> list[Any]:
        self._tell(self._name, arguments)
        return []

    def call_historic(
        self,
        result_callback: Callable[[Any], None] | None = None,  # noqa: ARG002 - pluggy's own signature
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Call the hook at home, as `pytest_warning_recorded` is called."""
        self._tell(self._name, kwargs or {})


class _Diverted:
    """A node's hooks, some of which are called at home."""

    def __init__(self, hooks: Any, callers: Mapping[str, _HomeCaller]) -> None:
        # Any: pytest's relay or its stand-in, which have no common type.
        self._hooks = hooks
        self.__dict__.update(callers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hooks, name)


def _innermost(error: BaseException) -> str:
    """Return the file and line where an error was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"
