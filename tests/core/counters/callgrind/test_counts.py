"""callgrind as a source of counts: the order of things, and every failure, with a scripted valgrind."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

import pytest

from pytest_imu.core.counters.callgrind.counts import (
    Callgrind,
    CallgrindBackEnd,
    process_counters,
)
from pytest_imu.core.counters.callgrind.dumps import Dump
from pytest_imu.core.counters.callgrind.requests import Sender
from pytest_imu.core.counters.source import CannotCountError
from pytest_imu.core.counters.window import Counters
from pytest_imu.core.meter import Meter
from pytest_imu.core.model import CounterReading


class Scripted:
    """A valgrind that obeys on paper: it remembers its orders, and dumps the counts it was given."""

    def __init__(self, *counts: int | Exception, version: tuple[int, int] = (3, 19)) -> None:
        self.orders: list[str] = []
        self.fails_at: dict[str, Exception] = {}
        self._counts: list[int | Exception] = [0, 0, *counts]  # the warm-up's two windows come first
        self._version = version

    def send(self, *orders: str) -> None:
        """Take orders."""
        for order in orders:
            if order in self.fails_at:
                raise self.fails_at[order]
        self.orders.extend(orders)

    def take(self, send: Sender) -> Dump:
        """Dump, and return the next one."""
        send("dump")
        count = self._counts.pop(0)
        if isinstance(count, Exception):
            raise count
        return Dump(version=self._version, costs={"Ir": count})


def source_of(valgrind: Scripted, *events: str, tool: str | None = "callgrind") -> Callgrind:
    """Return a source that talks to a scripted valgrind."""
    counts = Counters(CallgrindBackEnd(tool=lambda: tool, sender=valgrind.send, take_dump=valgrind.take))
    return Callgrind(events or ("instructions",), counters=counts)


def reading(source: Callgrind) -> CounterReading:
    """Return the first reading of a window in which nothing is done."""
    with Meter(counters=source) as meter:
        pass
    return meter.measurement.counters[0]


def test_orders_of_a_window() -> None:
    """Instrumentation is on for the window alone, which starts at zero and ends with a dump."""
    valgrind = Scripted(70)
    source = source_of(valgrind)
    source.prepare()
    valgrind.orders.clear()
    assert CounterReading(event="instructions", value=70, source="callgrind") == reading(source)
    assert ["zero", "start", "stop", "dump"] == valgrind.orders


def test_nested_windows_share_what_is_counted() -> None:
    """What was counted since the last boundary goes to all windows that are open."""
    source = source_of(Scripted(5, 20, 100))
    outer = source.open()
    inner = source.open()
    inner.end()
    assert 20 == inner.read(1)[0].value
    outer.end()
    assert 125 == outer.read(1)[0].value


@pytest.mark.parametrize(("is_enabled", "collections"), [(True, 1), (False, 0)])
def test_garbage_is_collected_before(*, is_enabled: bool, collections: int) -> None:
    """The outermost window alone begins with a collection, and only where those are switched on."""
    source = source_of(Scripted(5, 20, 100))
    source.prepare()
    gc.collect()  # so that none is due in the next lines by itself
    before = gc.get_stats()[2]["collections"]
    if not is_enabled:
        gc.disable()
    try:
        outer, inner = source.open(), source.open()
    finally:
        gc.enable()
    inner.read(1)
    outer.read(1)
    assert collections == gc.get_stats()[2]["collections"] - before


def test_overlapping_windows_share_what_is_counted() -> None:
    """The first window to open may be the first to close."""
    source = source_of(Scripted(5, 20, 100))
    first, second = source.open(), source.open()
    first.end()
    assert 25 == first.read(1)[0].value
    second.end()
    assert 120 == second.read(1)[0].value


def test_stop_switches_off() -> None:
    """A source that is stopped inside a window leaves nothing switched on, and a later one works."""
    valgrind = Scripted(3, 7)
    source = source_of(valgrind)
    window = source.open()
    source.stop()
    assert ["stop", "dump"] == valgrind.orders[-2:]
    assert [(None, "the counting was stopped inside the window")] == [
        (one.value, one.reason) for one in window.read(1)
    ]
    assert 7 == reading(source).value


def test_sources_of_one_process_share_its_counters() -> None:
    """A second source, of a pytest inside a test say, takes nothing from the first one's window."""
    valgrind = Scripted(5, 20, 30, 40, 100)
    counts = Counters(
        CallgrindBackEnd(tool=lambda: "callgrind", sender=valgrind.send, take_dump=valgrind.take)
    )
    outer_source = Callgrind(["instructions"], counters=counts)
    outer = outer_source.open()
    inner_source = Callgrind(["instructions"], counters=counts)
    inner_source.prepare()
    assert 20 == reading(inner_source).value
    inner_source.open()
    inner_source.stop()
    outer.end()
    assert 5 + 20 + 30 + 40 + 100 == outer.read(1)[0].value


def test_counters_are_one_set_a_process() -> None:
    """Asked for again they are the same; those of another process are not this one's."""
    mine = process_counters(os.getpid())
    assert mine is process_counters(os.getpid())
    assert mine is not process_counters(0)


@pytest.mark.parametrize(
    ("tool", "reason"),
    [
        (None, "no valgrind runs this process, not callgrind"),
        ("memcheck", "valgrind runs memcheck, not callgrind"),
    ],
)
def test_other_tools_are_a_reason(tool: str | None, reason: str) -> None:
    """Without callgrind every event has the reason, and nothing is sent."""
    valgrind = Scripted()
    assert reason == reading(source_of(valgrind, tool=tool)).reason
    assert [] == valgrind.orders


def test_old_valgrind_is_a_reason() -> None:
    """A valgrind before 3.19 is told by its dump."""
    source = source_of(Scripted(version=(3, 18)))
    assert "valgrind 3.18 is older than 3.19" == reading(source).reason


@pytest.mark.parametrize("order", ["zero", "stop", "dump"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (CannotCountError("no answer"), "no answer"),
        (
            OSError(24, "Too many open files"),
            "callgrind failed: OSError: [Errno 24] Too many open files",
        ),
    ],
)
@pytest.mark.parametrize("is_warm", [True, False])
def test_order_that_fails_is_a_reason(
    order: str, fault: Exception, reason: str, *, is_warm: bool
) -> None:
    """Whichever order fails, and when: the block runs, and it is not tried again."""
    valgrind = Scripted(1, 1, 1)
    source = source_of(valgrind)
    if is_warm:
        source.prepare()
    valgrind.fails_at[order] = fault
    assert reason == reading(source).reason
    valgrind.fails_at.clear()
    valgrind.orders.clear()
    assert reason == reading(source).reason
    assert [] == valgrind.orders


def test_dump_that_is_missing_is_a_reason() -> None:
    """A dump that cannot be had takes the counts of all windows that are open."""
    source = source_of(Scripted(CannotCountError("callgrind wrote no dump")))
    outer, inner = source.open(), source.open()
    assert ["callgrind wrote no dump"] == [one.reason for one in inner.read(1)]
    assert ["callgrind wrote no dump"] == [one.reason for one in outer.read(1)]


@pytest.mark.needs_fork
def test_forked_child_has_a_reason(in_fork: Callable[[Callable[[], object]], Any]) -> None:
    """A forked child cannot count: the orders would reach its parent."""
    valgrind = Scripted(1)
    source = source_of(valgrind)
    window = source.open()
    sent = list(valgrind.orders)

    def child() -> list[object]:
        window.end()
        source.stop()
        return [window.read(1)[0].reason, reading(source).reason, valgrind.orders == sent]

    reason = "callgrind counts the process that forked this one"
    assert [reason, reason, True] == in_fork(child)


def test_events_that_callgrind_lacks() -> None:
    """An event that is not simulated is None, with its reason; the others are counted."""
    assert CounterReading(
        event="page-faults", value=None, reason="not supported by callgrind", source="callgrind"
    ) == CallgrindBackEnd().read("page-faults", [{"Ir": 1}], 1)
    assert CounterReading(
        event="instructions:u", value=1, source="callgrind"
    ) == CallgrindBackEnd().read("instructions:u", [{"Ir": 1}], 1)
