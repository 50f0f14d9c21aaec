"""What `parse` makes of everything `perf stat` has printed since 3.11, and of what it never would.

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

from pytest_imu.core.counters.perf.output import NOT_COUNTED, NOT_SUPPORTED, EventSample, parse

RECORDINGS = Path(__file__).parent / "perf_recordings"
NAMES = sorted(path.name for path in RECORDINGS.iterdir() if path.suffix != ".md")
EVENTS = (
    "cache-misses",
    "page-faults",
    "task-clock",
    "cpu-cycles",
    "dTLB-load-misses",
    "stalled-cycles-frontend",
)
# Every run tries the same texts: a failure is the code's, never the day's.
fuzz = settings(derandomize=True, database=None, deadline=None, max_examples=300)


def recorded(name: str) -> str:
    """Return a recording's text; bytes that are no UTF-8 would be a broken copy."""
    return (RECORDINGS / name).read_text(encoding="utf-8")


def sample(
    offset_s: float | None,
    event: str,
    value: float | str | None,
    *,
    unit: str = "",
    running: float | None = None,
) -> EventSample:
    """Return a sample; a value that is text is the reason why there is none."""
    return EventSample(
        offset_s=offset_s,
        event=event,
        value=None if isinstance(value, str) else value,
        reason=value if isinstance(value, str) else None,
        unit=unit,
        running_percent=running,
    )


def three(
    offset_s: float | None,
    faults: float | str,
    clock_ms: float | str,
    running: float | None = 100.0,
) -> list[EventSample]:
    """Return one tick of the recordings made in a virtual machine without a PMU."""
    return [
        sample(offset_s, "cache-misses", NOT_SUPPORTED, running=running),
        sample(offset_s, "page-faults", faults, running=running),
        sample(offset_s, "task-clock", clock_ms, unit="msec", running=running),
    ]


RECORDED = {
    "interval_comments.txt": [sample(1.006223197, "dTLB-load-misses", 1_153_457)],
    "interval_paused.txt": [
        sample(1.001101062, "cpu-cycles", NOT_COUNTED),
        sample(2.002994944, "cpu-cycles", NOT_COUNTED),
        sample(4.993808464, "cpu-cycles", 3_124_246),
        sample(5.008597004, "cpu-cycles", 3_325_624),
        sample(6.010387483, "cpu-cycles", 83_472_992),
    ],
    "interval_perf311.txt": [
        sample(0.100167119, "cache-misses", 3183),
        sample(0.200354348, "cache-misses", 4045),
    ],
    "interval_perf311_four.txt": [
        sample(0.100173796, "cache-misses", 2761),
        sample(0.200387519, "cache-misses", 4232),
        sample(0.300540762, "cache-misses", 5277),
        sample(0.400778748, "cache-misses", 3916),
    ],
    "interval_stalled_perf311.txt": [
        sample(3.501390851, "stalled-cycles-frontend", 471_219_787),
        sample(14.005319456, "stalled-cycles-frontend", 2_249_115),
    ],
    "interval_perf61_vm.txt": [
        *three(0.050137894, 56, 0.49, None),
        *three(0.100385071, NOT_COUNTED, NOT_COUNTED, None),
        *three(0.150535401, NOT_COUNTED, NOT_COUNTED, None),
        *three(0.203901072, 1, 0.06, None),
    ],
    "interval_perf61_vm.csv": [
        *three(0.050102096, 56, 0.61),
        *three(0.100343048, NOT_COUNTED, NOT_COUNTED),
        *three(0.150489181, NOT_COUNTED, NOT_COUNTED),
        *three(0.200632364, NOT_COUNTED, NOT_COUNTED),
        *three(0.201466294, 1, 0.07),
    ],
    "interval_perf61_vm.json": [
        *three(0.050125066, 56, 0.564767),
        *three(0.100362433, NOT_COUNTED, NOT_COUNTED),
        *three(0.150539301, NOT_COUNTED, NOT_COUNTED),
        *three(0.200713823, NOT_COUNTED, NOT_COUNTED),
        *three(0.201273100, 1, 0.052553),
    ],
    "total_perf61_vm.csv": three(None, 59, 0.55),
    "total_userspace.csv": [sample(None, "cache-misses", 38_705, running=100.0)],
    "total_hybrid.csv": [sample(None, "cache-misses", 10_508_716 + 6_839_402, running=1.0)],
    "total_metrics.json": [sample(None, "cache-misses", 1312, running=100.0)],
}

# One row each, as (line, the only sample in it), parsed for EVENTS.
ROWS = {
    # perf 3.11 to 3.13, builtin-stat.c: no unit, no running time.
    "plain 3.11 interval": (
        "     0.100167119              3,183 cache-misses             ",
        sample(0.100167119, "cache-misses", 3183),
    ),
    "plain 3.11 not counted": (
        "     0.100167119      <not counted> cache-misses            ",
        sample(0.100167119, "cache-misses", NOT_COUNTED),
    ),
    "plain 3.11 clock": (
        "          0.611941 task-clock                #    0.012 CPUs utilized          ",
        sample(None, "task-clock", 0.611941),
    ),
    "plain 3.11 scaled": (
        "             2,761 cache-misses              #    4.321 % of all cache refs     [ 5.10%]",
        sample(None, "cache-misses", 2761, running=5.1),
    ),
    "CSV 3.11 interval": (
        "     0.100167119,3183,cache-misses",
        sample(0.100167119, EVENTS[0], 3183),
    ),
    "CSV 3.11 total": ("3183,cache-misses", sample(None, "cache-misses", 3183)),
    "CSV 3.11 not counted": ("<not counted>,cache-misses", sample(None, EVENTS[0], NOT_COUNTED)),
    "CSV 3.11 repeated": ("3183,cache-misses,1.01%", sample(None, "cache-misses", 3183)),
    # perf 4.x: a unit, the clock's own unit behind its name, running time in CSV, no metrics yet.
    "plain 4.x clock": (
        "          0.611941      task-clock (msec)         #    0.612 CPUs utilized          ",
        sample(None, "task-clock", 0.611941, unit="msec"),
    ),
    "plain 4.x scaled": (
        "             2,761      cache-misses              #    4.321 % of all  (50.00%)",
        sample(None, "cache-misses", 2761, running=50.0),
    ),
    "CSV 4.x interval": (
        "     0.100167119,3183,,cache-misses,611941,50.00",
        sample(0.100167119, "cache-misses", 3183, running=50.0),
    ),
    "CSV 4.x total": (
        "3183;;cache-misses;611941;50.00",
        sample(None, EVENTS[0], 3183, running=50.0),
    ),
    "CSV 4.x clock": (
        "0.611941,,task-clock,611941,100.00",
        sample(None, "task-clock", 0.611941, running=100.0),
    ),
    # perf 6.1, as it printed them.
    "plain 6.1 repeated": (
        "              0.59 msec task-clock:u        #    0.007 CPUs utilized      ( +-  3.78% )",
        sample(None, "task-clock", 0.59, unit="msec"),
    ),
    "plain repeated and scaled": (
        "                58      page-faults         #   99.48 K/sec  ( +-  1.55% )  (33.30%)",
        sample(None, "page-faults", 58, running=33.3),
    ),
    "plain not counted, never scheduled": (
        "     0.050137894      <not counted>      cache-misses                         (0.00%)",
        sample(0.050137894, "cache-misses", NOT_COUNTED, running=0.0),
    ),
    "CSV 6.1 repeated": (
        "57,,page-faults,1.01%,731267,100.00,78.576,K/sec",
        sample(None, "page-faults", 57, running=100.0),
    ),
    "CSV 6.1 repeated, with semicolons": (
        "0.73;msec;task-clock:u;6.71%;731267;99.50;0.009;CPUs utilized",
        sample(None, "task-clock", 0.73, unit="msec", running=99.5),
    ),
    "CSV 6.1 with a control group": (
        "<not counted>,,page-faults,/,0,100.00,,",
        sample(None, "page-faults", NOT_COUNTED, running=100.0),
    ),
    "JSON 6.1 repeated": (
        (
            '{"counter-value" : "58.000000", "unit" : "", "event" : "page-faults", '
            '"variance" : 0.57, "event-runtime" : 606702, "pcnt-running" : 100.00, '
            '"metric-value" : 94.855092, "metric-unit" : "K/sec"}'
        ),
        sample(None, "page-faults", 58, running=100.0),
    ),
    # perf 6.x JSON: numbers where others have strings, no metric, nan, and junk behind the end.
    "JSON with numbers": (
        (
            '{"interval" : 1.5, "counter-value" : 58.000000, "unit" : "", "event" : "page-faults", '
            '"event-runtime" : 606702, "pcnt-running" : 99.50}'
        ),
        sample(1.5, "page-faults", 58, running=99.5),
    ),
    "JSON with strings": (
        '{"interval":"1.5","counter-value":"58","event":"page-faults","pcnt-running":"99.50"}',
        sample(1.5, "page-faults", 58, running=99.5),
    ),
    "JSON with a metric that is nan": (
        (
            '{"counter-value" : "58.000000", "unit" : "", "event" : "page-faults", '
            '"event-runtime" : 1, "pcnt-running" : 100.00, "metric-value" : nan, '
            '"metric-unit" : "(null)"}'
        ),
        sample(None, "page-faults", 58, running=100.0),
    ),
    "JSON with junk behind it": (
        (
            '{"interval" : 0.5, "counter-value" : "58.000000", "event" : "page-faults", '
            '"pcnt-running" : 100.00, "metric-value" : -inf, "metric-unit" : ""}}, {"x" : 1'
        ),
        sample(0.5, "page-faults", 58, running=100.0),
    ),
    # Numbers.
    "a small number has no comma": ("  7 cache-misses", sample(None, "cache-misses", 7)),
    "none is none missed": (
        "0,,cache-misses,611941,100.00,,",
        sample(None, EVENTS[0], 0, running=100),
    ),
    "grouped with decimals": (
        "  1,234.56 msec task-clock",
        sample(None, EVENTS[2], 1234.56, unit="msec"),
    ),
    "the largest 64-bit count": (
        "18446744073709551615,,cache-misses,1,100.00",
        sample(None, "cache-misses", 2.0**64, running=100.0),
    ),
    "ended as on Windows": ("3183,,cache-misses\r", sample(None, "cache-misses", 3183)),
}

NO_ROWS = {
    "nothing": "",
    "blank": "   \t ",
    "comment": "# started on Sun Nov 22 15:41:24 2026",
    "header": "#           time             counts unit events",
    "commented row": "#     0.100167119,3183,,cache-misses,611941,50.00",
    "commented JSON": '# {"counter-value" : "5", "event" : "cache-misses"}',
    "chatter": "Events enabled",
    "more chatter": "Events disabled",
    "title": " Performance counter stats for process id '4711':",
    "time elapsed": "       0.081230660 seconds time elapsed",
    "a sentence": " 12 cache-misses were seen",
    "an event nobody asked for": "3183,,cache-references,611941,100.00,,",
    "an event whose name only begins alike": "  3,183 cache-misses-retired",
    "an event of another name, in JSON": '{"counter-value" : "5", "event" : "cycles"}',
    "a further metric, plain": "     1.000000000         #    0.30  stalled cycles per insn",
    "a further metric, CSV": "     1.000000000,,,,,,,0.30,stalled cycles per insn",
    "a further metric, JSON": '{"interval" : 1.0, "metric-value" : "0.3", "metric-unit" : "x"}',
    "negative, plain": "  -5 cache-misses",
    "negative, CSV": "-5,,cache-misses,611941,100.00,,",
    "negative, JSON": '{"counter-value" : "-5.000000", "event" : "cache-misses"}',
    "nan, plain": "  nan cache-misses",
    "nan, CSV": "nan,,cache-misses,611941,100.00,,",
    "nan, JSON": '{"counter-value" : nan, "event" : "cache-misses"}',
    "inf, plain": "  inf cache-misses",
    "inf, CSV": "inf,,cache-misses,611941,100.00,,",
    "inf, JSON": '{"counter-value" : "inf", "event" : "cache-misses"}',
    "so many digits that float() would say inf": "9" * 400 + ",,cache-misses,611941,100.00",
    "digits of another script": "٣٤,,cache-misses,611941,100.00",
    "an exponent": "1e5,,cache-misses,611941,100.00",
    "a decimal comma": "  0,49 msec task-clock",
    "a value that is no value": "<not known>,,cache-misses,611941,100.00",
    "a value that is empty": ",,cache-misses,0,100.00",
    "a column too many": "1,2,3,cache-misses",
    "no value": "cache-misses",
    "no value, only an offset": "0.100167119,cache-misses",
    "an interval without time": '{"interval" : nan, "counter-value" : "5", "event" : "task-clock"}',
    "no event, JSON": '{"counter-value" : "5"}',
    "an event of a CPU, plain": "     0.050104347 CPU0                       63      page-faults",
    "an event of a CPU, CSV": "     0.050112839,CPU0,63,,page-faults,50245535,100.00,0.000,/sec",
    "an event of a CPU, JSON": '{"cpu" : "0", "counter-value" : "63", "event" : "page-faults"}',
    "an event of a socket, CSV": "     0.050117887,S0,2,62,,page-faults,100511942,100.00",
    "the summary behind intervals, CSV": "         summary,57,,page-faults,506563,100.00",
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
# (text, samples of cache-misses): which rows are one sample, and what it then says.
SUMS = {
    "parts of one interval": (
        f"     0.100000000,10,,{ATOM},5,2.00,,\n     0.100000000,5,,{CORE},9,98.00,,\n",
        [sample(0.1, "cache-misses", 15, running=2.0)],
    ),
    "parts of two intervals": (
        (
            f"     0.100000000,10,,{ATOM},5,2.00,,\n     0.100000000,5,,{CORE},9,98.00,,\n"
            f"     0.200000000,7,,{ATOM},5,40.00,,\n     0.200000000,8,,{CORE},9,60.00,,\n"
        ),
        [
            sample(0.1, "cache-misses", 15, running=2.0),
            sample(0.2, "cache-misses", 15, running=40.0),
        ],
    ),
    "parts of two intervals, plain": (
        (
            f" 0.100000000    1,000      {ATOM}     (2.00%)\n"
            f" 0.100000000        5      {CORE}:u  (98.00%)\n"
            f" 0.200000000        7      {ATOM}\n"
            f" 0.200000000  <not counted>      {CORE}  (0.00%)\n"
        ),
        [sample(0.1, "cache-misses", 1005, running=2.0), sample(0.2, "cache-misses", 7)],
    ),
    "parts in JSON": (
        (
            f'{{"counter-value" : "1312.000000", "event" : "{ATOM}", "pcnt-running" : 30.00}}\n'
            f'{{"counter-value" : "1000.000000", "event" : "{CORE}", "pcnt-running" : 70.00}}\n'
        ),
        [sample(None, "cache-misses", 2312, running=30.0)],
    ),
    "a part that did not count": (
        f"<not counted>,,{ATOM},0,0.00,,\n5,,{CORE},9,98.00,,\n",
        [sample(None, "cache-misses", 5, running=98.0)],
    ),
    "no part counted": (
        f"<not supported>,,{ATOM},0,100.00,,\n<not counted>,,{CORE},0,0.00,,\n",
        [sample(None, "cache-misses", NOT_COUNTED, running=0.0)],
    ),
    "no part is supported": (
        f"<not supported>,,{ATOM},0,100.00,,\n<not supported>,,{CORE},0,100.00,,\n",
        [sample(None, "cache-misses", NOT_SUPPORTED, running=100.0)],
    ),
    "a part repeated": (
        f"10,,{ATOM},5,2.00,,\n5,,{CORE},9,98.00,,\n10,,{ATOM}u,5,2.00,,\n",
        [sample(None, "cache-misses", 15, running=2.0)],
    ),
    "a total repeated": (
        "10,,cache-misses,5,100.00,,\n10,,cache-misses,5,100.00,,\n",
        [sample(None, "cache-misses", 10, running=100.0)],
    ),
    "a total repeated with another value": (
        "10,,cache-misses,5,100.00,,\n11,,cache-misses,5,100.00,,\n",
        [sample(None, "cache-misses", 10, running=100.0)],
    ),
    "an interval repeated": (
        "     0.100000000,10,,cache-misses\n     0.100000000,10,,cache-misses\n",
        [sample(0.1, "cache-misses", 10)],
    ),
    "repeated, and only the second counted": (
        "<not counted>,,cache-misses\n10,,cache-misses\n<not counted>,,cache-misses\n",
        [sample(None, "cache-misses", 10)],
    ),
    "the whole besides a part": (
        f"10,,{ATOM}\n12,,cache-misses\n",
        [sample(None, "cache-misses", 12)],
    ),
    "one event, two offsets, one value": (
        "     0.100000000,10,,cache-misses\n     0.200000000,10,,cache-misses\n",
        [sample(0.1, "cache-misses", 10), sample(0.2, "cache-misses", 10)],
    ),
    "an interval and a total": (
        "     0.100000000,10,,cache-misses\n10,,cache-misses\n",
        [sample(0.1, "cache-misses", 10), sample(None, "cache-misses", 10)],
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_every_recording_gives_its_expected_samples(name: str) -> None:
    """What real perfs printed is read to the last value."""
    assert RECORDED[name] == parse(recorded(name), events=EVENTS)


@pytest.mark.parametrize(("line", "expected"), ROWS.values(), ids=ROWS)
def test_every_format_is_read(line: str, expected: EventSample) -> None:
    """One row of any version and format gives one sample."""
    assert [expected] == parse(line + "\n", events=EVENTS)


@pytest.mark.parametrize("line", NO_ROWS.values(), ids=NO_ROWS)
def test_what_is_no_row_does_not_count(line: str) -> None:
    """Comments, chatter, garbage and values that cannot be counts give nothing."""
    assert [] == parse(line + "\n", events=EVENTS)


@pytest.mark.parametrize("line", NO_ROWS.values(), ids=NO_ROWS)
def test_what_is_no_row_does_no_harm_to_its_neighbours(line: str) -> None:
    """Chatter in the middle leaves the rows around it as they are, in every format."""
    rows = [row for row, _ in ROWS.values()]
    text = f"\n{line}\n".join(["", *rows, ""])
    assert parse("\n".join([*rows, ""]), events=EVENTS) == parse(text, events=EVENTS)


@pytest.mark.parametrize("separator", [",", ";", ":", "|", "\t", " ", "::", "@"])
def test_any_separator_can_be_given(separator: str) -> None:
    """A separator given as argument splits the columns, whatever it is."""
    expected = [
        sample(0.050102096, "page-faults", 56, running=99.5),
        sample(0.050102096, "task-clock", 0.61, unit="msec", running=100.0),
        sample(0.050102096, "cache-misses", NOT_SUPPORTED, running=100.0),
    ]
    text = (
        "     0.050102096,56,,page-faults,611941,99.50,91.512,K/sec\n"
        "     0.050102096,0.61,msec,task-clock,611941,100.00,0.012,CPUs utilized\n"
        "     0.050102096,<not supported>,,cache-misses,0,100.00,,\n"
    ).replace(",", separator)
    assert expected == parse(text, events=EVENTS, separator=separator)


@pytest.mark.parametrize("separator", ["|", ":", "\t"])
def test_a_separator_that_was_not_given_is_not_guessed(separator: str) -> None:
    """Only "," and ";" are recognised without being told."""
    text = "     0.050102096,56,,page-faults,611941,99.50,91.512,K/sec\n"
    assert [] == parse(text.replace(",", separator), events=EVENTS)


def test_a_given_separator_leaves_the_other_formats_readable() -> None:
    """The format is found out line by line, also when a separator is given."""
    text = '  7 cache-misses\n{"counter-value" : "8", "event" : "page-faults"}\n9;msec;task-clock\n'
    expected = [
        sample(None, "cache-misses", 7),
        sample(None, "page-faults", 8),
        sample(None, "task-clock", 9, unit="msec"),
    ]
    assert expected == parse(text, events=EVENTS, separator=";")


def test_an_event_with_commas_is_read_between_semicolons() -> None:
    """A raw event's own commas do not hide its name behind another separator."""
    event = "cpu/event=0x2e,umask=0x41/"
    expected = [sample(0.1, event, 7, running=100.0)]
    assert expected == parse(f"     0.100000000;7;;{event}u;5;100.00;;\n", events=[event])


@pytest.mark.parametrize(("asked", "printed"), SAME_EVENT)
def test_a_printed_name_finds_its_asked_for_name(asked: str, printed: str) -> None:
    """Modifiers and PMUs that perf added are looked through, in every format."""
    for line in (
        f"  7      {printed}      #  1.0 %",
        f"7;;{printed};5;100.00",
        f'{{"counter-value" : "7", "event" : "{printed}"}}',
    ):
        samples = parse(line + "\n", events=["instructions", asked])
        assert [(asked, 7)] == [(found.event, found.value) for found in samples]


@pytest.mark.parametrize(("asked", "printed"), OTHER_EVENT)
def test_a_printed_name_does_not_pass_for_another_event(asked: str, printed: str) -> None:
    """A name that differs in more than what perf adds is another event's."""
    for line in (
        f"  7      {printed}      #  1.0 %",
        f"7;;{printed};5;100.00",
        f'{{"counter-value" : "7", "event" : "{printed}"}}',
    ):
        assert [] == parse(line + "\n", events=["instructions", asked])


@pytest.mark.parametrize(("asked", "printed", "expected"), CLOSEST_EVENT)
def test_of_several_fitting_events_the_closest_is_meant(
    asked: list[str], printed: str, expected: str
) -> None:
    """The exact name wins, then the one that names the PMU, then the most modifiers."""
    for events in (asked, asked[::-1]):
        (found,) = parse(f"7;;{printed};5;100.00\n", events=events)
        assert expected == found.event


@pytest.mark.parametrize(("text", "expected"), SUMS.values(), ids=SUMS)
def test_parts_are_summed_and_repetitions_are_not(text: str, expected: list[EventSample]) -> None:
    """Rows of different PMUs at one offset are one sample; equal rows are never added up."""
    assert expected == parse(text, events=["cache-misses"])


def test_samples_come_in_the_order_of_the_text() -> None:
    """The caller gets the ticks as they passed, and within a tick the order that perf printed."""
    expected = [(0.1, "page-faults"), (0.1, "cache-misses"), (0.2, "page-faults")]
    text = (
        "     0.100000000,1,,page-faults\n     0.100000000,2,,cache-misses\n"
        "     0.200000000,3,,page-faults\n"
    )
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
        assert (found.value is None) == (found.reason in (NOT_SUPPORTED, NOT_COUNTED))
        for number in (found.value, found.offset_s, found.running_percent):
            assert number is None or (math.isfinite(number) and number >= 0)


# Pieces of rows, so that the fuzz gets past the first check of a line.
_PIECES = st.sampled_from(
    (
        *(
            "     0.1",
            "0.100000000",
            "5",
            "9" * 400,
            "-",
            "nan",
            "<not counted>",
            "<not supported>",
        ),
        *(
            "msec",
            "(",
            "[50.00%]",
            "(50.00%)",
            "#",
            " ",
            "\r",
            "\n",
            "/",
            ",",
            ";",
            "{",
            "}",
            " : ",
        ),
        *('"', '"interval"', '"counter-value"', '"event"', '"pcnt-running"', "cpu_core/", ":u"),
        *EVENTS,
    )
)


@fuzz
@given(text=st.text(), separator=st.none() | st.text(max_size=3))
def test_any_text_goes_in_without_an_exception(text: str, separator: str | None) -> None:
    """Whatever is read, the parser returns, and what it returns is sound."""
    assert_sound(parse(text, events=EVENTS, separator=separator))


@fuzz
@given(pieces=st.lists(_PIECES | st.text(max_size=2)), separator=st.none() | st.text(max_size=3))
def test_any_pieces_of_rows_go_in_without_an_exception(pieces: list[str], separator: str | None) -> None:
    """Rows put together wrongly are no worse than noise."""
    assert_sound(parse("".join(pieces) + "\n", events=EVENTS, separator=separator))


@fuzz
@given(before=st.text(), after=st.text(), row=st.sampled_from(sorted(ROWS)))
def test_a_row_is_found_in_any_text(before: str, after: str, row: str) -> None:
    """Noise above and below a row does not hide it."""
    line, expected = ROWS[row]
    assert expected in parse(f"{before}\n{line}\n{after}", events=EVENTS)


@fuzz
@given(
    name=st.sampled_from(NAMES),
    cut=st.integers(0, 3100),
    changes=st.lists(
        st.tuples(
            st.integers(0, 3100),
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
    samples = parse("7;;cache-misses\n", events=events)
    assert [("cache-misses", 7)] == [(found.event, found.value) for found in samples]
