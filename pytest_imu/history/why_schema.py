"""What a test's `why` must be, so that whatever shows its lines may rely on it; see docs/json.md."""

from __future__ import annotations

from typing import Any

from pytest_imu.history.schema import FLAG, LIST, NONE, OBJECT, TEXT, WHOLE, Form

WHY = Form({"metric": TEXT, "phase": TEXT, "reason": TEXT | NONE, "profile": OBJECT | NONE})
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
        "hits": WHOLE,
        "has_more_hits": FLAG,
        "kept_bytes": WHOLE,
        "most_kept_bytes": WHOLE,
        "shared_bytes": WHOLE,
        "peak_bytes": WHOLE,
        "total_bytes": WHOLE,
    }
)
HELD = Form({"reason": TEXT | NONE, "asked_bytes": WHOLE | NONE, "lines": LIST})
HELD_LINE = Form({"file": TEXT | NONE, "line": WHOLE | NONE, "held_bytes": WHOLE})


def check_why(why: dict[str, Any] | None) -> None:
    """Raise UnusableError for what is no `why`."""
    if why is None:
        return
    WHY.check(why)
    profile = why["profile"]
    if profile is None:
        return
    PROFILE.check(profile)
    for line in (*profile["chain"], *profile["lines"]):
        LINE.check(line)
    if (held := profile["held"]) is not None:
        HELD.check(held)
        for line in held["lines"]:
            HELD_LINE.check(line)
