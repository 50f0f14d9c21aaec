"""The one way in which a fault of the measuring becomes one of pytest's warnings."""

from __future__ import annotations

import sys
import warnings
from types import TracebackType
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


class FaultsAsWarnings:
    """Around what may fail: lets no fault of ours reach the run, but a warning, each text once.

    What tests left behind may break anything, and raise what is no Exception, as pytest.fail does.
    """

    def __init__(
        self,
        hooks: Any,  # Any: as above
        doing: str,
    ) -> None:
        self._hooks = hooks
        self._doing = doing
        self._told: set[str] = set()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is None or isinstance(error, KeyboardInterrupt):
            return False
        text = f"{self._doing}: {type(error).__name__}: {error}"
        if text not in self._told:
            self._told.add(text)
            try:
                record_warning(self._hooks, text)
            except Exception:  # noqa: BLE001 - nor has pytest's own way of saying it to work
                print(f"imu: {text}", file=sys.stderr)  # noqa: T201 - the last way to say it
        return True
