"""What is said of a command: exact texts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ipython_hooks import records, wording
from ipython_hooks.notes import SHELLS_OWN_NS, ChildrenNotes, Note, notes_on
from ipython_hooks.records import CommandRecord, largest
from ipython_hooks.repeat import Repeated
from pytest_imu.core.children.sampler import Memory
from pytest_imu.core.counters.source import CounterChoice
from pytest_imu.core.model import CounterReading, Measurement
from pytest_imu.core.units import MIB

ONES = Measurement(
    before_bytes=51_702_000,
    after_bytes=131_702_000,
    rss_peak_bytes=131_702_000,
    duration_ns=320_000_000,
    source="kernel",
)
BROKEN = Measurement(
    before_bytes=None,
    after_bytes=None,
    rss_peak_bytes=None,
    duration_ns=320_000_000,
    source="none",
    reason="OSError: no /proc",
)
MISSES = CounterReading(
    event="cache-misses", value=6655, per_second=8823.4, samples=(6273, 382), running_percent=100.0
)


@dataclasses.dataclass
class SetOptions:
    """The options as they are where nobody sets one."""

    decimals: int = 1
    command_width: int = 60
    style: str = "auto"
    min_mib: float | None = None
    raw_samples: bool = False
    trim: bool = True
    gc: bool = False
    live_interval_s: float = 0.5
    live_after_s: float = 2.0
    counters: CounterChoice = "auto"
    perf_idle_s: float = 60.0


def record(measurement: Measurement = ONES, **changes: Any) -> CommandRecord:
    """Return the record of a command; the changes are fields of it."""
    fields: dict[str, Any] = {"number": 2, "command": "a=np.ones(int(1e7))", "raised": False}
    return CommandRecord(measurement=measurement, **(fields | changes))


def line(one: CommandRecord, *, decimals: int = 1, command_width: int = 60) -> str:
    """Return the line for a command."""
    return records.ancestors_line(one, decimals=decimals, command_width=command_width)


def test_line() -> None:
    """The line is the ancestor's, to the letter."""
    expected = (
        "'a=np.ones(int(1e7))' used 76.3 MiB RAM in 0.32s, "
        "peaked 0.0 MiB above current, total RAM usage 125.6 MiB"
    )
    assert expected == line(record())


def test_short_line() -> None:
    """The short line has the design's peak, over what was there before; a record's text is it too, with
    its command.
    """
    expected = "+76.3 MiB · peak +76.3 · total 125.6 · 320 ms"
    assert expected == records.short_line(record(), decimals=1)
    assert f"'a=np.ones(int(1e7))'  {expected}" == repr(record())
    assert [repr(record())] == wording.last_lines(record(), SetOptions())
    gave_back = dataclasses.replace(ONES, after_bytes=40 * MIB, duration_ns=2_700_000_000)
    noted = record(gave_back, since_last_bytes=-33 * MIB, notes=("one", "two"))
    assert (
        "-9.3 MiB · peak +76.3 · total 40.0 (-33.0 since the last command) · 2.7 s · one · two"
        == records.short_line(noted, decimals=1)
    )
    sampled = dataclasses.replace(ONES, source="sampled", duration_ns=900_000)
    assert (
        "+76.29 MiB · peak +76.29 (sampled, a lower bound) · total 125.60 · <1 ms"
        == records.short_line(record(sampled), decimals=2)
    )
    assert "n/a: OSError: no /proc · 320 ms" == records.short_line(record(BROKEN), decimals=1)


@pytest.mark.parametrize(
    ("since_mib", "expected"),
    [
        (None, ""),
        (0.9, ""),
        (-0.9, ""),
        (-33.06, " (-33.1 since the last command)"),
        (1, " (+1.0 since the last command)"),
    ],
)
def test_what_came_between_the_commands(since_mib: float | None, expected: str) -> None:
    """A MiB or more that came between two commands stands behind the total that it is in."""
    since_bytes = None if since_mib is None else round(since_mib * MIB)
    moved = line(record(since_last_bytes=since_bytes))
    assert f"total RAM usage 125.6 MiB{expected}" == moved[moved.index("total") :]


@pytest.mark.parametrize(
    ("columns", "cut"),
    [
        (None, 60),
        (200, 60),
        (
            len(" used 76.3 MiB RAM in 0.32s, peaked 0.0 MiB above current, total RAM usage 125.6 MiB")
            + 32,
            30,
        ),
        (80, 60),  # it needs two rows in any case
    ],
)
def test_line_stands_on_one_row_where_it_can(columns: int | None, cut: int) -> None:
    """The command is cut to what is left of the row, but not to nothing."""
    long = record(command="x" * 100)
    found = records.ancestors_line(long, decimals=1, command_width=60, columns=columns)
    command, _, rest = found.partition(" used ")
    assert cut == len(command.strip("'"))
    assert columns in (None, 80) or len(found) <= columns
    assert rest.startswith("76.3 MiB RAM")


@pytest.mark.parametrize(
    ("changes", "is_under"),
    [
        ({}, False),
        ({"measurement": dataclasses.replace(ONES, rss_peak_bytes=None)}, False),
        ({"small": True}, True),
        ({"small": True, "raised": True, "notes": ("the command raised",)}, True),
        ({"small": True, "since_last_bytes": -MIB}, False),
        ({"small": True, "noted_bytes": MIB}, False),
        ({"small": True, "counters": (MISSES,)}, False),
    ],
)
def test_small_commands(changes: dict[str, Any], is_under: bool) -> None:  # noqa: FBT001 - pytest passes it
    """A command is small where all that there is to say of it is; what is unknown or counted is not."""
    fields = dict(changes)
    small = dataclasses.replace(ONES, before_bytes=ONES.after_bytes, counters=fields.pop("counters", ()))
    if fields.pop("small", False):
        fields["measurement"] = small
    one = record(**fields)
    assert is_under == one.is_under(MIB)
    assert not one.is_under(0)


def test_decimals() -> None:
    """As many decimals as are asked for, in all three sizes."""
    expected = (
        "'a=np.ones(int(1e7))' used 76.2939 MiB RAM in 0.32s, "
        "peaked 0.0000 MiB above current, total RAM usage 125.6008 MiB"
    )
    assert expected == line(record(), decimals=4)


def test_negative_use_and_peak() -> None:
    """What gave memory back used a negative amount; its peak stands above where it ended."""
    given_back = Measurement(
        before_bytes=125 * MIB,
        after_bytes=49 * MIB,
        rss_peak_bytes=126 * MIB,
        duration_ns=100_000_000,
        source="kernel",
    )
    assert (
        "'del a' used -76.0 MiB RAM in 0.10s, peaked 77.0 MiB above current, total RAM usage 49.0 MiB"
    ) == line(record(given_back, command="del a"))


def test_sampled_peak_says_so() -> None:
    """A peak from samples is called a lower bound, where it stands."""
    sampled = dataclasses.replace(ONES, source="sampled")
    assert "peaked 0.0 MiB above current (sampled, a lower bound), total" in line(record(sampled))


def test_unreadable_is_not_zero() -> None:
    """A command whose memory could not be read says n/a, and why."""
    assert "'a=np.ones(int(1e7))' n/a in 0.32s: OSError: no /proc" == line(record(BROKEN))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("pass", "'pass'"),
        ("  \npass  \n", "'pass'"),
        ("a = 1\n\n  b = 2", "'a = 1 ⏎ b = 2'"),
        ("x = 'quoted'", "'x = 'quoted''"),
        ("x = '\x1b[31m'", r"'x = '\x1b[31m''"),
        ("größe = '😀'", "'größe = '😀''"),
        ("x" * 60, f"'{'x' * 60}'"),
        ("a" * 30 + "b" * 31, f"'{'a' * 28}...{'b' * 29}'"),
    ],
)
def test_command_is_one_line_of_at_most_60(command: str, expected: str) -> None:
    """A command stands as typed, on one line, without control characters, cut in the middle past 60."""
    assert expected == records.command_text(command, 60)


def test_notes_follow_the_numbers() -> None:
    """What makes the numbers mislead comes after them, most important first."""
    kept = dataclasses.replace(
        ONES,
        duration_ns=10**9,
        reusable_bytes=120 * MIB,
        tracer="coverage",
        had_children=True,
    )
    children = Note("2 child processes hold 3.0 MiB, not counted", 3 * MIB)
    notes = notes_on(record(kept, raised=True), cpu_ns=10**9, held_bytes=76 * MIB, children=children)
    assert (
        Note("the command raised, its traceback keeps 76.0 MiB (%imu free lets go)", 76 * MIB),
        Note("reused up to 120.0 MiB kept from before", 120 * MIB),
        Note("traced by coverage, the numbers include its memory"),
        children,
    ) == notes
    assert line(record(notes=("one", "two"))).endswith("total RAM usage 125.6 MiB; one; two")
    nothing = dataclasses.replace(ONES, source="none", reason="simulated run")
    assert line(record(nothing, notes=("the command raised",))).endswith(
        ": simulated run; the command raised"
    )


@pytest.mark.parametrize(
    ("used_bytes", "cpu_ns", "reusable_bytes", "expected"),
    [
        (0, 10**9, None, None),
        (0, 10**9, 5 * MIB - 1, None),
        (0, 10**9, 5 * MIB, 5 * MIB),
        (0, SHELLS_OWN_NS, 400 * MIB, None),  # `pass` fills nothing, however long it is waited for
        (100 * MIB, 10**9, 9 * MIB, None),  # less than a tenth of the peak
        (100 * MIB, 10**9, 10 * MIB, 10 * MIB),
        (0, SHELLS_OWN_NS + 10**7, 400 * MIB, 16 * 2**30 // 100),  # what 10 ms can fill
    ],
)
def test_reuse_is_noted_only_where_it_matters(
    used_bytes: int, cpu_ns: int, reusable_bytes: int | None, expected: int | None
) -> None:
    """Reuse is noted from 5 MiB and a tenth of the peak up, as much as the command can have touched."""
    used = Measurement(
        before_bytes=100 * MIB,
        after_bytes=100 * MIB + used_bytes,
        rss_peak_bytes=100 * MIB + used_bytes,
        duration_ns=10**10,
        source="kernel",
        reusable_bytes=reusable_bytes,
    )
    notes = notes_on(record(used), cpu_ns=cpu_ns)
    assert ([] if expected is None else [expected]) == [note.size_bytes for note in notes]


def test_small_traceback_is_not_spoken_of() -> None:
    """What a traceback keeps is said from a MiB up."""
    [note] = notes_on(record(raised=True), cpu_ns=0, held_bytes=MIB - 1)
    assert "the command raised" == note.text


def test_children_are_told_of_once() -> None:
    """Children are told of as they come, with what they hold; those that have ended are where they came
    and went in the command; nothing is said where nothing changed, or where those told of have gone.
    """
    living: list[Memory] = []
    children = ChildrenNotes(lambda: lambda: living)
    told = []
    two = [Memory(10 * MIB, is_pss=True), Memory(20 * MIB, is_pss=True)]
    for had, now in ((True, two), (False, two), (True, two), (True, two[:1]), (True, []), (None, two)):
        living[:] = now
        told.append(children.after(had_children=had))
    living[:] = [Memory(10 * MIB, is_pss=False)]
    told.append(children.after(had_children=True))
    ended = Note("had child processes that have ended, not counted")
    assert [
        *(Note("2 child processes hold 30.0 MiB, not counted", 30 * MIB), None, ended, None, None, None),
        Note("a child process holds at most 10.0 MiB, not counted", 10 * MIB),
    ] == told


def test_perf_line_raw() -> None:
    """With all samples the line is the ancestor's, to the letter."""
    expected = "perf value for cache-misses averages to 8,823/second, raw samples: [6273.0, 382.0]"
    assert expected == wording.counter_line(MISSES, raw=True)


def test_perf_line_sparkline() -> None:
    """Without, it says the exact count and draws the samples."""
    expected = "perf value for cache-misses averages to 8,823/second, 6,655 in all, samples: █▁"
    assert expected == wording.counter_line(MISSES, raw=False)


@pytest.mark.parametrize("raw", [True, False])
def test_perf_line_without_a_value(raw: bool) -> None:  # noqa: FBT001 - pytest passes it
    """What was not counted has no line among the numbers; why is said elsewhere, once."""
    uncounted = CounterReading(event="cache-misses", value=None, reason="not supported")
    assert None is wording.counter_line(uncounted, raw=raw)
    counted = dataclasses.replace(ONES, counters=(uncounted, MISSES))
    lines = wording.report_lines(record(counted), SetOptions(raw_samples=raw), style="ancestor")
    assert [line(record()), wording.counter_line(MISSES, raw=raw)] == lines


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ((), "none"),
        ((0,), "▁"),
        ((0, 0), "▁▁"),
        ((7,), "█"),
        (range(8), "▁▂▃▄▅▆▇█"),
        ((1,) * 20, "█" * 20),
        ((0, 0) * 10 + (8, 8) * 10, "▁" * 10 + "█" * 10),
        ((0, 8, 0), "▁█▁"),
        ((0,) * 20 + (4,), "▁" * 10 + "█"),  # shares of two, the last one is a single sample
    ],
)
def test_sparkline(samples: tuple[float, ...], expected: str) -> None:
    """Samples are at most twenty bars, each the mean of its share, the highest one full."""
    assert expected == wording.sparkline(samples)


def test_history_table() -> None:
    """The table has the number, used, peak, time and command, sizes in MiB, n/a where unreadable."""
    records = [
        record(),
        record(command="b = 1\nc = 2", number=None),
        record(BROKEN, command="broken", number=10),
    ]
    assert wording.history_table(records, SetOptions()).splitlines() == [
        "number  used  peak   time  command",
        "     2  76.3  76.3  0.32s  'a=np.ones(int(1e7))'",
        "        76.3  76.3  0.32s  'b = 1 ⏎ c = 2'",
        "    10   n/a   n/a  0.32s  'broken'",
        "(MiB; peak: on top of what was there)",
    ]


@pytest.mark.parametrize(("columns", "width"), [(40, 11), (80, 51), (200, 60), (None, 60)])
def test_history_table_fits(columns: int | None, width: int) -> None:
    """In a terminal of 40 columns or more no row is broken, and no command is cut for nothing."""
    table = wording.history_table([record(command="x" * 100)], SetOptions(), columns=columns)
    command = table.splitlines()[1].rpartition("  ")[2]
    assert width == len(command.strip("'"))


def test_empty_history() -> None:
    """Before the first command there is no table."""
    assert "no command was measured yet" == wording.history_table([], SetOptions())


def test_html_is_escaped() -> None:
    """Nothing that was typed becomes part of the page."""
    page = wording.quiet_html([line(record(command="x = '<script>alert(1)</script>' & \"y\"")), "2"])
    assert "<script>" not in page
    assert "x = &#x27;&lt;script&gt;alert(1)&lt;/script&gt;&#x27; &amp; &quot;y&quot;" in page
    assert page.startswith("<div ")
    assert page.endswith(" MiB<br>2</div>")


def test_record_is_a_row() -> None:
    """The plain form is flat, in MiB and seconds, with a column for each event."""
    counted = dataclasses.replace(ONES, counters=(MISSES,))
    assert {
        "number": 2,
        "cell_id": "abc",
        "command": "a=np.ones(int(1e7))",
        "began": "2001-09-09T01:46:40.123+00:00",
        "used_mib": 80_000_000 / MIB,
        "peak_mib": 80_000_000 / MIB,
        "above_current_mib": 0.0,
        "since_last_mib": None,
        "total_mib": 131_702_000 / MIB,
        "seconds": 0.32,
        "source": "kernel",
        "raised": True,
        "notes": "one; two",
        "names": "",
        "cache-misses": 6655,
    } == record(
        counted,
        raised=True,
        notes=("one", "two"),
        cell_id="abc",
        began_ns=1_000_000_000_123_456_789,
    ).to_dict()


def test_unreadable_row() -> None:
    """In a row too, what could not be read is None and not 0."""
    row = record(BROKEN).to_dict()
    assert [None] * 4 == [row[key] for key in ("used_mib", "peak_mib", "above_current_mib", "total_mib")]


def test_largest() -> None:
    """The largest come first, the unreadable last, and equals in their order."""
    small = record(dataclasses.replace(ONES, after_bytes=60_000_000), command="small")
    first, second, broken = record(command="1"), record(command="2"), record(BROKEN)
    records = [broken, small, first, second]
    assert [first, second, small] == largest(records, by="delta_bytes", count=3)


def repeated(*used_mib: int, counters: tuple[CounterReading, ...] = ()) -> Repeated:
    """Return runs that used so much, in as many tenths of a second."""
    runs = tuple(
        Measurement(
            before_bytes=0,
            after_bytes=used * MIB,
            rss_peak_bytes=2 * used * MIB,
            duration_ns=used * 100_000_000,
            source="kernel",
            counters=counters,
        )
        for used in used_mib
    )
    return Repeated("a <b>", runs)


def test_repeated_says_median_and_spread() -> None:
    """Several runs are their median and their spread; one run is itself."""
    assert (
        "runs 3\nused 2.0 (1.0 to 9.0) MiB\npeak 4.0 (2.0 to 18.0) MiB\n"
        "time 0.2000 (0.1000 to 0.9000) s\ncache-misses 6,655 (6,655 to 6,655)"
    ) == repr(repeated(9, 1, 2, counters=(MISSES,)))
    nothing = dataclasses.replace(ONES, before_bytes=MIB, after_bytes=MIB - 4096)
    assert "used 0.0 MiB" in repr(Repeated("a", (nothing,)))
    assert "runs 1\nused 3.0 MiB\npeak 6.0 MiB\ntime 0.3000 s" == repr(repeated(3))
    assert "used 2.5 (1.0 to 9.0) MiB" in repr(repeated(9, 1, 2, 3))


def test_repeated_without_values() -> None:
    """What could not be read or counted is n/a, with its reason."""
    uncounted = CounterReading(event="cache-misses", value=None, reason="no PMU <here>")
    broken = Repeated("a", (dataclasses.replace(BROKEN, counters=(uncounted,)),))
    assert "runs 1\nused n/a\npeak n/a\ntime 0.3200 s\ncache-misses n/a: no PMU <here>" == repr(broken)
    assert "<td>n/a: no PMU &lt;here&gt;</td>" in broken._repr_html_()


def test_repeated_html_has_the_same_rows() -> None:
    """The HTML table has the rows of the text, a header cell and a value each."""
    page = repeated(3)._repr_html_()
    assert page.startswith("<table><tr><th style='text-align:left'>runs</th><td>1</td></tr>")
    assert 4 == page.count("<tr>")


def test_names_stand_behind_what_was_used() -> None:
    """The names that hold it are in brackets; long ones are cut, and what cannot be shown is escaped."""
    grown = (("a", 40_000_000), ("b\x1b" + "c" * 40, 30_000_000))
    text = line(dataclasses.replace(record(), grown=grown))
    assert " used 76.3 MiB RAM (a 38.1, b\\x1bcccccccc...cccccccccccccc 28.6) in 0.32s, peaked " in text
