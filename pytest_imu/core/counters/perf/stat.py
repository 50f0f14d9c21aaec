"""`perf stat` as a source of counts: one perf a session, switched on for each window only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from pytest_imu.core.counters.kernel.samples import SAMPLE_S
from pytest_imu.core.counters.perf.command import HungError, PerfCommand, find_perf
from pytest_imu.core.counters.perf.output import (
    NOT_BELIEVED,
    NOT_COUNTED,
    NOT_SUPPORTED,
    EventSample,
    parse,
)
from pytest_imu.core.counters.source import CannotCountError
from pytest_imu.core.counters.window import Counters, Source
from pytest_imu.core.model import CountedBy, CounterReading
from pytest_imu.core.units import NANOSECONDS_PER_SECOND

if sys.platform == "linux":  # elsewhere there is no perf to find, and it cannot be imported
    from pytest_imu.core.counters.perf.process import PerfProcess

Samples = list[EventSample]


class PerfBackEnd:
    """What one perf counts of this process; a boundary inside an open window costs a tick."""

    name: CountedBy = "perf"
    process: PerfProcess
    """The perf that runs."""

    def __init__(self, events: Sequence[str], find: Callable[[], PerfCommand]) -> None:
        self._events = tuple(events)
        self._find = find
        self._refused: dict[str, str] = {}

    def start(self) -> None:
        """Start perf, and wait until it ticks."""
        command = self._find()
        try:
            self.process = PerfProcess.started(command, self._events)
        except HungError:
            raise
        except CannotCountError:
            if len(self._events) == 1:
                raise
            self.process = PerfProcess.started(command, self._accepted(command))

    def _accepted(self, command: PerfCommand) -> list[str]:
        """Return the events that perf takes: one that it refuses makes it refuse all."""
        for event in self._events:
            try:
                PerfProcess.started(command, [event]).stop()
            except CannotCountError as error:
                self._refused[event] = str(error)
        accepted = [event for event in self._events if event not in self._refused]
        if not accepted:
            raise CannotCountError(self._refused[self._events[0]])
        return accepted

    def is_alive(self) -> bool:
        """Tell whether perf runs, and can be reached."""
        return self.process.is_alive()

    def switch_on(self) -> None:
        """Count, from 0."""
        self.process.enable()

    def switch_off(self) -> None:
        """Count no more."""
        self.process.disable()

    def take(self) -> Samples:
        """Wait for the next tick, and return what was counted until it."""
        return parse(self.process.take_output(), events=self._events)

    def stop(self) -> None:
        """End perf."""
        self.process.stop()

    def read(self, event: str, pieces: Sequence[Samples], duration_ns: int) -> CounterReading:
        """Return what was counted of an event."""
        if event in self._refused:
            return CounterReading(event=event, value=None, reason=self._refused[event])
        return reading_of(event, [sample for piece in pieces for sample in piece], duration_ns)


class PerfStat(Source[Samples]):
    """Counts events of this process with a perf of its own.

    perf writes a line a tick also while nothing is counted. Where windows may be far apart, in a
    notebook that stays open for days, *idle_s* ends it after so many seconds without a window.
    """

    label = "perf stat"

    def __init__(
        self,
        events: Sequence[str],
        *,
        find: Callable[[], PerfCommand] = find_perf,
        idle_s: float | None = None,
    ) -> None:
        super().__init__(events, Counters(PerfBackEnd(events, find), idle_s=idle_s))

    def anew(self) -> PerfStat:
        """Return the same for a process that was forked from this one."""
        return PerfStat(self.events)


def reading_of(event: str, samples: Sequence[EventSample], duration_ns: int) -> CounterReading:
    """Return one event's total, rate, share of time on the hardware and samples of 100 ms."""
    own = [sample for sample in samples if sample.event == event]
    counted = [sample for sample in own if sample.value is not None]
    reasons = {sample.reason for sample in own}
    if NOT_BELIEVED in reasons:
        return CounterReading(event=event, value=None, reason=NOT_BELIEVED)
    if not counted:
        supported = "not supported by this machine" if NOT_SUPPORTED in reasons else NOT_COUNTED
        return CounterReading(event=event, value=None, reason=supported)
    value = _tidy(sum(sample.value or 0 for sample in counted))
    percents = [one.running_percent for one in counted if one.running_percent is not None]
    return CounterReading(
        event=event,
        value=value,
        per_second=value * NANOSECONDS_PER_SECOND / duration_ns if duration_ns else None,
        running_percent=sum(percents) / len(percents) if percents else None,
        samples=tuple(_regrouped(counted)),
    )


def _regrouped(counted: Sequence[EventSample]) -> list[float]:
    """Return the sums of the ticks in each tenth of a second."""
    start_s = counted[0].offset_s
    sums: dict[int, float] = {}
    for sample in counted:
        tenth = int((sample.offset_s - start_s) / SAMPLE_S)
        sums[tenth] = sums.get(tenth, 0.0) + (sample.value or 0)
    return [_tidy(total) for total in sums.values()]


def _tidy(total: float) -> float:
    """Return a count as the whole number it is, and milliseconds without the dust of adding them."""
    return int(total) if total == int(total) else round(total, 6)
