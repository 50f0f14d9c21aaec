"""What is said of a run as a whole: that nothing rose above the noise, how far it grew, and on what."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pytest_imu.core.model import CounterReading, Measurement
from pytest_imu.core.units import MIB
from pytest_imu.report import section
from pytest_imu.report.overall import growth_lines, quiet_lines
from pytest_imu.report.rows import Row
from pytest_imu.report.table import entries_of
from pytest_imu.settings import SETTINGS, Settings

NOISE_BYTES = round(0.2 * MIB)
QUIET = ["no test rose above the noise of 0.2 MiB (2 tests); -v shows them"]


@pytest.fixture
def settings(pytestconfig: pytest.Config) -> Settings:
    """Return the settings of a plain `--imu`, whatever this run itself was started with."""
    own = pytestconfig.stash[SETTINGS]
    return replace(own, off=False, report=True, top=10, sort="peak", min_mib=None, isolate="off")


def measured(before_mib: float, after_mib: float, peak_mib: float = 0.0) -> Measurement:
    """Return a measurement between these sizes, with its peak above both."""
    highest_mib = max(before_mib, after_mib) + peak_mib
    return Measurement(
        before_bytes=round(before_mib * MIB),
        after_bytes=round(after_mib * MIB),
        rss_peak_bytes=round(highest_mib * MIB),
        duration_ns=250_000_000,
        source="kernel",
    )


def row(
    name: str, setup: Measurement | None, call: Measurement | None, worker: str | None = None
) -> Row:
    """Return the row of a test with these phases."""
    return Row(nodeid=f"test_a.py::{name}", outcome="passed", setup=setup, call=call, worker=worker)


# --- nothing above the noise --------------------------------------------------------------------


def quiet(rows: list[Row], settings: Settings, *, verbosity: int = 0) -> list[str]:
    """Return what stands for the table of these rows."""
    return quiet_lines(entries_of(rows), settings, NOISE_BYTES, verbosity=verbosity)


def test_quiet_suite_is_one_line(settings: Settings) -> None:
    """A suite of tests that needed no more than the noise has no table and no legend."""
    rows = [row("test_a", None, measured(100, 100, 0.2)), row("test_b", None, measured(100, 100.1))]

    assert QUIET == section.report_lines(rows, settings, width=80, verbosity=0, noise_bytes=NOISE_BYTES)
    assert QUIET == section.report_lines(rows, settings, width=80, verbosity=-1, noise_bytes=NOISE_BYTES)
    verbose = section.report_lines(rows, settings, width=80, verbosity=1, noise_bytes=NOISE_BYTES)
    assert verbose[1].endswith("  test_a.py::test_a")


@pytest.mark.parametrize(
    "other",
    [
        measured(100, 100, 0.3),
        measured(100, 100.3, 0),
        measured(100, 99, 0),
        replace(measured(100, 100), had_children=True),
        replace(measured(100, 100), reusable_bytes=70 * MIB),
        replace(measured(100, 100), counters=(CounterReading(event="cache-misses", value=7.0),)),
        replace(measured(100, 100), rss_peak_bytes=None, source="none", reason="no /proc"),
    ],
    ids=["peak", "kept", "given back", "children", "reusable", "counted", "unknown"],
)
def test_one_row_that_tells_something_brings_the_table(settings: Settings, other: Measurement) -> None:
    """Also where its own peak is small, or is not known."""
    assert [] == quiet([row("test_a", None, measured(100, 100)), row("test_b", None, other)], settings)


def test_table_that_was_asked_for_is_shown(settings: Settings) -> None:
    """All rows, an order by time or by name, and `-v` ask for rows however small they are."""
    rows = [row("test_a", None, measured(100, 100)), row("test_b", None, measured(100, 100))]

    assert QUIET == quiet(rows, settings)
    assert [] == quiet(rows, replace(settings, top=0))
    assert [] == quiet(rows, replace(settings, sort="time"))
    assert [] == quiet(rows, replace(settings, sort="name"))
    assert [] == quiet(rows, settings, verbosity=1)
    assert [] == quiet_lines(entries_of(rows), settings, None, verbosity=0)


# --- growth -------------------------------------------------------------------------------------


def test_small_growth_is_one_line(settings: Settings) -> None:
    """Under 10 MiB it is not said on what, and under 1 MiB nothing is said."""
    start = measured(100, 100)

    def grown(after_mib: float) -> list[str]:
        return growth_lines([row("test_a", start, measured(100, after_mib))], settings)

    assert [] == grown(100.9)
    assert [] == grown(50)
    assert ["the run grew from 100 to 109 MiB"] == grown(109.4)
    assert ["the run grew from 100 to 110 MiB:", "  10.0  test_a.py::test_a"] == grown(110)


def test_growth_is_told_by_what_kept_it(settings: Settings) -> None:
    """Setups, bodies and teardowns that kept much are named, largest first; the rest is summed up."""
    rows = [
        row("test_a", measured(147, 177), measured(177, 177)),
        row("test_b", None, measured(177, 187)),
        row("test_c", None, measured(187, 187)),  # its teardown kept 12, as the next test shows
        with_teardown(row("test_d", None, measured(199, 199)), measured(199, 230)),
        row("test_e", None, measured(230, 239)),
    ]

    assert [
        "the run grew from 147 to 239 MiB:",
        "  31.0  test_a.py::test_d (teardown)",
        "  30.0  test_a.py::test_a (setup)",
        "  12.0  test_a.py::test_c (teardown)",
        "  19.0  all else",
    ] == growth_lines(rows, settings)


def with_teardown(row: Row, teardown: Measurement) -> Row:
    """Return a row with a teardown that was measured."""
    row.teardown = teardown
    return row


def test_what_was_released_later_is_no_reason(settings: Settings) -> None:
    """A fixture that held much for a while is not named for a run that ends without it."""
    rows = [
        row("test_a", measured(100, 300), measured(300, 300)),
        row("test_b", None, measured(300, 315)),  # over what is left of the 200
        row("test_c", None, measured(112, 140)),
        row("test_d", None, measured(130, 130)),
    ]

    assert [
        "the run grew from 100 to 130 MiB:",
        "  18.0  test_a.py::test_c",
        "  12.0  test_a.py::test_a (setup)",
    ] == growth_lines(rows, settings)


def test_growth_in_small_steps_says_so(settings: Settings) -> None:
    """A run that grew by a little in each test names none of them."""
    rows = [row(f"test_{n}", None, measured(100 + n / 2, 100.5 + n / 2)) for n in range(40)]

    assert ["the run grew from 100 to 120 MiB:", "  20.0  in many small steps"] == growth_lines(
        rows, settings
    )


def test_growth_of_workers_is_that_of_the_one_that_grew_most(settings: Settings) -> None:
    """The sizes of several processes are not added up: they share pages."""
    rows = [
        row("test_a", None, measured(50, 53), "gw0"),
        row("test_b", None, measured(60, 70), "gw1"),
        row("test_c", None, measured(53, 54), "gw0"),
    ]

    assert [
        "gw1, the worker that grew most, grew from 60 to 70 MiB:",
        "  10.0  test_a.py::test_b",
    ] == growth_lines(rows, settings)


def test_growth_is_not_told_where_it_is_not_known(settings: Settings) -> None:
    """Isolated tests leave nothing in the run's process; and what was not read is no growth."""
    rows = [row("test_a", None, measured(100, 150))]
    unread = replace(measured(0, 0), before_bytes=None, after_bytes=None, source="none")

    assert [] == growth_lines(rows, replace(settings, isolate="all"))
    assert [] == growth_lines([row("test_a", None, unread)], settings)
    assert [] == growth_lines([], settings)


@pytest.mark.needs_kernel_peaks
def test_whole_run_tells_its_growth(pytester: pytest.Pytester) -> None:
    """What a fixture of the session keeps is found as the reason why the run grew."""
    pytester.makepyfile(
        test_grows="""
            import pytest

            @pytest.fixture(scope="session")
            def data():
                return b"x" * (30 << 20)

            def test_first(data):
                pass

            def test_second(data):
                pass
        """
    )

    lines = pytester.runpytest_subprocess("-p", "imu", "--imu").outlines

    place = next(number for number, line in enumerate(lines) if line.startswith("the run grew"))
    # The same line as in the summary: by file. Below it is told by test.
    [kept] = re.findall(r"the run kept (\d+) MiB: \d+ in test_grows\.py \(2 tests\)", lines[place - 1])
    assert 29 <= int(kept) <= 31
    sizes = re.fullmatch(r"the run grew from (\d+) to (\d+) MiB:", lines[place])
    assert sizes is not None
    assert 29 <= int(sizes[2]) - int(sizes[1]) <= 32  # each is rounded, and pytest grows a little too
    assert re.fullmatch(r"  (29\.\d|30\.\d)  test_grows.py::test_first \(setup\)", lines[place + 1])
