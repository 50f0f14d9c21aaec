"""Where things are kept on pytest's own objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_imu.core.budgets import AnyBudget
    from pytest_imu.record import TestRecord
    from pytest_imu.reporting import Reporter
    from pytest_imu.runlog import RunLog
    from pytest_imu.settings import Settings

# On the config.
SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()
LOG: pytest.StashKey[RunLog | None] = pytest.StashKey()
REPORTER: pytest.StashKey[Reporter] = pytest.StashKey()

# On an item.
BUDGETS: pytest.StashKey[tuple[AnyBudget, ...]] = pytest.StashKey()
RECORD: pytest.StashKey[TestRecord] = pytest.StashKey()
ATTEMPTS: pytest.StashKey[int] = pytest.StashKey()
