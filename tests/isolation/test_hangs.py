"""Isolated tests that hang: said, and ended where a limit was asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_imu.isolation.native_threads import Code, in_words, library_name
from pytest_imu.isolation.patience import IDLE_LOOKS, Patience, TooLongError
from pytest_imu.isolation.stacks import Stacks

pytestmark = pytest.mark.needs_fork


@pytest.fixture
def hanging() -> Iterator[int]:
    """Fork a child that waits for a lock that nobody lets go; return its id."""
    stacks_ready, ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        lock = threading.Lock()
        lock.acquire()
        os.write(ready, b"x")
        lock.acquire()
    os.read(stacks_ready, 1)
    yield pid
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    for end in (stacks_ready, ready):
        os.close(end)


@pytest.fixture
def stacks() -> Iterator[Stacks]:
    """Return stacks whose file is closed at the end."""
    stacks = Stacks()
    yield stacks
    stacks.close()


class Terminal:
    """Stands for the terminal's reporter, and takes down its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def ensure_newline(self) -> None:
        """Begin a line."""

    def write_line(self, line: str, *, yellow: bool) -> None:
        """Take a line down."""
        assert yellow
        self.lines.append(line)


@pytest.mark.needs_proc
def test_waiting_in_a_lock_is_said_once(hanging: int, stacks: Stacks) -> None:
    """After 30 looks at a child that waits in a lock it is said, in the terminal and as a warning."""
    terminal, warned = Terminal(), []
    warning = SimpleNamespace(call_historic=lambda *, kwargs: warned.append(kwargs))
    item: Any = SimpleNamespace(
        nodeid="test_it.py::test_waits",
        ihook=SimpleNamespace(pytest_warning_recorded=warning),
        config=SimpleNamespace(pluginmanager=SimpleNamespace(get_plugin=lambda _: terminal)),
    )
    patience = Patience(item, stacks, 0)
    while "futex" not in Path(f"/proc/{hanging}/wchan").read_text(encoding="ascii"):
        continue  # it is about to wait

    for _ in range(IDLE_LOOKS):
        patience.pass_second(hanging)
    assert [] == terminal.lines
    for _ in range(IDLE_LOOKS):
        patience.pass_second(hanging)

    [line] = terminal.lines
    assert line.startswith(f"imu: test_it.py::test_waits has waited in a lock for {IDLE_LOOKS} s, ")
    assert 1 == len(warned)


def test_no_limit_passes_and_a_limit_does(hanging: int, stacks: Stacks) -> None:
    """Without a limit a test may take its time; with one it is over a second after it."""
    item: Any = SimpleNamespace(nodeid="test")
    endless = Patience(item, stacks, 0)
    for _ in range(IDLE_LOOKS - 1):
        endless.pass_second(None)
    patience = Patience(item, stacks, 2)
    for _ in range(2):
        patience.pass_second(None)
    with pytest.raises(TooLongError, match="took longer than imu_isolate_timeout = 2 s"):
        patience.pass_second(hanging)


def test_the_limit_ends_a_test_and_shows_where_it_was(pytester: pytest.Pytester) -> None:
    """With imu_isolate_timeout a test that hangs fails with its stacks, and the next one runs."""
    pytester.makepyfile(
        """
        import threading

        def test_hangs():
            lock = threading.Lock()
            lock.acquire()
            open("waits", "w").close(); lock.acquire()  # nobody lets go

        def test_next():
            pass
        """
    )
    # However slow the machine: seconds count for the one that hangs, and only once it does.
    pytester.makeconftest(
        """
        from pathlib import Path

        from pytest_imu.isolation.patience import Patience

        pass_second = Patience.pass_second

        def pass_second_in_the_lock(self, pid):
            if self._item.name == "test_hangs" and Path("waits").exists():
                pass_second(self, pid)

        Patience.pass_second = pass_second_in_the_lock
        """
    )

    result = pytester.runpytest_subprocess(
        "-p", "imu", "--imu-isolate", "-o", "imu_isolate_timeout=1", "-p", "no:cacheprovider"
    )

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["took longer than imu_isolate_timeout = 1 s, and stood at:", "*, line 6 in test_hangs"]
    )


def test_plugins_that_look_at_earlier_results_are_named(pytester: pytest.Pytester) -> None:
    """What decides by how earlier tests ended does not see isolated ones, and that is said."""
    pytester.makeini("[pytest]\nmarkers = incremental: one\n dependency: two")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.incremental
        @pytest.mark.dependency
        def test_it():
            pass
        """
    )

    result = pytester.runpytest_subprocess("-p", "imu", "--imu-isolate", "-p", "no:cacheprovider")

    result.assert_outcomes(passed=1, warnings=2)
    result.stdout.fnmatch_lines(
        [
            "*imu: pytest-dependency cannot see how isolated tests end",
            "*imu: the hooks that skip incremental tests cannot see how isolated tests end",
        ]
    )


@pytest.mark.needs_proc
def test_threads_that_a_fork_does_not_copy(pytester: pytest.Pytester) -> None:
    """A library's own thread is named before tests are isolated, and no verdict is taken from a fork."""
    pytester.makepyfile(
        """
        import ctypes

        import pytest

        libc = ctypes.CDLL(None)
        libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, libc.pause, None)

        @pytest.mark.max_peak_mib(5)
        def test_over():
            bytearray(10 * 2**20)
        """
    )

    one = pytester.runpytest_subprocess("-p", "imu", "-p", "no:cacheprovider")
    isolated = pytester.runpytest_subprocess("-p", "imu", "-p", "no:cacheprovider", "--imu-isolate=all")

    one.assert_outcomes(failed=1)
    threads = "1 of an unknown library"
    one.stdout.fnmatch_lines(
        [f"peak * MiB *; not run alone: threads that a fork does not copy were running: {threads}"]
    )
    isolated.assert_outcomes(failed=1, warnings=1)
    isolated.stdout.fnmatch_lines(
        [f"*imu: isolated tests may hang: a fork does not copy threads ({threads})"]
    )


@pytest.mark.needs_proc
def test_stacks_leave_a_file_alone_that_a_test_has_put_there(stacks: Stacks, tmp_path: Path) -> None:
    """A test may close the descriptor and have a file of its own under the number."""
    number = stacks._file.number()
    os.close(number)
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"the test's")
        file.flush()
        os.dup2(file.fileno(), number)
        stacks.ask(os.getpid())
        assert "" == stacks.read()
        stacks.close()
        assert b"the test's" == os.pread(number, 100, 0)
        os.close(number)


def test_names_of_libraries() -> None:
    """A library's short name, and whose code stands at an address."""
    maps = """\
55d0a0000000-55d0a0001000 r-xp 00000000 08:01 12 /usr/bin/python3.11
7f0000000000-7f0000001000 r--p 00000000 08:01 13 /lib/libgomp-a34b3233.so.1.0.0
7f0000001000-7f0000002000 r-xp 00001000 08:01 13 /lib/libgomp-a34b3233.so.1.0.0
7f0000003000-7f0000004000 r-xp 00000000 08:01 14 /lib/x86_64-linux-gnu/libc.so.6
7f0000005000-7f0000006000 r-xp 00000000 00:00 0 [vdso]
"""
    code = Code(maps)

    addresses = (
        0x55D0A0000000,
        0x7F0000000800,
        0x7F0000001800,
        0x7F0000003FFF,
        0x7F0000004000,
        0,
        1 << 62,
    )
    assert ["python3", None, "gomp", "c", None, None, None] == [*map(code.library_at, addresses)]
    assert [0x800, 0, 0] == [*map(code.stack_bytes, (0x7F0000001800, 0x7F0000002000, 0))]
    assert "scipy_openblas64_" == library_name("/x/libscipy_openblas64_-99.so (deleted)")
    assert "1 of an unknown library, 3 of gomp" == in_words({"gomp": 3, "an unknown library": 1})
