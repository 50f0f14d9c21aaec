"""The calls of a test's body before the one that is counted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imu.core.budgets import EventBudget
from pytest_imu.recording.record import TestRecord
from pytest_imu.recording.undo import Fixtures
from pytest_imu.recording.warning import FaultsAsWarnings

if TYPE_CHECKING:
    from pluggy import HookImpl


def warm_up(item: pytest.Item, record: TestRecord) -> None:
    """Call the test's body as often as its budgets ask for, before it is measured.

    What fails there fails the test, as it would have in the call that counts. What a call has logged,
    printed and patched is undone, so that the next finds the fixtures as the first did.
    """
    blocks = record.new_blocks
    budgets = (budget for budget in record.open_budgets if isinstance(budget, EventBudget))
    times = max((budget.warmup for budget in budgets), default=0)
    if times:
        faults = FaultsAsWarnings(item.config.hook, "a warm-up could not be undone")
        with _only_failures_reported(item.config.pluginmanager), Fixtures(item) as fixtures:
            for _ in range(times):
                item.runtest()
                with faults:  # the test's mocks are still active
                    fixtures.forget_call()
    record.new_blocks = blocks


@contextlib.contextmanager
def _only_failures_reported(manager: pytest.PytestPluginManager) -> Iterator[None]:
    """Let no report of a subtest that passes or skips reach anybody: the call that counts brings it."""

    def before(name: str, implementations: Sequence[HookImpl], arguments: Mapping[str, Any]) -> None:
        is_told = name == "pytest_runtest_logreport" and not arguments["report"].failed
        if is_told and isinstance(implementations, list):
            implementations.clear()  # pluggy copies the list for each call: a hook may add to it

    undo = manager.add_hookcall_monitoring(before, lambda *_: None)
    try:
        yield
    finally:
        undo()
