"""callgrind as a source of counts: simulated caches, where this process runs under valgrind."""

from __future__ import annotations

import functools
import gc
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pytest_imu.core.counters.callgrind.command import MIN_VERSION, running_tool, valgrind_arguments
from pytest_imu.core.counters.callgrind.dumps import Dump, Dumps, public_count
from pytest_imu.core.counters.callgrind.requests import Requests, Sender
from pytest_imu.core.counters.source import CannotCountError
from pytest_imu.core.counters.window import Counters, Source, Window
from pytest_imu.core.model import CountedBy, CounterReading

WARM_UP_WINDOWS = 2
Costs = Mapping[str, int]


class CallgrindBackEnd:
    """What valgrind counts of this process; at every boundary of a window the caches are emptied."""

    name: CountedBy = "callgrind"
    _send: Sender
    _take_dump: Callable[[Sender], Dump]

    def __init__(
        self,
        *,
        tool: Callable[[], str | None] = running_tool,
        sender: Sender | None = None,
        take_dump: Callable[[Sender], Dump] | None = None,
    ) -> None:
        self._tool = tool
        self._start_folder = Path.cwd()  # now, before a test changes it
        self._given = (sender, take_dump)
        self._is_ready = False

    def start(self) -> None:
        """Count nothing, the first time: it shows whether all of it works."""
        if self._is_ready:
            return
        tool = self._tool()
        if tool != "callgrind":
            around = "no valgrind runs this process" if tool is None else f"valgrind runs {tool}"
            raise CannotCountError(f"{around}, not callgrind")
        sender, take_dump = self._given
        self._send = sender or Requests()
        self._take_dump = take_dump or self._dumps().take
        # Two windows of nothing: what is slow only the first time, the interpreter's specialising
        # included, is in no window.
        for _ in range(WARM_UP_WINDOWS):
            self.switch_on()
            self.switch_off()
            self.take()
        self._is_ready = True

    def _dumps(self) -> Dumps:
        return Dumps(valgrind_arguments(), pid=os.getpid(), start_folder=self._start_folder)

    def is_alive(self) -> bool:
        """Tell that valgrind lives as long as this process."""
        return True

    def switch_on(self) -> None:
        """Count, from 0 and with empty caches."""
        self._send("zero", "start")

    def switch_off(self) -> None:
        """Count no more."""
        self._send("stop")

    def take(self) -> Costs:
        """Return what each cost is since it was switched on."""
        dump = self._take_dump(self._send)
        if dump.version < MIN_VERSION:
            message = "valgrind {}.{} is older than {}.{}".format(*dump.version, *MIN_VERSION)
            raise CannotCountError(message)
        return dump.costs

    def stop(self) -> None:
        """End nothing: valgrind goes on as long as the process."""

    def read(self, event: str, pieces: Sequence[Costs], duration_ns: int) -> CounterReading:  # noqa: ARG002 - simulated time means nothing
        """Return one event's total; a rate would be per second of a slowed-down program."""
        costs: Counter[str] = Counter()
        for piece in pieces:
            costs.update(piece)
        count = public_count(event, costs)
        if isinstance(count, str):
            return CounterReading(event=event, value=None, reason=count, source=self.name)
        return CounterReading(event=event, value=count, source=self.name)


@functools.lru_cache(maxsize=1)
def process_counters(pid: int) -> Counters[Costs]:  # noqa: ARG001 - what a fork inherits is another process's
    """Return the one set of counters of this process, whose id is *pid*."""
    return Counters(CallgrindBackEnd())


class Callgrind(Source[Costs]):
    """Counts events of this process by simulation, also in windows beside those of another source.

    Every window begins with empty caches, and right after a garbage collection where those are not
    switched off: what counts is the block, and not what ran before it.
    """

    label = "callgrind, simulated caches"
    # Bound before any test runs, as all that a window calls.
    _collect_garbage = staticmethod(gc.collect)
    _collects_garbage = staticmethod(gc.isenabled)

    def __init__(self, events: Sequence[str], *, counters: Counters[Costs] | None = None) -> None:
        super().__init__(events, counters or process_counters(os.getpid()))

    def anew(self) -> Callgrind:
        """Return the same for a process that was forked from this one."""
        return Callgrind(self.events)

    def open(self) -> Window[Costs]:
        """Begin to count."""
        if not self.counters.open_windows and self._collects_garbage():
            # Else it is chance whether the block meets a collection of all objects.
            self._collect_garbage()
        return super().open()
