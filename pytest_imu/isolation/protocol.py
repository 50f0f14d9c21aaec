"""A test's whole protocol in a process that was forked for it, with nobody listening but ourselves."""

from __future__ import annotations

import gc
import signal
import sys
import traceback
from typing import Any

import pytest

from pytest_imu.isolation.messages import plain

RELAYED = (
    "pytest_runtest_logstart",
    "pytest_runtest_logreport",
    "pytest_runtest_logfinish",
    "pytest_warning_recorded",
)
"""The hooks that reporters listen to: in a child nobody hears them but the session."""


def take_over(session: pytest.Session, listener: object) -> list[object]:
    """Let only *listener* hear of tests in this process, and let no fixture be set up here.

    Return what must be kept alive.
    """
    kept = _forget_fixtures(session)
    config = session.config
    for caller in (getattr(config.hook, name) for name in RELAYED):
        for found in caller.get_hookimpls():
            caller._remove_plugin(found.plugin)  # noqa: SLF001 - pluggy unregisters all or nothing
    config.pluginmanager.register(listener, "imu-child")  # 1 ms, once
    return kept


def run_protocol(item: pytest.Item) -> dict[str, Any] | None:
    """Run a test; return what left its protocol, or None. Whatever it was, fixtures are finalised."""
    try:
        return _run_until_left(item)
    except KeyboardInterrupt as error:  # the session's, after the terminal's had left the protocol
        _finalise(item.session)
        return {"by": "interrupt", "where": _innermost(error)}


def _run_until_left(item: pytest.Item) -> dict[str, Any] | None:
    begin_anew = getattr(sys.modules.get("gevent"), "reinit", None)
    if begin_anew is not None:  # or its loop would share the session's own descriptors
        begin_anew()
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
        _finalise(item.session)
    return left


def _finalise(session: pytest.Session) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C shall not leave servers behind
    try:
        session._setupstate.teardown_exact(None)  # noqa: SLF001 - as pytest's runner ends it
    except BaseException:  # noqa: BLE001 - what left the protocol counts; this is said besides
        traceback.print_exc()


def _forget_fixtures(session: pytest.Session) -> list[object]:
    """Forget the fixtures that stand: they are the session's, where the fork came amid its tests.

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


def _innermost(interrupt: KeyboardInterrupt) -> str:
    """Return the file and line where the first interrupt hit: there may be two at once."""
    error: BaseException | None = interrupt
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            interrupt = error
        error = error.__context__
    *_, (frame, line) = traceback.walk_tb(interrupt.__traceback__)  # reads no file: mocks are active
    return f"{frame.f_code.co_filename}:{line}"
