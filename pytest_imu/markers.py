"""Budget markers: how they are registered, which count for a test, and what is wrong with one."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Sequence
from typing import get_args

import pytest

from pytest_imu.core.budgets import BUDGET_PHASES, Budget, BudgetPhase, Metric

PEAK_LINE = (
    'max_peak_mib(limit, *, phase="call"): fail the test if its memory peak is over limit MiB above '
    'where it started; phase is "call", "setup" or "all"; a limit of None lifts every other.'
)
DELTA_LINE = (
    'max_delta_mib(limit, *, phase="call"): fail the test if it keeps over limit MiB; phase and None '
    "as in max_peak_mib."
)
MARKER_LINES = (PEAK_LINE, DELTA_LINE)
ACCEPTED = 'accepted: one number of MiB from 0, or None, and phase="call", phase="setup" or phase="all"'
METRICS: tuple[Metric, ...] = get_args(Metric)
MARKER_NAMES = frozenset(f"max_{metric}_mib" for metric in METRICS)


def budgets_by_item(
    items: Sequence[pytest.Item], defaults: Sequence[Budget]
) -> dict[pytest.Item, tuple[Budget, ...]]:
    """Return the budgets of every test that has any; pytest.UsageError lists all markers at fault."""
    budgets: dict[pytest.Item, tuple[Budget, ...]] = {}
    faults: list[str] = []
    for item in items:
        try:
            if own := budgets_of(item, defaults):
                budgets[item] = own
        except pytest.UsageError as error:
            faults.append(str(error))
    if faults:
        raise pytest.UsageError("\n".join(faults))
    return budgets


def budgets_of(item: pytest.Item, defaults: Sequence[Budget]) -> tuple[Budget, ...]:
    """Return the budgets in force for a test; pytest.UsageError for a marker that makes no sense.

    For each metric the closest place that has a marker decides alone: the parameter set, then the
    function, the class, the module, the package, and then the default.
    """
    if not any(mark.name in MARKER_NAMES for mark in item.iter_markers()):
        return tuple(defaults)
    found: list[Budget] = []
    for metric in METRICS:
        closest = _closest_marks(item, f"max_{metric}_mib")
        if closest:
            found += _budgets_of_one_place(item, metric, closest)
        else:
            found += [budget for budget in defaults if budget.metric == metric]
    return tuple(found)


def _closest_marks(item: pytest.Item, name: str) -> list[pytest.Mark]:
    for marks in _marks_by_distance(item):
        if named := [mark for mark in marks if mark.name == name]:
            return named
    return []


def _marks_by_distance(item: pytest.Item) -> Iterator[Sequence[pytest.Mark]]:
    # pytest lists a parameter's marks behind those of its function, so they are asked for first.
    callspec = getattr(item, "callspec", None)
    if callspec is not None:
        yield callspec.marks
    for node in reversed(item.listchain()):
        # A class lists the marks of its bases before its own.
        yield node.own_markers[::-1] if isinstance(node, pytest.Class) else node.own_markers


def _budgets_of_one_place(
    item: pytest.Item, metric: Metric, marks: Sequence[pytest.Mark]
) -> list[Budget]:
    budgets: dict[BudgetPhase, Budget | None] = {}
    for mark in marks:
        limit_mib, phase = _read(item, mark)
        budget = None if limit_mib is None else Budget(metric=metric, limit_mib=limit_mib, phase=phase)
        budgets.setdefault(phase, budget)
    return [budget for budget in budgets.values() if budget is not None]


def _read(item: pytest.Item, mark: pytest.Mark) -> tuple[float | None, BudgetPhase]:
    phase = mark.kwargs.get("phase", "call")
    unknown = sorted(set(mark.kwargs) - {"phase"})
    if len(mark.args) != 1:
        fault = f"takes one limit, not {len(mark.args)}"
    elif unknown:
        fault = f"has no argument {unknown[0]!r}"
    elif not (isinstance(phase, str) and phase in BUDGET_PHASES):
        fault = f"has no phase {phase!r}"
    elif not _is_limit(mark.args[0]):
        fault = f"cannot be {mark.args[0]!r}"
    else:
        limit = mark.args[0]
        return (None if limit is None else float(limit)), phase
    typed = [repr(arg) for arg in mark.args] + [f"{k}={v!r}" for k, v in mark.kwargs.items()]
    message = f"{item.nodeid}: {mark.name}({', '.join(typed)}): {mark.name} {fault}; {ACCEPTED}"
    raise pytest.UsageError(message)


def _is_limit(limit: object) -> bool:
    if limit is None:
        return True
    if isinstance(limit, bool) or not isinstance(limit, numbers.Real):
        return False
    return math.isfinite(limit) and float(limit) >= 0
