"""What a comparison says: its one line, what is unsure and why, and the table offline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pytest_imu.core.growth import Change, grown_line
from pytest_imu.core.units import (
    MIB,
    align_right,
    cut_middle,
    format_count,
    format_mib,
    plural,
    printable,
)
from pytest_imu.history.compare import Compared, Comparison

NAMED = 5
"""How many tests, and how many packages, are named before the rest is only counted."""
NAME_COLUMNS = 30
COUNTED = ("grew", "shrank", "same", "unsure", "not compared")
WAY_OUT = "--imu-isolate=all in both runs makes them comparable"


def counts_line(comparison: Comparison, *, whole: bool = True) -> str:
    """Return the line that tells all: "compared 3 tests: 1 grew, 2 same".

    Of a run that is not the *whole* suite, tests that are not in it need not be gone.
    """
    numbers = [(comparison.counts[word], word) for word in COUNTED]
    numbers += [
        (len(comparison.new), "new"),
        (len(comparison.gone), "gone" if whole else "not run here"),
    ]
    told = ", ".join(f"{count} {word}" for count, word in numbers if count)
    tests = len(comparison.tests) + len(comparison.new)
    return f"compared {plural(tests, 'test')}: {told or 'nothing'}"


def grown_lines(comparison: Comparison) -> list[str]:
    """Return what grew, largest first, where no failure has told it."""
    told = {(nodeid, change.increase) for nodeid, change in comparison.failed}
    return _some(
        [
            f"  {printable(nodeid)}: {grown_line(change, comparison.base)}"
            for nodeid, change in comparison.grown
            if (nodeid, change.increase) not in told
        ]
    )


def failed_lines(comparison: Comparison) -> list[str]:
    """Return what grew past an increase that somebody set, a line each."""
    return [
        f"{printable(nodeid)}: {grown_line(change, comparison.base)}"
        for nodeid, change in comparison.failed
    ]


def doubts(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    """Give what is unsure and what was not compared: each reason in words, and the tests' ids."""
    for status, way_out in (("unsure", f"; {WAY_OUT}"), ("not compared", "")):
        by_reason: dict[str, list[str]] = {}
        for test in comparison.tests:
            if test.status == status:
                by_reason.setdefault(test.worst.reason or "", []).append(test.nodeid)
        for reason, nodeids in by_reason.items():
            yield f"{status}: {reason}{way_out}", nodeids


def doubt_lines(comparison: Comparison) -> list[str]:
    """Return what is unsure and what was not compared, by reason."""
    lines = []
    for why, nodeids in doubts(comparison):
        names = _some([f"  {printable(nodeid)}" for nodeid in nodeids])
        lines += [f"{len(nodeids)} {printable(why)}", *names]
    return lines


def difference_lines(comparison: Comparison) -> list[str]:
    """Return what the numbers depend on and is another one here, on one line."""
    names = [printable(one) for one in comparison.differences]
    if not names:
        return []
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return [f"different here: {'; '.join(names[:NAMED])}{more}"]


def _some(lines: Sequence[str]) -> list[str]:
    more = len(lines) - NAMED
    return [*lines[:NAMED], *([f"  and {more} more"] if more > 0 else [])]


def was_text(change: Change) -> str:
    """Return what a number was, for a table's cell."""
    return _text(change, change.was)


def change_text(change: Change) -> str:
    """Return by how much a number changed; with a question mark where that is not sure."""
    if change.by is None:
        return "n/a"
    sign = "+" if change.by > 0 else ""
    return f"{sign}{_text(change, change.by)}{'?' if change.status == 'unsure' else ''}"


def _text(change: Change, value: float | None) -> str:
    if value is None:
        return "n/a"
    return format_mib(round(value)) if change.increase.is_memory else format_count(value)


def shown_change(test: Compared) -> Change:
    """Return which of a test's numbers a table shows: its peak, or what stands in its place."""
    return test.changes[0]


def table(comparison: Comparison, *, width: int, top: int) -> list[str]:
    """Return the table of an offline comparison, largest change first."""
    changes = [(test, change) for test in comparison.tests for change in test.changes]
    changes = [pair for pair in changes if pair[1].status not in ("same", "not compared")]
    changes.sort(key=_largest_first)
    shown = changes[:top] if top else changes
    if not shown:
        return []
    several = len({change.increase.subject for _, change in changes}) > 1
    rows = [["was", "now", "change"]]
    names = ["test"]
    for test, change in shown:
        rows.append([was_text(change), _text(change, change.now), change_text(change)])
        of_what = f" ({change.increase.subject})" if several else ""
        names.append(printable(test.nodeid) + of_what)
    numbers = align_right(rows)
    room = max(NAME_COLUMNS, width - len(numbers[0]) - 2)
    lines = [f"{left}  {cut_middle(name, room)}" for left, name in zip(numbers, names, strict=True)]
    left_out = len(changes) - len(shown)
    return lines + ([f"{left_out} more; --top=0 shows all"] if left_out else [])


def _largest_first(pair: tuple[Compared, Change]) -> tuple[bool, float]:
    change = pair[1]
    by = abs(change.by or 0)
    return not change.increase.is_memory, -(by / MIB if change.increase.is_memory else by)


def plain_comparison(comparison: Comparison) -> dict[str, Any]:
    """Return a whole comparison for programs."""
    return {
        "base": comparison.base,
        "failed": bool(comparison.failed) or not comparison.compared,
        "counts": {word: comparison.counts[word] for word in COUNTED},
        "tests": [
            {"nodeid": test.nodeid, "status": test.status, "compared": plain_changes(test.changes)}
            for test in comparison.tests
        ],
        "new": list(comparison.new),
        "gone": list(comparison.gone),
        "different": list(comparison.differences),
    }


def plain_changes(changes: Iterable[Change]) -> list[dict[str, Any]]:
    """Return changes as they stand in a JSON file: bytes, or how many events."""
    return [
        {
            "subject": change.increase.subject,
            "status": change.status,
            "was": change.was,
            "now": change.now,
            "change": change.by,
            "increase": str(change.increase),
            "reason": change.reason,
            "alone": change.alone,
        }
        for change in changes
    ]
