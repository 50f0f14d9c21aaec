"""The one way in which a fault of the measuring becomes one of pytest's warnings."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import pytest


def record_warning(
    hooks: Any,  # Any: those of a config or an item, which have no common public type
    text: str,
    *,
    nodeid: str = "",
    when: Literal["config", "collect", "runtest"] = "runtest",
) -> None:
    """Put *text* among pytest's warnings: recorded, not raised, since -W error would fail a test."""
    hooks.pytest_warning_recorded.call_historic(
        kwargs={
            "warning_message": warnings.WarningMessage(
                message=pytest.PytestWarning(f"imu: {text}"),
                category=pytest.PytestWarning,
                filename="pytest-imu",
                lineno=0,
            ),
            "when": when,
            "nodeid": nodeid,
            "location": None,
        }
    )


@contextlib.contextmanager
def faults_as_warnings(
    hooks: Any,  # Any: as above
    doing: str,
    *,
    told: set[str] | None = None,
) -> Iterator[None]:
    """Let no fault of ours reach the run, but a warning, each once that is not among those *told*.

    What tests left behind may break anything, and raise what is no Exception, as pytest.fail does.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a test may have left anything in place of anything
        text = f"{doing}: {type(error).__name__}: {error}"
        told = set() if told is None else told
        if text in told:
            return
        told.add(text)
        try:
            record_warning(hooks, text)
        except Exception:  # noqa: BLE001 - nor has pytest's own way of saying it to work
            print(f"imu: {text}", file=sys.stderr)  # noqa: T201 - the last way to say it
