"""measure(): as a context manager and as a decorator, over scripted sources and for real."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

import pytest_imu
from pytest_imu.core.memory.source import NotMeasuredError
from pytest_imu.core.memory.trim import process_trimmer
from pytest_imu.core.memory.window import Settle, Sizes
from pytest_imu.core.meter import Meter, measure
from pytest_imu.core.model import Measurement


def measurement(
    duration_ns: int, before: int = 100, highest: int = 300, after: int = 120
) -> Measurement:
    """Return a measurement with these bytes."""
    return Measurement(
        before_bytes=before,
        after_bytes=after,
        rss_peak_bytes=highest,
        duration_ns=duration_ns,
        source="kernel",
    )


@dataclass
class FakeSource:
    """A source of peaks that notes what is asked of it, and breaks where it is told to."""

    open_error: BaseException | None = None
    close_error: Exception | None = None
    label: str = "scripted"
    resolution_bytes: int | None = None
    before_bytes: int = 0
    settles: list[Settle | None] = field(default_factory=list)
    closed: int = 0
    on_reading: Callable[[], None] = lambda: None

    def open(self, settle: Settle | None = None) -> FakeSource:
        """Begin a window."""
        self.on_reading()
        self.settles.append(settle)
        if self.open_error is not None:
            raise self.open_error
        return self

    def close(self, window: FakeSource, settle: Settle | None = None) -> Sizes:
        """End the window."""
        assert window is self
        self.on_reading()
        self.settles.append(settle)
        self.closed += 1
        if self.close_error is not None:
            raise self.close_error
        return Sizes(100, 120, 300, "kernel")

    def peek(self, window: FakeSource) -> tuple[int, int]:
        """Look into the window."""
        assert window is self
        if self.close_error is not None:
            raise self.close_error
        return 150, 250


class TestContextManager:
    """`with measure() as m: ...`."""

    def test_numbers_are_the_measurements(self) -> None:
        """After the block every number is there, the derived ones too."""
        with Meter(source=FakeSource()) as m:
            pass
        assert (100, 120, 300) == (m.before_bytes, m.after_bytes, m.rss_peak_bytes)
        assert (20, 200) == (m.delta_bytes, m.peak_bytes)
        assert "kernel" == m.source
        assert m.measurement == dataclasses.replace(
            measurement(m.duration_ns), had_children=False, started_ns=m.measurement.started_ns
        )

    @pytest.mark.parametrize(
        "name",
        [
            "measurement",
            "before_bytes",
            "after_bytes",
            "rss_peak_bytes",
            "delta_bytes",
            "peak_bytes",
            "duration_ns",
            "source",
        ],
    )
    def test_no_number_before_the_end(self, name: str) -> None:
        """Inside the block, and before it, there is no number yet, and the error says so."""
        m = Meter(source=FakeSource())
        with pytest.raises(RuntimeError, match="has not ended yet"):
            getattr(m, name)
        with m, pytest.raises(RuntimeError, match="has not ended yet"):
            getattr(m, name)
        getattr(m, name)

    def test_running_block_can_be_looked_into(self) -> None:
        """While the block runs, and only then, peek() gives the RSS and the highest so far."""
        m = Meter(source=FakeSource())
        assert (None, None) == m.peek()
        with m:
            assert (150, 250) == m.peek()
        assert (None, None) == m.peek()

    @pytest.mark.parametrize("when", ["open_error", "close_error"])
    def test_look_into_what_cannot_be_read(self, when: str) -> None:
        """Where the memory cannot be read, peek() gives None, and the block goes on."""
        source = FakeSource()
        setattr(source, when, OSError("refused"))
        with Meter(source=source) as m:
            assert (None, None) == m.peek()

    def test_open_block_is_not_opened_again(self) -> None:
        """A second `with` on an open one is refused, and the first goes on unharmed."""
        source = FakeSource()
        with Meter(source=source) as m:
            with pytest.raises(RuntimeError, match="already open"), m:
                pytest.fail("the block was entered twice")
            assert 0 == source.closed
        assert 200 == m.peak_bytes

    def test_ended_block_may_be_used_again(self) -> None:
        """One that has ended measures a second block, and forgets the first's numbers meanwhile."""
        m = Meter(source=FakeSource())
        with m:
            pass
        with m, pytest.raises(RuntimeError, match="has not ended yet"):
            _ = m.peak_bytes
        assert 200 == m.peak_bytes

    def test_duration_is_the_blocks_alone(self) -> None:
        """A source that takes a second for each reading adds nothing to a block of five."""
        now_s = 0

        def take_one_second() -> None:
            nonlocal now_s
            now_s += 1

        source = FakeSource(on_reading=take_one_second)
        with Meter(source=source, clock_ns=lambda: now_s * 10**9) as m:
            now_s += 5
        assert 7 == now_s
        assert 5 * 10**9 == m.duration_ns

    def test_real_clock_runs(self) -> None:
        """A block that does something took longer than one around it did not."""
        with measure() as outer, measure() as inner:
            sum(range(10_000))
        assert 0 < inner.duration_ns < outer.duration_ns

    def test_exception_of_the_block_passes(self) -> None:
        """The block's exception comes out as it is, and the block is measured all the same."""
        error = ZeroDivisionError("the block's own")
        m = Meter(source=FakeSource())

        def fail() -> None:
            with m:
                raise error

        with pytest.raises(ZeroDivisionError) as caught:
            fail()
        assert error is caught.value
        assert 200 == m.peak_bytes

    def test_keeps_no_exception_alive(self) -> None:
        """Neither the exception of a block nor what its frames hold outlives it through the meter."""

        class Large:
            pass

        m = Meter(source=FakeSource())

        def fail() -> weakref.ref[Large]:
            large = Large()
            with contextlib.suppress(ValueError), m:
                raise ValueError(large)
            return weakref.ref(large)

        gc.disable()
        try:
            large = fail()
            assert None is large()
        finally:
            gc.enable()

    @pytest.mark.parametrize("trim", [True, False])
    def test_trims_where_it_is_wanted(self, trim: bool) -> None:  # noqa: FBT001 - a table's column
        """With `trim` both ends of the window get the process's one trimmer, without it none."""
        source = FakeSource()
        with Meter(source=source, trim=trim):
            pass
        assert [process_trimmer().settled_rss if trim else None] * 2 == source.settles

    @pytest.mark.parametrize("collect", [True, False])
    def test_collects_garbage_where_it_is_wanted(self, collect: bool) -> None:  # noqa: FBT001 - as above
        """With `gc` the cycles of the past are gone when the block begins; without it they stay."""

        class Cycle:
            def __init__(self) -> None:
                self.itself = self

        gc.disable()
        try:
            cycle = weakref.ref(Cycle())
            with measure(gc=collect):
                assert collect == (cycle() is None)
        finally:
            gc.enable()


class TestBrokenSource:
    """Whatever breaks in the measuring, the block runs as it would without it."""

    @pytest.mark.parametrize(
        "error", [OSError("refused"), ValueError("garbled"), RuntimeError("thread")]
    )
    @pytest.mark.parametrize("when", ["open_error", "close_error"])
    def test_block_runs_and_the_reason_is_told(self, when: str, error: Exception) -> None:
        """Every number of memory is None with the reason, and the time is there."""
        source = FakeSource()
        setattr(source, when, error)
        ran = False
        with Meter(source=source) as m:
            ran = True
        assert ran
        assert (None, None, None) == (m.before_bytes, m.after_bytes, m.rss_peak_bytes)
        assert (None, None) == (m.delta_bytes, m.peak_bytes)
        assert "none" == m.source
        assert f"memory could not be read: {type(error).__name__}: {error}" == m.measurement.reason
        assert 0 <= m.duration_ns

    def test_memory_that_is_not_measured_on_purpose(self) -> None:
        """The reason stands as it is: nothing has failed."""
        with Meter(source=FakeSource(open_error=NotMeasuredError("simulated run"))) as m:
            pass
        assert ("none", "simulated run") == (m.source, m.measurement.reason)

    @pytest.mark.parametrize("when", ["open_error", "close_error"])
    def test_result_and_exception_are_the_blocks(self, when: str) -> None:
        """What a decorated function returns and raises is its own."""
        source = FakeSource()
        setattr(source, when, OSError("refused"))

        @Meter(source=source)
        def divide(by: int) -> int:
            return 12 // by

        assert 4 == divide(3)
        with pytest.raises(ZeroDivisionError):
            divide(0)

    def test_failure_of_an_earlier_block_is_forgotten(self) -> None:
        """A source that works again gives numbers again."""
        source = FakeSource(open_error=OSError("refused"))
        m = Meter(source=source)
        with m:
            pass
        source.open_error = None
        with m:
            pass
        assert (200, None) == (m.peak_bytes, m.measurement.reason)

    def test_interrupt_while_the_window_opens_passes(self) -> None:
        """Ctrl-C in the measuring itself is Ctrl-C, in the with statement and in the decorator."""
        source = FakeSource(open_error=KeyboardInterrupt())

        @Meter(source=source)
        def function() -> None:
            pytest.fail("the function ran")

        with pytest.raises(KeyboardInterrupt):
            function()
        with pytest.raises(KeyboardInterrupt), Meter(source=source):
            pytest.fail("the block ran")


class TestDecorator:
    """`@measure`, `@measure(...)`."""

    @pytest.mark.parametrize("decorate", [measure, measure(), measure(trim=False, gc=False)])
    def test_function_stays_what_it_is(self, decorate: Callable[..., Any]) -> None:
        """Arguments, result, name and docstring are the function's own, with and without brackets."""

        @decorate
        def add(left: int, *, right: int = 2) -> int:
            """Add."""
            return left + right

        assert None is vars(add)["measurement"]
        assert 5 == add(3)
        assert 7 == add(3, right=4)
        assert ("add", "Add.") == (add.__name__, add.__doc__)
        assert add.measurement.source in {"kernel", "sampled"}
        assert add.measurement.duration_ns > 0

    def test_every_call_is_measured(self) -> None:
        """Each call has a window of its own, and the last to end is the one that is kept."""
        source = FakeSource()

        @Meter(source=source, trim=False)
        def count_down(number: int) -> int:
            return count_down(number - 1) if number else 0

        count_down(3)
        assert [None] * 8 == source.settles
        assert 4 == source.closed

    def test_method_is_measured(self) -> None:
        """A decorated method gets its instance."""

        class Adder:
            def __init__(self, left: int) -> None:
                self.left = left

            @measure
            def add(self, right: int) -> int:
                return self.left + right

        assert 5 == Adder(2).add(3)

    def test_call_that_raises_is_measured(self) -> None:
        """The exception passes, and the call has its measurement."""

        @Meter(source=FakeSource())
        def fail() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert 200 == vars(fail)["measurement"].peak_bytes

    def test_coroutine_is_measured_until_it_ends(self) -> None:
        """A coroutine function stays one, and its window closes when it has been awaited."""
        source = FakeSource()

        @Meter(source=source)
        async def work() -> str:
            await asyncio.sleep(0)
            assert 0 == source.closed
            return "done"

        assert "done" == asyncio.run(work())
        assert 1 == source.closed
        assert 200 == vars(work)["measurement"].peak_bytes
        assert "work" == work.__name__

    def test_coroutine_that_is_cancelled_is_measured(self) -> None:
        """A cancelled coroutine ends its window, and the cancellation passes."""
        source = FakeSource()

        @Meter(source=source)
        async def work() -> None:
            await asyncio.Event().wait()

        async def main() -> None:
            task = asyncio.ensure_future(work())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert 1 == source.closed

    def test_generators_are_refused(self) -> None:
        """A generator's body runs in pieces: decorating one is an error that says what to do."""

        def numbers() -> Iterator[int]:
            yield 1

        async def later() -> AsyncIterator[int]:
            yield 1

        with pytest.raises(TypeError, match=r"generator .*numbers\(\): .* measure the loop"):
            measure(numbers)
        with pytest.raises(TypeError, match=r"generator .*later\(\)"):
            measure(trim=False)(later)
        with pytest.raises(TypeError, match=r"generator functools\.partial.*numbers"):
            measure(functools.partial(numbers))


class TestPublicNames:
    """What `pytest_imu` itself offers."""

    def test_measure_and_measurement_are_public(self) -> None:
        """The names are the core's own."""
        assert measure is pytest_imu.measure
        assert Measurement is pytest_imu.Measurement

    def test_public_names_are_listed(self) -> None:
        """dir() lists what is public, and everything listed is there."""
        assert ["BudgetWarning", "Measurement", "__version__", "measure"] == dir(pytest_imu)
        for name in dir(pytest_imu):
            assert getattr(pytest_imu, name)

    def test_unknown_name_is_an_attribute_error(self) -> None:
        """A name that is not there is an ordinary AttributeError."""
        with pytest.raises(AttributeError, match="module 'pytest_imu' has no attribute 'peak'"):
            pytest_imu.peak  # noqa: B018 - the look-up is what is tested
