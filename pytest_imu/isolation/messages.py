"""What an isolated test tells the session, as plain values."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import pytest

from pytest_imu.core.units import cut_middle, printable

PLAIN = (bool, int, float, str, bytes)
SHOWN_WIDTH = 80
"""How much is said of why another run of a test failed."""


def plain(value: Any) -> Any:  # Any: plugins put anything into reports
    """Return a value with nothing in it but what Python itself brings; other objects as their repr."""
    if value is None or type(value) in PLAIN:
        return value
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [*map(plain, value)] if isinstance(value, list) else (*map(plain, value),)
    own = next((kind for kind in (str, int, float) if isinstance(value, kind)), None)
    return repr(value) if own is None else own(value)


def plain_warning(warning: warnings.WarningMessage) -> dict[str, Any]:
    """Return a warning in plain form."""
    return {
        "text": str(warning.message),
        "module": warning.category.__module__,
        "name": warning.category.__qualname__,
        "filename": warning.filename,
        "lineno": warning.lineno,
        "line": warning.line,
    }


def rebuilt_warning(plain: dict[str, Any]) -> warnings.WarningMessage:
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


def failure_text(error: BaseException) -> str:
    """Return the first line of what an error says, or its name where it says nothing."""
    what = str(error).strip() or type(error).__name__
    return cut_middle(printable(what.splitlines()[0]), SHOWN_WIDTH)


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
