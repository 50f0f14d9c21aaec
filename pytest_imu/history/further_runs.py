"""What a document says of further runs of a test, `why` and `growth`, and its `timeline`."""

from __future__ import annotations

from pytest_imu.core.leaks.growth import Counts, Growth
from pytest_imu.history.form import (
    LIMIT,
    LIST,
    NONE,
    NUMBER,
    OBJECT,
    TEXT,
    WHOLE,
    Form,
    Plain,
    check_values,
    refuse,
    types_of,
)
from pytest_imu.why.profile import CountProfile, LineCost, LineCount, LineProfile

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


def check_growth(growth: Plain) -> None:
    """Raise UnusableError where what further calls grew is of another form."""
    GROWTH_A_CALL.check(growth)
    for name in Counts._fields:
        changes = growth[name]
        if changes is not None and (not changes or len(changes) != len(growth["blocks"])):
            refuse(name, growth)
        for change in changes or ():
            check_values({name: change}, {name: WHOLE})


def check_why(why: Plain) -> None:
    """Raise UnusableError where the lines behind the numbers are of another form."""
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


def check_timeline(timeline: Plain) -> None:
    """Raise UnusableError where the samples of a test's memory are of another form."""
    check_values(timeline, {"interval_ns": WHOLE, "rss": LIST, "children": LIST})
    for name in ("rss", "children"):
        for sample in timeline[name]:
            if (
                type(sample) is not list
                or [*map(type, sample)] != [int, int]
                or max(map(abs, sample)) >= LIMIT
            ):
                refuse(name, timeline)
