"""Where the memory of a run went: folders and files, those that kept most first."""

from __future__ import annotations

from typing import Any

from pages import measurement, row
from pytest_imu.core.units import MIB
from pytest_imu.html.places import NAMED_FILES, bars_of
from pytest_imu.report.rows import Row


def a_row(nodeid: str = "a.py::x", **more: Any) -> Row:
    """Return a test of which only its own numbers are known, not when it ran."""
    return row(nodeid, start=None, **more)


def test_folders_have_their_files_below_them() -> None:
    """The largest first, with all that they kept, also where a file is too small to be named."""
    rows = [
        a_row("a/test_one.py::x", call=measurement(kept_mib=10)),
        a_row("a/test_one.py::y", call=measurement(kept_mib=2), teardown_kept_bytes=-4 * MIB),
        a_row("a/test_small.py::y", call=measurement(kept_mib=0.25)),
        a_row("b/c/test_two.py::x", call=measurement(kept_mib=16)),
        a_row("b/c/test_given_back.py::x", call=measurement(kept_mib=-8)),
        a_row("test_top.py::x", setup=measurement(kept_mib=1)),
        a_row("d/test_isolated.py::x", call=measurement(kept_mib=500), isolated=True),
    ]
    assert [
        ("a/", "8.2", 51.6, "3 tests", True),
        ("test_one.py", "8.0", 50.0, "2 tests", False),
        ("b/c/", "8.0", 50.0, "2 tests", True),
        ("test_two.py", "16.0", 100.0, "1 test", False),
        ("./", "1.0", 6.2, "1 test", True),
        ("test_top.py", "1.0", 6.2, "1 test", False),
    ] == [(bar.name, bar.kept, bar.percent, bar.tests, bar.is_folder) for bar in bars_of(rows)]


def test_a_run_that_kept_nothing_has_none() -> None:
    """Half a MiB a file is the least that is worth a bar."""
    assert [] == bars_of([a_row(call=measurement(kept_mib=0.4))])
    assert [] == bars_of([])


def test_no_more_than_twenty_files_are_named() -> None:
    """Of a large suite."""
    rows = [a_row(f"tests/test_{number}.py::x", call=measurement(kept_mib=1)) for number in range(50)]
    folder, *files = bars_of(rows)
    assert ("tests/", "50.0", NAMED_FILES) == (folder.name, folder.kept, len(files))
