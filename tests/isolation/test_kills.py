"""--imu-isolate with tests that signal, stop, reap and close what is not theirs: they alone may fail."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from running import run

pytestmark = pytest.mark.needs_fork


def run_as_group(pytester: pytest.Pytester, *args: str, isolate: str = "budgets") -> pytest.RunResult:
    """Run pytest with this plugin, isolated, as a group of its own: tests signal the whole of it."""
    pytester.makeconftest("import os; os.setpgid(0, 0)")
    return run(pytester, f"--imu-isolate={isolate}", *args)


@pytest.mark.parametrize("isolate", ["budgets", "all"])
def test_signals_to_the_group(pytester: pytest.Pytester, isolate: str) -> None:
    """A test that signals its process group reaches neither the session nor the process that forks."""
    pytester.makepyfile(
        """
        import os
        import signal

        import pytest

        def to_the_group(number):
            before = signal.signal(number, signal.SIG_IGN)
            os.killpg(0, number)
            signal.signal(number, before)

        @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
        def test_plain(number):
            to_the_group(number)

        @pytest.mark.max_peak_mib(50)
        @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
        def test_budget(number):
            to_the_group(number)

        @pytest.mark.max_peak_mib(50)
        def test_dies():
            os.killpg(0, signal.SIGTERM)

        @pytest.mark.max_peak_mib(50)
        def test_next():
            pass
        """
    )

    result = run_as_group(pytester, isolate=isolate)

    result.assert_outcomes(passed=7, failed=1)
    result.stdout.fnmatch_lines(["the child process * was killed by SIGTERM (signal 15)"])


def test_reapers_of_all_children(pytester: pytest.Pytester) -> None:
    """A test that waits until it has no children neither hangs nor reaps what is not its own."""
    pytester.makepyfile(
        """
        import os
        import subprocess

        import pytest

        def reap(wait):
            with pytest.raises(ChildProcessError):
                while True:
                    wait()

        @pytest.mark.parametrize("wait", [os.wait, lambda: os.waitpid(-1, 0), lambda: os.wait3(0)])
        def test_plain(wait):
            process = subprocess.Popen(["true"])
            reap(wait)
            process.returncode = 0

        @pytest.mark.max_peak_mib(50)
        @pytest.mark.parametrize("wait", [os.wait, lambda: os.waitpid(-1, 0), lambda: os.wait3(0)])
        def test_budget(wait):
            process = subprocess.Popen(["true"])
            reap(wait)
            process.returncode = 0
        """
    )

    run_as_group(pytester).assert_outcomes(passed=6)


@pytest.mark.parametrize("isolate", ["budgets", "all"])
def test_killed_server_amid_fixtures(pytester: pytest.Pytester, isolate: str) -> None:
    """Another server is started for one that tests have killed, however often; its children set
    fixtures up afresh and leave those of the session alone.
    """
    pytester.makepyfile(
        """
        import os
        import signal

        import pytest

        @pytest.fixture(scope="module", autouse=True)
        def maker():
            maker = os.getpid()
            yield maker
            with open("makers", "a") as makers:
                makers.write("same\\n" if maker == os.getpid() else "other\\n")

        @pytest.mark.max_peak_mib(50)
        def test_kills(maker):
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()

        def test_plain(maker):
            assert os.getpid() == maker

        @pytest.mark.max_peak_mib(50)
        def test_kills_again(maker):
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()

        @pytest.mark.max_peak_mib(50)
        def test_budget(maker):
            assert os.getpid() == maker

        def test_plain_again(maker):
            assert os.getpid() == maker
        """
    )

    result = run_as_group(pytester, isolate=isolate)
    makers = pytester.path.joinpath("makers").read_text(encoding="ascii").split()

    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(["*was lost: the process that forks isolated tests has ended"] * 2)
    assert {"same"} == set(makers)


def test_stopped_child(pytester: pytest.Pytester) -> None:
    """A test that is stopped, and that nobody lets go on, fails in words."""
    pytester.makepyfile(
        """
        import os
        import signal

        import pytest

        @pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTSTP])
        def test_stops(number):
            os.kill(os.getpid(), number)

        def test_stops_its_server():
            os.kill(os.getppid(), signal.SIGSTOP)

        def test_next():
            pass
        """
    )

    result = run_as_group(pytester, isolate="all")

    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            f"*was stopped by {name}*, and killed because nothing continued it"
            for name in ("SIGSTOP", "SIGTSTP")
        ]
    )


def test_stopped_child_that_goes_on(pytester: pytest.Pytester) -> None:
    """A test that is stopped, and let go on, passes."""
    pytester.makepyfile(
        """
        import os
        import signal
        import subprocess

        from pytest_imu.isolation import forkserver_process

        forkserver_process.STOPPED_LOOKS = 60  # who lets it go on takes his time on a busy machine

        def test_goes_on():
            wait = f"until ps -o stat= -p {os.getpid()} | grep -q T; do :; done"
            process = subprocess.Popen(["sh", "-c", f"{wait}; kill -CONT {os.getpid()}"])
            os.kill(os.getpid(), signal.SIGSTOP)
            assert 0 == process.wait()
        """
    )
    run_as_group(pytester, isolate="all").assert_outcomes(passed=1)


def test_closed_descriptors(pytester: pytest.Pytester) -> None:
    """Neither many descriptors nor some that a test closes matter; who closes all may fail, and says
    why.
    """
    pytester.makepyfile(
        """
        import os
        import resource

        import pytest

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, most))
        FILES = [open(os.devnull) for _ in range(1200)]
        budget = pytest.mark.max_peak_mib(50)

        @budget
        def test_closes_low():
            os.closerange(3, 256)

        @budget
        def test_among_many():
            assert os.dup(2) > 1100

        def test_closes_all():
            while FILES:
                FILES.pop().close()
            os.closerange(3, 65536)
            FILES.extend(open("kept", "a") for _ in range(300))

        @budget
        def test_starts_again():
            pass

        @budget
        def test_closes_all_of_its_own():
            os.closerange(3, 65536)

        def test_files_are_whole():
            for file in FILES:
                file.write("x")
                file.close()
            assert "x" * 300 == open("kept").read()
        """
    )

    # Else pytest's own files would be among those that are closed.
    result = run_as_group(pytester, "-s", "-p", "no:logging", "-p", "no:faulthandler")

    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(["*closed the descriptor on which its result was to be sent"])


@pytest.mark.skipif(
    importlib.util.find_spec("pytest_timeout") is None, reason="pytest-timeout is not installed"
)
@pytest.mark.parametrize("method", ["thread", "signal"])
def test_timeout(pytester: pytest.Pytester, method: str) -> None:
    """Each of pytest-timeout's methods ends the isolated test that takes too long, and not the run."""
    pytester.makepyfile(
        f"""
        import signal

        import pytest

        @pytest.mark.timeout(2, method="{method}")
        def test_hangs():
            while True:
                signal.pause()

        def test_next():
            pass
        """
    )

    result = run_as_group(pytester, "-p", "pytest_timeout", isolate="all")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*Timeout*"])


def test_much_output(pytester: pytest.Pytester) -> None:
    """What a test prints comes whole in a time that grows with it: 40 MB took a minute, and 80 four."""
    pytester.makepyfile("def test_it():\n    for _ in range(80): print('x' * 999_999)\n    assert False")

    junit = ("--junitxml=run.xml", "-o", "junit_logging=system-out")
    result = run_as_group(pytester, "--show-capture=no", *junit, isolate="all")

    result.assert_outcomes(failed=1)
    assert 80_000_000 < pytester.path.joinpath("run.xml").stat().st_size


@pytest.mark.parametrize("action", ["always", "error"])
def test_no_warning_of_threads(pytester: pytest.Pytester, action: str) -> None:
    """No fork warns of threads, neither that before the tests nor that of another server; where
    warnings are errors, none is one.
    """
    pytester.makeconftest(
        """
        import threading

        threading.Thread(target=threading.Event().wait, daemon=True).start()
        """
    )
    pytester.makepyfile(
        """
        import os
        import signal

        def test_kills():
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()

        def test_next():
            pass
        """
    )

    warned = (sys.executable, "-W", action, "-m", "pytest", "-W", action, "-p", "imu")
    result = pytester.run(*warned, "--imu-isolate=all", timeout=120)

    result.assert_outcomes(passed=1, failed=1)
    assert "multi-threaded" not in f"{result.stdout}{result.stderr}"
