"""An event in the place of memory: page faults for real, what hardware counts by scripted numbers."""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Callable
from pathlib import Path, PurePath

import pytest

from pytest_imu.core.counters.source import CannotCountError
from pytest_imu.why.counting import PACES, CountSource, count_source
from pytest_imu.why.lines import LineProfiler
from pytest_imu.why.phases import Follower
from pytest_imu.why.profile import CountProfile, LineCount
from pytest_imu.why.table import count_lines

PAGES = 3_000


def touch(pages: int) -> None:
    """Write to each of many fresh pages, in one line: a page fault each."""
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as block:
        block[:: mmap.PAGESIZE] = bytes(pages)


def counted(source: CountSource, work: Callable[[], object]) -> CountProfile:
    """Count in the lines of a function and of what it calls in this file."""
    profiler = LineProfiler(lambda file: file == __file__, source=source, pace=PACES["kernel"])
    with profiler:
        work()
    return profiler.counts("an-event")


def line(profile: CountProfile, text: str) -> LineCount:
    """Return the one line with this text."""
    [found] = [one for one in profile.lines if one.text == text]
    return found


@pytest.mark.needs_kernel_counts
@pytest.mark.usefixtures("steady_memory")
def test_page_faults() -> None:
    """Each line has those of all its hits, with what it calls; and nothing of the counting itself."""

    def work() -> None:
        for pages in (PAGES, 2 * PAGES):
            touch(pages)
        size = 1
        size += 1

    source = count_source("page-faults", by="kernel")
    try:
        counted(source, work)  # writes to the pages that a fork has left write-protected
        profile = counted(source, work)
    finally:
        source.stop()
    call = line(profile, "touch(pages)")
    assert 2 == call.hits
    # A page for what Python itself needs, now and then.
    for expected, found in (
        (3 * PAGES, call.count),
        (2 * PAGES, call.most),
        (3 * PAGES, line(profile, "block[:: mmap.PAGESIZE] = bytes(pages)").count),
        (3 * PAGES, profile.count),
        (0, line(profile, "size = 1").count),
    ):
        assert 0 <= found - expected <= 20
    assert profile == CountProfile.from_dict(profile.to_dict())


def test_what_following_adds_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is learned, before anything is followed, from lines that do nothing."""
    readings, extra = itertools.count(step=1_000), 0

    def work() -> None:
        nonlocal extra
        extra += 7
        extra += 500

    source = CountSource("scripted", lambda: next(readings) + extra, lambda: None)
    assert {"extra += 7": 7, "extra += 500": 500}.items() <= {
        one.text: one.count % 1_000 for one in counted(source, work).lines
    }.items()
    monkeypatch.setattr("pytest_imu.why.phases.count_source", lambda **_: source)
    count = {"event": "cycles", "by": "kernel"}
    Follower(roots=[], phases=["call"], folder=tmp_path, keep=None, no_memray=None, count=count)
    assert source.own_a_window >= 1_000
    assert [("extra += 7", 7), ("extra += 500", 500)] == [
        (one.text, one.count) for one in counted(source, work).lines if one.text.startswith("extra")
    ]


def test_clocks_are_milliseconds() -> None:
    """They count nanoseconds, and are shown as perf shows them."""
    for is_clock, shown in ((True, 1.5), (False, 1_500_000)):
        source = CountSource("scripted", lambda: 0, lambda: None, is_clock=is_clock)
        assert shown == source.shown(1_500_000)


def test_lines_that_nothing_counts() -> None:
    """What counts a run as a whole says so."""
    with pytest.raises(CannotCountError, match="perf counts a whole run, and not its lines"):
        count_source("cache-misses", by="perf")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table(width: int) -> None:
    """Most first; what neighbours share is marked; a line that counted nothing is left out."""

    def of(number: int, count: float, *, shared: float = 0, text: str = "x = 1") -> LineCount:
        return LineCount(
            file="/project/a.py",
            line=number,
            hits=1_000,
            has_more_hits=False,
            count=count,
            most=count / 2,
            shared=shared,
            text=text,
        )

    lines = (of(1, 10), of(2, 5_000, shared=100, text="y" * 100), of(3, 0), of(4, -3))
    profile = CountProfile(event="cache-misses", label="", count=5_007, lines=lines)
    heading, first, second, *rest = count_lines(profile, PurePath("/project"), top=5, width=width)
    assert "  hits   count  largest" == heading
    assert first.startswith(" 1,000  *5,000    2,500  a.py:2  yyy")
    assert width < 80 or len(first) <= width
    assert " 1,000      10        5  a.py:1  x = 1" == second
    assert ["* with its neighbours: each was too short to be read by itself"] == rest
    assert 6 == len(count_lines(profile, PurePath("/project"), top=0, width=width))
    none = CountProfile(event="cache-misses", label="", count=0, lines=(of(3, 0),))
    assert ["none of them in any of these lines"] == count_lines(none, PurePath("/"), top=5, width=80)
