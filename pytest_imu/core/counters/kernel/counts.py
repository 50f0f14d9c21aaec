"""The kernel as a source of counts: nothing to start, and microseconds a window."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Mapping, Sequence

from pytest_imu.core.counters.kernel.call import Call, perf_event_open
from pytest_imu.core.counters.kernel.names import Attr, attrs_of
from pytest_imu.core.counters.kernel.samples import SAMPLE_S, SamplingThread
from pytest_imu.core.counters.kernel.threads import Count, Counts, Threads
from pytest_imu.core.counters.perf.output import NOT_COUNTED
from pytest_imu.core.counters.window import Counters, Source
from pytest_imu.core.model import CountedBy, CounterReading
from pytest_imu.core.units import NANOSECONDS_PER_SECOND

NANOSECONDS_PER_MILLISECOND = 1_000_000
UNKNOWN = "not an event that the kernel itself has a name for; perf may know it"
Samples = Sequence[Counts]
"""What was counted between being switched on and off, in each tenth of a second."""


class KernelBackEnd:
    """What the kernel counts of this process."""

    name: CountedBy = "kernel"
    threads: Threads
    """What has been opened."""

    def __init__(
        self,
        events: Sequence[str],
        *,
        samples: bool,
        attrs: Callable[[str], tuple[Attr, ...]],
        call: Callable[[], Call],
    ) -> None:
        # Now, before a test changes what can be seen of the system.
        self._attrs = {event: attrs(event) for event in events}
        self._takes_samples = samples
        self._call = call
        self._sampler: SamplingThread | None = None
        self._sampled: list[Counts] = []
        self._refused: Mapping[str, str] = {}
        self._user_only: set[str] = set()

    def start(self) -> None:
        """Open a descriptor for each event and thread."""
        # Before the events are: what starts later is counted.
        self._sampler = SamplingThread(self._take_sample) if self._takes_samples else None
        leave_out = None if self._sampler is None else self._sampler.thread_id
        known = {event: own for event, own in self._attrs.items() if own}
        self.threads = threads = Threads(known, self._call(), leave_out=leave_out)
        unknown = dict.fromkeys(self._attrs.keys() - known.keys(), UNKNOWN)
        self._refused, self._user_only = {**unknown, **threads.refused}, threads.user_only
        _STARTED.add(self)

    def is_alive(self) -> bool:
        """Tell whether the descriptors are still ours."""
        return self.threads.is_alive()

    def switch_on(self) -> None:
        """Count, from 0."""
        self._sampled = []
        if self._sampler is not None:
            self._sampler.begin()
        self.threads.switch_on()

    def switch_off(self) -> None:
        """Count no more."""
        self.threads.switch_off()
        if self._sampler is not None:
            self._sampler.end()

    def take(self) -> Samples:
        """Return what was counted since it was switched on."""
        return [*self._sampled, self.threads.advance()]

    def stop(self) -> None:
        """End the thread that samples, and close the descriptors."""
        sampler, self._sampler = self._sampler, None
        if sampler is not None:
            sampler.stop()
        self.let_go()

    def let_go(self) -> None:
        """Close the descriptors, where they are still ours."""
        self.threads.close()

    def read(self, event: str, pieces: Sequence[Samples], duration_ns: int) -> CounterReading:
        """Return one event's total, rate, share of time on the hardware and samples."""
        if event in self._refused:
            return CounterReading(event=event, value=None, reason=self._refused[event], source=self.name)
        counts = [one[event] for piece in pieces for one in piece]
        total = counts[0] if len(counts) == 1 else Count(*map(sum, zip(*counts, strict=True)))
        value = self._value(event, total)
        if value is None:
            return CounterReading(event=event, value=None, reason=NOT_COUNTED, source=self.name)
        return CounterReading(
            event=event,
            value=value,
            per_second=value * NANOSECONDS_PER_SECOND / duration_ns if duration_ns else None,
            running_percent=(
                min(100.0, 100 * total.running_ns / total.enabled_ns) if total.enabled_ns else 100.0
            ),
            samples=self._samples(event, counts, value, duration_ns),
            user_only=event in self._user_only,
            source=self.name,
        )

    def _samples(
        self, event: str, counts: Sequence[Count], value: float, duration_ns: int
    ) -> tuple[float, ...]:
        if duration_ns <= SAMPLE_S * NANOSECONDS_PER_SECOND:
            return (value,)
        return tuple(self._value(event, one) or 0 for one in counts) if self._takes_samples else ()

    def _value(self, event: str, count: Count) -> float | None:
        """Return a count, scaled where it was not all the time on the hardware; None if never."""
        value: float = count.value
        if count.running_ns < count.enabled_ns:
            if not count.running_ns:
                return None
            value = round(value * count.enabled_ns / count.running_ns)
        if self._attrs[event][0].is_clock:
            milliseconds = value / NANOSECONDS_PER_MILLISECOND
            return int(milliseconds) if milliseconds == int(milliseconds) else round(milliseconds, 6)
        return value

    def _take_sample(self) -> None:
        with contextlib.suppress(Exception):  # whoever ends the window will be told
            self._sampled.append(self.threads.advance())


class Kernel(Source[Samples]):
    """Counts events of this process by `perf_event_open`.

    With *samples* a thread reads them every 0.1 s. It is there as long as the source is, and code that
    looks for threads would see it, so a test run goes without.
    """

    label = "perf_event_open"

    def __init__(
        self,
        events: Sequence[str],
        *,
        samples: bool = False,
        attrs: Callable[[str], tuple[Attr, ...]] = attrs_of,
        call: Callable[[], Call] = perf_event_open,
    ) -> None:
        back_end = KernelBackEnd(events, samples=samples, attrs=attrs, call=call)
        super().__init__(events, Counters(back_end))

    def anew(self) -> Kernel:
        """Return the same for a process that was forked from this one."""
        return Kernel(self.events)


_STARTED: weakref.WeakSet[KernelBackEnd] = weakref.WeakSet()
"""What may have descriptors open, which a forked child closes: they count the process that forked it."""


def _let_go_in_child() -> None:
    for back_end in _STARTED:
        back_end.let_go()


os.register_at_fork(after_in_child=_let_go_in_child)
