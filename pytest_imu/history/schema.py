"""What a document's parts must be, so that whatever reads one may rely on it; see docs/json.md."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from typing import Any, NoReturn, get_args

from pytest_imu.core.budgets import BUDGET_PHASES, DecidedBy, Outcome
from pytest_imu.core.document import SCHEMA
from pytest_imu.core.growth import LIMIT_NAME, parse_increase
from pytest_imu.core.invalid import shown
from pytest_imu.core.model import LABELS, PHASES, SOURCES, CountedBy

Plain = Any  # Any: what comes out of JSON
Types = frozenset[type]
TEXT, FLAG, OBJECT, LIST = (frozenset({kind}) for kind in (str, bool, dict, list))
WHOLE, NUMBER, NONE = frozenset({int}), frozenset({int, float}), frozenset({type(None)})
LIMIT = 2**63
"""No number is as large as this: what follows may calculate with it."""


class UnusableError(ValueError):
    """A document, or a part of one, that cannot be used; its text is the end of a sentence."""


class Form:
    """What keys a part of a document must have, and of which types their values may be."""

    def __init__(self, types: Mapping[str, Types]) -> None:
        self.types = types
        self._numbers = [key for key, expected in types.items() if expected & NUMBER]
        keys = [*self._numbers, *(key for key in types if key not in self._numbers)]
        # The last twice: of a single key it would be no tuple.
        self._get = operator.itemgetter(*keys, keys[-1])
        self._good: set[tuple[type, ...]] = set()
        """The types that were found good together: a document has a million parts, and few of these."""

    def check(self, part: Plain) -> None:
        """Raise UnusableError for a part of another form."""
        try:
            values = self._get(part)
        except (KeyError, TypeError):
            values = ()
        types = tuple(map(type, values))
        if types in self._good:
            numbers = [0, *filter(None, values[: len(self._numbers)])]
            if max(numbers) < LIMIT and min(numbers) > -LIMIT:
                return
        check_values(part, self.types)
        self._good.add(types)


TEST = Form(
    {
        "nodeid": TEXT,
        "attempt": WHOLE,
        "worker": TEXT | NONE,
        "outcome": TEXT,
        "failed_by_budget": FLAG,
        "isolated": FLAG,
        "phases": OBJECT,
        "teardown_kept_bytes": WHOLE | NONE,
        "blocks": LIST,
        "budgets": LIST,
        "why": OBJECT | NONE,
    }
)
PHASES_OF_TEST = Form(dict.fromkeys(PHASES, OBJECT | NONE))
BLOCK = Form({"name": TEXT})
MEASUREMENT = Form(
    {
        "before_bytes": WHOLE | NONE,
        "after_bytes": WHOLE | NONE,
        "rss_peak_bytes": WHOLE | NONE,
        "peak_bytes": WHOLE | NONE,
        "delta_bytes": WHOLE | NONE,
        "duration_ns": WHOLE,
        "source": TEXT,
        "reason": TEXT | NONE,
        "reusable_bytes": WHOLE | NONE,
        "tracer": TEXT | NONE,
        "had_children": FLAG | NONE,
        "children_memory": OBJECT | NONE,
        "imports": LIST,
        "counters": OBJECT,
    }
)
CHILDREN = Form(
    {
        "peak_bytes": WHOLE | NONE,
        "most": WHOLE | NONE,
        "samples": WHOLE,
        "unit": TEXT,
        "reason": TEXT | NONE,
    }
)
COUNTER = Form(
    {
        "value": NUMBER | NONE,
        "per_second": NUMBER | NONE,
        "running_percent": NUMBER | NONE,
        "reason": TEXT | NONE,
        "samples": LIST,
        "source": TEXT,
        "user_only": FLAG,
    }
)
BUDGET = Form(
    {
        "name": TEXT,
        "event": TEXT | NONE,
        "limit": NUMBER,
        "actual": NUMBER | NONE,
        "phase": TEXT,
        "warmup": WHOLE,
        "origin": TEXT | NONE,
        "verdict": TEXT,
        "reason": TEXT | NONE,
        "unreliable": FLAG,
        "decided_by": TEXT,
        "first": NUMBER | NONE,
        "not_alone": TEXT | NONE,
    }
)
GROWTH = Form({"was": NUMBER, "increase": TEXT, "origin": TEXT})
WHY = Form(
    {
        "metric": TEXT,
        "phase": TEXT,
        "reason": TEXT | NONE,
        "text": TEXT,
        "profile": OBJECT | NONE,
    }
)
ENVIRONMENT: Mapping[str, Types] = {
    "noise_floor_bytes": WHOLE | NONE,
    "peak_resolution_bytes": WHOLE | NONE,
    "counter_source": TEXT | NONE,
    "plugins": OBJECT,
    "packages": OBJECT,
    "sources": OBJECT,
}
COUNTED_BY, OUTCOMES, DECIDED_BY = map(get_args, (CountedBy, Outcome, DecidedBy))
BUDGET_NAMES = ("max_peak_mib", "max_delta_mib", "max_cache_misses", "max_events", LIMIT_NAME)


def check_head(head: Plain) -> dict[str, Any]:
    """Return the environment of a document, or of a run log's first line; raises UnusableError."""
    if not isinstance(head, dict) or "schema" not in head or "environment" not in head:
        message = "but it is another program's"
        raise UnusableError(message)
    if head["schema"] != SCHEMA:
        message = f"in schema {SCHEMA}, not in {shown(head['schema'])}"
        raise UnusableError(message)
    environment = head["environment"]
    check_values(head, {"environment": OBJECT})
    check_values(environment, {key: types for key, types in ENVIRONMENT.items() if key in environment})
    checked: dict[str, Any] = environment
    return checked


def check_test(test: Plain) -> dict[str, Any]:
    """Return one of a document's tests; raises UnusableError where it is of another form."""
    TEST.check(test)
    if test["attempt"] < 1:
        _refuse("attempt", test)
    phases = test["phases"]
    PHASES_OF_TEST.check(phases)
    for phase in PHASES:
        if phases[phase] is not None:
            _check_measurement(phases[phase])
    for block in test["blocks"]:
        BLOCK.check(block)
        _check_measurement(block)
    for budget in test["budgets"]:
        _check_budget(budget)
    if test["why"] is not None:
        WHY.check(test["why"])
    checked: dict[str, Any] = test
    return checked


def _check_measurement(measurement: Plain) -> None:
    MEASUREMENT.check(measurement)
    _check_word("source", measurement, SOURCES)
    imports = measurement["imports"]
    if imports and not all(isinstance(name, str) for name in imports):
        _refuse("imports", measurement)
    if (children := measurement["children_memory"]) is not None:
        CHILDREN.check(children)
        _check_word("unit", children, LABELS)
    for reading in measurement["counters"].values():
        COUNTER.check(reading)
        _check_word("source", reading, COUNTED_BY)
        for sample in reading["samples"]:
            check_values({"samples": sample}, {"samples": NUMBER})


def _check_budget(budget: Plain) -> None:
    BUDGET.check(budget)
    _check_word("name", budget, BUDGET_NAMES)
    _check_word("phase", budget, BUDGET_PHASES)
    _check_word("verdict", budget, OUTCOMES)
    _check_word("decided_by", budget, DECIDED_BY)
    is_of_events = budget["name"] in ("max_cache_misses", "max_events")
    if is_of_events and budget["event"] is None:
        _refuse("event", budget)
    if budget["name"] == LIMIT_NAME:
        GROWTH.check(budget)
        try:
            parse_increase(budget["increase"])
        except ValueError:
            _refuse("increase", budget)


def check_values(part: Plain, types: Mapping[str, Types]) -> None:
    """Raise UnusableError where a part lacks a key, or has a value of another type or a huge number."""
    if type(part) is not dict:
        message = f"but has {shown(part)} in the place of an object"
        raise UnusableError(message)
    for key, expected in types.items():
        if key not in part:
            message = f"but has no {key!r}"
            raise UnusableError(message)
        value = part[key]
        if type(value) not in expected or (type(value) in NUMBER and not -LIMIT < value < LIMIT):
            _refuse(key, part)


def _check_word(key: str, part: Plain, words: Collection[str]) -> None:
    if part[key] not in words:
        _refuse(key, part)


def _refuse(key: str, part: Plain) -> NoReturn:
    message = f"but has {shown(part[key])} for {key!r}"
    raise UnusableError(message)
