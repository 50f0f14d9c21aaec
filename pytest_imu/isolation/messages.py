"""What an isolated test sends home: plain values, as one line of JSON a message."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import pytest

TUPLE = "imu tuple"
"""The one key of the dict that stands for a tuple, which JSON does not have."""


Message = dict[str, Any]


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
