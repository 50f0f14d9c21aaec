"""The terminal section: what `--imu` prints, how it fits, and when nothing is printed at all."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest

from pytest_imu.core.budgets import Budget, Verdict
from pytest_imu.core.model import Block, CounterReading, Measurement, Source
from pytest_imu.core.units import MIB
from pytest_imu.kinds import SortKey
from pytest_imu.report import section, table
from pytest_imu.report.rows import Row
from pytest_imu.settings import SETTINGS, Settings

Run = Callable[..., pytest.RunResult]

SPIKES = """
    import mmap

    # The kernel counts shared memory apart: with private, shared and file pages the mark may read
    # over half a MiB low, and the tests hold it to that.
    PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}

    def touched(mib):
        block = mmap.mmap(-1, mib << 20, **PRIVATE)
        block[::4096] = b"x" * (mib << 8)
        return block
"""
THREE_TESTS = """
    from spikes import touched

    kept = []

    def test_b_spikes():
        touched(12).close()

    def test_a_keeps():
        kept.append(touched(8))

    def test_c_keeps_little():
        kept.append(touched(1))
"""
ROW = re.compile(r" *(-?\d+\.\d)  +(-?\d+\.\d)  +(\d+\.\d)  +(\d+\.\d\d)s  ( *\S.*)")
RED = "\x1b[31m"


class Shown(NamedTuple):
    """One row of the table, as it was printed."""

    peak_mib: float
    delta_mib: float
    total_mib: float
    seconds: float
    label: str


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs pytest in 80 columns, with this plugin and no other."""
    monkeypatch.setenv("COLUMNS", "80")
    return functools.partial(pytester.runpytest_subprocess, "-p", "imu")


def section_of(result: pytest.RunResult) -> list[str]:
    """Return the lines of the section, without its heading; none where it was not printed."""
    lines = result.outlines
    starts = [number for number, line in enumerate(lines) if re.fullmatch(r"=+ imu =+", line)]
    assert len(starts) <= 1
    rest = lines[starts[0] + 1 :] if starts else []
    return list(itertools.takewhile(lambda line: not line.startswith("="), rest))


def rows_of(result: pytest.RunResult) -> list[Shown]:
    """Return the rows of the table, in their order."""
    found = (ROW.fullmatch(line) for line in section_of(result))
    return [
        Shown(float(peak), float(delta), float(total), float(seconds), label)
        for peak, delta, total, seconds, label in (match.groups() for match in found if match)
    ]


def labels_of(result: pytest.RunResult) -> list[str]:
    """Return the last column of the table."""
    return [row.label for row in rows_of(result)]


def names_of(result: pytest.RunResult) -> list[str]:
    """Return the names of the tests in the table, without their file."""
    return [label.partition("::")[2] for label in labels_of(result)]


# --- whole runs ---------------------------------------------------------------------------------


@pytest.mark.needs_kernel_peaks
def test_whole_section_reads_as_documented(run: Run, pytester: pytest.Pytester) -> None:
    """The section is a table, its counts, one legend and the broken budgets, and nothing more."""
    pytester.makepyfile(
        spikes=SPIKES,
        test_mixed="""
            import pytest
            from spikes import touched

            @pytest.fixture(scope="session")
            def data():
                return touched(4)

            def test_first_user(data):
                touched(2).close()

            def test_second_user(data):
                touched(1).close()

            @pytest.mark.max_peak_mib(2.5)
            def test_over():
                touched(8).close()
        """,
    )

    result = run("--imu")

    lines = section_of(result)
    table = [re.sub(r" *-?\d+\.\d+", lambda cell: "#".rjust(len(cell[0])), line) for line in lines[:5]]
    text = [re.sub(r"\d+\.\d+|\d+(?= %)", "#", line) for line in lines[5:]]
    assert [
        "peak  delta  total   time  test",
        "   #      #      #     #s  test_mixed.py::test_over",
        "   #      #      #     #s  test_mixed.py::test_first_user (setup)",
        "   #      #      #     #s  test_mixed.py::test_first_user",
        "   #      #      #     #s  test_mixed.py::test_second_user",
    ] == table
    assert re.fullmatch(r"the run grew from \d+ to \d+ MiB", text.pop(3))
    assert [
        "4 of 4 rows (3 tests, 1 setup), largest peak first",
        "RSS in MiB: peak above start, delta kept, total at end; kernel peaks, to #",
        "  noise of an empty window ± # MiB",
        (
            "test_mixed.py::test_over: peak # MiB is over max_peak_mib(#) by # MiB (# %); "
            "started at # MiB, kernel high-water mark"
        ),
    ] == text
    result.assert_outcomes(passed=2, failed=1)


@pytest.mark.needs_kernel_peaks
def test_known_amounts_are_shown_within_half_a_mib(run: Run, pytester: pytest.Pytester) -> None:
    """64 MiB that are written cost 64: as the peak where they are freed, as the delta too where kept."""
    pytester.makepyfile(
        spikes=SPIKES,
        test_amounts="""
            from spikes import touched

            kept = []

            def test_mapped():
                touched(64).close()

            def test_bytearray():
                bytearray(b"x") * (64 << 20)

            def test_kept():
                kept.append(touched(64))

            def test_given_back():
                kept.pop().close()

            def test_nothing():
                pass
        """,
    )

    shown = {row.label.partition("::")[2]: row for row in rows_of(run("--imu"))}

    assert pytest.approx({"mapped": 64, "bytearray": 64, "kept": 64, "nothing": 0}, abs=0.5) == {
        name: shown[f"test_{name}"].peak_mib for name in ("mapped", "bytearray", "kept", "nothing")
    }
    assert pytest.approx({"mapped": 0, "kept": 64, "given_back": -64, "nothing": 0}, abs=0.5) == {
        name: shown[f"test_{name}"].delta_mib for name in ("mapped", "kept", "given_back", "nothing")
    }
    grown_mib = shown["test_kept"].total_mib - shown["test_mapped"].total_mib
    assert pytest.approx(64, abs=0.5) == grown_mib


@pytest.mark.needs_kernel_peaks
@pytest.mark.parametrize(
    ("key", "order", "words"),
    [
        ("peak", ["test_b_spikes", "test_a_keeps", "test_c_keeps_little"], "largest peak first"),
        ("delta", ["test_a_keeps", "test_c_keeps_little", "test_b_spikes"], "largest delta first"),
        ("total", ["test_c_keeps_little", "test_a_keeps", "test_b_spikes"], "largest total first"),
        ("name", ["test_a_keeps", "test_b_spikes", "test_c_keeps_little"], "by name"),
    ],
)
def test_sort_key_orders_the_rows(
    run: Run, pytester: pytest.Pytester, key: str, order: list[str], words: str
) -> None:
    """Each key of `--imu-sort` gives its own order, and the counts line names it."""
    pytester.makepyfile(spikes=SPIKES, test_three=THREE_TESTS)

    result = run("--imu", f"--imu-sort={key}")

    assert order == names_of(result)
    assert f"3 of 3 tests, {words}" in section_of(result)


def test_time_orders_the_rows_as_they_were_timed(run: Run, pytester: pytest.Pytester) -> None:
    """`--imu-sort=time` puts first what took longest in this very run, as the JSON has it."""
    pytester.makepyfile(spikes=SPIKES, test_three=THREE_TESTS)

    result = run("--imu", "--imu-sort=time", "--imu-json=run.json")

    tests = json.loads((pytester.path / "run.json").read_text(encoding="utf-8"))["tests"]
    timed = {test["nodeid"]: test["phases"]["call"]["duration_ns"] for test in tests}
    assert sorted(timed, key=lambda nodeid: -timed[nodeid]) == labels_of(result)
    assert "3 of 3 tests, longest first" in section_of(result)


@pytest.mark.needs_kernel_peaks
def test_ten_rows_are_shown_unless_asked_otherwise(run: Run, pytester: pytest.Pytester) -> None:
    """Ten rows by default, N by `--imu-top=N`, all by 0; what is hidden is said with the way to it."""
    pytester.makepyfile(
        spikes=SPIKES,
        test_many="""
            import pytest
            from spikes import touched

            @pytest.mark.parametrize("n", range(12))
            def test(n):
                touched(2).close()
        """,
    )

    assert "10 of 12 tests, largest peak first; --imu-top=0 shows all" in section_of(run("--imu"))
    assert "3 of 12 tests, by name; --imu-top=0 shows all" in section_of(
        run("--imu", "--imu-top=3", "--imu-sort=name")
    )
    everything = run("--imu", "--imu-top=0", "--imu-sort=name")
    assert "12 of 12 tests, by name" in section_of(everything)
    assert 12 == len(rows_of(everything))


def test_small_rows_are_left_out_and_counted(run: Run, pytester: pytest.Pytester) -> None:
    """`--imu-min-mib` hides what is smaller, and does not promise that `--imu-top=0` brings it back."""
    pytester.makepyfile(spikes=SPIKES, test_three=THREE_TESTS)

    result = run("--imu", "--imu-min-mib=4.5")
    everything = run("--imu", "--imu-min-mib=999")

    assert ["test_b_spikes", "test_a_keeps"] == names_of(result)
    assert "2 of 3 tests, largest peak first; 1 under 4.5 MiB left out" in section_of(result)
    assert [] == rows_of(everything)
    assert "0 of 3 tests, largest peak first; 3 under 999 MiB left out" in section_of(everything)


def test_ini_file_turns_the_section_on_and_no_imu_turns_it_off(
    run: Run, pytester: pytest.Pytester
) -> None:
    """`imu = true` is as good as `--imu`; `--no-imu` wins over both, wherever it stands."""
    pytester.makeini("[pytest]\nimu = true\nimu_top = 1\nimu_sort = name")
    pytester.makepyfile(test_two="def test_a(): pass\ndef test_b(): pass")

    assert ["test_a"] == names_of(run())
    assert ["test_b", "test_a"] == sorted(names_of(run("--imu-top=0")), reverse=True)
    for arguments in (["--no-imu", "--imu"], ["--imu", "--no-imu"]):
        result = run(*arguments)
        assert [] == section_of(result)
        result.assert_outcomes(passed=2)


def test_nothing_is_printed_where_nothing_was_asked_for(run: Run, pytester: pytest.Pytester) -> None:
    """Installed but not asked, the plugin prints nothing, not even for kept budgets and named blocks."""
    pytester.makepyfile("""
        import pytest

        @pytest.mark.max_peak_mib(50)
        def test_kept():
            pass

        def test_block(imu):
            with imu.measure("nothing"):
                pass
    """)

    result = run("-v")

    result.assert_outcomes(passed=2)
    result.stdout.no_re_match_line(r".*\bimu\b =")
    assert [] == section_of(result)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_section_fits_the_terminal(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """No line of the table is wider than the terminal, in 40 columns none of the section; with `-v` each
    name is whole, to be pasted.
    """
    monkeypatch.setenv("COLUMNS", str(columns))
    name = "test_" + "many_" * 16 + "words"
    pytester.makepyfile(
        test_wide=f"""
            import pytest

            def {name}():
                pass

            @pytest.mark.max_cache_misses(1)
            def test_short():
                pass
        """
    )

    lines = section_of(run("--imu", "--imu-sort=name", "-o", "imu_on_breach=warn"))
    verbose = section_of(run("--imu", "-v"))

    text = lines.index(next(line for line in lines if "2 of 2" in line))
    assert [] == [line for line in (lines if columns < 80 else lines[:text]) if len(line) > columns]
    assert name in "".join(line.strip() for line in lines[:text])
    assert [f"test_wide.py::{name}"] == [line.split()[-1] for line in verbose if name in line]


def test_quiet_runs_print_less(run: Run, pytester: pytest.Pytester) -> None:
    """With `-q` the section is the table and the broken budgets, without the legend; with `-qq` it is
    the broken budgets alone, and where none is broken there is none.
    """
    pytester.makepyfile(
        spikes=SPIKES,
        test_good="def test_good(): pass",
        test_bad="""
            import pytest
            from spikes import touched

            @pytest.mark.max_peak_mib(1)
            def test_bad():
                touched(4).close()
        """,
    )

    heading, bad, good, counts, broken = section_of(run("--imu", "-q"))

    assert "peak  delta  total   time  test" == heading.strip()
    assert bad.endswith("test_bad.py::test_bad")
    assert good.endswith("test_good.py::test_good")
    assert "2 of 2 tests, largest peak first" == counts
    assert broken.startswith("test_bad.py::test_bad: peak ")
    assert [] == section_of(run("--imu", "-qq", "test_good.py"))
    [alone] = section_of(run("--imu", "-qq"))
    assert alone.startswith("test_bad.py::test_bad: peak ")


def test_verbose_run_shows_named_blocks_under_their_test(run: Run, pytester: pytest.Pytester) -> None:
    """With `-v` each block stands below its test, indented, with its own numbers; else it does not."""
    pytester.makepyfile(
        spikes=SPIKES,
        test_blocks="""
            from spikes import touched

            def test_loads(imu):
                with imu.measure("load"):
                    touched(8).close()
                with imu.measure("sum\\x1b[31m"):
                    pass

            def test_plain():
                pass
        """,
    )

    verbose = run("--imu", "-v")
    normal = run("--imu")

    assert [
        "test_blocks.py::test_loads",
        "  block load",
        r"  block sum\x1b[31m",
        "test_blocks.py::test_plain",
    ] == labels_of(verbose)
    test, load, total, _ = rows_of(verbose)
    assert pytest.approx([8, 8, 0], abs=0.5) == [test.peak_mib, load.peak_mib, total.peak_mib]
    assert "2 of 2 tests, largest peak first" in section_of(verbose)
    assert ["test_loads", "test_plain"] == names_of(normal)


@pytest.mark.parametrize(("colour", "start"), [("yes", RED), ("no", "")])
def test_colour_follows_pytest(run: Run, pytester: pytest.Pytester, colour: str, start: str) -> None:
    """Broken budgets are red with `--color=yes`; with `--color=no` no escape sequence is printed."""
    pytester.makepyfile(
        spikes=SPIKES,
        test_bad="""
            import pytest
            from spikes import touched

            @pytest.mark.max_peak_mib(1)
            def test_bad():
                touched(4).close()
        """,
    )

    result = run("--imu", f"--color={colour}")

    text = result.stdout.str()
    assert f"\n{start}test_bad.py::test_bad: peak " in text
    assert ("no" == colour) == ("\x1b" not in text)
    table = [line for line in result.outlines if line.endswith("s  test_bad.py::test_bad")]
    assert [False] == ["\x1b" in line for line in table]


@pytest.mark.parametrize(
    ("encoding", "umlaut", "cut"),
    [
        ("utf-8", "größe", "長い名前の終わり"),
        ("ascii", r"gr\xf6\xdfe", r"\u7d42\u308f\u308a"),
    ],
    ids=["utf-8", "ascii"],
)
def test_odd_ids_never_break_the_table(
    run: Run,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    *,
    encoding: str,
    umlaut: str,
    cut: str,
) -> None:
    """Control characters are escaped once, wide ones take two columns, and each row stays one line."""
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    pytester.makeini(
        "[pytest]\ndisable_test_id_escaping_and_forfeit_all_rights_to_community_support = true"
    )
    wide = "test_" + "長い名前" * 4 + "の終わり"
    pytester.makepyfile(
        test_größe=f"""
            import pytest

            @pytest.mark.parametrize(
                "text", ["red\\x1b[31m", "two\\nlines", "[brackets]", "back\\u202espace\\b", "größe"]
            )
            def test_id(text):
                pass

            def {wide}():
                pass
        """
    )

    result = run("--imu", "--imu-sort=name")

    lines = section_of(result)[:9]
    labels = labels_of(result)
    file = f"test_{umlaut}.py"
    assert [
        f"{file}::test_id[[brackets]]",
        rf"{file}::test_id[back\u202espace\x08]",
        f"{file}::test_id[{umlaut}]",
        rf"{file}::test_id[red\x1b[31m]",
        rf"{file}::test_id[two\nlines]",
    ] == labels[:-1]
    assert f"{file}::" == labels[-1]
    assert cut in "".join(line.strip() for line in lines[7:])
    assert [] == [line for line in lines[:-1] if terminal_columns(line) > 80]


def terminal_columns(line: str) -> int:
    """Return how many columns a line takes; of the characters used here, those from U+3000 take two."""
    return sum(2 if char >= "\u3000" else 1 for char in line)


def test_runs_without_a_measured_test_say_so(run: Run, pytester: pytest.Pytester) -> None:
    """An empty suite and one of skipped tests have one line to say; `--collect-only` has none."""
    pytester.makepyfile(
        test_empty="",
        test_skips="import pytest\n@pytest.mark.skip\ndef test_a(): pass",
    )

    empty = run("--imu", "test_empty.py")
    skipped = run("--imu", "test_skips.py")
    collected = run("--imu", "--collect-only")

    assert ["no test was measured"] == section_of(empty)
    assert pytest.ExitCode.NO_TESTS_COLLECTED == empty.ret
    assert ["no test was measured"] == section_of(skipped)
    assert pytest.ExitCode.OK == skipped.ret
    assert [] == section_of(collected)
    assert pytest.ExitCode.OK == collected.ret


# --- hand-made rows -----------------------------------------------------------------------------


@pytest.fixture
def settings(pytestconfig: pytest.Config) -> Settings:
    """Return the settings of a plain `--imu`, whatever this run itself was started with."""
    own = pytestconfig.stash[SETTINGS]
    return replace(own, off=False, report=True, top=10, sort="peak", min_mib=0.0)


def measured(
    peak_mib: float | None,
    *,
    delta_mib: float = 0.0,
    total_mib: float = 100.0,
    seconds: float = 0.25,
    source: Source = "kernel",
    reason: str | None = None,
) -> Measurement:
    """Return a measurement; without a peak it is one that could not be made."""
    before_mib = total_mib - delta_mib
    known = peak_mib is not None
    return Measurement(
        before_bytes=round(before_mib * MIB) if known else None,
        after_bytes=round(total_mib * MIB) if known else None,
        rss_peak_bytes=None if peak_mib is None else round((before_mib + peak_mib) * MIB),
        duration_ns=round(seconds * 1e9),
        source=source if known else "none",
        reason=reason,
    )


def row(nodeid: str, call: Measurement | None = None, **more: Measurement | None) -> Row:
    """Return the row of a test with these phases."""
    return Row(nodeid=nodeid, outcome="passed", setup=more.get("setup"), call=call)


def shown_nodeids(rows: Sequence[Row], settings: Settings) -> list[str]:
    """Return the ids of the rows that are shown, in their order."""
    entries = table.arrange(table.entries_of(rows), settings)
    return [entry.row.nodeid + entry.remarks for entry in entries]


@pytest.mark.parametrize(
    ("sort", "order"),
    [("peak", "xyz"), ("delta", "yzx"), ("total", "zyx"), ("time", "zxy"), ("name", "xzy")],
)
def test_every_sort_key_has_an_order_of_its_own(settings: Settings, sort: SortKey, order: str) -> None:
    """Rows that differ in everything are ordered by the number, or the name, that was asked for."""
    rows = [
        row("3 y", measured(2.0, delta_mib=3.0, total_mib=20.0, seconds=0.1)),
        row("2 z", measured(1.0, delta_mib=2.0, total_mib=30.0, seconds=0.3)),
        row("1 x", measured(3.0, delta_mib=1.0, total_mib=10.0, seconds=0.2)),
    ]

    shown = shown_nodeids(rows, replace(settings, sort=sort))

    assert list(order) == [nodeid[-1] for nodeid in shown]


@pytest.mark.parametrize("sort", ["peak", "delta", "total"])
def test_rows_without_numbers_come_last(settings: Settings, sort: SortKey) -> None:
    """What could not be measured sorts behind everything that could, also behind negative numbers."""
    rows = [
        row("unknown", measured(None)),
        row("gives_back", measured(0.0, delta_mib=-5.0, total_mib=1.0)),
        row("takes", measured(2.0, delta_mib=2.0, total_mib=3.0)),
    ]

    assert ["takes", "gives_back", "unknown"] == shown_nodeids(rows, replace(settings, sort=sort))


def test_rows_without_numbers_survive_the_smallest_peak(settings: Settings) -> None:
    """`--imu-min-mib` leaves out what is known to be small, and exactly MIB is not under MIB."""
    rows = [row("unknown", measured(None)), row("small", measured(0.9)), row("exact", measured(1.0))]

    assert ["exact", "unknown"] == shown_nodeids(rows, replace(settings, min_mib=1.0))


def test_reason_is_given_once_for_all_rows_without_numbers(settings: Settings) -> None:
    """Each reason for n/a stands in one line, with the number of its rows, and is escaped."""
    rows = [
        row("a", measured(None, reason="no /proc\x1b[2J")),
        row("b", measured(None, reason="no /proc\x1b[2J")),
        row("c", measured(None, reason="descriptor closed")),
    ]

    lines = section.report_lines(rows, settings, width=80, verbosity=0)

    assert [
        "peak  delta  total   time  test",
        " n/a    n/a    n/a  0.25s  a",
        " n/a    n/a    n/a  0.25s  b",
        " n/a    n/a    n/a  0.25s  c",
        "3 of 3 tests, largest peak first",
        "RSS in MiB: peak above start, delta kept, total at end",
        r"n/a in 2 rows: no /proc\x1b[2J",
        "n/a in 1 row: descriptor closed",
    ] == lines


def test_sampled_rows_carry_a_tilde_that_the_legend_explains(settings: Settings) -> None:
    """A lower bound is marked in its row; the legend names each source that was used, and no other."""
    exact, bound = row("exact", measured(2.0)), row("bound", measured(1.0, source="sampled"))

    mixed, sampled, kernel = (
        section.report_lines(rows, settings, width=80, verbosity=0, resolution_bytes=MIB // 4)
        for rows in ([exact, bound], [bound], [exact])
    )

    assert [
        "peak  delta  total   time  test",
        " 2.0    0.0  100.0  0.25s  exact",
        "~1.0    0.0  100.0  0.25s  bound",
    ] == mixed[:3]
    meaning = "RSS in MiB: peak above start, delta kept, total at end"
    assert [f"{meaning}; kernel peaks, to 0.3", "  ~ sampled, a lower bound"] == mixed[-2:]
    assert f"{meaning}; ~ sampled, a lower bound" == sampled[-1]
    assert f"{meaning}; kernel peaks, to 0.3" == kernel[-1]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (
            200,
            [
                (
                    "RSS in MiB: peak above start, delta kept, total at end; kernel peaks, to 0.5; "
                    "~ sampled, a lower bound; noise of an empty window ± 0.1 MiB"
                )
            ],
        ),
        (
            80,
            [
                "RSS in MiB: peak above start, delta kept, total at end; kernel peaks, to 0.5",
                "  ~ sampled, a lower bound; noise of an empty window ± 0.1 MiB",
            ],
        ),
        (
            40,
            [
                "RSS in MiB: peak above start, delta",
                "  kept, total at end",
                "  kernel peaks, to 0.5",
                "  ~ sampled, a lower bound",
                "  noise of an empty window ± 0.1 MiB",
            ],
        ),
    ],
)
def test_legend_fits_the_terminal(width: int, lines: list[str], settings: Settings) -> None:
    """What does not fit on the legend's line stands on the next one, in whole parts."""
    rows = [row("exact", measured(2.0)), row("bound", measured(1.0, source="sampled"))]

    said = section.lines(
        rows, settings, width=width, verbosity=0, noise_bytes=MIB // 10, resolution_bytes=MIB // 2
    )

    texts = [line.text for line in said]
    assert lines == texts[texts.index("2 of 2 tests, largest peak first") + 1 :]
    assert max(map(len, texts)) <= width


def test_worker_column_appears_where_a_row_has_a_worker(settings: Settings) -> None:
    """Under xdist each test names its worker; its blocks leave the column empty."""
    first, second = row("first", measured(2.0)), row("second", measured(1.0))
    first.worker, second.worker = "gw0", "gw11"
    first.blocks = (Block(name="load", measurement=measured(1.5)),)

    lines = section.report_lines([first, second], settings, width=80, verbosity=1)

    assert [
        "peak  delta  total   time  worker  test",
        " 2.0    0.0  100.0  0.25s     gw0  first",
        " 1.5    0.0  100.0  0.25s            block load",
        " 1.0    0.0  100.0  0.25s    gw11  second",
    ] == lines[:4]


@pytest.mark.parametrize(
    ("setup_mib", "call_mib", "labels"),
    [
        (3.0, 1.0, ["test (setup)", "test"]),
        (3.0, None, ["test (setup)"]),
        (1.0, 3.0, ["test"]),
        (1.0, 1.0, ["test"]),
        (0.04, 0.0, ["test"]),
        (0.0, None, []),
    ],
)
def test_setup_has_a_row_where_it_shows_more_than_its_test(
    settings: Settings, setup_mib: float, call_mib: float | None, labels: list[str]
) -> None:
    """A fixture that took visibly more than its test is shown; also where the test never began."""
    call = None if call_mib is None else measured(call_mib)

    assert labels == shown_nodeids([row("test", call, setup=measured(setup_mib))], settings)


@pytest.mark.parametrize(
    ("peaks_mib", "top", "min_mib", "said"),
    [
        ([1.0], 10, 0.0, "1 of 1 test, largest peak first"),
        ([3.0, 2.0, 1.0], 0, 0.0, "3 of 3 tests, largest peak first"),
        ([3.0, 2.0, 1.0], 2, 0.0, "2 of 3 tests, largest peak first; --imu-top=0 shows all"),
        ([3.0, 2.0, 1.0], 10, 2.5, "1 of 3 tests, largest peak first; 2 under 2.5 MiB left out"),
        (
            [3.0, 2.0, 1.0],
            1,
            2.0,
            "1 of 3 tests, largest peak first; 1 under 2 MiB left out; --imu-top=0 shows the rest",
        ),
    ],
)
def test_counts_line_says_what_is_left_out_and_why(
    settings: Settings, peaks_mib: list[float], top: int, min_mib: float, said: str
) -> None:
    """Rows that are too many and rows that are too small are told apart."""
    asked = replace(settings, top=top, min_mib=min_mib)
    entries = table.entries_of([row(f"test_{peak}", measured(peak)) for peak in peaks_mib])

    assert said == table.counts_line(table.arrange(entries, asked), entries, asked)


def test_rows_without_sizes_are_in_the_order_of_their_first_event(settings: Settings) -> None:
    """In a simulated run no peak is known: the largest counts come first, and the line says so."""
    counts = {"test_few": 5.0, "test_unknown": None, "test_many": 70.0}
    rows = [
        row(
            name,
            replace(
                measured(None, reason="simulated run", source="none"),
                counters=(CounterReading(event="cache-misses", value=value, source="callgrind"),),
            ),
        )
        for name, value in counts.items()
    ]
    entries = table.entries_of(rows)

    assert ["test_many", "test_few", "test_unknown"] == shown_nodeids(rows, settings)
    assert "3 of 3 tests, most cache-misses first" == table.counts_line(entries, entries, settings)


def test_quiet_lines_are_fewer_and_colours_tell_them_apart(settings: Settings) -> None:
    """Broken budgets are red, unchecked ones of passed tests yellow; with -q those are left
    below a table without a legend, with -qq the red ones alone.
    """
    broken, open_end = row("broken", measured(3.0)), row("open", measured(1.0))
    budget = Budget(metric="peak", limit_mib=1.0)
    broken.verdicts = (Verdict(budget=budget, outcome="broken", reason="peak 3.0 MiB is over"),)
    open_end.verdicts = (Verdict(budget=budget, outcome="unchecked", reason="no /proc"),)

    full = section.lines([broken, open_end], settings, width=80, verbosity=0)
    quiet = section.lines([broken, open_end], settings, width=80, verbosity=-1)
    very_quiet = section.lines([broken, open_end], settings, width=80, verbosity=-2)

    red = section.Line("broken: peak 3.0 MiB is over", "red")
    yellow = [
        section.Line("1 budget not checked: no /proc", "yellow"),
        section.Line("  open: max_peak_mib(1)", "yellow"),
    ]
    assert [red, *yellow] == [line for line in full if line.colour]
    assert [*full[:4], red, *yellow] == quiet
    assert [red] == very_quiet
    assert {"red": True} == red.markup


def test_unasked_section_holds_unchecked_budgets_alone(settings: Settings) -> None:
    """Without `--imu` a broken budget has its failure; one that was not checked is still named."""
    checked, open_end = row("checked", measured(3.0)), row("open", measured(1.0))
    budget = Budget(metric="delta", limit_mib=0.5, phase="all")
    checked.verdicts = (Verdict(budget=budget, outcome="broken", reason="delta 3.0 MiB is over"),)
    open_end.verdicts = (Verdict(budget=budget, outcome="unchecked", reason="no /proc"),)
    unasked = replace(settings, report=False)

    lines = section.lines([checked, open_end], unasked, width=80, verbosity=0)

    assert [
        "1 budget not checked: no /proc",
        '  open: max_delta_mib(0.5, phase="all")',
    ] == [line.text for line in lines]
    assert [] == section.lines([checked], unasked, width=80, verbosity=0)
