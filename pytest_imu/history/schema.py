"""What a document's parts must be, so that whatever reads one may rely on it; see docs/json.md."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, get_args

from pytest_imu.core.budgets import BUDGET_PHASES, LEAK_NAME, DecidedBy, Outcome
from pytest_imu.core.document import SCHEMA
from pytest_imu.core.growth import LIMIT_NAME, parse_increase
from pytest_imu.core.invalid import shown
from pytest_imu.core.leaks.growth import Counts, Growth
from pytest_imu.core.model import (
    LABELS,
    PHASES,
    SOURCES,
    ChildrenMemory,
    CountedBy,
    CounterReading,
    Measurement,
    Start,
)
from pytest_imu.history.form import (
    FLAG,
    LIMIT,
    LIST,
    NONE,
    NUMBER,
    OBJECT,
    TEXT,
    WHOLE,
    Form,
    Plain,
    Types,
    UnusableError,
    check_values,
    refuse,
    types_of,
)
from pytest_imu.why.profile import CountProfile, LineCost, LineCount, LineProfile

TEST = Form(
    {
        "nodeid": TEXT,
        "attempt": WHOLE,
        "worker": TEXT | NONE,
        "started_at": TEXT | NONE,
        "started_ns": WHOLE | NONE,
        "ended_ns": WHOLE | NONE,
        "outcome": TEXT,
        "failed_by_budget": FLAG,
        "isolated": FLAG,
        "phases": OBJECT,
        "teardown_kept_bytes": WHOLE | NONE,
        "blocks": LIST,
        "budgets": LIST,
        "why": OBJECT | NONE,
        "growth": OBJECT | NONE,
        "timeline": OBJECT | NONE,
    }
)
ADDED_TO_TEST = ("started_at", "started_ns", "ended_ns", "growth", "timeline")
PHASES_OF_TEST = Form(dict.fromkeys(PHASES, OBJECT | NONE))
BLOCK = Form({"name": TEXT})
DERIVED = dict.fromkeys(("peak_bytes", "delta_bytes"), WHOLE | NONE)
MEASUREMENT = Form(types_of(Measurement) | DERIVED | {"counters": OBJECT})
CHILDREN = Form(types_of(ChildrenMemory))
COUNTER = Form({key: types for key, types in types_of(CounterReading).items() if key != "event"})
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
GROWTH_A_CALL = Form(
    types_of(Growth) | {"calls": WHOLE, "bytes_a_call": NUMBER, "reason": TEXT | NONE},
)
WHY = Form(
    {
        "metric": TEXT,
        "phase": TEXT,
        "reason": TEXT | NONE,
        "text": TEXT,
        "profile": OBJECT | NONE,
    }
)
PROFILE, COUNTED = Form(types_of(LineProfile)), Form(types_of(CountProfile))
LINE, COUNTED_LINE = Form(types_of(LineCost)), Form(types_of(LineCount))
HELD = Form({"reason": TEXT | NONE, "asked_bytes": WHOLE | NONE, "lines": LIST})
HELD_LINE = Form({"file": TEXT | NONE, "line": WHOLE | NONE, "held_bytes": WHOLE})
ENVIRONMENT: Mapping[str, Types] = {
    "noise_floor_bytes": WHOLE | NONE,
    "peak_resolution_bytes": WHOLE | NONE,
    "counter_source": TEXT | NONE,
    "plugins": OBJECT,
    "packages": OBJECT,
    "sources": OBJECT,
}
COUNTED_BY, OUTCOMES, DECIDED_BY = map(get_args, (CountedBy, Outcome, DecidedBy))
BUDGET_NAMES = ("max_peak_mib", "max_delta_mib", "max_cache_misses", "max_events", LIMIT_NAME, LEAK_NAME)


def check_head(head: Plain) -> dict[str, Any]:
    """Return the environment of a document, or of a run log's first line; raises UnusableError."""
    if not isinstance(head, dict) or "schema" not in head or "environment" not in head:
        raise UnusableError("but it is another program's")
    if head["schema"] != SCHEMA:
        raise UnusableError(f"in schema {SCHEMA}, not in {shown(head['schema'])}")
    environment = head["environment"]
    check_values(head, {"environment": OBJECT})
    check_values(environment, {key: types for key, types in ENVIRONMENT.items() if key in environment})
    checked: dict[str, Any] = environment
    return checked


def check_test(test: Plain) -> dict[str, Any]:
    """Return one of a document's tests; raises UnusableError where it is of another form."""
    _fill_in(test, *ADDED_TO_TEST)
    TEST.check(test)
    if test["attempt"] < 1:
        refuse("attempt", test)
    _check_start(test)
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
        _check_why(test["why"])
    if test["growth"] is not None:
        _check_growth(test["growth"])
    if test["timeline"] is not None:
        _check_timeline(test["timeline"])
    checked: dict[str, Any] = test
    return checked


def _check_measurement(measurement: Plain) -> None:
    _fill_in(measurement, "started_ns")
    MEASUREMENT.check(measurement)
    _check_word("source", measurement, SOURCES)
    imports = measurement["imports"]
    if imports and not all(isinstance(name, str) for name in imports):
        refuse("imports", measurement)
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
        refuse("event", budget)
    if budget["name"] == LEAK_NAME:
        check_values(budget, {"calls": WHOLE})
    if budget["name"] == LIMIT_NAME:
        GROWTH.check(budget)
        try:
            parse_increase(budget["increase"])
        except ValueError:
            refuse("increase", budget)


def _check_growth(growth: Plain) -> None:
    GROWTH_A_CALL.check(growth)
    for name in Counts._fields:
        changes = growth[name]
        if changes is not None and (not changes or len(changes) != len(growth["blocks"])):
            refuse(name, growth)
        for change in changes or ():
            check_values({name: change}, {name: WHOLE})


def _check_why(why: Plain) -> None:
    WHY.check(why)
    profile = why["profile"]
    if profile is None:
        return
    if "event" in profile:
        COUNTED.check(profile)
        for line in profile["lines"]:
            COUNTED_LINE.check(line)
        return
    PROFILE.check(profile)
    for line in (*profile["chain"], *profile["lines"]):
        LINE.check(line)
    if (held := profile["held"]) is not None:
        HELD.check(held)
        for line in held["lines"]:
            HELD_LINE.check(line)


def _check_timeline(timeline: Plain) -> None:
    check_values(timeline, {"interval_ns": WHOLE, "rss": LIST, "children": LIST})
    for name in ("rss", "children"):
        for sample in timeline[name]:
            if (
                type(sample) is not list
                or [*map(type, sample)] != [int, int]
                or max(map(abs, sample)) >= LIMIT
            ):
                refuse(name, timeline)


def _fill_in(part: Plain, *keys: str) -> None:
    """Put None for keys that older files of the same schema do not have."""
    if type(part) is dict:
        for key in keys:
            part.setdefault(key, None)


def _check_start(test: Plain) -> None:
    if test["started_at"] is None:
        return
    try:
        Start.from_text(test["started_at"], 0)
    except (ValueError, TypeError):  # no time, or one without its zone
        refuse("started_at", test)
    if test["started_ns"] is None:
        refuse("started_ns", test)


def _check_word(key: str, part: Plain, words: Collection[str]) -> None:
    if part[key] not in words:
        refuse(key, part)
