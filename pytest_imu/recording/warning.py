"""The one way in which a fault of the measuring becomes one of pytest's warnings."""

from __future__ import annotations

import warnings
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
