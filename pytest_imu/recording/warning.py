"""The one way in which a fault of the measuring becomes one of pytest's warnings."""

from __future__ import annotations

import contextlib
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
def faults_as_warnings(hooks: Any, doing: str) -> Iterator[None]:  # Any: as above
    """Let no fault of ours reach the run: what tests left behind may break anything, pytest.fail too."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a test may have left anything in place of anything
        with contextlib.suppress(Exception):
            record_warning(hooks, f"{doing}: {type(error).__name__}: {error}")
