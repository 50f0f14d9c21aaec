"""What a document says of further runs of a test, `why` and `growth`, and its `timeline`."""

from __future__ import annotations

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
    check_values,
    refuse,
)

SERIES = ("blocks", "block_bytes", "c_bytes", "descriptors", "threads")
GROWTH_A_CALL = Form(
    {
        "warmup": WHOLE,
        "calls": WHOLE,
        "bytes_a_call": NUMBER,
        "reason": TEXT | NONE,
        "blocks": LIST,
        "threads": LIST,
        **dict.fromkeys(("block_bytes", "c_bytes", "descriptors"), LIST | NONE),
        "why": OBJECT | NONE,
    }
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
PROFILE = Form(
    {
        "label": TEXT,
        "is_exact": FLAG,
        "start_bytes": WHOLE,
        "peak_bytes": WHOLE,
        "kept_bytes": WHOLE,
        "chain": LIST,
        "is_chain_at_peak": FLAG,
        "lines": LIST,
        "fault": TEXT | NONE,
        "held": OBJECT | NONE,
    }
)
LINE = Form(
    {
        "file": TEXT,
        "line": WHOLE,
        "text": TEXT,
        **dict.fromkeys(("hits", "kept_bytes", "most_kept_bytes", "shared_bytes"), WHOLE),
        **dict.fromkeys(("peak_bytes", "total_bytes"), WHOLE),
        "has_more_hits": FLAG,
    }
)
COUNTED = Form(
    {"event": TEXT, "label": TEXT, "count": NUMBER, "fault": TEXT | NONE, "lines": LIST},
)
COUNTED_LINE = Form(
    {
        "file": TEXT,
        "line": WHOLE,
        "text": TEXT,
        "hits": WHOLE,
        "has_more_hits": FLAG,
        **dict.fromkeys(("count", "most", "shared"), NUMBER),
    }
)
HELD = Form({"reason": TEXT | NONE, "asked_bytes": WHOLE | NONE, "lines": LIST})
HELD_LINE = Form({"file": TEXT | NONE, "line": WHOLE | NONE, "held_bytes": WHOLE})


def check_growth(growth: Plain) -> None:
    """Raise UnusableError where what further calls grew is of another form."""
    GROWTH_A_CALL.check(growth)
    for name in SERIES:
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
