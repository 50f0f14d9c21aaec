"""`perf stat` as a source of counts: exact windows with the real perf, every failure with stand-ins."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from counting import assert_windows_are_exact, counting_script, touch_pages
from pytest_imu.core.counters.perf.command import PerfCommand, find_perf
from pytest_imu.core.counters.perf.output import NOT_BELIEVED, EventSample, parse
from pytest_imu.core.counters.perf.stat import PerfStat, reading_of
from pytest_imu.core.counters.source import CannotCountError
from pytest_imu.core.meter import Meter
from pytest_imu.core.model import CounterReading


@pytest.fixture
def counting() -> Iterator[Callable[..., PerfStat]]:
    """Return a function that makes a PerfStat, which is ended after the test."""
    made: list[PerfStat] = []

    def make(events: Sequence[str], **arguments: Any) -> PerfStat:
        made.append(PerfStat(events, **arguments))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def counted(source: PerfStat, body: Callable[[], object]) -> dict[str, CounterReading]:
    """Run *body* inside a window and return what each event counted."""
    with Meter(counters=source) as meter:
        body()
    return {reading.event: reading for reading in meter.measurement.counters}


@pytest.mark.needs_perf
def test_windows_are_exact(run_python: Callable[..., Any]) -> None:
    """Pages touched in a window are its page faults, to within 2 of an empty window's; an inner window
    has its own faults alone, the outer one those of both.
    """
    assert_windows_are_exact(run_python, counting_script(PerfStat))


@pytest.mark.needs_perf
def test_threads_from_before_and_within_are_counted(counting: Callable[..., PerfStat]) -> None:
    """Threads that stand before perf comes, and threads that a window starts, are counted."""
    go = threading.Event()

    def wait_and_touch() -> None:
        go.wait()
        touch_pages(1000)

    before = threading.Thread(target=wait_and_touch)
    before.start()
    source = counting(["page-faults"])

    def body() -> None:
        within = threading.Thread(target=touch_pages, args=(1000,))
        within.start()
        go.set()
        within.join()
        before.join()

    # Not in time: each switch of threads is a microsecond that their own clocks have and perf's has not.
    value = counted(source, body)["page-faults"].value
    assert value is not None
    assert 2000 <= value < 3000  # with one of the threads left out it would be half


@pytest.mark.needs_perf
def test_rate_and_samples(counting: Callable[..., PerfStat]) -> None:
    """A window of half a second has its rate per second, and samples of a tenth that add up."""
    source = counting(["task-clock"])
    source.prepare()

    def body() -> None:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass

    start_s = time.monotonic()
    reading = counted(source, body)["task-clock"]
    took_s = time.monotonic() - start_s
    assert reading.value is not None
    assert reading.per_second is not None
    # A tenth in which the machine let nobody run has no sample: which there are is scripted below.
    assert 2 <= len(reading.samples) <= 10 * took_s + 2
    assert reading.value == pytest.approx(sum(reading.samples), abs=0.001)
    assert reading.per_second <= 1010  # one thread runs 1000 ms a second
    assert reading.running_percent == 100


def test_samples_are_tenths_of_a_second() -> None:
    """The ticks of half a second are five samples, each with what its own tenth counted."""
    ticks = [
        EventSample(
            offset_s=3 + number / 512,
            event="e",
            value=number // 64,
            reason=None,
            running_percent=100.0,
        )
        for number in range(256)
    ]
    reading = reading_of("e", ticks, 500_000_000)
    in_tenths = [sum(n // 64 for n in range(256) if int(10 * n / 512) == tenth) for tenth in range(5)]
    assert tuple(in_tenths) == reading.samples
    assert (384, 768.0) == (reading.value, reading.per_second)


@pytest.mark.needs_perf
def test_one_perf_serves_all_windows(counting: Callable[..., PerfStat]) -> None:
    """The first window starts perf, which then stays, and `stop()` ends it."""
    starts: list[PerfCommand] = []

    def find() -> PerfCommand:
        from pytest_imu.core.counters.perf.command import find_perf

        starts.append(find_perf())
        return starts[-1]

    source = counting(["page-faults"], find=find)
    assert [] == starts
    for _ in range(3):
        assert counted(source, lambda: None)["page-faults"].reason is None
    assert 1 == len(starts)
    source.stop()
    assert [] == perfs_of(os.getpid())


@pytest.mark.needs_perf
def test_idle_perf_is_ended_and_started_again(counting: Callable[..., PerfStat]) -> None:
    """After the idle time perf is gone, and the next window has a new one."""
    source = counting(["page-faults"], idle_s=0.0)
    first = counted(source, lambda: touch_pages(100))["page-faults"]
    for thread in threading.enumerate():
        if thread.name == "imu-perf-idle":
            thread.join()
    assert [] == perfs_of(os.getpid())
    second = counted(source, lambda: touch_pages(100))["page-faults"]
    assert (None, None) == (first.reason, second.reason)


@pytest.mark.needs_perf
def test_an_event_that_perf_refuses_leaves_the_others(counting: Callable[..., PerfStat]) -> None:
    """One unknown event is n/a with its name, and the others are counted."""
    source = counting(["no-such-event", "page-faults"])
    readings = counted(source, lambda: touch_pages(100))
    assert "perf does not know the event 'no-such-event'" == readings["no-such-event"].reason
    assert readings["page-faults"].value is not None


def kill_perf() -> None:
    """End the perf that counts this process, and not in order."""
    for pid in perfs_of(os.getpid()):
        os.kill(pid, signal.SIGKILL)
        wait_until_gone(pid)


@pytest.mark.needs_perf
def test_perf_that_is_killed_is_started_again(counting: Callable[..., PerfStat]) -> None:
    """The window in which it dies is n/a with its reason; between two windows nobody misses it."""
    source = counting(["page-faults"])
    for body, reason in ((kill_perf, "perf ended: it said nothing"), (lambda: None, None)) * 2:
        assert reason == counted(source, body)["page-faults"].reason
    kill_perf()
    assert counted(source, lambda: None)["page-faults"].reason is None


@pytest.mark.needs_perf
def test_perf_that_is_killed_twice_is_given_up(counting: Callable[..., PerfStat]) -> None:
    """Where two windows in a row lose it, those to come say why, and none is started."""
    source = counting(["page-faults"])
    for body in (kill_perf, kill_perf, lambda: None):
        reading = counted(source, body)["page-faults"]
        assert (None, "perf ended: it said nothing") == (reading.value, reading.reason)
    assert [] == perfs_of(os.getpid())


@pytest.mark.needs_perf
def test_python_that_ends_takes_perf_along(run_python: Callable[..., Any]) -> None:
    """An interpreter that ends without stopping perf leaves none behind, and neither does a kill."""
    script = """
        import os, sys, json
        from pytest_imu.core.counters.perf.stat import PerfStat
        source = PerfStat(["page-faults"])
        source.open()
        print(json.dumps([os.getpid(), source.counters.back_end.process.pid]), flush=True)
        if sys.argv[1] == "kill":
            os._exit(0)
    """
    for way in ("end", "kill"):
        _, perf = run_python(textwrap.dedent(script), way)
        wait_until_gone(perf)


# What a test may do to all that this process holds, in a process of its own: (its code, why the window
# in which it does so has no count; None where it has one).
CLOSED = "the descriptors by which perf is read were closed"
HOSTILE = {
    "closes all descriptors": ("os.closerange(3, 256)", CLOSED),
    "closes them and opens its own": (
        """
        os.closerange(3, 256)
        own = [open(f"own {number}", "w+") for number in range(20)]
        for one in own:
            one.write("mine")
            one.flush()
        """,
        CLOSED,
    ),
    "puts its own in their place": (
        """
        own = [open("own 0", "w+")]
        own[0].write("mine")
        own[0].flush()
        for number in range(3, 50):
            if number != own[0].fileno():
                os.dup2(own[0].fileno(), number)
        """,
        CLOSED,
    ),
    "waits for all children": (
        """
        os.spawnlp(os.P_NOWAIT, "true", "true")
        try:
            while True:
                os.wait()
        except ChildProcessError:
            pass
        """,
        None,
    ),
    "ends its own group": (
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        """,
        None,
    ),
    "lets a broken pipe kill, and ends perf": (
        """
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        process = source.counters.back_end.process
        os.kill(process.pid, signal.SIGKILL)
        while process._runs():
            pass
        """,
        "perf ended: it said nothing",
    ),
    "has many descriptors": (
        """
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        many = [os.dup(0) for _ in range(1100)]
        source.stop()
        window = source.open()
        """,
        None,
    ),
    "replaces what reads and waits": (
        """
        def refuse(*_, **__):
            raise RuntimeError("replaced")
        for module, names in {
            os: ("read", "write", "pread", "fstat", "ftruncate", "close", "open", "getpid", "kill",
                 "killpg", "waitpid", "stat", "listdir"),
            time: ("sleep", "monotonic", "time"),
            select: ("poll", "select"),
            gc: ("collect", "isenabled"),
            json: ("dumps",), builtins: ("open",), threading: ("Thread", "Lock"),
            subprocess: ("Popen", "run"),
        }.items():
            for name in names:
                replaced.append((module, name, getattr(module, name)))
                setattr(module, name, refuse)
        """,
        None,
    ),
}
HOSTILE_SCRIPT = """
import builtins, gc, json, os, resource, select, signal, subprocess, sys, tempfile, threading, time
from pytest_imu.core.counters.perf.stat import PerfStat

os.setpgid(0, 0)
own, replaced = [], []
source = PerfStat(["page-faults"])
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    window = source.open()
    exec(sys.argv[1])
    window.end()
    reasons = [window.read(1)[0].reason]
    if not reasons[0]:
        window = source.open()
        window.end()
        window.read(1)
    for module, name, value in replaced:
        setattr(module, name, value)
    window = source.open()
    window.end()
    reasons.append(window.read(1)[0].reason)
    source.stop()
    texts = []
    for one in own:
        one.seek(0)
        texts.append(one.read())
        one.close()
print(json.dumps([reasons, sorted(set(texts))]))
"""


@pytest.mark.needs_perf
@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_test_does_to_its_process(run_python: Callable[..., Any], kind: str) -> None:
    """The window says what became of it, the next one counts, and no file of the test's is touched."""
    code, reason = HOSTILE[kind]
    reasons, texts = run_python(HOSTILE_SCRIPT, textwrap.dedent(code))
    assert [reason, None] == reasons
    assert texts in ([], ["mine"])


@pytest.mark.needs_perf
@pytest.mark.needs_root
def test_real_refusal(run_python: Callable[..., Any]) -> None:
    """A process that even its own user's perf may not attach to is told that perf was refused."""
    script = """
        import encodings.ascii, json, os
        from pytest_imu.core.counters.perf import process as perf_process
        from pytest_imu.core.counters.perf.stat import PerfStat
        source = PerfStat(["page-faults"])
        os.setuid(65534)
        window = source.open()
        window.end()
        print(json.dumps(window.read(1)[0].reason))
    """
    assert run_python(textwrap.dedent(script)).startswith("perf was refused (perf_event_paranoid is ")


@pytest.mark.needs_perf
@pytest.mark.needs_fork
def test_forked_child_does_not_touch_the_parents_perf(
    counting: Callable[..., PerfStat], in_fork: Callable[[Callable[[], object]], Any]
) -> None:
    """A window in a forked child is n/a with its reason, and the parent goes on counting."""
    source = counting(["page-faults"])
    answers: list[Any] = []

    def body() -> None:
        answers.append(in_fork(lambda: counted(source, lambda: None)["page-faults"].reason))
        touch_pages(1000)

    value = counted(source, body)["page-faults"].value
    assert ["perf counts the process that forked this one"] == answers
    assert value is not None
    assert value >= 1000


@pytest.mark.needs_perf
@pytest.mark.needs_cache_misses
def test_cache_misses_are_counted(counting: Callable[..., PerfStat]) -> None:
    """Reading 64 MiB, more than most caches hold, has cache misses."""
    block = bytearray(64 * 2**20)
    source = counting(["cache-misses"])
    reading = counted(source, lambda: block.count(1))["cache-misses"]
    assert reading.value is not None
    assert reading.value > 0


@pytest.mark.parametrize("event", ["", "-e", "a b", "page-faults,cycles", "x;y", "$(id)", "a'b", "\n"])
def test_odd_event_is_refused_before_it_reaches_perf(event: str) -> None:
    """What is not an event's name is a ValueError that says what was expected."""
    with pytest.raises(ValueError, match="expected an event as `perf list` names it"):
        PerfStat([event])


A_MINUTE_S = 60.0
AT_ONCE_S = 0.5
STAND_INS = {
    "dies at once": ("sys.exit(3)", "perf ended: it said nothing"),
    "says why it dies": (
        "sys.stderr.write('perf: the reason\\n'); sys.exit(255)",
        "perf ended: perf: the reason",
    ),
    "is refused": (
        "sys.stderr.write('Error:\\nNo permission to enable page-faults event.\\n'); sys.exit(255)",
        "perf was refused (perf_event_paranoid is ",
    ),
    "hangs": ("time.sleep(60)", "perf did not answer within "),
    "answers garbage": ("os.write(answers, b'hello\\n'); time.sleep(60)", "perf ended: it said nothing"),
    "prints garbage": (
        "os.write(log, b'\\x00\\xff;;;\\n' * 9); os.write(answers, b'ack\\n'); time.sleep(60)",
        "no tick came from perf within ",
    ),
    "dies after its answer": (
        "os.write(answers, b'ack\\n'); sys.exit(1)",
        "perf ended: it said nothing",
    ),
}
ENDS_THE_WAIT = {"hangs": "START_TIMEOUT_S", "prints garbage": "FIRST_TICK_TIMEOUT_S"}
"""The limits that are there for a stand-in; where it does not reach one, a slow machine shall not."""


@pytest.mark.needs_proc
@pytest.mark.parametrize("kind", STAND_INS)
def test_perf_that_fails_gives_its_reason(
    kind: str,
    tmp_path: Path,
    counting: Callable[..., PerfStat],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever perf does, the window ends in time, n/a with a reason, and perf is not tried again."""
    for limit in ("START_TIMEOUT_S", "FIRST_TICK_TIMEOUT_S", "ANSWER_TIMEOUT_S"):
        limit_s = AT_ONCE_S if ENDS_THE_WAIT.get(kind) == limit else A_MINUTE_S
        monkeypatch.setattr(f"pytest_imu.core.counters.perf.process.{limit}", limit_s)
    body, reason = STAND_INS[kind]
    path = stand_in(tmp_path, body)
    starts: list[PerfCommand] = []

    def find() -> PerfCommand:
        starts.append(PerfCommand(path=str(path), version=(6, 1)))
        return starts[-1]

    source = counting(["page-faults"], find=find)
    for _ in range(2):
        reading = counted(source, lambda: None)["page-faults"]
        assert reading.value is None
        assert reading.reason is not None
        assert reading.reason.startswith(reason)
    assert 1 == len(starts)


@pytest.mark.needs_proc
@pytest.mark.needs_fork
@pytest.mark.parametrize("hangs_at", ["its version", "its start"])
def test_perf_that_hangs_is_tried_once(
    hangs_at: str,
    tmp_path: Path,
    in_fork: Callable[[Callable[[], object]], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What one isolated child has waited for in vain is not tried by the next one, or by the session."""
    limit = "command.VERSION_TIMEOUT_S" if hangs_at == "its version" else "process.START_TIMEOUT_S"
    monkeypatch.setattr(f"pytest_imu.core.counters.perf.{limit}", AT_ONCE_S)
    tries = tmp_path / "tries"
    version = "sleep 60" if hangs_at == "its version" else "echo perf version 6.1"
    script = f"#!/bin/sh\necho x >>{tries}\nif test $1 = --version; then {version}; exit; fi\nsleep 60\n"
    perf = tmp_path / "perf"
    perf.write_text(script, encoding="utf-8")
    perf.chmod(0o755)

    def count() -> str | None:
        source = PerfStat(["a", "b"], find=lambda: find_perf(on_path=str(perf)))
        return counted(source, lambda: None)["a"].reason

    reasons = [in_fork(count), in_fork(count), count()]
    assert {reasons[0]} == set(reasons)
    assert len(tries.read_text().split()) == (1 if hangs_at == "its version" else 2)


def test_perf_without_control_is_too_old(counting: Callable[..., PerfStat]) -> None:
    """A perf before 5.10 is n/a, and is not started."""
    source = counting(["page-faults"], find=lambda: PerfCommand(path="/nowhere", version=(4, 19)))
    reading = counted(source, lambda: None)["page-faults"]
    assert "perf 4.19 is older than 5.10, which brought --control" == reading.reason


def test_no_perf_at_all(counting: Callable[..., PerfStat]) -> None:
    """Where none is found the reason is the finder's, and memory is measured all the same."""

    def find() -> PerfCommand:
        raise CannotCountError("perf is not installed")

    with Meter(counters=counting(["a", "b"], find=find)) as meter:
        pass
    assert ["perf is not installed"] * 2 == [one.reason for one in meter.measurement.counters]
    assert meter.before_bytes is not None


def test_ticks_in_which_nothing_ran_add_nothing() -> None:
    """A window's total is of the ticks that counted; n/a only where none did."""

    def sample(offset_s: float, value: float | None, reason: str | None = None) -> EventSample:
        return EventSample(
            offset_s=offset_s, event="e", value=value, reason=reason, running_percent=50.0
        )

    ticks = [sample(0.0, 3.0), sample(0.05, None, "not counted"), sample(0.12, 4.0), sample(0.13, 5.0)]
    expected = CounterReading(event="e", value=12, per_second=24.0, running_percent=50.0, samples=(3, 9))
    assert expected == reading_of("e", ticks, 500_000_000)
    nothing = reading_of("e", [sample(0.0, None, "not counted")], 1)
    assert (None, "not counted") == (nothing.value, nothing.reason)
    unsupported = reading_of("e", [sample(0.0, None, "not supported")], 1)
    assert "not supported by this machine" == unsupported.reason


def test_number_that_is_no_count_takes_the_whole_total() -> None:
    """A tick of 30 digits is not believed, and neither is the total without it."""
    text = f"0.1{'0' * 8};7;;e;5;100.00\n0.2{'0' * 8};{'9' * 30};;e;5;100.00\n"
    reading = reading_of("e", parse(text, events=["e"]), 1)
    assert (None, NOT_BELIEVED) == (reading.value, reading.reason)


def stand_in(folder: Path, body: str) -> Path:
    """Write a program that takes perf's place."""
    path = folder / "perf"
    path.write_text(
        f"#!{sys.executable}\n"
        "import os, sys, time\n"
        "option = lambda name: sys.argv[sys.argv.index(name) + 1]\n"
        "answers = int(option('--control').split(',')[1])\n"
        "log = int(option('--log-fd'))\n"
        f"{body}\n",
        encoding="utf-8",
    )
    path.chmod(0o755)
    return path


def perfs_of(pid: int) -> list[int]:
    """Return the ids of the perfs that are attached to a process."""
    wanted = f"\0stat\0-p\0{pid}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if wanted in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process that is told to end; a zombie has ended."""
    deadline = time.monotonic() + A_MINUTE_S
    while is_there(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        os.sched_yield()


def is_there(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):  # it may go at any moment
        return False
