"""The run as a picture: where tests stand on one clock, what is drawn, and who stands out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pages import BEGAN_NS, ENVIRONMENT, SECOND, many, measurement, row
from pytest_imu.core.model import Start
from pytest_imu.html.picture import HEIGHT, WIDTH, Picture, picture_of
from pytest_imu.html.run import PageRun
from pytest_imu.report.rows import Row


def drawn(*rows: Row) -> Picture:
    """Return the picture of a run, which there must be."""
    picture = picture_of(PageRun(attempts=rows, environment=ENVIRONMENT))
    assert picture is not None
    return picture


def corners(path: str) -> list[tuple[int, int, int, int]]:
    """Return the bars of a path: left, foot, top, right."""
    return [
        (int(one[0]), int(one[1]), int(one[2]), int(one[3]))
        for one in re.findall(r"M(\d+) (\d+)V(\d+)H(\d+)V\d+Z", path)
    ]


def test_each_phase_is_drawn_at_its_time_from_before_to_its_peak() -> None:
    """Setup and call apart, and the line goes through what stood before and after them."""
    one = row(
        setup=measurement(25, kept_mib=25, before_mib=50, started_ns=0),
        call=measurement(50, before_mib=75, started_ns=3 * SECOND),
    )
    picture = drawn(one)
    assert [(0, "40"), (20, "60"), (40, "80"), (60, "100"), (80, "120"), (100, "140")] == [
        (tick.percent, tick.text) for tick in picture.sizes
    ]
    assert ["0 s", "1 s", "2 s", "3 s", "4 s"] == [tick.text for tick in picture.times]
    shapes = picture.bands[0].shapes
    assert [(0, 180, 130, 500)] == corners(shapes["setup"])
    assert [(1500, 130, 30, 2000)] == corners(shapes["call"])
    assert "M0 180L500 130L1500 130L2000 130" == shapes["rss"]


def test_each_process_has_its_band() -> None:
    """Each worker has its band; two tests at one time are two processes, whoever ran them."""
    rows = [
        row("a", second=0, worker="gw10"),
        row("b", second=0, worker="gw9"),
        row("c", second=1, worker="gw9"),
        row("d", second=1.5, worker="gw9"),
    ]
    picture = drawn(*rows)
    names = [[span.row.nodeid for span in band.spans] for band in picture.bands]
    assert [["b", "c"], ["d"], ["a"]] == names
    assert ["gw9", "gw9", "gw10"] == [band.worker for band in picture.bands]
    assert [(2, 0, 800), (0, 0, 800), (0, 800, 1600), (1, 1200, 2000)] == list(picture.spans)


@pytest.mark.parametrize(
    "start",
    [Start(BEGAN_NS + 3 * SECOND // 2, SECOND), Start(BEGAN_NS + SECOND, 500 * SECOND)],
    ids=["one clock", "two machines"],
)
def test_clocks_of_several_machines(start: Start) -> None:
    """One machine's exact clock decides; of two the wall clock does."""
    picture = drawn(row("a", second=0), row("b", start=start))
    assert [(0, 0, 1000), (0, 1000, 2000)] == list(picture.spans)
    assert 2 == picture.seconds


def test_files_of_old_have_no_picture() -> None:
    """Where no start is known there is nothing to draw; a test without one is left out."""
    assert picture_of(PageRun(attempts=[row(start=None)], environment=ENVIRONMENT)) is None
    picture = drawn(row("a"), row("b", start=None))
    assert [(0, 0, 2000), (-1, 0, 0)] == list(picture.spans)


def test_a_test_that_measured_nothing_has_its_time_all_the_same() -> None:
    """It was skipped, say."""
    picture = drawn(row("a", call=None, outcome="skipped"), row("b", second=1))
    assert 2 == len(picture.spans)


def test_those_that_kept_most_are_marked() -> None:
    """Five at most, each of 1 MiB or more, the most first; none that an isolated process took along."""
    rows = [
        row(f"t{number}", second=number, worker=f"gw{number}", call=measurement(kept_mib=kept))
        for number, kept in enumerate([3, 0.9, 30, 5, 7, 2, 4])
    ]
    rows.append(row("isolated", second=9, call=measurement(kept_mib=90), isolated=True))
    picture = drawn(*rows)
    assert ["t2", "t4", "t3", "t6", "t0"] == [mark.name for mark in picture.marks]
    assert [1, 2, 3, 4, 5] == [mark.number for mark in picture.marks]
    assert "30.0" == picture.marks[0].kept


def test_twenty_thousand_tests_are_drawn_in_little() -> None:
    """What nobody could tell apart is drawn once, with the highest peak of all."""
    rows = many(20_000)
    rows[7777] = replace(rows[7777], call=measurement(500))
    picture = drawn(*rows)
    assert 200_000 > sum(len(path) for band in picture.bands for path in band.shapes.values())
    tops = [top for band in picture.bands for _, _, top, _ in corners(band.shapes["call"])]
    highest = round(HEIGHT * (1 - (550 - float(picture.sizes[0].text)) / scale_of(picture)))
    assert highest == min(tops)


def scale_of(picture: Picture) -> float:
    """Return how many MiB the picture is high."""
    return float(picture.sizes[-1].text) - float(picture.sizes[0].text)


@pytest.mark.parametrize("sizes", [(0, 0), (10, 10.01), (-5, 3), (1000, 90_000)])
def test_any_sizes_make_a_scale(sizes: Sequence[float]) -> None:
    """From nothing to 90 GiB, and for numbers that a file should not have."""
    low, high = sizes
    one = row(call=measurement(0, before_mib=low, kept_mib=high - low))
    picture = drawn(one)
    assert 2 <= len(picture.sizes) <= 12
    for _, foot, top, right in corners(picture.bands[0].shapes["call"]):
        assert 0 <= top <= foot <= HEIGHT
        assert right <= WIDTH + 2
    assert all(0 <= tick.percent <= 100 for tick in (*picture.sizes, *picture.times))
