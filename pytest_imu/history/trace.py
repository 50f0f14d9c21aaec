"""A run over time: in the Trace Event format, which Perfetto shows, and in that of `mprof plot`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_imu.core.model import PHASES, Start
from pytest_imu.core.units import MIB, NANOSECONDS_PER_SECOND, encodable, printable

ONLY = "pytest"
"""The name of the one process of a run without workers."""
NANOSECONDS_PER_MICROSECOND = 1000
VERDICT_KEYS = ("name", "limit", "actual", "verdict", "reason")
Plain = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of a test: when it began, how long it took, and what there is to say of it."""

    name: str
    begin_ns: int
    """On the wall clock, since 1970."""
    duration_ns: int
    about: Plain

    @property
    def end_ns(self) -> int:
        """When it ended."""
        return self.begin_ns + self.duration_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A test in its place in time."""

    worker: str
    whole: Span
    parts: Sequence[Span]
    """Its phases and blocks."""
    readings: Sequence[tuple[int, int]]
    """The RSS at some moments, by their time, in bytes."""
    children: Sequence[tuple[int, int]]


def placed(test: Plain, *_: object) -> Placed | None:
    """Return a test of a document in its place; None for one whose start is not known."""
    if test["started_at"] is None:
        return None
    start = Start.from_text(test["started_at"], test["started_ns"])
    ahead_ns = start.wall_ns - start.clock_ns
    phases = [
        _span(phase, found, ahead_ns)
        for phase in PHASES
        if (found := test["phases"][phase]) is not None and found["started_ns"] is not None
    ]
    blocks = [
        _span(block["name"], block, ahead_ns)
        for block in test["blocks"]
        if block["started_ns"] is not None
    ]
    last_ns = max([start.wall_ns, *(one.end_ns for one in phases)])
    end_ns = last_ns if test["ended_ns"] is None else max(last_ns, test["ended_ns"] + ahead_ns)
    if phases and test["phases"]["teardown"] is None and end_ns > last_ns:
        # It was not measured; what pytest did between the two is in it.
        phases.append(Span(name="teardown", begin_ns=last_ns, duration_ns=end_ns - last_ns, about={}))
    about = {
        "outcome": test["outcome"],
        "attempt": test["attempt"],
        **_sizes(test["phases"]["call"] or {}),
        "verdicts": [{key: one[key] for key in VERDICT_KEYS} for one in test["budgets"]],
    }
    whole = Span(
        name=test["nodeid"], begin_ns=start.wall_ns, duration_ns=end_ns - start.wall_ns, about=about
    )
    sampled = test["timeline"] or {"rss": [], "children": []}
    readings = [*_readings(test, ahead_ns), *((at + ahead_ns, size) for at, size in sampled["rss"])]
    return Placed(
        worker=test["worker"] or ONLY,
        whole=whole,
        parts=[*phases, *blocks],
        readings=sorted(readings),
        children=[(at + ahead_ns, size) for at, size in sampled["children"]],
    )


def _span(name: str, measured: Plain, ahead_ns: int) -> Span:
    return Span(
        name=name,
        begin_ns=measured["started_ns"] + ahead_ns,
        duration_ns=measured["duration_ns"],
        about=_sizes(measured),
    )


def _sizes(measured: Plain) -> dict[str, float | None]:
    names = {"peak_mib": "peak_bytes", "kept_mib": "delta_bytes"}
    sizes = {name: measured.get(key) for name, key in names.items()}
    return {name: None if size is None else round(size / MIB, 3) for name, size in sizes.items()}


def _readings(test: Plain, ahead_ns: int) -> Iterator[tuple[int, int]]:
    """Give the RSS at both ends of each phase, and its highest in the middle: its time is not known."""
    for phase in PHASES:
        found = test["phases"][phase]
        if found is None or found["started_ns"] is None:
            continue
        begin_ns, duration_ns = found["started_ns"] + ahead_ns, found["duration_ns"]
        times = (begin_ns, begin_ns + duration_ns // 2, begin_ns + duration_ns)
        keys = ("before_bytes", "rss_peak_bytes", "after_bytes")
        yield from (
            (at, found[key]) for at, key in zip(times, keys, strict=True) if found[key] is not None
        )


def workers_of(tests: Iterable[Placed]) -> list[str]:
    """Return the names of all processes that ran tests: gw2 before gw10."""
    return sorted({test.worker for test in tests}, key=lambda name: (len(name), name))


def trace_events(tests: Sequence[Placed]) -> Iterator[dict[str, Any]]:
    """Give the events of a run: a process for each worker, with its tests, their parts and its RSS."""
    begins_ns = (test.whole.begin_ns for test in tests)
    sampled_ns = (test.readings[0][0] for test in tests if test.readings)
    zero_ns = min((*begins_ns, *sampled_ns), default=0)

    def microseconds(at_ns: int) -> float:
        return (at_ns - zero_ns) / NANOSECONDS_PER_MICROSECOND

    for number, worker in enumerate(workers_of(tests), start=1):
        own = {"pid": number, "tid": 1}
        yield {**own, "ph": "M", "name": "process_name", "args": {"name": worker}}
        yield {**own, "ph": "M", "name": "thread_name", "args": {"name": "tests"}}
        yield {**own, "ph": "M", "name": "process_sort_index", "args": {"sort_index": number}}
        for test in (one for one in tests if one.worker == worker):
            for span in (test.whole, *test.parts):
                yield {
                    **own,
                    "ph": "X",
                    "name": span.name,
                    "cat": "test" if span is test.whole else "part",
                    "ts": microseconds(span.begin_ns),
                    "dur": span.duration_ns / NANOSECONDS_PER_MICROSECOND,
                    "args": dict(span.about),
                }
            for name, readings in (("RSS", test.readings), ("RSS of children", test.children)):
                for at_ns, size_bytes in readings:
                    mib = {"MiB": round(size_bytes / MIB, 3)}
                    yield {**own, "ph": "C", "name": name, "ts": microseconds(at_ns), "args": mib}


def mprof_lines(tests: Sequence[Placed]) -> Iterator[str]:
    """Give the lines of memory_profiler's own file: its plot has a curve for each worker."""
    yield "CMDL pytest"
    workers = workers_of(tests)
    for number, worker in enumerate(workers):
        prefix = "MEM" if number == 0 else f"CHLD {number}"
        own = [test for test in tests if test.worker == worker]
        for at_ns, size_bytes in sorted(one for test in own for one in test.readings):
            yield f"{prefix} {size_bytes / MIB:.6f} {at_ns / NANOSECONDS_PER_SECOND:.4f}"
    for test in tests if len(workers) == 1 else ():
        if test.readings:
            first, last = test.readings[0][1] / MIB, test.readings[-1][1] / MIB
            begin_s, end_s = (
                at / NANOSECONDS_PER_SECOND for at in (test.whole.begin_ns, test.whole.end_ns)
            )
            name = encodable(printable("_".join(test.whole.name.split())), "ascii")
            yield f"FUNC {name} {first:.4f} {begin_s:.4f} {last:.4f} {end_s:.4f}"
