"""--imu-isolate: however the run ends, by Ctrl-C, kill or the kernel, no child outlives it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pexpect  # type: ignore[import-untyped]  # it has no types
import psutil
import pytest

from running import read_tests, run

pytestmark = [pytest.mark.needs_fork, pytest.mark.usefixtures("interrupts_are_heard")]

WAITING = """
    import os
    import signal
    import time

    import pytest

    @pytest.fixture
    def server():
        yield
        open("torn_down", "w").close()

    def test_before():
        pass

    def test_waits(server):
        print("ready", os.getpid(), os.getppid(), flush=True)
        while True:
            time.sleep(0.01)

    def test_never():
        pass
"""
"""A test that waits for its end, and says who it is and which process forked it.

It wakes up time and again: Python loses a signal that comes between two lines and just before a wait.
"""
HUNG = r"KeyboardInterrupt: \S+::test_waits at \S+\.py:1[678]"
"""The lines from where it says that it is ready to where it waits."""
COMMAND = [sys.executable, "-m", "pytest", "-p", "imu", "-s", "--imu-isolate=all", "--imu-json=run.json"]
LIMIT_S = 60


@contextmanager
def waiting(pytester: pytest.Pytester, source: str) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """Run pytest up to the test that waits; give the run, the child and the server."""
    pytester.makepyfile(source)
    with subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=pytester.path
    ) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "ready" in line)
        _, child, server = line[line.index("ready") :].split()
        try:
            yield process, int(child), int(server)
        finally:
            process.kill()  # it has ended, unless the test has failed


def rest_of(process: subprocess.Popen[str]) -> str:
    """Return what a run prints until the last process that holds its output has ended."""
    text, _ = process.communicate(timeout=LIMIT_S)
    return text


def living(*pids: int) -> list[int]:
    """Return those of the processes that do not end, be they waited for or not.

    A process that ends closes its files, for whose end the tests wait, a moment before it has ended.
    """
    left = list(pids)
    for _ in range(1000):
        left = [pid for pid in left if not has_ended(pid)]
        if not left:
            break
    return left


def outcomes(pytester: pytest.Pytester) -> list[str]:
    """Return the outcomes of the JSON file's tests."""
    return [test["outcome"] for test in read_tests(pytester)]


def test_ctrl_c_in_a_terminal(pytester: pytest.Pytester) -> None:
    """Ctrl-C, which reaches all processes, ends the run as ever; fixtures are torn down, files are
    written, and no process is left.
    """
    pytester.makepyfile(WAITING)

    terminal = pexpect.spawn(
        COMMAND[0], COMMAND[1:], timeout=LIMIT_S, cwd=pytester.path, encoding="utf-8"
    )
    terminal.expect(r"ready (\d+) (\d+)")
    child, server = (int(terminal.match.group(number)) for number in (1, 2))
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    text = terminal.before
    terminal.close()

    assert pytest.ExitCode.INTERRUPTED == terminal.exitstatus
    assert re.search(HUNG, text)
    assert "1 passed" in text
    assert [] == living(child, server)
    assert pytester.path.joinpath("torn_down").exists()
    assert ["passed", "interrupted"] == outcomes(pytester)


def test_interrupt_of_the_session_alone(pytester: pytest.Pytester) -> None:
    """A SIGINT that only pytest's own process gets is handed on to the child."""
    with waiting(pytester, WAITING) as (process, child, server):
        process.send_signal(signal.SIGINT)
        text = rest_of(process)

    assert pytest.ExitCode.INTERRUPTED == process.returncode
    assert re.search(HUNG, text)
    assert [] == living(child, server)
    assert pytester.path.joinpath("torn_down").exists()
    assert ["passed", "interrupted"] == outcomes(pytester)


def test_deaf_child_is_killed(pytester: pytest.Pytester) -> None:
    """A child that ignores the interrupt is killed after some seconds."""
    deaf = WAITING.replace("print(", "signal.signal(signal.SIGINT, signal.SIG_IGN)\n        print(")

    with waiting(pytester, deaf) as (process, child, server):
        process.send_signal(signal.SIGINT)
        rest_of(process)

    assert pytest.ExitCode.INTERRUPTED == process.returncode
    assert [] == living(child, server)


def test_second_interrupt_kills_at_once(pytester: pytest.Pytester) -> None:
    """A second interrupt, while the child tears its fixtures down, does not wait for that."""
    slow = WAITING.replace(
        'open("torn_down", "w").close()', 'print("tearing", flush=True); signal.pause()'
    )

    with waiting(pytester, slow) as (process, child, server):
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert any("tearing" in line for line in iter(process.stdout.readline, ""))
        process.send_signal(signal.SIGINT)
        rest_of(process)

    assert pytest.ExitCode.INTERRUPTED == process.returncode
    assert [] == living(child, server)


PROTOCOL = """
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol():
        try:
            return (yield)
        except KeyboardInterrupt:
            if os.getpid() == SESSION:
                raise
            signal.raise_signal(signal.SIGINT)

    SESSION = os.getpid()
"""
AFTER_IT = """
    from pytest_imu.isolation import protocol

    def interrupted_as_well(error):
        protocol._innermost = innermost
        signal.raise_signal(signal.SIGINT)

    innermost, protocol._innermost = protocol._innermost, interrupted_as_well
"""


@pytest.mark.parametrize("moment", [PROTOCOL, AFTER_IT], ids=["protocol", "after_it"])
def test_two_interrupts_at_once(pytester: pytest.Pytester, moment: str) -> None:
    """A child that is dealing with the terminal's interrupt may get the session's, too; a mock that
    stands hides neither.
    """
    pytester.makeconftest("    import os, signal\n    import pytest\n" + moment)
    mocked = "monkeypatch.setattr(os, 'stat', None); signal.raise_signal(signal.SIGINT)"
    test = WAITING.replace("test_waits(server)", "test_waits(server, monkeypatch)")
    pytester.makepyfile(test.replace("time.sleep(0.01)", mocked))

    result = run(pytester, *COMMAND[3:])

    assert pytest.ExitCode.INTERRUPTED == result.ret
    assert re.search(HUNG, result.stdout.str())
    assert pytester.path.joinpath("torn_down").exists()
    assert ["passed", "interrupted"] == outcomes(pytester)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_session_takes_its_child_along(pytester: pytest.Pytester, number: int) -> None:
    """When pytest's own process is killed, its child and the process that forked it end too."""
    with waiting(pytester, WAITING) as (process, child, server):
        process.send_signal(number)
        rest_of(process)  # up to the end of the last of them

    assert -number == process.returncode
    assert [] == living(child, server)


def has_ended(pid: int) -> bool:
    """Whether a process has ended, though its parent may not have taken notice."""
    done = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)],  # noqa: S607 - wherever this system has it
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    return done.stdout.strip()[:1] in {"Z", ""}


BEFORE_IT_COULD_TELL = """
    import os
    from pytest_imu.isolation.forkserver_process import _Server

    def tell(self, answer):
        if answer.get("child") in (None, os.getpid()):
            told(self, answer)

    told, _Server._tell = _Server._tell, tell
"""


@pytest.mark.parametrize("before", ["", BEFORE_IT_COULD_TELL], ids=["later", "at_once"])
def test_killed_server(pytester: pytest.Pytester, before: str) -> None:
    """When the process that forks is killed, the test that ran fails with that reason and no child
    outlives it; another one is started for the tests that follow.
    """
    pytester.makeconftest(before)
    with waiting(pytester, WAITING) as (process, child, server):
        os.kill(server, signal.SIGKILL)
        text = rest_of(process)

    assert pytest.ExitCode.TESTS_FAILED == process.returncode
    assert "1 failed, 2 passed" in text
    assert 1 == text.count("was lost: the process that forks isolated tests has ended")
    assert [] == living(child, server)


def test_debugger_in_a_terminal(pytester: pytest.Pytester) -> None:
    """--pdb stops inside the child, which has the terminal; a Ctrl-C at its prompt is the debugger's."""
    pytester.makepyfile(
        "import os\ndef test_it():\n    value = 41\n    print('pid', os.getpid())\n"
        "    assert value == 42\ndef test_next(): pass\n"
    )

    terminal = pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], "--pdb"],
        timeout=LIMIT_S,
        cwd=pytester.path,
        encoding="utf-8",
    )
    terminal.expect(r"pid (\d+)")
    child = psutil.Process(int(terminal.match[1]))
    terminal.expect(r"\(Pdb\) ")
    # Python loses a signal that comes between a prompt and the wait for its answer.
    while child.status() != psutil.STATUS_SLEEPING:
        pass
    terminal.sendintr()
    terminal.expect(r"\(Pdb\) ")
    terminal.sendline("p value + 1000")
    terminal.expect("1041")
    terminal.sendline("c")
    terminal.expect(pexpect.EOF)
    text = terminal.before
    terminal.close()

    assert pytest.ExitCode.TESTS_FAILED == terminal.exitstatus
    assert "1 failed" in text
    assert "1 passed" in text
