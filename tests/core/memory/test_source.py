"""Windows on memory: over a scripted kernel, over scripted samplers, and over the real kernel."""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_imu.core.memory import platforms
from pytest_imu.core.memory import source as memory
from pytest_imu.core.memory.allowance import Allowance
from pytest_imu.core.memory.kernel import FOREIGN_RESET, KernelPeak, KernelWindow
from pytest_imu.core.memory.platforms import MemoryReaders, ProcStatus
from pytest_imu.core.memory.sampled import SampledPeak
from pytest_imu.core.memory.source import NotMeasuredError, choose_peak_source
from pytest_imu.core.memory.trim import Trimmer
from pytest_imu.core.memory.window import PeakSource, Settle
from pytest_imu.core.meter import Meter, measure
from pytest_imu.core.units import MIB

InFork = Callable[[Callable[[], object]], Any]
RunPython = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("steady_memory")

BOUND_MIB = 0.5
"""How far the kernel's numbers may be off."""


def about(size_mib: float) -> Any:
    """Return what equals every number of bytes that is this many MiB, within the bound."""
    return pytest.approx(size_mib * MIB, abs=BOUND_MIB * MIB)


@dataclass
class FakeKernel:
    """What the kernel keeps of one process, in MiB; the mark falls to the RSS when it is reset."""

    rss: int = 100
    mark: int = 100
    exec_peak: int = 0
    """The peak of the program that exec'd this one: no reset lowers ru_maxrss under it."""
    off: int = 0
    """How far the mark stands beside the RSS after a reset."""
    resets: int = 0

    def use(self, *rss: int) -> None:
        """Let the RSS go through these values."""
        for self.rss in rss:
            self.mark = max(self.mark, self.rss)

    def read_status(self) -> ProcStatus:
        """Return both fields of /proc/self/status."""
        return ProcStatus(self.rss * MIB, self.mark * MIB)

    def read_rss(self) -> int:
        """Return what statm says."""
        return self.rss * MIB

    def read_max_rss(self) -> int:
        """Return ru_maxrss."""
        return max(self.mark, self.exec_peak) * MIB

    def reset(self) -> None:
        """Carry out a write to clear_refs."""
        self.mark = self.rss + self.off
        self.resets += 1

    def spike(self, size_bytes: int) -> None:
        """Fill a block and free it."""
        self.mark = max(self.mark, self.rss + size_bytes // MIB)

    def source(self) -> KernelPeak:
        """Return a source of peaks that reads this kernel."""
        return KernelPeak(
            read_status=self.read_status,
            read_rss=self.read_rss,
            read_max_rss=self.read_max_rss,
            reset=self.reset,
            spike=self.spike,
        )

    def readers(self, _platform: str = "linux") -> MemoryReaders:
        """Return the readers that are left where the reset is refused."""
        return MemoryReaders(
            rss_bytes=self.read_rss, lifetime_peak_bytes=lambda: self.mark * MIB, label="scripted"
        )


def closed(
    source: PeakSource[Any], window: object, settle: Settle | None = None
) -> tuple[int, int, int]:
    """Close a window; return its before, highest and after, in MiB."""
    done = source.close(window, settle)
    numbers = (done.before_bytes, done.rss_peak_bytes, done.after_bytes)
    before, highest, after = (-1 if number is None else number // MIB for number in numbers)
    return before, highest, after


class TestKernelPeak:
    """Windows on a scripted kernel."""

    def test_spike_that_came_and_went_is_the_peak(self) -> None:
        """A window's peak is the highest RSS inside it, and both its ends are readings of their own."""
        kernel = FakeKernel()
        source = kernel.source()
        window = source.open()
        kernel.use(300, 150)
        measurement = source.close(window)
        assert 100 * MIB == measurement.before_bytes
        assert 300 * MIB == measurement.rss_peak_bytes
        assert 150 * MIB == measurement.after_bytes
        assert ("kernel", None) == (measurement.source, measurement.reason)

    def test_inner_window_leaves_the_outer_its_peak(self) -> None:
        """A spike before an inner window opens is the outer's alone, though the mark is reset."""
        kernel = FakeKernel()
        source = kernel.source()
        outer = source.open()
        kernel.use(300, 100)
        inner = source.open()
        kernel.use(150, 100)
        assert (100, 150, 100) == closed(source, inner)
        assert (100, 300, 100) == closed(source, outer)

    def test_outer_window_has_its_inner_windows_peak(self) -> None:
        """A spike inside an inner window is the outer's too."""
        kernel = FakeKernel()
        source = kernel.source()
        outer = source.open()
        inner = source.open()
        kernel.use(400, 120)
        assert (100, 400, 120) == closed(source, inner)
        kernel.use(130)
        assert (100, 400, 130) == closed(source, outer)

    def test_overlapping_windows_have_each_their_own_peak(self) -> None:
        """Windows that close in the order in which they opened each see their own time and no more."""
        kernel = FakeKernel()
        source = kernel.source()
        first = source.open()
        kernel.use(500, 100)
        second = source.open()
        kernel.use(200, 100)
        assert (100, 500, 100) == closed(source, first)
        kernel.use(300, 100)
        assert (100, 300, 100) == closed(source, second)

    def test_closed_window_says_nothing_to_the_next(self) -> None:
        """A peak of the past, inside a window or between two, is not the next window's."""
        kernel = FakeKernel()
        source = kernel.source()
        window = source.open()
        kernel.use(900, 100)
        source.close(window)
        kernel.use(800, 100)
        window = source.open()
        kernel.use(110)
        assert (100, 110, 110) == closed(source, window)

    def test_memory_given_back_does_not_hide_the_next_peak(self) -> None:
        """A window that opens lower than the last one has its peak above its own start."""
        kernel = FakeKernel()
        source = kernel.source()
        source.close(source.open())
        kernel.use(40)
        window = source.open()
        kernel.use(60, 50)
        assert (40, 60, 50) == closed(source, window)

    def test_mark_that_has_not_moved_is_not_reset(self) -> None:
        """Windows with nothing between them share one reset; whatever moves costs the next one."""
        kernel = FakeKernel()
        source = kernel.source()
        for _ in range(5):
            source.close(source.open())
        assert 1 == kernel.resets
        kernel.use(150, 100)  # the RSS is where it was, the mark is not
        source.close(source.open())
        assert 2 == kernel.resets
        kernel.use(90)  # the mark is where it was, the RSS is not
        source.close(source.open())
        assert 3 == kernel.resets

    def test_mark_that_rose_with_the_rss_is_not_reset(self) -> None:
        """Where the RSS is at its highest now, the mark stands there too, and the peaks are as true."""
        kernel = FakeKernel()
        source = kernel.source()
        for rss in (110, 120, 130):
            window = source.open()
            kernel.use(rss)
            assert (rss - 10, rss, rss) == closed(source, window)
        assert 1 == kernel.resets
        kernel.use(150, 140)  # higher than now: the next window's peak is not that
        window = source.open()
        kernel.use(145)
        assert (140, 145, 145) == closed(source, window)
        assert 2 == kernel.resets

    def test_another_programs_peak_does_not_hide_ours(self) -> None:
        """Under the peak of the program that exec'd this one, VmHWM tells the peak."""
        kernel = FakeKernel(exec_peak=500)
        source = kernel.source()
        window = source.open()
        kernel.use(300, 100)
        assert (100, 300, 100) == closed(source, window)

    def test_hidden_peak_of_the_past_is_not_the_next_windows(self) -> None:
        """Under another program's peak, where ru_maxrss stands still, the mark is reset all the same."""
        kernel = FakeKernel(exec_peak=500)
        source = kernel.source()
        source.close(source.open())
        kernel.use(300, 100)
        window = source.open()
        kernel.use(110)
        assert (100, 110, 110) == closed(source, window)

    def test_peak_above_another_programs_is_whole(self) -> None:
        """A peak that overtakes the peak of the program that exec'd this one counts from our start."""
        kernel = FakeKernel(exec_peak=500)
        source = kernel.source()
        window = source.open()
        kernel.use(700, 100)
        assert (100, 700, 100) == closed(source, window)

    def test_many_processors_do_not_hide_a_peak(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another program's peak a little above our RSS is told from the mark's own imprecision."""
        monkeypatch.setattr(os, "cpu_count", lambda: 64)
        kernel = FakeKernel(exec_peak=120)
        source = kernel.source()
        window = source.open()
        kernel.use(115, 100)
        assert (100, 115, 100) == closed(source, window)
        window = source.open()
        kernel.use(300, 100)
        assert (100, 300, 100) == closed(source, window)

    def test_mark_that_is_off_after_the_reset(self) -> None:
        """A mark that a reset leaves a little above the RSS takes nothing from the peak."""
        kernel = FakeKernel(off=2)
        source = kernel.source()
        window = source.open()
        kernel.use(300, 100)
        assert (100, 300, 100) == closed(source, window)

    def test_running_window_tells_its_highest_so_far(self) -> None:
        """A look into a window gives the RSS and the peak until then, and takes nothing from any."""
        kernel = FakeKernel()
        source = kernel.source()
        outer = source.open()
        kernel.use(400, 100)
        inner = source.open()
        kernel.use(200, 150)
        assert (150 * MIB, 200 * MIB) == source.peek(inner)
        assert (150 * MIB, 400 * MIB) == source.peek(outer)
        kernel.use(120)
        assert (100, 200, 120) == closed(source, inner)
        assert (100, 400, 120) == closed(source, outer)

    def test_foreign_reset_is_told(self) -> None:
        """A mark under where the window began was reset by others: the peak is a lower bound."""
        kernel = FakeKernel()
        source = kernel.source()
        window = source.open()
        kernel.use(300, 50)
        kernel.reset()
        kernel.use(90)
        measurement = source.close(window)
        assert ("sampled", FOREIGN_RESET) == (measurement.source, measurement.reason)
        assert 100 * MIB == measurement.rss_peak_bytes

    def test_foreign_reset_is_told_to_every_open_window(self) -> None:
        """A foreign reset that one window finds is known to those around it, and to none after it."""
        kernel = FakeKernel()
        source = kernel.source()
        outer = source.open()
        inner = source.open()
        kernel.use(50)
        kernel.reset()
        assert "sampled" == source.close(inner).source
        after = source.open()
        kernel.use(200)
        assert "kernel" == source.close(after).source
        assert "sampled" == source.close(outer).source

    def test_outer_window_keeps_what_an_inner_one_read(self) -> None:
        """A peak that was read when an inner window closed survives a reset by others."""
        kernel = FakeKernel()
        source = kernel.source()
        outer = source.open()
        inner = source.open()
        kernel.use(300, 100)
        assert (100, 300, 100) == closed(source, inner)
        kernel.reset()
        assert (100, 300, 100) == closed(source, outer)

    def test_closed_windows_are_let_go(self) -> None:
        """A window that has closed is no longer kept, also where its last reading was refused."""
        source = FakeKernel().source()
        source.close(source.open())
        window = source.open()
        source._read_rss = refuse
        with pytest.raises(PermissionError):
            source.close(window)
        assert set() == source._open_windows

    def test_trims_at_both_ends(self) -> None:
        """Freed memory is given back before the first and before the last reading."""
        kernel = FakeKernel(rss=180)

        def give_back() -> None:
            kernel.rss = {180: 100, 250: 130}[kernel.rss]

        trimmer = Trimmer(malloc_trim=give_back, allowance=Allowance())
        source = kernel.source()
        window = source.open(trimmer.settled_rss)
        kernel.use(400, 250)
        assert (100, 400, 130) == closed(source, window, trimmer.settled_rss)

    def test_resolution_is_four_batches(self) -> None:
        """What may be off is what two processors hold back at the reset, and two at the peak."""
        assert 4 * platforms.high_water_batch_bytes() == FakeKernel().source().resolution_bytes

    @pytest.mark.needs_fork
    def test_signal_handler_may_open_a_window(self, in_fork: InFork) -> None:
        """A handler that measures while its thread opens a window waits for nobody."""

        def interrupted() -> tuple[int, int, int]:
            kernel = FakeKernel()
            source = kernel.source()

            def read_rss() -> int:
                signal.raise_signal(signal.SIGUSR1)
                return kernel.read_rss()

            def measure_too(_number: int, _frame: FrameType | None) -> None:
                signal.signal(signal.SIGUSR1, signal.SIG_IGN)
                source.close(source.open())

            signal.signal(signal.SIGUSR1, measure_too)
            source._read_rss = read_rss
            window = source.open()
            kernel.use(200, 100)
            return closed(source, window)

        assert [100, 200, 100] == in_fork(interrupted)


opened = st.tuples(st.just("open"), st.just(0))
sizes = st.integers(1, 8).map(lambda step: 50 * step)  # few, so that the RSS often comes back to one
used = st.tuples(st.just("use"), sizes)
ended = st.tuples(st.just("close"), st.integers(0, 9))


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(st.lists(opened | used | ended), st.just(0) | sizes)
def test_every_window_has_its_own_peak(steps: list[tuple[str, int]], exec_peak: int) -> None:
    """However windows nest and overlap, each has the highest RSS of its own time."""
    kernel = FakeKernel(exec_peak=exec_peak)
    source = kernel.source()
    open_windows: list[tuple[KernelWindow, list[int]]] = []
    for what, number in steps:
        if what == "open":
            open_windows.append((source.open(), [kernel.rss]))
        elif what == "use":
            kernel.use(number)
            for _, seen in open_windows:
                seen.append(number)
        elif open_windows:
            window, seen = open_windows.pop(number % len(open_windows))
            assert (seen[0], max(seen), seen[-1]) == closed(source, window)


def refuse(*_: object) -> Any:
    """Do what /proc does where it refuses."""
    raise PermissionError("permission denied")


def no_kernel() -> KernelPeak:
    """Fail the test that asks for a kernel's peaks where there is none."""
    pytest.fail("a platform without a resettable mark was asked for it")


class TestChoice:
    """Which source of peaks a process gets."""

    def test_kernel_that_carries_out_the_reset_is_chosen(self) -> None:
        """Where the reset works, the peaks are the kernel's."""
        source = FakeKernel().source()
        assert source is choose_peak_source("linux", kernel=lambda: source)
        assert "kernel high-water mark" == source.label

    @pytest.mark.parametrize("platform", ["darwin", "win32", "freebsd14"])
    def test_other_platforms_are_sampled(self, platform: str) -> None:
        """Without a resettable mark peaks are sampled, and the label says why."""
        source = choose_peak_source(platform, kernel=no_kernel, readers=FakeKernel().readers)
        assert f"sampled (no resettable peak on {platform})" == source.label
        assert None is source.resolution_bytes

    @pytest.mark.parametrize("refused", ["read_rss", "read_status", "reset"])
    def test_refusal_is_the_reason(self, refused: str) -> None:
        """Where /proc refuses a reading or the reset, peaks are sampled, and the label says why."""
        kernel = FakeKernel()
        source = kernel.source()
        setattr(source, f"_{refused}", refuse)
        chosen = choose_peak_source("linux", kernel=lambda: source, readers=kernel.readers)
        assert "sampled (/proc refused: permission denied)" == chosen.label

    def test_status_without_its_fields_is_a_refusal(self) -> None:
        """A status text that lacks the fields is no source of peaks."""
        kernel = FakeKernel()

        def source() -> KernelPeak:
            return KernelPeak(
                read_status=lambda: platforms.parse_proc_status(b"Name:\tpython\nVmRSS:\t 12 kB\n"),
                read_rss=kernel.read_rss,
                read_max_rss=kernel.read_max_rss,
                reset=kernel.reset,
                spike=kernel.spike,
            )

        chosen = choose_peak_source("linux", kernel=source, readers=kernel.readers)
        assert isinstance(chosen, SampledPeak)

    def test_reset_that_is_not_carried_out_is_a_refusal(self) -> None:
        """A mark that stays where it was after a reset that was accepted is no source of peaks."""
        kernel = FakeKernel()
        source = kernel.source()
        source._reset = lambda: None
        chosen = choose_peak_source("linux", kernel=lambda: source, readers=kernel.readers)
        assert "sampled (/proc refused: clear_refs did not lower VmHWM)" == chosen.label

    @pytest.mark.parametrize("tool", ["callgrind", "memcheck"])
    def test_nothing_is_measured_under_valgrind(self, tool: str) -> None:
        """Under any of valgrind's tools there is no source, and nothing of the kernel's is tried."""
        with pytest.raises(NotMeasuredError, match=r"^simulated run$"):
            choose_peak_source("linux", kernel=no_kernel, tool=lambda: tool)


class TestSampledPeak:
    """Windows where no mark can be reset."""

    def test_first_and_last_reading_count(self) -> None:
        """Even a window without a sample has its two ends, and says that it is a lower bound."""
        readings = iter([100, 100, 160, 160])  # before, the sampler's first and last, after
        readers = MemoryReaders(
            rss_bytes=lambda: next(readings, 160) * MIB, lifetime_peak_bytes=None, label="scripted"
        )
        source = SampledPeak(readers, why="no peak")
        measurement = source.close(source.open())
        assert (100 * MIB, 160 * MIB, 160 * MIB) == (
            measurement.before_bytes,
            measurement.rss_peak_bytes,
            measurement.after_bytes,
        )
        assert "sampled" == measurement.source

    def test_highest_sample_is_the_peak(self) -> None:
        """What the thread has seen between the two ends is the peak."""
        seen = threading.Event()
        thread_readings = iter([300, 100])

        def read() -> int:
            if threading.current_thread().name != "imu-sampler":
                return 100 * MIB
            reading = next(thread_readings, None)
            if reading is None:
                seen.set()
            return (reading or 100) * MIB

        readers = MemoryReaders(rss_bytes=read, lifetime_peak_bytes=None, label="scripted")
        source = SampledPeak(readers, why="no peak")
        window = source.open()
        assert seen.wait(timeout=30)
        assert (100 * MIB, 300 * MIB) == source.peek(window)
        assert (100, 300, 100) == closed(source, window)

    def test_lifetime_peak_that_rose_is_exact(self) -> None:
        """Where the highest RSS of the process's life rose in the window, it is the window's peak."""
        kernel = FakeKernel()
        source = SampledPeak(kernel.readers(), why="refused")
        window = source.open()
        kernel.use(400, 120)
        measurement = source.close(window)
        assert ("kernel", 400 * MIB) == (measurement.source, measurement.rss_peak_bytes)

    def test_older_lifetime_peak_says_nothing(self) -> None:
        """A highest RSS that is older than the window is not its peak."""
        kernel = FakeKernel()
        kernel.use(400, 100)
        source = SampledPeak(kernel.readers(), why="refused")
        window = source.open()
        kernel.use(120)
        measurement = source.close(window)
        assert ("sampled", 120 * MIB) == (measurement.source, measurement.rss_peak_bytes)

    @pytest.mark.parametrize(
        ("peak_wset", "expected"),
        [([500, 500], ("sampled", 120 * MIB)), ([500, 501], ("kernel", 501 * MIB))],
    )
    def test_windows_peak_wset_counts_only_where_it_rose(
        self, peak_wset: list[int], expected: tuple[str, int]
    ) -> None:
        """peak_wset is the process's life's: it is the window's only where it rose inside it."""
        readings = iter(peak_wset)

        class MemoryInfo:
            rss = 120 * MIB

            @property
            def peak_wset(self) -> int:
                return next(readings) * MIB

        readers = platforms.readers_for("win32", process_memory=MemoryInfo)
        source = SampledPeak(readers, why="no resettable peak on win32")
        measurement = source.close(source.open())
        assert expected == (measurement.source, measurement.rss_peak_bytes)

    @pytest.mark.parametrize(
        ("max_rss", "expected"),
        [([500, 500], ("sampled", 120 * MIB)), ([500, 501], ("kernel", 501 * MIB))],
    )
    def test_macos_max_rss_counts_only_where_it_rose(
        self,
        monkeypatch: pytest.MonkeyPatch,
        max_rss: list[int],
        expected: tuple[str, int],
    ) -> None:
        """ru_maxrss is the process's life's: it is the window's only where it rose inside it."""
        readings = iter(max_rss)
        monkeypatch.setattr(platforms, "max_rss_bytes", lambda: next(readings) * MIB)

        class MemoryInfo:
            rss = 120 * MIB

        readers = platforms.readers_for("darwin", process_memory=MemoryInfo)
        source = SampledPeak(readers, why="no resettable peak on darwin")
        measurement = source.close(source.open())
        assert expected == (measurement.source, measurement.rss_peak_bytes)

    def test_trims_at_both_ends(self) -> None:
        """Freed memory is given back before the first and before the last reading."""
        kernel = FakeKernel(rss=180, mark=900)

        def give_back() -> None:
            kernel.rss = {180: 100, 250: 130}[kernel.rss]

        trimmer = Trimmer(malloc_trim=give_back, allowance=Allowance())
        source = SampledPeak(kernel.readers(), why="refused")
        window = source.open(trimmer.settled_rss)
        kernel.use(250)
        assert (100, 250, 130) == closed(source, window, trimmer.settled_rss)

    @pytest.mark.parametrize("broken", ["rss_bytes", "lifetime_peak_bytes"])
    def test_reader_that_raises_leaves_no_sampler(self, broken: str) -> None:
        """A window that cannot be read raises when it opens, and when it closes its sampler is gone."""
        kernel = FakeKernel()
        works = True

        def read() -> int:
            return kernel.read_rss() if works else int(refuse())

        readers = {"rss_bytes": kernel.read_rss, "lifetime_peak_bytes": kernel.read_rss, broken: read}
        source = SampledPeak(MemoryReaders(**readers, label="scripted"), why="refused")
        window = source.open()
        works = False
        with pytest.raises(PermissionError):
            source.close(window)
        with pytest.raises(PermissionError):
            source.open()
        assert [] == [thread for thread in threading.enumerate() if thread.name == "imu-sampler"]


def hold(size_mib: int) -> mmap.mmap:
    """Return this much memory, every page of it touched within the one system call that maps it."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    return mmap.mmap(-1, size_mib * MIB, flags=flags)


def spike(size_mib: int) -> None:
    """Touch this much memory and give it back at once."""
    hold(size_mib).close()


@pytest.mark.needs_kernel_peaks
class TestRealKernel:
    """Windows on the kernel that the tests run on."""

    def test_kernel_is_this_process_source(self) -> None:
        """Where the reset works, this process's one source of peaks is the kernel."""
        assert isinstance(memory.peak_source(), KernelPeak)
        assert memory.peak_source() is memory.peak_source()

    @pytest.mark.parametrize("size_mib", [8, 100])
    def test_shortest_spike_is_measured(self, size_mib: int) -> None:
        """Memory that comes and goes within one call is measured, and nothing of it stays."""
        with measure() as m:
            spike(size_mib)
        assert about(size_mib) == m.peak_bytes
        assert about(0) == m.delta_bytes
        assert "kernel" == m.source

    @pytest.mark.parametrize("size_mib", [8, 100])
    def test_spike_without_a_pause_is_measured(self, run_python: RunPython, size_mib: int) -> None:
        """So is memory inside one C call, which never gives the interpreter's lock away.

        In a process of its own: malloc gives what an earlier test has freed, without any growth.
        """
        peak, delta, source = run_python(SPIKE_WITHOUT_A_PAUSE, str(size_mib))
        assert about(size_mib) == peak
        assert about(0) == delta
        assert "kernel" == source

    def test_empty_window_measures_nothing(self) -> None:
        """A block that does nothing needs nothing."""
        with measure() as m:
            pass
        assert about(0) == m.peak_bytes
        assert about(0) == m.delta_bytes

    def test_held_memory_is_delta_and_peak(self) -> None:
        """What a block keeps is its delta and its peak; what it gives back is a negative delta."""
        with measure() as m:
            held = hold(100)
        assert about(100) == m.delta_bytes
        assert about(100) == m.peak_bytes
        with measure() as m:
            held.close()
        assert about(-100) == m.delta_bytes
        assert about(0) == m.peak_bytes

    def test_nested_windows(self) -> None:
        """An inner window's reset takes nothing from the outer."""
        with measure() as outer:
            spike(100)
            with measure() as inner:
                spike(40)
        assert about(40) == inner.peak_bytes
        assert about(100) == outer.peak_bytes

    def test_windows_of_two_threads_overlap(self) -> None:
        """Threads whose windows overlap each have the whole process's peak of their own time."""
        steps = [threading.Event() for _ in range(3)]
        theirs = Meter()

        def other_thread() -> None:
            steps[0].wait()
            with theirs:
                steps[1].set()
                steps[2].wait()
                spike(40)

        thread = threading.Thread(target=other_thread)
        thread.start()
        with measure() as ours:
            spike(100)
            steps[0].set()
            steps[1].wait()
            spike(70)
        steps[2].set()
        thread.join()
        assert about(100) == ours.peak_bytes
        assert about(70) == theirs.peak_bytes

    def test_windows_of_two_tasks_overlap(self) -> None:
        """Tasks whose windows overlap each have the peak of their own time, awaits included."""

        async def main() -> tuple[Meter, Meter]:
            opened, ended = asyncio.Event(), asyncio.Event()

            async def first() -> Meter:
                with measure() as m:
                    spike(100)
                    await opened.wait()
                ended.set()
                return m

            async def second() -> Meter:
                with measure() as m:
                    opened.set()
                    await ended.wait()
                    spike(70)
                return m

            return await asyncio.gather(first(), second())

        first, second = asyncio.run(main())
        assert about(100) == first.peak_bytes
        assert about(70) == second.peak_bytes

    def test_block_that_raises_is_measured(self) -> None:
        """The exception passes, and what happened until then is measured."""
        m = measure()

        def fail() -> None:
            with m:
                spike(100)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert about(100) == m.peak_bytes

    def test_forked_child_measures_itself(self, in_fork: InFork) -> None:
        """A window in a child measures the child, and its reset is not the parent's."""

        def child() -> list[Any]:
            with measure() as m:
                spike(40)
            return [m.peak_bytes, m.source]

        with measure() as parents:
            spike(100)
            peak_bytes, source = in_fork(child)
        assert about(40) == peak_bytes
        assert "kernel" == source
        assert about(100) == parents.peak_bytes

    def test_window_that_a_fork_left_open(self, in_fork: InFork) -> None:
        """The child's copy of a window that is open ends with the child's own highest RSS."""
        with measure() as m:

            def child() -> list[Any]:
                spike(100)
                m.__exit__(None, None, None)
                return [m.source, m.rss_peak_bytes, platforms.read_proc_status().high_water_bytes]

            source, rss_peak_bytes, high_water_bytes = in_fork(child)
        assert "kernel" == source
        assert pytest.approx(high_water_bytes, abs=BOUND_MIB * MIB) == rss_peak_bytes

    def test_child_that_begins_below_its_parent(self, in_fork: InFork) -> None:
        """A child has fewer pages of files than its parent had: that is no reset by others."""
        with measure() as m:

            def child() -> list[Any]:
                m.__exit__(None, None, None)
                return [m.source, m.delta_bytes, m.peak_bytes]

            source, delta_bytes, peak_bytes = in_fork(child)
        assert delta_bytes < -MIB
        assert ["kernel", 0] == [source, peak_bytes]

    def test_fork_while_another_thread_opens_a_window(self, in_fork: InFork) -> None:
        """The child waits for no lock of a thread that it does not have."""
        opening, forked = threading.Event(), threading.Event()

        def read_rss() -> int:
            if threading.current_thread().name == "opening":
                opening.set()
                forked.wait()
            return platforms.rss_reader()()

        source = choose_peak_source(kernel=lambda: KernelPeak(read_rss=read_rss))
        thread = threading.Thread(target=lambda: source.close(source.open()), name="opening")

        def child() -> list[Any]:
            with Meter(source=source) as m:
                spike(40)
            return [m.peak_bytes, m.source]

        thread.start()
        opening.wait()
        try:
            peak_bytes, kind = in_fork(child)
        finally:
            forked.set()
            thread.join()
        assert about(40) == peak_bytes
        assert "kernel" == kind

    @pytest.mark.parametrize("larger_mib", [20, 200])
    def test_large_program_that_started_this_one(self, run_python: RunPython, larger_mib: int) -> None:
        """A peak below that of the program that exec'd this one is measured all the same."""
        before, floor, peak, source = run_python(LARGE_PARENT, str(larger_mib), SPIKE_OF_40)
        assert before + 10 * MIB < floor
        assert about(40) == peak
        assert "kernel" == source

    @pytest.mark.needs_root
    def test_process_that_may_not_reset_samples(self, run_python: RunPython) -> None:
        """A process that changed its user is sampled, and exact where its life's peak rose."""
        label, first, second = run_python(MAY_NOT_RESET)
        assert label.startswith("sampled (/proc refused: [Errno 13] Permission denied")
        assert ["kernel", about(100), about(100)] == first
        assert ["sampled", about(50), about(50)] == second


SPIKE_WITHOUT_A_PAUSE = """
import json, sys
from pytest_imu import measure
with measure() as m:
    len(b"x" * (int(sys.argv[1]) * 2**20))
print(json.dumps([m.peak_bytes, m.delta_bytes, m.source]))
"""

LARGE_PARENT = """
import subprocess, sys
held = b"x" * (int(sys.argv[1]) * 2**20)
raise SystemExit(subprocess.run([sys.executable, "-c", sys.argv[2]]).returncode)
"""

SPIKE_OF_40 = """
import json, resource
from pytest_imu import measure
floor = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
with measure() as m:
    len(b"x" * (40 * 2**20))
print(json.dumps([m.before_bytes, floor, m.peak_bytes, m.source]))
"""

MAY_NOT_RESET = """
import ctypes, json, os
from pytest_imu import measure
from pytest_imu.core.memory import source as memory
os.setuid(65534)
with measure() as first:
    held = b"x" * (100 * 2**20)
del held
with measure() as second:  # stays under the peak of the process's life
    held = b"x" * (50 * 2**20)
numbers = [[m.source, m.peak_bytes, m.delta_bytes] for m in (first, second)]
print(json.dumps([memory.peak_source().label, *numbers]))
"""
