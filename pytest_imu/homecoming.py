"""What an isolated test does in its child, and what it sends home: all that reporters must hear of."""

from __future__ import annotations

import json
import logging
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Mapping
from typing import Any

import pytest

from pytest_imu import child_coverage
from pytest_imu.nursery_child import Send
from pytest_imu.recorder import Recorder

RELAYED = (
    "pytest_runtest_logstart",
    "pytest_runtest_logreport",
    "pytest_runtest_logfinish",
    "pytest_warning_recorded",
)
"""The hooks that reporters listen to: in a child they are not called, and in the session they are."""
TUPLE = "imu tuple"
"""The one key of the dict that stands for a tuple, which JSON does not have."""

Message = dict[str, Any]


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


def encode(message: Message) -> bytes:
    """Return a message as one line of JSON; what JSON does not have goes as its repr."""
    return json.dumps(_plain(message)).encode("ascii")


def decode(line: bytes) -> Message:
    """Return the message, tuples and all."""
    message: Message = json.loads(line, object_hook=_with_tuples)
    return message


def _plain(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, tuple):
        return {TUPLE: [_plain(one) for one in value]}
    if isinstance(value, (str, int, float)):  # of a class of its own
        return next(kind(value) for kind in (str, int, float) if isinstance(value, kind))
    return repr(value)


def _with_tuples(found: dict[str, Any]) -> Any:
    return tuple(found[TUPLE]) if found.keys() == {TUPLE} else found


def plain_warning(warning: warnings.WarningMessage) -> Message:
    """Return a warning in plain form."""
    return {
        "text": str(warning.message),
        "module": warning.category.__module__,
        "name": warning.category.__qualname__,
        "filename": warning.filename,
        "lineno": warning.lineno,
        "line": warning.line,
    }


def rebuilt_warning(plain: Message) -> warnings.WarningMessage:
    """Return the warning, as a PytestWarning where its own class is not known here."""
    category: Any = sys.modules.get(plain["module"])
    for name in plain["name"].split("."):
        category = getattr(category, name, None)
    if not (isinstance(category, type) and issubclass(category, Warning)):
        category = pytest.PytestWarning
    try:
        message = category(plain["text"])
    except Exception:  # noqa: BLE001 - a class that takes other arguments; its text is what is shown
        message = Warning(plain["text"])
    if str(message) != plain["text"]:
        message = Warning(plain["text"])
    return warnings.WarningMessage(
        message=message,
        category=category,
        filename=plain["filename"],
        lineno=plain["lineno"],
        line=plain["line"],
    )


def flush_output(config: pytest.Config) -> None:
    """Write out what this process has printed: a fork would print it twice, an os._exit() never."""
    streams: list[Any] = [sys.stdout, sys.stderr]  # Any: a test may have put anything there
    if config.pluginmanager.has_plugin("terminalreporter"):
        streams.append(config.get_terminal_writer())
    for stream in streams:
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):  # a test has replaced, closed or broken it
            continue
