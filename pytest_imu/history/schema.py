"""What a document's parts must be, so that whatever reads one may rely on it; see docs/json.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

from pytest_imu.core.budgets import BUDGET_PHASES, Outcome
from pytest_imu.core.document import SCHEMA
from pytest_imu.core.growth import LIMIT_NAME, parse_increase
from pytest_imu.core.invalid import shown
from pytest_imu.core.model import LABELS, PHASES, SOURCES, CountedBy

Check = Callable[[Any], bool]
Plain = Any  # Any: what comes out of JSON


class UnusableError(ValueError):
    """A document, or a part of one, that cannot be used; its text is the end of a sentence."""


def _is_text(value: Plain) -> bool:
    return isinstance(value, str)


def _is_flag(value: Plain) -> bool:
    return isinstance(value, bool)


def _is_whole(value: Plain) -> bool:
    return type(value) is int and abs(value) < 2**63


def _is_count(value: Plain) -> bool:
    return _is_whole(value) and value >= 0


def _is_number(value: Plain) -> bool:
    return _is_whole(value) or (type(value) is float and math.isfinite(value))


def _is_object(value: Plain) -> bool:
    return isinstance(value, dict)


def _is_list(value: Plain) -> bool:
    return isinstance(value, list)


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _is_increase(value: Plain) -> bool:
    try:
        return _is_text(value) and bool(str(parse_increase(value)))
    except ValueError:
        return False


def _one_of(*words: str) -> Check:
    return lambda value: isinstance(value, str) and value in words


TEST: Mapping[str, Check] = {
    "nodeid": _is_text,
    "attempt": lambda value: _is_count(value) and value > 0,
    "worker": _or_null(_is_text),
    "outcome": _is_text,
    "failed_by_budget": _is_flag,
    "isolated": _is_flag,
    "phases": lambda value: _is_object(value) and value.keys() >= set(PHASES),
    "teardown_kept_bytes": _or_null(_is_whole),
    "blocks": _is_list,
    "budgets": _is_list,
}
MEASUREMENT: Mapping[str, Check] = {
    "before_bytes": _or_null(_is_count),
    "after_bytes": _or_null(_is_count),
    "rss_peak_bytes": _or_null(_is_count),
    "duration_ns": _is_count,
    "source": _one_of(*SOURCES),
    "reason": _or_null(_is_text),
    "reusable_bytes": _or_null(_is_count),
    "tracer": _or_null(_is_text),
    "had_children": _or_null(_is_flag),
    "children_memory": _or_null(_is_object),
    "counters": _is_object,
}
CHILDREN: Mapping[str, Check] = {
    "peak_bytes": _or_null(_is_count),
    "most": _or_null(_is_count),
    "samples": _is_count,
    "unit": _one_of(*LABELS),
    "reason": _or_null(_is_text),
}
COUNTER: Mapping[str, Check] = {
    "value": _or_null(_is_number),
    "per_second": _or_null(_is_number),
    "running_percent": _or_null(_is_number),
    "reason": _or_null(_is_text),
    "samples": lambda value: _is_list(value) and all(map(_is_number, value)),
    "source": _one_of(*get_args(CountedBy)),
}
BUDGET: Mapping[str, Check] = {
    "name": _one_of("max_peak_mib", "max_delta_mib", "max_cache_misses", "max_events", LIMIT_NAME),
    "event": _or_null(_is_text),
    "limit": _is_number,
    "actual": _or_null(_is_number),
    "phase": _one_of(*BUDGET_PHASES),
    "warmup": _is_count,
    "origin": _or_null(_is_text),
    "verdict": _one_of(*get_args(Outcome)),
    "reason": _or_null(_is_text),
    "unreliable": _is_flag,
}
GROWTH: Mapping[str, Check] = {"was": _is_number, "increase": _is_increase}


def check_head(head: Plain) -> dict[str, Any]:
    """Return the environment of a document, or of a run log's first line; raises UnusableError."""
    if not isinstance(head, dict) or "schema" not in head or "environment" not in head:
        message = "but it is another program's"
        raise UnusableError(message)
    if head["schema"] != SCHEMA:
        message = f"in schema {SCHEMA}, not in {shown(head['schema'])}"
        raise UnusableError(message)
    environment = head["environment"]
    _check(head, {"environment": _is_object})
    known: Mapping[str, Check] = {
        "noise_floor_bytes": _or_null(_is_count),
        "peak_resolution_bytes": _or_null(_is_count),
        "counter_source": _or_null(_is_text),
        "plugins": _is_object,
        "packages": _is_object,
    }
    _check(environment, {key: check for key, check in known.items() if key in environment})
    checked: dict[str, Any] = environment
    return checked


def check_test(test: Plain) -> dict[str, Any]:
    """Return one of a document's tests; raises UnusableError where it is of another form."""
    _check(test, TEST)
    for phase in PHASES:
        if test["phases"][phase] is not None:
            _check_measurement(test["phases"][phase])
    for block in test["blocks"]:
        _check(block, {"name": _is_text})
        _check_measurement(block)
    for budget in test["budgets"]:
        _check(budget, BUDGET)
        if budget["name"] == LIMIT_NAME:
            _check(budget, GROWTH)
    checked: dict[str, Any] = test
    return checked


def _check_measurement(measurement: Plain) -> None:
    _check(measurement, MEASUREMENT)
    if measurement["children_memory"] is not None:
        _check(measurement["children_memory"], CHILDREN)
    for reading in measurement["counters"].values():
        _check(reading, COUNTER)


def _check(part: Plain, checks: Mapping[str, Check]) -> None:
    if not isinstance(part, dict):
        message = f"but has {shown(part)} in the place of an object"
        raise UnusableError(message)
    for key, check in checks.items():
        if key not in part:
            message = f"but has no {key!r}"
            raise UnusableError(message)
        if not check(part[key]):
            message = f"but has {shown(part[key])} for {key!r}"
            raise UnusableError(message)
