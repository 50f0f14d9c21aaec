"""Which limits a run has, and what sees to them."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_imu.core.memory.container import whole_bytes
from pytest_imu.core.memory.data_limit import process_limit
from pytest_imu.limits.hooks import HardLimits
from pytest_imu.recording.warning import record_warning
from pytest_imu.settings import Settings

NOT_HERE = (
    "hard budgets are checked after the test: only Linux can refuse memory so that Python survives"
)


def limit_tests(config: pytest.Config, settings: Settings) -> None:
    """Register what limits tests; where the platform cannot, say so."""
    limit = process_limit()
    if limit is None:
        record_warning(config.hook, NOT_HERE, when="config")
        return
    run_bytes = _run_bytes(config, settings)
    # Behind the recorder: what comes later lies inside, and the limit is lifted before it measures.
    config.pluginmanager.register(HardLimits(config, settings, limit, run_bytes), "imu-limits")


def _run_bytes(config: pytest.Config, settings: Settings) -> int | None:
    """Return what this process may have: of several workers each has its share."""
    cap = settings.limit
    if cap is None:
        return None
    workerinput: dict[str, Any] = getattr(config, "workerinput", {})
    return cap.of(whole_bytes()) // int(workerinput.get("workercount", 1))
