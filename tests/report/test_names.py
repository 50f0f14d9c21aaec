"""The names in the table: what is left out of them, where they stand, and that they tell tests apart."""

from __future__ import annotations

import pytest

from pytest_imu.core.model import ChildrenMemory, CounterReading, Measurement
from pytest_imu.core.units import MIB
from pytest_imu.report import table
from pytest_imu.report.names import folded, folded_below
from pytest_imu.report.rows import Row

NUMBERS = " 1.0    0.0  100.0  0.25s"
POLYMORPHIC = "test_subclass_option_pathing_instance_multilevel"


def measurement(**more: object) -> Measurement:
    """Return the measurement of a test that needed 1 MiB."""
    values = {
        "before_bytes": 100 * MIB,
        "after_bytes": 100 * MIB,
        "rss_peak_bytes": 101 * MIB,
        "duration_ns": 250_000_000,
        "source": "kernel",
    }
    return Measurement(**{**values, **more})  # type: ignore[arg-type]  # the values are right


def shown(nodeids: list[str], *, width: int = 80, verbose: bool = False, **more: object) -> list[str]:
    """Return the table of these tests."""
    rows = [Row(nodeid=nodeid, outcome="passed", call=measurement(**more)) for nodeid in nodeids]
    return table.table(table.entries_of(rows), width=width, verbose=verbose)


def test_whole_names_where_they_fit() -> None:
    """Nothing is left out of names that fit, each on its line."""
    nodeids = ["tests/test_a.py::test_a", "tests/test_b.py::TestB::test_b[1-x]"]

    assert [
        "peak  delta  total   time  test",
        f"{NUMBERS}  {nodeids[0]}",
        f"{NUMBERS}  {nodeids[1]}",
    ] == shown(nodeids)


def test_shared_folder_stands_in_the_heading() -> None:
    """Where a name does not fit, the folder that all tests are in is told once."""
    nodeids = ["lib/core/tests/test_a.py::test_a", f"lib/core/more/test_b.py::{'test_' * 7}b"]

    assert [
        "peak  delta  total   time  test (in lib/core/)",
        f"{NUMBERS}  tests/test_a.py::test_a",
        f"{NUMBERS}  more/test_b.py::{'test_' * 7}b",
    ] == shown(nodeids)


def test_own_folders_are_left_out_first() -> None:
    """What still does not fit loses its folders, and keeps its file and its function."""
    nodeids = ["a/test_a.py::test_a", f"some/folders/of/its/own/test_b.py::{'test_' * 7}b"]

    assert f"{NUMBERS}  .../test_b.py::{'test_' * 7}b" == shown(nodeids)[2]


def test_folders_that_tell_tests_apart_stay() -> None:
    """Two tests that would look the same have their whole names, on two lines each."""
    test = "test_" * 7 + "b"
    nodeids = [f"{part}/folders/of/its/own/test_b.py::{test}" for part in ("one", "two")]

    assert [
        f"{NUMBERS}  one/folders/of/its/own/test_b.py::",
        f"                             {test}",
        f"{NUMBERS}  two/folders/of/its/own/test_b.py::",
        f"                             {test}",
    ] == shown(nodeids)[1:]


def test_long_function_stands_whole_on_the_next_line() -> None:
    """A function's name is never cut: under the column where it fits there, else further to the left."""
    file = "test/orm/inheritance/test_polymorphic_rel.py"
    nodeids = [
        f"{file}::PolymorphicAliasedJoinsTest::{POLYMORPHIC}",
        f"{file}::PolymorphicUnionsTest::{POLYMORPHIC}",
        f"{file}::Test::{POLYMORPHIC}",
    ]

    assert [
        "peak  delta  total   time  test (in test/orm/inheritance/)",
        f"{NUMBERS}  test_polymorphic_rel.py::",
        f"  PolymorphicAliasedJoinsTest::{POLYMORPHIC}",
        f"{NUMBERS}  test_polymorphic_rel.py::PolymorphicUnionsTest::",
        f"                             {POLYMORPHIC}",
        f"{NUMBERS}  test_polymorphic_rel.py::Test::",
        f"                             {POLYMORPHIC}",
    ] == [line.replace("PolymorphicAliasedJoinsTest::\n", "") for line in shown(nodeids)]


def test_parameters_are_cut_as_long_as_they_tell_apart() -> None:
    """Long parameters are cut in their middle; where only the middle differs they are not."""
    checks = [f"tests/test_common.py::test_estimators[{'x' * 40}-{end}]" for end in ("one", "two")]
    middles = [f"test_x.py::test_y[{'x' * 40}{middle}{'x' * 40}]" for middle in ("1", "2")]

    assert [
        f"{NUMBERS}  test_common.py::test_estimators[xxxxxxxx...xxxxx-one]",
        f"{NUMBERS}  test_common.py::test_estimators[xxxxxxxx...xxxxx-two]",
    ] == shown(checks)[1:]
    lines = shown(middles)
    for middle in "12":
        whole = f"test_y[{'x' * 40}{middle}{'x' * 40}]"
        assert whole in "".join(line.removeprefix(NUMBERS).strip() for line in lines)


def test_endless_parameters_are_cut_to_one_line() -> None:
    """A parameter of thousands of characters takes two lines: the test whole, and both of its ends."""
    test = "test_with_a_name_of_its_own_that_is_long"

    lines = shown([f"test_file_a.py::{test}[begin{'x' * 5000}end]", "test_b.py::test_b"])

    assert f"{NUMBERS}  test_file_a.py::" == lines[1]
    assert lines[2].startswith(f"  {test}[begin")
    assert lines[2].endswith("end]")
    assert 4 == len(lines)
    assert [] == [line for line in lines if len(line) > 80]


def test_remarks_stand_below_where_they_do_not_fit() -> None:
    """A name is not shortened for what is to be said of it."""
    nodeid = "test_children.py::test_that_starts_some"

    assert [
        f"{NUMBERS}  {nodeid}",
        "                             (had child processes, not counted)",
    ] == shown([nodeid], had_children=True)[1:]


@pytest.mark.parametrize("width", [40, 79])
def test_verbose_names_can_be_pasted(width: int) -> None:
    """With `-v` a name is whole, in one piece, however narrow the terminal is."""
    nodeids = [f"tests/unit/test_a.py::TestA::{'test_' * 20}[{'x' * 300}]", "tests/unit/test_b.py::test"]

    lines = shown(nodeids, width=width, verbose=True)

    assert "peak  delta  total   time  test" == lines[0]
    assert [NUMBERS, f"  {nodeids[0]}"] == lines[1:3]
    assert nodeids[1] == lines[-1].split()[-1]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 81, 200])
@pytest.mark.parametrize("sign", ["x", "é", "長"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_line_is_wider_than_the_terminal(width: int, sign: str, encoding: str) -> None:
    """Whatever a name is made of, and however many columns there are, its whole function is shown."""
    function = f"test_{sign * 100}end"
    rows = [
        Row(nodeid=f"folder/file.py::{function}[{sign * 999}]", call=measurement()),
        Row(nodeid=f"folder/{sign * 99}.py::test", call=measurement(rss_peak_bytes=2**40)),
        Row(
            nodeid="folder/file.py::test_children",
            worker="gw0",
            call=measurement(
                reusable_bytes=70 * MIB,
                counters=(CounterReading(event="cache-misses", value=10**9, per_second=10.0**9),),
                children_memory=ChildrenMemory(peak_bytes=MIB, most=1, samples=3, unit="pss"),
            ),
        ),
    ]
    for count in (2, 3):
        entries = table.entries_of(rows[:count])
        lines = table.table(entries, width=width, verbose=False, encoding=encoding)

        assert [] == [line for line in lines if terminal_columns(line) > width]
        text = "".join(line.strip() for line in lines)
        assert function.encode(encoding, "backslashreplace").decode(encoding) in text


def terminal_columns(line: str) -> int:
    """Return how many columns a line takes; of the characters used here, those from U+3000 take two."""
    return sum(2 if char >= "\u3000" else 1 for char in line)


def test_numbers_that_do_not_fit_side_by_side_stand_below_the_name() -> None:
    """In very few columns each row is its name, and its numbers with their headings."""
    assert [
        "test_a.py::test_a",
        "  peak 1.0, delta 0.0,",
        "  total 100.0, time",
        "  0.25s",
    ] == shown(["test_a.py::test_a"], width=24)


def test_text_is_folded_between_words() -> None:
    """A line of text that is too wide goes on below, indented; one that fits stays as it is."""
    text = "RSS in MiB: peak above start, delta kept, total at end"

    assert [text] == folded_below(text, 80)
    assert ["RSS in MiB: peak above start, delta", "  kept, total at end"] == folded_below(text, 40)
    assert ["  some more", "    words"] == folded_below("  some more words", 12)
    assert ["abcdefgh", "ij"] == folded("abcdefghij", 8)
