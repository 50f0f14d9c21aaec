"""Comparing two runs: which test is what, the one line, what is named, and what fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_imu.core.growth import LIMIT_NAME, parse_increase
from pytest_imu.history.compare import Comparison, compare_runs, differences
from pytest_imu.history.entries import read_side, read_sides
from pytest_imu.history.wording import (
    WAY_OUT,
    counts_line,
    difference_lines,
    doubt_lines,
    grown_lines,
    table,
)

if TYPE_CHECKING:
    from tests.history.conftest import Documents


def compared(
    documents: Documents,
    base: list[dict[str, Any]],
    now: list[dict[str, Any]],
    *increases: str,
    judged: bool = False,
) -> Comparison:
    """Return two runs beside each other, each from a file of its own."""
    was = read_side(documents.write("base.json", *base))
    side = read_side(documents.write("now.json", *now))
    return compare_runs(was, side, [parse_increase(text) for text in increases], judged=judged)


def test_one_line_tells_all(documents: Documents) -> None:
    """Every test of the run is counted as one thing, and those that are gone besides."""
    test = documents.test
    base = [test("grew", 10), test("shrank", 50), test("same", 10), test("unsure"), test("gone")]
    now = [test("grew", 20), test("shrank", 20), test("same", 11), test("unsure", reusable_mib=30)]
    base += [test("other"), test("skipped", outcome="skipped")]
    now += [test("other", isolated=True), test("new"), test("skipped", outcome="skipped")]
    comparison = compared(documents, base, now)
    assert (
        "compared 6 tests: 1 grew, 1 shrank, 1 same, 1 unsure, 1 not compared, 1 new, 1 gone"
        == counts_line(comparison)
    )
    assert 4 == comparison.compared
    assert [] == comparison.failed  # nobody has said by how much a test may grow
    assert [
        "  grew: peak 20.0 MiB, was 10.0 in base.json: grew 10.0 MiB (100 %), over 10%+2"
    ] == grown_lines(comparison)
    assert [
        f"1 unsure: memory that was used again may make up the difference; {WAY_OUT}",
        "  unsure",
        "1 not compared: isolated here, not in base.json",
        "  other",
    ] == doubt_lines(comparison)


def test_every_increase_counts(documents: Documents) -> None:
    """Each that somebody set is held against every test."""
    base = [documents.test("a", 100, counts={"instructions": 1000})]
    now = [documents.test("a", 112, counts={"instructions": 1060})]
    for increases, failed in (
        (["20%"], []),
        (["20%", "5%"], ["peak"]),
        (["20%", "delta:10%"], ["delta"]),
        (["20%", "delta:10%", "instructions:5%"], ["delta", "instructions"]),
        (["instructions:10%"], []),
    ):
        comparison = compared(documents, base, now, *increases)
        assert failed == [change.increase.subject for _, change in comparison.failed]


def test_only_whole_tests_are_compared(documents: Documents) -> None:
    """A test that did not come to its end has used only a part; one over its budget did come there."""
    test = documents.test
    comparison = compared(
        documents,
        [test("a", outcome="failed"), test("b", failed_by_budget=True, outcome="failed"), test("c")],
        [test("a"), test("b"), test("c", outcome="skipped")],
    )
    assert ["not compared", "same", "not compared"] == [one.status for one in comparison.tests]
    assert ["failed in base.json", "skipped here"] == [
        one.worst.reason for one in comparison.tests if one.worst.reason
    ]


def test_the_attempt_that_counted_is_compared(documents: Documents) -> None:
    """Of reruns it is the last, and of several processes the largest."""
    base = [documents.test("a", 10), documents.test("b", 10)]
    now = [
        documents.test("a", 50, outcome="rerun"),
        documents.test("a", 10, attempt=2),
        documents.test("b", 10, worker="gw0"),
        documents.test("b", 50, worker="gw1"),
        documents.test("b", 20, worker="gw2"),
    ]
    comparison = compared(documents, base, now)
    assert {"a": "same", "b": "grew"} == {one.nodeid: one.status for one in comparison.tests}


def test_several_files_are_one_side(documents: Documents) -> None:
    """A run of several machines is compared as one."""
    shards = [documents.write(f"shard-{n}.json", documents.test(f"test_{n}", n)) for n in (1, 2, 3)]
    _, side = read_sides(shards[:1], shards)
    assert ("3 files", ["test_1", "test_2", "test_3"]) == (side.name, list(side.entries))


def test_what_failed_as_it_ran_has_grown(documents: Documents) -> None:
    """The section never calls a test the same that its worker has failed."""
    verdict = documents.budget(name=LIMIT_NAME, origin="b", was=10, increase="1%", limit=10.1)
    now = [documents.test("a", 10.2, outcome="failed", failed_by_budget=True, budgets=[verdict])]
    for judged, expected in ((False, "same"), (True, "grew")):
        comparison = compared(documents, [documents.test("a", 10)], now, "1%", "9%", judged=judged)
        assert [expected, "same"] == [change.status for change in comparison.tests[0].changes]


def test_a_simulated_run_compares_counts(documents: Documents) -> None:
    """Where memory is not measured, events are what is compared."""

    def simulated(count: float) -> dict[str, Any]:
        test = documents.test("a", counts={"instructions": count})
        sizes = ("before_bytes", "after_bytes", "rss_peak_bytes", "delta_bytes", "peak_bytes")
        test["phases"]["call"].update(dict.fromkeys(sizes), source="none")
        return test

    caches = "callgrind, simulated caches I1=1 D1=1 LL=1"
    for counted_by, now, status in (
        (caches, 1051, "grew"),
        (caches, 1049, "same"),
        ("callgrind, simulated caches I1=2 D1=1 LL=1", 2000, "not compared"),
    ):
        base = read_side(documents.write("b", simulated(1000), counter_source=caches))
        side = read_side(documents.write("n", simulated(now), counter_source=counted_by))
        comparison = compare_runs(base, side)
        assert status == comparison.tests[0].status
    assert "counted by callgrind, simulated caches I1=2" in doubt_lines(comparison)[0]


def test_noise_of_both_runs_counts(documents: Documents) -> None:
    """What one of them could not tell apart is not called grown."""
    base = read_side(documents.write("b", documents.test("a", 1), noise_floor_bytes=5 * 2**20))
    now = read_side(documents.write("n", documents.test("a", 6)))
    assert "same" == compare_runs(base, now, [parse_increase("0")]).tests[0].status


def test_what_is_different_here_is_named() -> None:
    """Packages by their names, and of two lists only what differs."""
    base = {"python": "3.11.7", "trim": True, "packages": {"numpy": "2.3.1", "old": "1", "same": "1"}}
    now = {"python": "3.12.1", "trim": True, "packages": {"numpy": "2.4.6", "new": "2", "same": "1"}}
    assert [
        "python 3.12.1, was 3.11.7",
        "numpy 2.4.6, was 2.3.1",
        "new 2, was none",
        "old none, was 1",
    ] == differences(base, now)
    assert [] == differences(now, now)
    assert [] == differences({}, {})


def test_names_are_escaped_and_cut(documents: Documents) -> None:
    """A test's id moves no cursor; a long list is counted."""
    now = [documents.test(f"test_{n}\x1b[31m", 30) for n in range(8)]
    comparison = compared(documents, [documents.test(f"test_{n}\x1b[31m") for n in range(8)], now)
    lines = [*grown_lines(comparison), *table(comparison, width=80, top=3)]
    assert all(line.isprintable() for line in lines)
    assert "  and 3 more" in lines
    assert "5 more; --top=0 shows all" == lines[-1]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_has_the_largest_change_first(documents: Documents, width: int) -> None:
    """What shrank stands beside what grew, and what is the same is left out."""
    base = [documents.test(name, 30) for name in ("grew", "shrank", "same", "unsure")]
    now = [documents.test("grew", 40), documents.test("shrank", 10.5), documents.test("same", 30)]
    now += [documents.test("unsure", 32, reusable_mib=9)]
    assert [
        " was   now  change  test",
        "30.0  10.5   -19.5  shrank",
        "30.0  40.0   +10.0  grew",
        "30.0  32.0   +2.0?  unsure",
    ] == table(compared(documents, base, now), width=width, top=0)


def test_differences_are_on_one_line(documents: Documents) -> None:
    """With many packages the rest is counted."""
    base = read_side(documents.write("b", packages={f"p{n}": "1" for n in range(9)}))
    now = read_side(documents.write("n", packages={f"p{n}": "2" for n in range(9)}))
    [line] = difference_lines(compare_runs(base, now))
    assert line.startswith("different here: p0 2, was 1; p1 2, was 1; ")
    assert line.endswith(" and 4 more")
