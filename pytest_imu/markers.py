"""Budget markers: how they are registered, which count for a test, and what is wrong with one."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_imu.core.counters.source import CACHE_MISSES, EVENT_EXPECTED, is_event
from pytest_imu.core.invalid import SHOWN_WIDTH, invalid, shown
from pytest_imu.core.units import cut_middle, printable

if TYPE_CHECKING:
    from pytest_imu.core.budgets import AnyBudget, Metric

BUDGETS: pytest.StashKey[tuple[AnyBudget, ...]] = pytest.StashKey()
"""Where a test's budgets are kept, on the item."""

PEAK_LINE = (
    'max_peak_mib(limit, /, *, phase="call", hard=False): fail the test if its memory peak exceeds '
    'limit MiB above where it started. phase is "call", "setup" or "all". None removes limits set '
    "farther away. hard=True lets the allocation that goes past the limit raise MemoryError."
)
DELTA_LINE = (
    'max_delta_mib(limit, /, *, phase="call"): fail the test if it keeps more than limit MiB. phase and '
    "None as in max_peak_mib."
)
CACHE_LINE = (
    "max_cache_misses(limit, *, warmup=0): fail the test if it has more than limit cache misses, as "
    "counted by this machine or --imu-simulate. Its body is called warmup times first, uncounted. None "
    "removes limits set farther away."
)
EVENTS_LINE = (
    "max_events(event, limit, *, warmup=0): like max_cache_misses, for any event: "
    'max_events("instructions", 1_000_000).'
)
GROWTH_LINE = (
    "max_growth_kib(limit, /, *, calls=8, warmup=3): fail the test if each call of its body leaves more "
    "than limit KiB behind, or descriptors or threads. It is called warmup times, and calls times more. "
    "None removes limits set farther away."
)
NO_RERUN = "imu_no_rerun"
NO_RERUN_LINE = f"{NO_RERUN}: never run the test a second time to decide about its budgets."
MARKER_LINES = (PEAK_LINE, DELTA_LINE, CACHE_LINE, EVENTS_LINE, GROWTH_LINE, NO_RERUN_LINE)
METRICS: dict[str, Metric] = {"max_peak_mib": "peak", "max_delta_mib": "delta"}
LEAST_CALLS, MOST_CALLS = 2, 1_000_000
"""Two calls have two halves."""
EVENT_MARKERS = ("max_cache_misses", "max_events")
GROWTH_MARKER = "max_growth_kib"
MARKER_NAMES = frozenset((*METRICS, *EVENT_MARKERS, GROWTH_MARKER))


def budgets_by_item(
    items: Sequence[pytest.Item], defaults: Sequence[AnyBudget], *, warmup: int = 0, hard: bool = False
) -> dict[pytest.Item, tuple[AnyBudget, ...]]:
    """Return the budgets of every test that has any; pytest.UsageError lists all markers at fault.

    *warmup* is that of the budgets on events that have none of their own, and *hard* whether a budget on
    a body's peak is.
    """
    budgets: dict[pytest.Item, tuple[AnyBudget, ...]] = {}
    faults: dict[str, None] = {}
    for item in items:
        try:
            if own := budgets_of(item, defaults, warmup=warmup, hard=hard):
                budgets[item] = own
        except pytest.UsageError as error:
            faults[str(error)] = None
    if faults:
        raise pytest.UsageError("\n".join(faults))
    return budgets


def budgets_of(
    item: pytest.Item, defaults: Sequence[AnyBudget], *, warmup: int = 0, hard: bool = False
) -> tuple[AnyBudget, ...]:
    """Return the budgets in force for a test; pytest.UsageError for a marker that makes no sense.

    Of the limits on the same thing (metric and phase, or event) the closest counts: the parameter
    set's, then that of the function, the class, the module, and then the default. None
    lifts what is farther away: everything of its metric, or the phase that it names.
    """
    if not any(mark.name in MARKER_NAMES for mark in item.iter_markers()):
        return tuple(defaults)
    closest: dict[tuple[str, str], AnyBudget | None] = {}
    lifted: set[str] = set()
    for mark in _marks_by_distance(item):
        subject, budget, lifts_all = _read(item, mark, warmup, hard=hard)
        if subject[0] not in lifted:
            closest.setdefault(subject, budget)
        if lifts_all:
            lifted.add(subject[0])
    for default in defaults:
        if default.name not in lifted:
            closest.setdefault((default.name, default.phase), default)
    return tuple(budget for budget in closest.values() if budget is not None)


def _marks_by_distance(item: pytest.Item) -> Iterator[pytest.Mark]:
    # pytest lists a parameter's marks behind those of its function, so they are asked for first.
    callspec = getattr(item, "callspec", None)
    places = [] if callspec is None else [callspec.marks]
    # A class lists the marks of its bases before its own.
    places += [
        node.own_markers[::-1] if isinstance(node, pytest.Class) else node.own_markers
        for node in reversed(item.listchain())
    ]
    for place in places:
        yield from (mark for mark in place if mark.name in MARKER_NAMES)


def _read(
    item: pytest.Item, mark: pytest.Mark, warmup: int, *, hard: bool
) -> tuple[tuple[str, str], AnyBudget | None, bool]:
    """Return what a marker is about, its budget, and whether it lifts all others of its name."""
    if mark.name in METRICS:
        return _read_size(item, mark, hard=hard)
    if mark.name == GROWTH_MARKER:
        return _read_growth(item, mark)
    return _read_count(item, mark, warmup)


def _read_size(
    item: pytest.Item, mark: pytest.Mark, *, hard: bool
) -> tuple[tuple[str, str], AnyBudget | None, bool]:
    from pytest_imu.core.budgets import BUDGET_PHASES, Budget

    phase = mark.kwargs.get("phase", "call")
    is_peak = mark.name == "max_peak_mib"
    if len(mark.args) != 1 or not mark.kwargs.keys() <= {"phase", *(["hard"] if is_peak else [])}:
        optional = "phase= and hard=" if is_peak else "phase="
        raise _refusal(item, mark, f"one limit without a name, and optionally {optional}")
    if not (isinstance(phase, str) and phase in BUDGET_PHASES):
        raise _refusal(item, mark, 'phase to be "call", "setup" or "all"')
    limit = mark.args[0]
    if not _is_limit(limit):
        raise _refusal(item, mark, "a number of MiB, 0 or more, or None")
    if limit is None:
        return (mark.name, phase), None, "phase" not in mark.kwargs
    own_hard = mark.kwargs.get("hard", hard and is_peak and phase == "call")
    if not isinstance(own_hard, bool) or (own_hard and phase != "call"):
        raise _refusal(item, mark, 'hard to be True or False, and True only with phase="call"')
    metric = METRICS[mark.name]
    budget = Budget(metric=metric, limit_mib=float(limit), phase=phase, hard=own_hard)
    return (mark.name, phase), budget, False


def _read_count(
    item: pytest.Item, mark: pytest.Mark, warmup: int
) -> tuple[tuple[str, str], AnyBudget | None, bool]:
    from pytest_imu.core.budgets import EventBudget

    is_cache = mark.name == "max_cache_misses"
    arguments = (CACHE_MISSES, *mark.args) if is_cache else mark.args
    if len(arguments) != len(("event", "limit")) or not mark.kwargs.keys() <= {"warmup"}:
        wanted = "one limit" if is_cache else "an event and a limit"
        raise _refusal(item, mark, f"{wanted} without a name, and optionally warmup=")
    event, limit = arguments
    if not is_event(event):
        raise _refusal(item, mark, EVENT_EXPECTED)
    if not _is_limit(limit):
        raise _refusal(item, mark, "a number, 0 or more, or None")
    warmup = mark.kwargs.get("warmup", warmup)
    if not _is_whole(warmup, least=0):
        raise _refusal(item, mark, "warmup to be a whole number, 0 or more")
    budget = None if limit is None else EventBudget(event=event, limit=float(limit), warmup=warmup)
    return ("max_events", event), budget, False


def _read_growth(item: pytest.Item, mark: pytest.Mark) -> tuple[tuple[str, str], AnyBudget | None, bool]:
    from pytest_imu.core.budgets import USUAL_CALLS, USUAL_WARMUP, LeakBudget

    if len(mark.args) != 1 or not mark.kwargs.keys() <= {"calls", "warmup"}:
        raise _refusal(item, mark, "one limit without a name, and optionally calls= and warmup=")
    limit = mark.args[0]
    if not _is_limit(limit):
        raise _refusal(item, mark, "a number of KiB, 0 or more, or None")
    calls, warmup = mark.kwargs.get("calls", USUAL_CALLS), mark.kwargs.get("warmup", USUAL_WARMUP)
    if not _is_whole(calls, least=LEAST_CALLS) or calls > MOST_CALLS:
        raise _refusal(item, mark, f"calls to be a whole number, {LEAST_CALLS} to {MOST_CALLS}")
    if not _is_whole(warmup, least=1):
        raise _refusal(item, mark, "warmup to be a whole number, 1 or more")
    subject = GROWTH_MARKER, "call"
    if limit is None:
        return subject, None, True
    return subject, LeakBudget(limit_kib=float(limit), calls=calls, warmup=warmup), False


def _is_whole(value: object, *, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _refusal(item: pytest.Item, mark: pytest.Mark, expected: str) -> pytest.UsageError:
    typed = [shown(arg) for arg in mark.args] + [f"{k}={shown(v)}" for k, v in mark.kwargs.items()]
    what = f"{mark.name}({cut_middle(', '.join(typed), SHOWN_WIDTH)})"
    return pytest.UsageError(f"{printable(item.nodeid)}: {invalid(what, expected)}")


def _is_limit(limit: object) -> bool:
    if limit is None:
        return True
    if isinstance(limit, bool) or not isinstance(limit, numbers.Real):
        return False
    try:
        return math.isfinite(limit) and float(limit) >= 0
    except (ArithmeticError, TypeError, ValueError):  # an int may be larger than any float
        return False
