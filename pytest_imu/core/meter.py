"""Memory and clock around a block: `measure()`, the one thing that front ends call."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from pytest_imu.core.children.census import CensusStart, process_census
from pytest_imu.core.counters.source import CounterSource, CounterWindow
from pytest_imu.core.decorator import measuring_each_call
from pytest_imu.core.imports import count_modules, imported
from pytest_imu.core.memory import source as memory
from pytest_imu.core.memory.reusable import process_gauge
from pytest_imu.core.memory.source import NotMeasuredError
from pytest_imu.core.memory.trim import process_trimmer
from pytest_imu.core.memory.window import PeakSource, Settle, Sizes
from pytest_imu.core.model import ChildrenMemory, Measurement, Source
from pytest_imu.core.system import System
from pytest_imu.core.tracers import active_tracer

if TYPE_CHECKING:
    from pytest_imu.core.children.sampler import ChildrenSampler

P = ParamSpec("P")
R = TypeVar("R")
NEVER_BEGAN = RuntimeError("the block was never entered")


class Meter:
    """Measures one block: `with Meter() as m: ...`, then `m.peak_bytes` and the rest.

    Whatever fails in the measuring, the block runs as it would without it: the numbers that could
    not be read are None and `m.measurement.reason` says why. The block's own exceptions pass.
    With *for_verdict* memory is given back, and it is asked what can be reused, at any price.
    Children are told from *census*, where the caller has begun one, else from the block's beginning.
    *on_end* gets the measurement of each block that ends.
    """

    _window: Any = None  # Any: what the source gave is its own business
    _settle: Settle | None = None
    _counter_window: CounterWindow | None = None
    _census: CensusStart | None = None
    _sampler: ChildrenSampler | None = None
    _reusable_bytes: int | None = None
    _fault: Exception = NEVER_BEGAN
    _start_ns: int | None = None
    _modules_before = 0
    _measurement: Measurement | None = None

    def __init__(
        self,
        *,
        trim: bool = True,
        gc: bool = False,
        counters: CounterSource | None = None,
        children: bool = False,
        census: CensusStart | None = None,
        for_verdict: bool = False,
        source: PeakSource[Any] | None = None,
        clock_ns: Callable[[], int] = System.perf_counter_ns,
        on_end: Callable[[Measurement], None] | None = None,
    ) -> None:
        self._trim = trim
        self._gc = gc
        self._counters = counters
        self._children = children
        self._given_census = census
        self._source = source
        self._clock_ns = clock_ns
        self._on_end = on_end
        self._for_verdict = for_verdict

    def __enter__(self) -> Self:
        if self._start_ns is not None:
            raise RuntimeError("this measure() is already open; call measure() again for a second block")
        self._window = self._census = self._measurement = None
        try:
            self._open()
        except Exception as error:  # noqa: BLE001 - no fault of the measuring reaches the block
            self._fault = error.with_traceback(None)  # it would keep the frames of the block's caller
        if self._counters is not None:
            self._counter_window = self._counters.open()
        self._modules_before = count_modules()
        self._start_ns = self._clock_ns()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        started_ns = self._start_ns or 0
        duration_ns = self._clock_ns() - started_ns
        counter_window, self._counter_window = self._counter_window, None
        # The counters first, so that they do not count the reading of the memory; what they hold is
        # read last, so that its text does not count as memory.
        if counter_window is not None:
            counter_window.end()
        sizes = self._close()
        had_children = process_census().had_children(self._census)
        sampled = None if self._sampler is None else self._sampler.stop()
        self._start_ns = self._sampler = None
        self._measurement = Measurement(
            before_bytes=sizes.before_bytes,
            after_bytes=sizes.after_bytes,
            rss_peak_bytes=sizes.rss_peak_bytes,
            duration_ns=duration_ns,
            started_ns=started_ns,
            source=sizes.source,
            reason=sizes.reason,
            counters=() if counter_window is None else counter_window.read(duration_ns),
            reusable_bytes=self._reusable_bytes,
            tracer=active_tracer(),
            had_children=had_children,
            children_memory=None if sampled is None else sampled.beside(had_children=had_children),
            imports=imported(self._modules_before, sizes.before_bytes, sizes.after_bytes),
        )
        if self._on_end is not None:
            self._on_end(self._measurement)

    def _open(self) -> None:
        if self._counters is not None:
            self._counters.prepare()
        if self._gc:
            System.collect()
        # Before the memory's window: what this itself needs shall not be in it.
        self._census = process_census().begin() if self._given_census is None else self._given_census
        if self._children:
            from pytest_imu.core.children.sampler import ChildrenSampler

            self._sampler = ChildrenSampler()
            self._sampler.start()
        if self._trim:
            trimmer = process_trimmer()
            self._settle = trimmer.trimmed_rss if self._for_verdict else trimmer.settled_rss
        source = self._source or memory.peak_source()
        self._window = window = source.open(self._settle)
        if self._source is not None:  # what another source reads says nothing about this allocator
            return
        gauge = process_gauge()
        asked = gauge.asked
        self._reusable_bytes = gauge.read(window.before_bytes, anew=self._for_verdict)
        if gauge.asked != asked:
            # Asking takes memory of its own, and is none of the block's.
            source.close(window)
            self._window = source.open()

    def _close(self) -> Sizes:
        window, self._window = self._window, None
        if window is None:
            return _unreadable(self._fault)
        try:
            return (self._source or memory.peak_source()).close(window, self._settle)
        except Exception as error:  # noqa: BLE001 - no fault of the measuring reaches the block
            return _unreadable(error)

    def peek(self) -> tuple[int | None, int | None]:
        """Return the RSS now and the highest so far, in bytes, of a block that is running.

        Both are None where they cannot be read, or no block is running.
        """
        try:
            source = self._source or memory.peak_source()
            return (None, None) if self._window is None else source.peek(self._window)
        except Exception:  # noqa: BLE001 - no fault of the measuring reaches the block
            return None, None

    @property
    def is_open(self) -> bool:
        """Whether the block is running."""
        return self._start_ns is not None

    @property
    def opened_at_bytes(self) -> int | None:
        """RSS as the block that runs began, in bytes; None where it cannot be read."""
        return None if self._window is None else self._window.before_bytes

    @property
    def result(self) -> Measurement | None:
        """The finished block's measurement; None while it runs, or where it never began."""
        return self._measurement

    @property
    def measurement(self) -> Measurement:
        """The finished block's measurement; RuntimeError while the block is still running."""
        if self._measurement is None:
            raise RuntimeError("this block has not ended yet: read its numbers after the with statement")
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
        meter = copy.copy(self)
        # What this one has open, if it is open, stays its own.
        vars(meter).update(_window=None, _counter_window=None, _sampler=None, _start_ns=None)
        return meter

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Measure every call of *function*; the last one to end is its `measurement` attribute."""
        return measuring_each_call(function, self.another)


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


def _unreadable(error: Exception) -> Sizes:
    """Return the sizes of a window that could not be read, or was not meant to be."""
    meant = isinstance(error, NotMeasuredError)
    reason = str(error) if meant else f"memory could not be read: {type(error).__name__}: {error}"
    return Sizes(None, None, None, "none", reason)
