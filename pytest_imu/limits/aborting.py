"""Libraries whose allocators end the process where they are refused memory."""

from __future__ import annotations

import sys

import pytest

from pytest_imu.core.budgets import Budget
from pytest_imu.markers import BUDGETS

ABORTING = ("daft", "datafusion", "deltalake", "lance", "lancedb", "polars", "pyarrow", "tokenizers")
"""Written in Rust, or with pools of their own that know no refusal."""
ABORTED = "SIGABRT"


def loaded_that_abort() -> str | None:
    """Return which of them are loaded, as the end of a sentence; None where none is."""
    loaded = [name for name in ABORTING if name in sys.modules]
    if not loaded:
        return None
    return f"{' and '.join(loaded)} would end the whole run where memory is refused"


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
