"""Takes out of pytest's own fixtures what a call of the body has put into them.

They are set up once, and keep what the test does with them until its teardown: that would be growth, and
a second call would not find what the first did.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import pytest

T = TypeVar("T")
HANDLERS = ("caplog_handler", "report_handler")


class Fixtures:
    """The fixtures of a test whose body is called again, and pytest's own records of each test."""

    def __init__(self, item: pytest.Item) -> None:
        """Note how they stand before the body's first call."""
        self._item = item
        self._properties = 0
        values = (getattr(item, "funcargs", None) or {}).values()
        # Any: none of pytest's own plugins has a public type.
        self._capture: Any = item.config.pluginmanager.get_plugin("capturemanager")
        logging: Any = item.config.pluginmanager.get_plugin("logging-plugin")
        self._handlers: list[Any] = [getattr(logging, name) for name in HANDLERS if logging is not None]
        self._captures = _of_type(pytest.CaptureFixture, values)
        self._recorders = _of_type(pytest.WarningsRecorder, values)
        self._patches = [_Patches(patch) for patch in _of_type(pytest.MonkeyPatch, values)]
        self._logged: list[tuple[Any, Any]] = []
        self._printed = "", ""
        self._warned = _recorded_warnings()
        self._warned_before = 0

    def __enter__(self) -> Self:
        """Keep for the report what was logged and printed so far; the warnings so far are told."""
        self._logged = [(handler.records, handler.stream) for handler in self._handlers]
        for handler in self._handlers:
            handler.reset()
        if self._capture is not None:
            self._printed = self._capture.read_global_capture()
        self._warned_before = len(self._warned)
        self._properties = len(self._item.user_properties)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Put back what was kept, unless a later call has failed: then the report is about that one."""
        if exc_type is None:
            for handler, (records, stream) in zip(self._handlers, self._logged, strict=True):
                handler.records, handler.stream = records, stream
            for name, text in zip(("stdout", "stderr"), self._printed, strict=True):
                if text:
                    self._item.add_report_section("call", name, text)

    def forget_call(self) -> None:
        """Forget what the last call has logged, printed, warned of, noted and patched."""
        for handler in self._handlers:
            handler.clear()
        for capture in self._captures:
            capture.readouterr()
        if self._capture is not None:
            self._capture.read_global_capture()
        for recorder in self._recorders:
            recorder.clear()
        del self._warned[self._warned_before :]
        del self._item.user_properties[self._properties :]
        with warnings.catch_warnings():
            pass  # so that what is to be told once is told once more
        for patches in self._patches:
            patches.undo()


class _Patches:
    """What a monkeypatch is to undo, other than what fixtures have patched with it."""

    LISTS = ("_setattr", "_setitem")
    VALUES = ("_cwd", "_savesyspath")

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._own: Any = vars(patch)  # Any: pytest's own, without a public way to a part of them
        self._lengths = [len(self._own[name]) for name in self.LISTS]
        self._values = [self._own[name] for name in self.VALUES]

    def undo(self) -> None:
        """Undo what was patched since."""
        patch = pytest.MonkeyPatch()
        for name, length in zip(self.LISTS, self._lengths, strict=True):
            vars(patch)[name] = self._own[name][length:]
            del self._own[name][length:]
        for name, value in zip(self.VALUES, self._values, strict=True):
            if value is None:  # else it is what the fixture found, and the body's change goes with it
                vars(patch)[name], self._own[name] = self._own[name], None
        patch.undo()


def _recorded_warnings() -> list[Any]:
    """Return the list that pytest, or a fixture, has all warnings put into now."""
    append = getattr(warnings, "_showwarnmsg_impl", None)
    recorded = getattr(append, "__self__", None)
    return recorded if isinstance(recorded, list) else []


def _of_type(kind: type[T], values: Iterable[object]) -> list[T]:
    # Not isinstance: it asks an object for its class, and some make themselves up only then.
    return [cast("T", value) for value in values if issubclass(type(value), kind)]
