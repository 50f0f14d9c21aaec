"""Which source counts: the kernel and perf in an ordinary process, callgrind in one that it runs."""

from __future__ import annotations

import dataclasses
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_imu.core.counters.callgrind.command import find_valgrind
from pytest_imu.core.counters.choice import MACHINES_OWN, simulated_caches, source_of_counts, source_text
from pytest_imu.core.counters.kernel.counts import Kernel
from pytest_imu.core.counters.perf.stat import PerfStat
from pytest_imu.core.counters.source import CounterChoice
from pytest_imu.core.counters.together import Together
from pytest_imu.core.meter import Meter
from pytest_imu.core.model import CountedBy, CounterReading, Measurement

MEASURED = Measurement(
    before_bytes=None, after_bytes=None, rss_peak_bytes=None, duration_ns=1, source="none", reason=""
)
CACHES = "I1=32768,8,64 D1=16384,8,64 LL=8388608,16,64"


@pytest.mark.parametrize(
    ("choice", "events", "expected"),
    [
        ("auto", ["cache-misses", "page-faults"], "perf_event_open"),
        ("auto", ["sched:sched_switch"], "perf stat"),
        ("auto", ["page-faults", "sched:sched_switch"], "perf_event_open and perf stat"),
        ("kernel", ["page-faults", "sched:sched_switch"], "perf_event_open"),
        ("perf", ["page-faults", "sched:sched_switch"], "perf stat"),
        ("callgrind", ["cache-misses"], "callgrind, simulated caches"),
    ],
)
@pytest.mark.needs_kernel_counts
def test_ordinary_process(choice: CounterChoice, events: list[str], expected: str) -> None:
    """The kernel counts what it can name, perf the rest, or whichever is asked for; none simulates."""
    source = source_of_counts(events, choice=choice)
    assert (tuple(events), expected) == (source.events, source.label)
    assert (type(source), source.events) == (type(source.anew()), source.anew().events)
    assert simulated_caches() is None


def test_where_the_kernel_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the call is not known perf counts everything."""
    uname = os.uname()
    strange = os.uname_result((*tuple(uname)[:4], "s390x"))
    monkeypatch.setattr(os, "uname", lambda: strange)
    assert isinstance(source_of_counts(["page-faults"]), PerfStat)


@pytest.mark.needs_perf
@pytest.mark.needs_kernel_counts
def test_two_sources_together() -> None:
    """Each event is counted by its source, and they come in the order in which they were asked for."""
    events = ["task-clock", "page-faults:u", "sched:sched_nothing", "page-faults"]
    source = Together(events, [PerfStat(events[2:3]), PerfStat(events[:1]), Kernel([*events[1::2]])])
    try:
        with Meter(counters=source) as meter, mmap.mmap(-1, 100 * mmap.PAGESIZE) as block:
            block.write(bytes(100 * mmap.PAGESIZE))
    finally:
        source.stop()
    readings = meter.measurement.counters
    assert events == [reading.event for reading in readings]
    assert ["perf", "kernel", "perf", "kernel"] == [reading.source for reading in readings]
    assert [True, True, False, True] == [reading.value is not None for reading in readings]
    assert 100 <= (readings[-1].value or 0) < 500


@pytest.mark.parametrize(
    ("source", "value", "caches", "expected"),
    [
        ("perf", 5, None, "perf"),
        ("kernel", 5, None, "kernel"),
        ("perf", None, None, None),
        ("callgrind", 0, CACHES, f"callgrind, simulated caches {CACHES}"),
        ("callgrind", 0, None, "callgrind, simulated caches not known"),
        ("callgrind", None, CACHES, None),
    ],
)
def test_source_in_words(
    source: CountedBy, value: int | None, caches: str | None, expected: str | None
) -> None:
    """A document says what counted, with the caches where they are simulated; None if nothing did."""
    reading = CounterReading(event="cache-misses", value=value, source=source)
    measured = dataclasses.replace(MEASURED, counters=(reading,))
    assert expected == source_text([MEASURED, measured], caches=caches)


@pytest.mark.needs_valgrind
def test_caches_that_nobody_named(tmp_path: Path) -> None:
    """Who starts valgrind by hand without sizes is told that they are the machine's own."""
    script = "from pytest_imu.core.counters.choice import simulated_caches; print(simulated_caches())"
    arguments = ["--tool=callgrind", "--cache-sim=yes", "--instr-atstart=no", "--I1=32768,8,64"]
    out = f"--callgrind-out-file={tmp_path / 'out.%p'}"
    command = [find_valgrind()[0], "-q", *arguments, out, sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert MACHINES_OWN == done.stdout.strip()
