"""Libraries whose allocators end the process where they are refused memory."""

from __future__ import annotations

import pytest

from pytest_imu.core.budgets import Budget
from pytest_imu.markers import BUDGETS

ABORTED = "SIGABRT"


def aborted_by(item: pytest.Item, phase: str, ended: str) -> tuple[Budget, str] | None:
    """Return the hard budget that has made an isolated test's process abort, and the line about it.

    *ended* says how the process has ended.
    """
    if phase != "call" or ABORTED not in ended:
        return None
    for budget in item.stash.get(BUDGETS, ()):
        if isinstance(budget, Budget) and budget.hard:
            line = (
                f"stopped by {budget}: the child process that ran this test {ended}, as allocators do "
                "that cannot refuse memory"
            )
            return budget, line
    return None
