"""The kernel as a source of counts: software events for real, errors and hardware by a scripted call."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from counting import assert_windows_are_exact, counting_script, touch_pages
from pytest_imu.core.counters.kernel.call import EventDescriptor, can_count, perf_event_open, why_refused
from pytest_imu.core.counters.kernel.counts import UNKNOWN, Kernel
from pytest_imu.core.counters.kernel.names import EXCLUDE_KERNEL, INHERIT_THREAD, Attr
from pytest_imu.core.counters.kernel.threads import Count
from pytest_imu.core.counters.source import CannotCountError
from pytest_imu.core.meter import Meter
from pytest_imu.core.model import CounterReading

pytestmark = pytest.mark.needs_kernel_counts

PAGE_BYTES = mmap.PAGESIZE
CLOSED = "the descriptors by which events are counted were closed"


@pytest.fixture
def counting() -> Iterator[Callable[..., Kernel]]:
    """Return a function that makes a source, which is ended after the test."""
    made: list[Kernel] = []

    def make(*events: str, **arguments: Any) -> Kernel:
        made.append(Kernel(events, **arguments))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def counted(source: Kernel, body: Callable[[], object]) -> dict[str, CounterReading]:
    """Run *body* inside a window and return what each event counted."""
    with Meter(counters=source) as meter:
        body()
    return {reading.event: reading for reading in meter.measurement.counters}


def faults_in(source: Kernel, body: Callable[[], object]) -> float:
    """Return how many page faults *body* took."""
    reading = counted(source, body)["page-faults"]
    assert reading.value is not None, reading.reason
    return reading.value


SCRIPT = counting_script(Kernel)


def test_windows_are_exact(run_python: Callable[..., Any]) -> None:
    """Pages touched in a window are its page faults; an inner window has its own alone, the outer one
    those of both.
    """
    assert_windows_are_exact(run_python, SCRIPT)


def test_threads_whenever_they_start(counting: Callable[..., Kernel]) -> None:
    """Counted are threads from before the first window, from between two windows, from within one, and
    one whose own creator has ended.
    """
    go, done = threading.Event(), [threading.Semaphore(0) for _ in range(4)]

    def work(number: int) -> None:
        go.wait()
        touch_pages(1000)
        done[number].release()

    def start(number: int) -> threading.Thread:
        thread = threading.Thread(target=work, args=(number,))
        thread.start()
        return thread

    workers = [start(0)]
    stop_creating, created = threading.Event(), threading.Semaphore(0)

    def create() -> None:
        stop_creating.wait()
        workers.append(start(1))
        created.release()

    creator = threading.Thread(target=create)
    creator.start()
    source = counting("task-clock", "page-faults")  # one leads, and the other is in its group
    assert faults_in(source, int) < 100
    stop_creating.set()
    created.acquire()
    creator.join()
    workers.append(start(2))

    def body() -> None:
        workers.append(start(3))
        go.set()
        for one in done:
            one.acquire()

    assert 4000 <= faults_in(source, body) < 4200
    for one in workers:
        one.join()


BLAS = """
import os, time

os.environ.pop("OPENBLAS_NUM_THREADS", None)  # tox asks for one thread
source = Kernel(["task-clock"])

def multiply():
    began = time.process_time()
    import numpy
    numpy.ones((1500, 1500)) @ numpy.ones((1500, 1500))
    took.append(time.process_time() - began)

took = []
if sys.argv[1] == "before":
    multiply()
threads = len(os.listdir("/proc/self/task"))
value = counted(multiply)
source.stop()
print(json.dumps([threads, value, took[-1]]))
"""


@pytest.mark.needs_numpy
@pytest.mark.parametrize("when", ["before", "within"])
def test_threads_of_a_c_library(run_python: Callable[..., Any], when: str) -> None:
    """A pool of a C library's threads is counted, whether it was started before or in the window."""
    threads, value_ms, took_s = run_python(SCRIPT + BLAS, when)
    assert (threads > 1) == (when == "before" and os.cpu_count() != 1)
    # Two of the kernel's clocks, for all threads: without those of the pool it would be half.
    assert value_ms >= 0.95 * took_s * 1000


def test_two_hundred_threads(run_python: Callable[..., Any]) -> None:
    """Threads in great number are counted, each of them."""
    body = """
go, gates = threading.Event(), [threading.Semaphore(0) for _ in range(200)]

def work(gate):
    go.wait()
    touch_pages(10)
    gate.release()

workers = [threading.Thread(target=work, args=(gate,)) for gate in gates]
for one in workers:
    one.start()

def body():
    go.set()
    for gate in gates:
        gate.acquire()

value = counted(body)
for one in workers:
    one.join()
source.stop()
print(json.dumps(value))
"""
    assert 2000 <= run_python(SCRIPT + body) < 10_000


def test_few_descriptors(run_python: Callable[..., Any]) -> None:
    """Where descriptors are few the counting takes at most half of them, or says how to have more."""
    body = """
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
alone = counted(functools.partial(touch_pages, 100))
source.stop()
go = threading.Event()
workers = [threading.Thread(target=go.wait) for _ in range(40)]
for one in workers:
    one.start()
refused = counted(int)
files = [open("/dev/null") for _ in range(50)]
for one in files:
    one.close()
go.set()
for one in workers:
    one.join()
print(json.dumps([alone, refused]))
"""
    alone, refused = run_python(SCRIPT + body)
    assert 100 <= alone < 200
    expected = "counting takes a descriptor for each thread and event, and this process may have 64: "
    assert expected + "ulimit -n allows more" == refused


def test_child_processes(
    counting: Callable[..., Kernel], in_fork: Callable[[Callable[[], object]], Any]
) -> None:
    """A forked child is not counted, has no descriptor of ours, and counts itself with a new source."""
    source = counting("page-faults")
    source.prepare()
    held = event_descriptors()
    assert held

    def child() -> list[object]:
        inherited = event_descriptors()
        old = counted(source, int)["page-faults"].reason
        own = source.anew()
        faults = faults_in(own, lambda: touch_pages(3000))
        own.stop()
        return [inherited, old, 3000 <= faults < 3100, event_descriptors()]

    told: list[object] = []
    assert faults_in(source, lambda: told.append(in_fork(child))) < 3000
    assert [[[], "kernel counts the process that forked this one", True, []]] == told
    assert held == event_descriptors()


def event_descriptors() -> list[str]:
    """Return the descriptors of events that this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - the names are wanted
        try:
            if "perf_event" in os.readlink(f"/proc/self/fd/{name}"):  # noqa: PTH115 - it is no file
                found.append(name)
        except FileNotFoundError:
            continue  # the one that listed the others
    return found


def test_descriptors_that_a_test_closes(counting: Callable[..., Kernel]) -> None:
    """Closed in a window, the count is lost and says so; closed before one, it is not missed."""
    source = counting("page-faults", "task-clock", "minor-faults")
    source.prepare()

    def close_all() -> None:
        for name in event_descriptors():
            os.close(int(name))

    assert CLOSED == counted(source, close_all)["page-faults"].reason
    assert faults_in(source, lambda: touch_pages(100)) >= 100
    close_all()
    assert faults_in(source, lambda: touch_pages(100)) >= 100
    os.close(int(event_descriptors()[-1]))  # not the one that stands for its group
    assert CLOSED == counted(source, int)["page-faults"].reason
    assert faults_in(source, lambda: touch_pages(100)) >= 100


def test_numbers_that_a_test_reuses(counting: Callable[..., Kernel]) -> None:
    """What a test has opened under a number of ours, an event of its own say, is left as it is."""
    source = counting("page-faults")
    source.prepare()
    number = min(map(int, event_descriptors()))
    attr = Attr(type=1, config=2)
    own = perf_event_open()(attr.to_bytes(0), 0, -1)
    os.dup2(own, number)
    assert faults_in(source, lambda: touch_pages(100)) >= 100
    source.stop()
    before = struct.unpack("=4Q", os.read(number, 32))[3]
    touch_pages(100)
    assert struct.unpack("=4Q", os.read(number, 32))[3] >= before + 100  # it was not switched off
    os.close(own)
    os.close(number)


def test_samples(counting: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch) -> None:
    """A long window has a sample for each tenth of a second, where a thread may take them; that thread
    is not counted, and goes with the source.
    """
    threads: list[int] = []
    real = perf_event_open()

    def call(attr: bytes, thread: int, group: int) -> int:
        threads.append(thread)
        return real(attr, thread, group)

    source = counting("page-faults", samples=True, call=lambda: call)
    source.prepare()
    [sampler] = [one for one in threading.enumerate() if one.name == "imu-counter-samples"]
    assert sampler.native_id not in threads

    def body() -> None:
        end = time.monotonic() + 0.35
        while time.monotonic() < end:
            touch_pages(10)

    reading = counted(source, body)["page-faults"]
    assert 2 <= len(reading.samples)
    assert reading.value == sum(reading.samples)
    for module in ("samples", "counts"):  # no tenth ends in what follows, however slow the machine is
        monkeypatch.setattr(f"pytest_imu.core.counters.kernel.{module}.SAMPLE_S", 60.0)
    short = counted(source, int)["page-faults"]
    assert (short.value,) == short.samples
    source.stop()
    assert not sampler.is_alive()


def test_no_thread_where_none_is_wanted(counting: Callable[..., Kernel]) -> None:
    """In a test run no thread is started: a short window is one sample, a longer one has none."""
    source = counting("task-clock")
    before = threading.enumerate()
    window = source.open()
    assert before == threading.enumerate()
    window.end()
    [reading] = window.read(200_000_000)
    assert () == reading.samples
    assert reading.value is not None
    assert reading.per_second == pytest.approx(reading.value * 5)


def scripted(answers: Callable[[Attr, int, int], int]) -> Callable[[], Callable[[bytes, int, int], int]]:
    """Return a call whose events are page faults, whatever is asked; *answers* gives an errno or 0."""
    real = perf_event_open()

    def call(attr: bytes, thread: int, group: int) -> int:
        kind, _, config = struct.unpack_from("<IIQ", attr)
        [flags] = struct.unpack_from("<Q", attr, 40)
        if number := answers(Attr(type=kind, config=config, flags=flags), thread, group):
            raise OSError(number, "scripted")
        faults = Attr(type=1, config=2)
        return real(faults.to_bytes(flags & ~(EXCLUDE_KERNEL | 1 << 6)), thread, group)

    return lambda: call


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EACCES, "not permitted (perf_event_paranoid is "),
        (errno.EPERM, "in docker also --cap-add PERFMON"),
        (errno.ENOENT, "not supported by this "),
        (errno.EOPNOTSUPP, "not supported by this "),
        (errno.ENOSYS, "the kernel has no perf_event_open, or a container hides it: sysctl"),
        (errno.EMFILE, "counting takes a descriptor for each thread and event, and this process may"),
        (errno.EINVAL, "perf_event_open says Invalid argument"),
    ],
)
def test_errors_in_words(counting: Callable[..., Kernel], number: int, expected: str) -> None:
    """Every error of the call is a reason, with the way to fix it; events beside it are counted."""
    source = counting(
        "cache-misses",
        "page-faults",
        call=scripted(lambda attr, *_: number if attr.type == 0 else 0),
    )
    readings = counted(source, lambda: touch_pages(100))
    assert readings["cache-misses"].value is None
    assert expected in (readings["cache-misses"].reason or "")
    assert (readings["page-faults"].value is None) == (number == errno.EMFILE)


def test_unprivileged(counting: Callable[..., Kernel]) -> None:
    """Who may not look into the kernel has counts of user space, and they say so; what happens in the
    kernel alone is n/a and not 0.
    """
    source = counting(
        *("cache-misses", "instructions:k", "instructions:u", "context-switches", "task-clock"),
        call=scripted(lambda attr, *_: 0 if attr.flags & EXCLUDE_KERNEL else errno.EACCES),
    )
    readings = counted(source, lambda: touch_pages(10))
    assert [True, False, False, False, True] == [one.user_only for one in readings.values()]
    assert readings["instructions:u"].reason is None
    assert ["cache-misses:u", "task-clock:u"] == [one.name for one in readings.values() if one.user_only]
    for event in ("instructions:k", "context-switches"):
        assert readings[event].value is None
        assert "sysctl kernel.perf_event_paranoid=1 on the host" in (readings[event].reason or "")


def test_kernel_before_5_13(counting: Callable[..., Kernel]) -> None:
    """A kernel that does not know how to leave child processes out counts them."""
    asked: list[int] = []

    def answers(attr: Attr, *_: int) -> int:
        asked.append(attr.flags)
        return errno.EINVAL if attr.flags & INHERIT_THREAD else 0

    source = counting("page-faults", call=scripted(answers))
    assert faults_in(source, lambda: touch_pages(100)) >= 100
    assert [True] + [False] * (len(asked) - 1) == [bool(flags & INHERIT_THREAD) for flags in asked]


def test_event_that_the_kernel_does_not_take(counting: Callable[..., Kernel]) -> None:
    """One that is refused in any case leaves the others as they are: without child processes."""
    asked: list[bool] = []

    def answers(attr: Attr, *_: int) -> int:
        asked.append(bool(attr.flags & INHERIT_THREAD))
        return errno.EINVAL if attr.type == 0 else 0

    readings = counted(counting("cycles", "page-faults", call=scripted(answers)), int)
    assert "perf_event_open says Invalid argument" == readings["cycles"].reason
    assert readings["page-faults"].reason is None
    assert [True, False] + [True] * (len(asked) - 2) == asked


def test_nothing_left_to_count(counting: Callable[..., Kernel]) -> None:
    """What happens in the kernel alone is not counted as 0 where the kernel is left out on request."""
    reading = counted(counting("context-switches:u"), int)["context-switches:u"]
    assert (None, False) == (reading.value, reading.user_only)
    assert "not counted: it happens in the kernel alone, and :u leaves that out" == reading.reason


def test_hybrid_cpu_is_summed(counting: Callable[..., Kernel]) -> None:
    """The parts of an event on two kinds of cores add up; a kind that does not have it is left out."""
    parts = (Attr(type=0, config=4 << 32), Attr(type=0, config=10 << 32))
    both = counting("cycles", attrs=lambda _: parts, call=scripted(lambda *_: 0))
    assert counted(both, lambda: touch_pages(100))["cycles"].value in range(200, 300)
    one = counting(
        "cycles",
        attrs=lambda _: parts,
        call=scripted(lambda attr, *_: errno.ENOENT if attr.config >> 32 == 10 else 0),
    )
    assert counted(one, lambda: touch_pages(100))["cycles"].value in range(100, 150)


def groups_of(source: Kernel, asked: Sequence[tuple[int, bool]]) -> list[tuple[int, bool]]:
    """Return the type of each event that is opened for this thread, and whether it leads a group."""
    source.prepare()
    [reading, *_] = counted(source, lambda: touch_pages(10)).values()
    assert reading.reason is None
    return list(asked)


def test_events_that_are_counted_together(counting: Callable[..., Kernel]) -> None:
    """Hardware events are one group, and software events another, as far as the hardware has room."""
    asked: list[tuple[int, bool]] = []

    def answers(attr: Attr, thread: int, group: int) -> int:
        if thread == threading.get_native_id():
            asked.append((attr.type, group < 0))
        return errno.EINVAL if group >= 0 and attr.config == 1 else 0

    source = counting(
        *("cache-misses", "page-faults", "cycles", "instructions", "task-clock"),
        call=scripted(answers),
    )
    # The third of the hardware does not fit, so it is asked for once more, alone.
    expected = [(0, True), (1, True), (0, False), (0, False), (0, True), (1, False), (1, True)]
    assert groups_of(source, asked) == expected


def test_group_that_never_gets_onto_the_hardware(
    counting: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where something else holds a counter, the events of a group take turns instead."""
    asked: list[tuple[int, bool]] = []
    real, trials = EventDescriptor._read, [1]  # what the kernel answers is scripted

    def answers(attr: Attr, thread: int, group: int) -> int:
        if thread == threading.get_native_id():
            asked.append((attr.type, group < 0))
        return 0

    def read(number: int, size_bytes: int) -> bytes:
        data = real(number, size_bytes)
        if trials and trials.pop():
            data = data[:16] + bytes(8) + data[24:]
        return data

    monkeypatch.setattr(EventDescriptor, "_read", staticmethod(read))
    source = counting("cache-misses", "cycles", call=scripted(answers))
    assert groups_of(source, asked) == [(0, True), (0, False), (0, True), (0, True)]


@pytest.mark.parametrize(
    ("counts", "value", "percent"),
    [
        ([Count(10, 100, 100)], 10, 100),
        ([Count(10, 100, 50)], 20, 50),
        ([Count(10, 100, 50), Count(30, 100, 100)], 53, 75),
        ([Count(0, 100, 0)], None, None),
        ([Count(0, 0, 0)], 0, 100),
    ],
)
def test_scaling(
    counting: Callable[..., Kernel], counts: Sequence[Count], value: int | None, percent: int | None
) -> None:
    """What was on the hardware for a part of the time is scaled up; what never was is not counted."""
    back_end = counting("cycles").counters.back_end
    reading = back_end.read("cycles", [[{"cycles": one} for one in counts]], 1000)
    assert (value, percent) == (reading.value, reading.running_percent)
    assert ("not counted" if value is None else None) == reading.reason


def test_clocks_are_milliseconds(counting: Callable[..., Kernel]) -> None:
    """The clocks count milliseconds, as perf prints them; it is the thread's own time."""
    source = counting("task-clock")

    def burn() -> None:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass

    value = counted(source, burn)["task-clock"].value
    assert value is not None
    # Two of the kernel's clocks: the thread's own and this one agree to some 0.2 %.
    assert 0.99 * 50 <= value < 5000


def test_name_that_the_kernel_does_not_have(counting: Callable[..., Kernel]) -> None:
    """Who wants the kernel alone is told of an event that it cannot name."""
    readings = counted(counting("nonsense", "page-faults"), int)
    assert (None, UNKNOWN) == (readings["nonsense"].value, readings["nonsense"].reason)
    assert readings["page-faults"].reason is None


def test_unknown_processor() -> None:
    """Where the call's number is not known, that is said."""
    assert not can_count("s390x")
    with pytest.raises(CannotCountError, match="not known for this s390x process"):
        perf_event_open("s390x")


def test_processor_with_counters(tmp_path: Any) -> None:
    """A processor that has counters, but not this one, is told from a machine that has none."""
    (tmp_path / "cpu_core").mkdir()
    (tmp_path / "cpu_core" / "cpus").touch()
    assert "not supported by this processor" == why_refused(errno.ENOENT, devices=tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "GitHub's arm runners" in why_refused(errno.ENOENT, devices=empty)


@pytest.mark.needs_cache_misses
def test_cache_misses_for_real(counting: Callable[..., Kernel]) -> None:
    """Where the machine counts them, reading 64 MiB misses the caches."""
    source = counting("cache-misses", "instructions")
    readings = counted(source, lambda: bytearray(64 * 2**20).count(1))
    assert (readings["cache-misses"].value or 0) > 1
    assert (readings["instructions"].value or 0) > 2**20
