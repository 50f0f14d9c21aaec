"""What the parser makes of callgrind's dumps, and of other texts; see callgrind_recordings."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_imu.core.counters.callgrind.dumps import (
    NO_BRANCHES,
    NO_CACHES,
    NOT_SUPPORTED,
    PUBLIC_EVENTS,
    parse_dump,
    public_count,
)

RECORDINGS = Path(__file__).parent / "callgrind_recordings"
SMALL = "creator: callgrind-3.19.0\nevents: Ir Dr\nsummary: 0\n\ntotals: 7 3\n"


def recorded(name: str) -> str:
    """Return a recording's text."""
    return (RECORDINGS / name).read_text(encoding="utf-8")


def counts(name: str) -> dict[str, int | str]:
    """Return what a recording says of each public event."""
    costs = parse_dump(recorded(name)).costs
    return {event: public_count(event, costs) for event in PUBLIC_EVENTS}


def test_window_with_caches() -> None:
    """A window's dump has the sums of its costs; branches were not simulated."""
    assert {
        "instructions": 581847,
        "cache-misses": 2747 + 2412 + 1013,
        "cache-references": 7578 + 6270 + 1708,
        "L1-dcache-load-misses": 6270,
        "L1-icache-load-misses": 7578,
        "branch-misses": NO_BRANCHES,
    } == counts("window_caches.out")


def test_window_with_branches() -> None:
    """Mispredicted conditional and indirect branches add up."""
    assert 7034 + 3430 == counts("window_branches.out")["branch-misses"]


def test_window_without_simulation() -> None:
    """Where no cache was simulated there are instructions alone."""
    assert {
        "instructions": 525114,
        "cache-misses": NO_CACHES,
        "cache-references": NO_CACHES,
        "L1-dcache-load-misses": NO_CACHES,
        "L1-icache-load-misses": NO_CACHES,
        "branch-misses": NO_BRANCHES,
    } == counts("window_plain.out")


def test_totals_and_not_the_summary() -> None:
    """The sums are read from the totals: the summary is another number, and 0 in most dumps."""
    assert "summary: 302631 " in recorded("switched_on.out")
    assert 302628 == parse_dump(recorded("switched_on.out")).costs["Ir"]


def test_zeros_that_callgrind_leaves_out() -> None:
    """Where nothing was counted the totals are one 0, and all costs are 0."""
    dump = parse_dump(recorded("empty.out"))
    assert ["Ir", "Dr", "Dw", "I1mr", "D1mr", "D1mw", "ILmr", "DLmr", "DLmw"] == list(dump.costs)
    assert {0} == set(dump.costs.values())


def test_version() -> None:
    """The version is that of the valgrind which wrote the dump."""
    assert (3, 19) == parse_dump(recorded("empty.out")).version
    assert (4, 0) == parse_dump(SMALL.replace("3.19.0", "4.0.GIT")).version


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the dump has no line 'creator:'"),
        ("\0\xff garbage", "the dump has no line 'creator:'"),
        (SMALL.replace("creator", "maker"), "the dump has no line 'creator:'"),
        (SMALL.replace("callgrind-", "cachegrind-"), "names no version of callgrind"),
        (SMALL.replace("events", "event"), "the dump has no line 'events:'"),
        (SMALL.replace("totals: 7 3\n", ""), "the dump has no line 'totals:'"),
        (SMALL.replace("7 3", ""), "the dump's line 'totals:' holds no counts"),
        (SMALL.replace("7 3", "-7 3"), "the dump's line 'totals:' holds no counts"),
        (SMALL.replace("Ir Dr", ""), "the dump's line 'totals:' holds no counts"),
        (SMALL.replace("7 3", "7 3 1"), "the dump has 2 events and 3 totals"),
    ],
)
def test_what_is_no_dump(text: str, reason: str) -> None:
    """A text that is no whole dump is refused, with the line that is at fault."""
    with pytest.raises(ValueError, match=reason):
        parse_dump(text)


@pytest.mark.parametrize(
    "event", ["page-faults", "task-clock", "Ir", "cache-misses:k", "dTLB-load-misses"]
)
def test_other_events(event: str) -> None:
    """What callgrind does not simulate, or perf counts in the kernel, is not supported."""
    assert NOT_SUPPORTED == public_count(event, parse_dump(recorded("window_branches.out")).costs)


def test_user_space_modifier() -> None:
    """The modifier `:u` of perf changes nothing: callgrind sees user space alone."""
    assert 581847 == public_count("instructions:u", parse_dump(recorded("window_caches.out")).costs)
