"""What `parse` makes of what `perf stat -I` prints as CSV, and of what it never would.

The recordings come from real perfs; see perf_recordings/README.md. The other rows are made by the
formats in perf's source, or printed by perf 6.1.
"""

from __future__ import annotations

import math
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_imu.core.counters.perf.output import (
    NOT_BELIEVED,
    NOT_COUNTED,
    NOT_SUPPORTED,
    EventSample,
    parse,
)

RECORDINGS = Path(__file__).parent / "perf_recordings"
NAMES = sorted(path.name for path in RECORDINGS.glob("*.csv"))
EVENTS = ("cache-misses", "page-faults", "task-clock")
# Every run tries the same texts: a failure is the code's, never the day's.
fuzz = settings(derandomize=True, database=None, deadline=None, max_examples=300)


def recorded(name: str) -> str:
    """Return a recording's text, with our separator, and with an offset where it is of a whole run."""
    text = (RECORDINGS / name).read_text(encoding="utf-8").replace(",", ";")
    if name.startswith("interval"):
        return text
    return "".join(f"     0.100000000;{line}" for line in text.splitlines(keepends=True))


def sample(
    offset_s: float, event: str, value: float | str, *, running: float | None = 100.0
) -> EventSample:
    """Return a sample; a value that is text is the reason why there is none."""
    return EventSample(
        offset_s=offset_s,
        event=event,
        value=None if isinstance(value, str) else value,
        reason=value if isinstance(value, str) else None,
        running_percent=running,
    )


def three(offset_s: float, faults: float | str, clock_ms: float | str) -> list[EventSample]:
    """Return one tick of the recordings made in a virtual machine without a PMU."""
    return [
        sample(offset_s, "cache-misses", NOT_SUPPORTED),
        sample(offset_s, "page-faults", faults),
        sample(offset_s, "task-clock", clock_ms),
    ]


RECORDED = {
    "interval_perf61_vm.csv": [
        *three(0.050102096, 56, 0.61),
        *three(0.100343048, NOT_COUNTED, NOT_COUNTED),
        *three(0.150489181, NOT_COUNTED, NOT_COUNTED),
        *three(0.200632364, NOT_COUNTED, NOT_COUNTED),
        *three(0.201466294, 1, 0.07),
    ],
    "total_perf61_vm.csv": three(0.1, 59, 0.55),
    "total_userspace.csv": [sample(0.1, "cache-misses", 38_705)],
    "total_hybrid.csv": [sample(0.1, "cache-misses", 10_508_716 + 6_839_402, running=1.0)],
}

# One row each, as (what follows the offset of 0.1 s, the only sample in it), parsed for EVENTS.
ROWS = {
    "a count": ("3183;;cache-misses;611941;50.00;;", sample(0.1, "cache-misses", 3183, running=50.0)),
    "none missed": ("0;;cache-misses;611941;100.00;;", sample(0.1, "cache-misses", 0)),
    "not counted": (
        "<not counted>;;page-faults;0;0.00;;",
        sample(0.1, "page-faults", NOT_COUNTED, running=0),
    ),
    "a clock": (
        "0.73;msec;task-clock:u;731267;99.50;0.009;CPUs utilized",
        sample(0.1, "task-clock", 0.73, running=99.5),
    ),
    "no metric": ("3183;;cache-misses;611941;50.00", sample(0.1, "cache-misses", 3183, running=50.0)),
    "no percent": ("3183;;cache-misses;611941;", sample(0.1, "cache-misses", 3183, running=None)),
    "ended as on Windows": ("3183;;cache-misses;1;100.00\r", sample(0.1, "cache-misses", 3183)),
    "the largest 64-bit count": (
        "18446744073709551615;;cache-misses;1;100.00",
        sample(0.1, "cache-misses", 2**64 - 1),
    ),
    "one more than 64 bits hold": (
        "18446744073709551616;;cache-misses;1;100.00",
        sample(0.1, "cache-misses", NOT_BELIEVED),
    ),
    "30 digits": (f"{'9' * 30};;cache-misses;1;100.00", sample(0.1, "cache-misses", NOT_BELIEVED)),
    "5000 digits": (f"{'9' * 5000};;cache-misses;1;100.00", sample(0.1, "cache-misses", NOT_BELIEVED)),
    "5000 decimals": (f"0.{'9' * 5000};;task-clock;1;100.00", sample(0.1, "task-clock", NOT_BELIEVED)),
}

NO_ROWS = {
    "nothing": "",
    "blank": "   \t ",
    "comment": "# started on Sun Nov 22 15:41:24 2026",
    "commented row": "#     0.100167119;3183;;cache-misses;611941;50.00",
    "chatter": "Events enabled",
    "an event nobody asked for": "     0.100000000;3183;;cache-references;611941;100.00;;",
    "a further metric": "     1.000000000;;;;;;;0.30;stalled cycles per insn",
    "negative": "     0.100000000;-5;;cache-misses;611941;100.00;;",
    "nan": "     0.100000000;nan;;cache-misses;611941;100.00;;",
    "inf": "     0.100000000;inf;;cache-misses;611941;100.00;;",
    "digits of another script": "     0.100000000;٣٤;;cache-misses;611941;100.00",
    "an exponent": "     0.100000000;1e5;;cache-misses;611941;100.00",
    "a decimal comma": "     0.100000000;0,49;msec;task-clock;611941;100.00",
    "a value that is no value": "     0.100000000;<not known>;;cache-misses;611941;100.00",
    "a value that is empty": "     0.100000000;;;cache-misses;0;100.00",
    "a column too many": "     0.100000000;1;2;3;cache-misses;1;100.00",
    "no value": "     0.100000000;cache-misses",
    "no time": "3183;;cache-misses;611941;100.00;;",
    "a time that is no offset": "nan;5;;task-clock;1;100.00",
    "another separator": "     0.100000000,3183,,cache-misses,611941,50.00",
    "an event of a CPU": "     0.050112839;CPU0;63;;page-faults;50245535;100.00;0.000;/sec",
    "an event of a socket": "     0.050117887;S0;2;62;;page-faults;100511942;100.00",
    "the summary behind intervals": "         summary;57;;page-faults;506563;100.00",
}

# (the name asked for, the name printed)
SAME_EVENT = [
    ("cache-misses", "cache-misses"),
    ("cache-misses", "cache-misses:u"),
    ("cache-misses", "cache-misses:k"),
    ("cache-misses", "cache-misses:uk"),
    ("cache-misses", "cache-misses:ppp"),
    ("cache-misses:u", "cache-misses:u"),
    ("cache-misses:pp", "cache-misses:ppu"),
    ("cache-misses:ku", "cache-misses:uk"),
    ("cache-misses", "cpu/cache-misses/"),
    ("cache-misses", "cpu/cache-misses/u"),
    ("cache-misses", "cpu_core/cache-misses/"),
    ("cache-misses", "cpu_atom/cache-misses/u"),
    ("cache-misses:u", "cpu_atom/cache-misses/u"),
    ("cache-misses:u", "cpu_core/cache-misses:u/"),
    ("cache-misses", "armv8_cortex_a53/cache-misses/"),
    ("cpu/cache-misses/", "cpu/cache-misses/"),
    ("cpu/cache-misses/", "cpu/cache-misses/u"),
    ("cpu_core/cache-misses/k", "cpu_core/cache-misses/uk"),
    ("cpu/event=0x2e/", "cpu/event=0x2e/u"),
    ("r01c2", "r01c2:u"),
    ("L1-dcache-load-misses", "L1-dcache-load-misses:u"),
    ("sched:sched_switch", "sched:sched_switch"),
]

OTHER_EVENT = [
    ("cache-misses", "cache-references"),
    ("cache-misses", "cache-misses-retired"),
    ("cache-misses", "L1-cache-misses"),
    ("cache-misses", "cache-misses:"),
    ("cache-misses", "cache-misses:nothing"),
    ("cache-misses", "cpu_core/cache-references/"),
    ("cache-misses", "/cache-misses"),
    ("cache-misses:u", "cache-misses:k"),
    ("cache-misses:u", "cache-misses"),
    ("cpu_core/cache-misses/", "cpu_atom/cache-misses/"),
    ("cpu_core/cache-misses/", "cache-misses"),
    ("sched", "sched:sched_switch"),
    ("cache-misses", ""),
]

# (the events asked for, the name printed, which of them it is)
CLOSEST_EVENT = [
    (["cache-misses", "cache-misses:u"], "cache-misses", "cache-misses"),
    (["cache-misses", "cache-misses:u"], "cache-misses:u", "cache-misses:u"),
    (["cache-misses:ku", "cache-misses:uk"], "cache-misses:ku", "cache-misses:ku"),
    (["cache-misses:u", "cache-misses:k"], "cpu_core/cache-misses/k", "cache-misses:k"),
    (["cpu/cache-misses/", "cache-misses:u"], "cpu/cache-misses/u", "cpu/cache-misses/"),
    (["cache-misses:u", "cache-misses"], "cpu_core/cache-misses/u", "cache-misses:u"),
    (["cache-misses:u", "cache-misses"], "cpu_core/cache-misses/", "cache-misses"),
    (
        ["cache-misses", "cpu_core/cache-misses/"],
        "cpu_core/cache-misses/u",
        "cpu_core/cache-misses/",
    ),
    (["cache-misses", "cpu_core/cache-misses/"], "cpu_atom/cache-misses/", "cache-misses"),
]

ATOM, CORE = "cpu_atom/cache-misses/", "cpu_core/cache-misses/"
# (the rows, as offset, value, event and percent; samples of cache-misses): which rows are one sample,
# and what it then says.
SUMS = {
    "parts of one interval": (
        [(1, 10, ATOM, 2), (1, 5, CORE, 98)],
        [sample(0.1, "cache-misses", 15, running=2)],
    ),
    "parts of two intervals": (
        [(1, 10, ATOM, 2), (1, 5, f"{CORE}u", 98), (2, 7, ATOM, 40), (2, 8, CORE, 60)],
        [sample(0.1, "cache-misses", 15, running=2), sample(0.2, "cache-misses", 15, running=40)],
    ),
    "a part that did not count": (
        [(1, "<not counted>", ATOM, 0), (1, 5, CORE, 98)],
        [sample(0.1, "cache-misses", 5, running=98)],
    ),
    "no part counted": (
        [(1, "<not supported>", ATOM, 100), (1, "<not counted>", CORE, 0)],
        [sample(0.1, "cache-misses", NOT_COUNTED, running=0)],
    ),
    "no part is supported": (
        [(1, "<not supported>", ATOM, 100), (1, "<not supported>", CORE, 100)],
        [sample(0.1, "cache-misses", NOT_SUPPORTED)],
    ),
    "a part that is no count": (
        [(1, "9" * 30, ATOM, 2), (1, 5, CORE, 98)],
        [sample(0.1, "cache-misses", NOT_BELIEVED, running=2)],
    ),
    "a part repeated": (
        [(1, 10, ATOM, 2), (1, 5, CORE, 98), (1, 10, f"{ATOM}u", 2)],
        [sample(0.1, "cache-misses", 15, running=2)],
    ),
    "a row repeated with another value": (
        [(1, 10, "cache-misses", 100), (1, 11, "cache-misses", 100)],
        [sample(0.1, "cache-misses", 10)],
    ),
    "repeated, and only the second counted": (
        [(1, value, "cache-misses", 100) for value in ("<not counted>", 10, "<not counted>")],
        [sample(0.1, "cache-misses", 10)],
    ),
    "the whole besides a part": (
        [(1, 10, ATOM, 2), (1, 12, "cache-misses", 100)],
        [sample(0.1, "cache-misses", 12)],
    ),
    "one event, two offsets, one value": (
        [(1, 10, "cache-misses", 100), (2, 10, "cache-misses", 100)],
        [sample(0.1, "cache-misses", 10), sample(0.2, "cache-misses", 10)],
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_every_recording_gives_its_expected_samples(name: str) -> None:
    """What real perfs printed is read to the last value."""
    assert RECORDED[name] == parse(recorded(name), events=EVENTS)


@pytest.mark.parametrize(("row", "expected"), ROWS.values(), ids=ROWS)
def test_every_row_is_read(row: str, expected: EventSample) -> None:
    """One row gives one sample."""
    assert [expected] == parse(f"     0.100000000;{row}\n", events=EVENTS)


@pytest.mark.parametrize("line", NO_ROWS.values(), ids=NO_ROWS)
def test_what_is_no_row_does_not_count(line: str) -> None:
    """Comments, chatter, garbage and values that cannot be counts give nothing."""
    assert [] == parse(line + "\n", events=EVENTS)


@pytest.mark.parametrize("line", NO_ROWS.values(), ids=NO_ROWS)
def test_what_is_no_row_does_no_harm_to_its_neighbours(line: str) -> None:
    """Chatter in the middle leaves the rows around it as they are."""
    rows = [f"     0.{number:09};{row}" for number, (row, _) in enumerate(ROWS.values())]
    text = f"\n{line}\n".join(["", *rows, ""])
    assert parse("\n".join([*rows, ""]), events=EVENTS) == parse(text, events=EVENTS)


def test_an_event_with_commas_is_read() -> None:
    """A raw event's own commas do not hide its name."""
    event = "cpu/event=0x2e,umask=0x41/"
    expected = [sample(0.1, event, 7)]
    assert expected == parse(f"     0.100000000;7;;{event}u;5;100.00;;\n", events=[event])


@pytest.mark.parametrize(("asked", "printed"), SAME_EVENT)
def test_a_printed_name_finds_its_asked_for_name(asked: str, printed: str) -> None:
    """Modifiers and PMUs that perf added are looked through."""
    samples = parse(f"0.100000000;7;;{printed};5;100.00\n", events=["instructions", asked])
    assert [(asked, 7)] == [(found.event, found.value) for found in samples]


@pytest.mark.parametrize(("asked", "printed"), OTHER_EVENT)
def test_a_printed_name_does_not_pass_for_another_event(asked: str, printed: str) -> None:
    """A name that differs in more than what perf adds is another event's."""
    assert [] == parse(f"0.100000000;7;;{printed};5;100.00\n", events=["instructions", asked])


@pytest.mark.parametrize(("asked", "printed", "expected"), CLOSEST_EVENT)
def test_of_several_fitting_events_the_closest_is_meant(
    asked: list[str], printed: str, expected: str
) -> None:
    """The exact name wins, then the one that names the PMU, then the most modifiers."""
    for events in (asked, asked[::-1]):
        (found,) = parse(f"0.100000000;7;;{printed};5;100.00\n", events=events)
        assert expected == found.event


@pytest.mark.parametrize(("rows", "expected"), SUMS.values(), ids=SUMS)
def test_parts_are_summed_and_repetitions_are_not(
    rows: list[tuple[int, object, str, int]], expected: list[EventSample]
) -> None:
    """Rows of different PMUs at one offset are one sample; equal rows are never added up."""
    lines = [f"0.{tenths}00000000;{value};;{name};5;{share}.00\n" for tenths, value, name, share in rows]
    assert expected == parse("".join(lines), events=["cache-misses"])


def test_samples_come_in_the_order_of_the_text() -> None:
    """The caller gets the ticks as they passed, and within a tick the order that perf printed."""
    expected = [(0.1, "page-faults"), (0.1, "cache-misses"), (0.2, "page-faults")]
    text = "".join(f"     {offset:.9f};1;;{event};5;100.00\n" for offset, event in expected)
    samples = parse(text, events=["cache-misses", "page-faults"])
    assert expected == [(found.offset_s, found.event) for found in samples]


def test_without_events_there_are_no_samples() -> None:
    """Nothing asked for, nothing found."""
    assert [] == parse("".join(map(recorded, NAMES)), events=[])


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_that_is_cut_anywhere_gives_its_whole_lines_alone(name: str) -> None:
    """At every length a growing file can have, the samples are those of its complete lines."""
    lines = recorded(name).splitlines(keepends=True)
    start = ""
    for line in lines:
        expected = parse(start, events=EVENTS)
        for length in range(len(line)):
            assert expected == parse(start + line[:length], events=EVENTS)
        start += line
    assert RECORDED[name] == parse(start, events=EVENTS)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "total_hybrid.csv"])
def test_a_growing_file_only_ever_gains_samples(name: str) -> None:
    """What a reader has seen stays as it was; only a part that joins its sum changes one."""
    lines = recorded(name).splitlines(keepends=True)
    seen = [parse("".join(lines[:count]), events=EVENTS) for count in range(len(lines) + 1)]
    for before, after in pairwise(seen):
        assert before == after[: len(before)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_the_lines_changes_no_sample(name: str, seed: int) -> None:
    """Shuffled lines give the same samples, sums included."""
    lines = recorded(name).splitlines(keepends=True)
    random.Random(seed).shuffle(lines)  # noqa: S311 - a shuffle to repeat, not a secret
    assert set(RECORDED[name]) == set(parse("".join(lines), events=EVENTS))


def assert_sound(samples: list[EventSample]) -> None:
    """Check what every sample promises: a finite count or a reason, and an event asked for."""
    keys = [(found.offset_s, found.event) for found in samples]
    assert len(set(keys)) == len(keys)
    for found in samples:
        assert found.event in EVENTS
        assert (found.value is None) == (found.reason in (NOT_SUPPORTED, NOT_COUNTED, NOT_BELIEVED))
        for number in (found.value, found.offset_s, found.running_percent):
            assert number is None or (math.isfinite(number) and number >= 0)


# Pieces of rows, so that the fuzz gets past the first check of a line.
_PIECES = st.sampled_from(
    (
        *("     0.1", "0.100000000", "5", "9" * 400, "-", "nan", "<not counted>", "<not supported>"),
        *("msec", "(50.00%)", "100.00", "#", " ", "\r", "\n", "/", ",", ";", ";;", "cpu_core/", ":u"),
        *EVENTS,
    )
)


@fuzz
@given(text=st.text())
def test_any_text_goes_in_without_an_exception(text: str) -> None:
    """Whatever is read, the parser returns, and what it returns is sound."""
    assert_sound(parse(text, events=EVENTS))


@fuzz
@given(pieces=st.lists(_PIECES | st.text(max_size=2)))
def test_any_pieces_of_rows_go_in_without_an_exception(pieces: list[str]) -> None:
    """Rows put together wrongly are no worse than noise."""
    assert_sound(parse("".join(pieces) + "\n", events=EVENTS))


@fuzz
@given(before=st.text(), after=st.text(), row=st.sampled_from(sorted(ROWS)))
def test_a_row_is_found_in_any_text(before: str, after: str, row: str) -> None:
    """Noise above and below a row does not hide it."""
    line, expected = ROWS[row]
    text = f"{before}\n     0.100000000;{line}\n{after}"
    assert expected in parse(text, events=EVENTS)


@fuzz
@given(
    name=st.sampled_from(NAMES),
    cut=st.integers(0, 1000),
    changes=st.lists(
        st.tuples(
            st.integers(0, 1000),
            st.sampled_from(b'0123456789,;.:/<>{}()[]"-#eEnaif \n\r\0\xff'),
        ),
        max_size=40,
    ),
    shuffled=st.randoms(use_true_random=False),
)
def test_mutated_recordings_give_sound_samples(
    name: str, cut: int, changes: list[tuple[int, int]], shuffled: random.Random
) -> None:
    """Real output with bytes replaced, lines shuffled and its end cut off gives only counts."""
    raw = bytearray(recorded(name).encode())
    for position, byte in changes:
        raw[position % len(raw)] = byte
    lines = raw.split(b"\n")
    shuffled.shuffle(lines)
    text = b"\n".join(lines)[:cut].decode(errors="replace")
    assert_sound(parse(text, events=EVENTS))


@fuzz
@given(name=st.text())
def test_any_name_can_be_asked_for(name: str) -> None:
    """An event name that perf would refuse is not found, and does not break the others."""
    events = [name, "cache-misses"]
    samples = parse("0.100000000;7;;cache-misses;5;100.00\n", events=events)
    assert [("cache-misses", 7)] == [(found.event, found.value) for found in samples]
