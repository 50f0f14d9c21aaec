"""Memory and clock around a block: `measure()`, the one thing that front ends call."""

from __future__ import annotations

import dataclasses
import functools
import gc as garbage_collector
import inspect
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast, overload

from pytest_imu.core.children.census import CensusStart, process_census
from pytest_imu.core.counters.source import CounterSource, CounterWindow
from pytest_imu.core.memory import platforms
from pytest_imu.core.memory import source as memory
from pytest_imu.core.memory.no_memory import unreadable
from pytest_imu.core.memory.reusable import process_gauge
from pytest_imu.core.memory.source import MemoryWindow, PeakSource
from pytest_imu.core.memory.trim import Trimmer, find_malloc_trim
from pytest_imu.core.model import ChildrenMemory, Measurement, Source
from pytest_imu.core.tracers import active_tracer

if TYPE_CHECKING:
    from pytest_imu.core.children.sampler import ChildrenSampler

P = ParamSpec("P")
R = TypeVar("R")


class Meter:
    """Measures one block: `with Meter() as m: ...`, then `m.peak_bytes` and the rest.

    Whatever fails in the measuring, the block runs as it would without it: the numbers that could
    not be read are None and `m.measurement.reason` says why. The block's own exceptions pass.
    """

    def __init__(
        self,
        *,
        trim: bool = True,
        gc: bool = False,
        counters: CounterSource | None = None,
        children: bool = False,
        source: PeakSource | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._trim = trim
        self._gc = gc
        self._counters = counters
        self._children = children
        self._source = source
        # Bound before any test runs: one that patches the clock must neither fail nor bend a time.
        self._clock_ns = clock_ns
        self._counter_window: CounterWindow | None = None
        self._window: MemoryWindow | None = None
        self._reusable_bytes: int | None = None
        self._census: CensusStart | None = None
        self._sampler: ChildrenSampler | None = None
        self._fault: Exception | None = None
        self._start_ns: int | None = None
        self._measurement: Measurement | None = None

    def __enter__(self) -> Self:
        if self._start_ns is not None:
            message = "this measure() is already open; call measure() again for a second block"
            raise RuntimeError(message)
        self._window, self._fault, self._measurement = None, None, None
        try:
            if self._counters is not None:
                self._counters.prepare()
            if self._gc:
                garbage_collector.collect()
            self._look_at_children()
            self._window = self._open_memory()
        except Exception as error:  # noqa: BLE001 - no fault of the measuring reaches the block
            self._fault = error.with_traceback(None)  # it would keep the frames of the block's caller
        if self._counters is not None:
            self._counter_window = self._counters.open()
        self._start_ns = self._clock_ns()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        duration_ns = self._clock_ns() - (self._start_ns or 0)
        self._start_ns = None
        self._measurement = self._close(duration_ns)

    def _open_memory(self) -> MemoryWindow:
        trimmer = process_trimmer() if self._trim else None
        if self._source is not None:  # what another source reads says nothing about this allocator
            return self._source.open(trimmer)
        source, gauge = memory.peak_source(), process_gauge()
        window, asked = source.open(trimmer), gauge.asked
        self._reusable_bytes = gauge.read(window.before_bytes)
        if gauge.asked == asked:
            return window
        window.close(0)  # asking takes memory of its own, and is none of the block's
        return source.open(trimmer)

    def _close(self, duration_ns: int) -> Measurement:
        counter_window, self._counter_window = self._counter_window, None
        if counter_window is None:
            return self._close_children(self._close_memory(duration_ns))
        # The counters first, so that they do not count the reading of the memory; what they hold is
        # read last, so that its text does not count as memory.
        counter_window.end()
        measurement = self._close_children(self._close_memory(duration_ns))
        return dataclasses.replace(measurement, counters=counter_window.read(duration_ns))

    def _look_at_children(self) -> None:
        # Before the memory's window and after it: what this itself needs shall not be in it.
        self._census = process_census().open()
        if self._children:
            from pytest_imu.core.children.sampler import ChildrenSampler

            self._sampler = ChildrenSampler()
            self._sampler.start()

    def _close_children(self, measurement: Measurement) -> Measurement:
        census, self._census = self._census, None
        sampler, self._sampler = self._sampler, None
        seen = None if census is None else process_census().close(census)
        if seen is None and sampler is None:
            return measurement
        sampled = None if sampler is None else sampler.stop()
        children_memory = None if sampled is None else sampled.beside(seen)
        return dataclasses.replace(measurement, children=seen, children_memory=children_memory)

    def _close_memory(self, duration_ns: int) -> Measurement:
        window, self._window = self._window, None
        if window is None:
            fault = self._fault or RuntimeError("the block was never entered")
            return unreadable(fault, duration_ns)
        try:
            return window.close(duration_ns, reusable_bytes=self._reusable_bytes, tracer=active_tracer())
        except Exception as error:  # noqa: BLE001 - no fault of the measuring reaches the block
            return unreadable(error, duration_ns)

    def peek(self) -> tuple[int | None, int | None]:
        """Return the RSS now and the highest so far, in bytes, of a block that is running.

        Both are None where they cannot be read, or no block is running.
        """
        try:
            return (None, None) if self._window is None else self._window.peek()
        except Exception:  # noqa: BLE001 - no fault of the measuring reaches the block
            return None, None

    @property
    def result(self) -> Measurement | None:
        """The finished block's measurement; None while it runs, or where it never began."""
        return self._measurement

    @property
    def measurement(self) -> Measurement:
        """The finished block's measurement; RuntimeError while the block is still running."""
        if self._measurement is None:
            message = "this block has not ended yet: read its numbers after the with statement"
            raise RuntimeError(message)
        return self._measurement

    @property
    def before_bytes(self) -> int | None:
        """RSS when the block began, in bytes."""
        return self.measurement.before_bytes

    @property
    def after_bytes(self) -> int | None:
        """RSS when the block ended, in bytes."""
        return self.measurement.after_bytes

    @property
    def rss_peak_bytes(self) -> int | None:
        """Highest RSS inside the block, in bytes."""
        return self.measurement.rss_peak_bytes

    @property
    def delta_bytes(self) -> int | None:
        """What the block left behind, in bytes; negative when it gave memory back."""
        return self.measurement.delta_bytes

    @property
    def peak_bytes(self) -> int | None:
        """What the block needed on top of what was there, in bytes."""
        return self.measurement.peak_bytes

    @property
    def duration_ns(self) -> int:
        """How long the block took, in nanoseconds."""
        return self.measurement.duration_ns

    @property
    def source(self) -> Source:
        """Where the peak comes from: "kernel" (exact), "sampled" (a lower bound) or "none"."""
        return self.measurement.source

    @property
    def children_memory(self) -> ChildrenMemory | None:
        """The memory of all descendants; None where it was not asked for."""
        return self.measurement.children_memory

    def another(self) -> Meter:
        """Return a meter like this one, for a block of its own."""
        return Meter(
            trim=self._trim,
            gc=self._gc,
            counters=self._counters,
            children=self._children,
            source=self._source,
            clock_ns=self._clock_ns,
        )

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Measure every call of *function*; the last one to end is its `measurement` attribute."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            name = getattr(function, "__qualname__", repr(function))  # a functools.partial has none
            message = (
                f"measure() cannot decorate the generator {name}(): its body runs "
                "in pieces; measure the loop that consumes it"
            )
            raise TypeError(message)
        # Any: the wrapper grows an attribute, which the type of a plain function does not have.
        wrapper: Any
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def measured_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
                meter = self.another()
                try:
                    with meter:
                        return await function(*args, **kwargs)
                finally:
                    wrapper.measurement = meter.result

            wrapper = measured_coroutine
        else:

            @functools.wraps(function)
            def measured(*args: P.args, **kwargs: P.kwargs) -> R:
                meter = self.another()
                try:
                    with meter:
                        return function(*args, **kwargs)
                finally:
                    wrapper.measurement = meter.result

            wrapper = measured
        wrapper.measurement = None
        return cast("Callable[P, R]", wrapper)


@overload
def measure(*, trim: bool = True, gc: bool = False, children: bool = False) -> Meter: ...
@overload
def measure(function: Callable[P, R], /) -> Callable[P, R]: ...
def measure(
    function: Callable[P, R] | None = None,
    /,
    *,
    trim: bool = True,
    gc: bool = False,
    children: bool = False,
) -> Meter | Callable[P, R]:
    """Measure a block of code, or every call of a function.

    Write `with measure() as m: ...` or `@measure`.

    After the block, *m* has `before_bytes`, `after_bytes`, `rss_peak_bytes`, `delta_bytes`,
    `peak_bytes`, `duration_ns` and `source`. A decorated function (or coroutine function) has the
    `Measurement` of its last finished call as its attribute `measurement`.

    RSS and its peak come from the kernel's own count of this process on Linux, exact to about
    0.1 MiB, and from samples elsewhere; `source` says which. Blocks may nest and overlap, in threads
    and tasks too; each sees the whole process.

    *trim* first gives memory that glibc holds freed back to the kernel, so that the block's own need
    is seen. *gc* first runs a full garbage collection. *children* adds `children_memory`: the memory
    of all child processes and theirs (PSS), sampled.
    """
    meter = Meter(trim=trim, gc=gc, children=children)
    return meter if function is None else meter(function)


@functools.cache
def process_trimmer() -> Trimmer:
    """Return this process's trimmer: its share of the run's time is counted once."""
    return Trimmer(malloc_trim=find_malloc_trim(), rss_bytes=platforms.rss_bytes)
