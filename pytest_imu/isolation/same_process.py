"""Runs a test's call once more in this process, for its lines, where no other process can be had."""

from __future__ import annotations

import logging
import secrets
import shutil
import sys
import tempfile
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.core.alone import Alone
from pytest_imu.core.counters.callgrind.command import running_tool
from pytest_imu.isolation.channel import Message
from pytest_imu.isolation.messages import failure_text
from pytest_imu.isolation.timeouts import timeouts_paused


def run_here(item: pytest.Item, why_here: str, lines: Message) -> Alone:
    """Call a test's body once more, between its setup and its teardown, and return its lines."""
    if running_tool() is not None:
        if lines["count"] is None:
            return Alone(reason=why_here)
        why_here = "valgrind counts no other one"
    if tuple(lines["phases"]) != ("call",):
        return Alone(reason=f"{why_here}, and here only a test's call can run again")
    if item not in item.session._setupstate.stack:  # noqa: SLF001 - there is no public way
        return Alone(reason=why_here)
    if _is_unittest(item):
        return Alone(reason=f"{why_here}, and here no unittest.TestCase can run again")
    from pytest_imu.why.phases import Follower

    folder = Path(tempfile.gettempdir(), f"pytest-imu-{secrets.token_hex(8)}")
    follower = Follower(folder=folder, **lines)
    reason = None
    with timeouts_paused(item), _unnoticed(item):
        follower.begin()
        try:
            item.runtest()
        except (KeyboardInterrupt, pytest.exit.Exception):
            raise
        except BaseException as error:  # noqa: BLE001 - a test may raise what it likes
            verb = "was skipped" if isinstance(error, pytest.skip.Exception) else "failed"
            reason = f"it {verb}: {failure_text(error)}"
        finally:
            follower.end()
    told = follower.plain()
    shutil.rmtree(folder, ignore_errors=True)
    return Alone(reason=reason, lines=told, same_process=why_here)


def _is_unittest(item: pytest.Item) -> bool:
    """Whether a failure of another run would be taken for one of the test."""
    unittest: Any = sys.modules.get("unittest")
    cls = getattr(item, "cls", None)
    return unittest is not None and isinstance(cls, type) and issubclass(cls, unittest.TestCase)


@contextmanager
def _unnoticed(item: pytest.Item) -> Generator[None]:
    """Drop what the test prints, logs, warns of and notes meanwhile; what it has told before is kept."""
    capture: Any = item.config.pluginmanager.get_plugin("capturemanager")
    captures = capture is not None and capture.is_globally_capturing()
    before = capture.read_global_capture() if captures else ()
    properties = [*item.user_properties]
    handlers: list[Any] = logging.getLogger().handlers
    logs = [one for one in handlers if type(one).__name__ == "LogCaptureHandler"]  # pytest's own
    logged = [(len(one.records), one.stream.tell()) for one in logs]
    try:
        with warnings.catch_warnings(record=True):
            yield
    finally:
        item.user_properties[:] = properties
        for handler, (records, end) in zip(logs, logged, strict=True):
            del handler.records[records:]
            handler.stream.seek(end)
            handler.stream.truncate()
        if captures:
            capture.read_global_capture()
        for name, text in zip(("stdout", "stderr"), before, strict=False):
            if text:
                item.add_report_section("call", name, text)
