"""Simulated runs that are interrupted, killed, or whose files a test removes."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from simulating import assert_nothing_left, command, simulate


@pytest.mark.needs_valgrind
@pytest.mark.usefixtures("interrupts_are_heard")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_signals_reach_the_run(pytester: pytest.Pytester, ending: signal.Signals) -> None:
    """The process that was started is the one that runs the tests: a signal ends it as ever."""
    pytester.makepyfile(
        """
        import os

        def test_waits():
            os.write(int(os.environ["READY"]), b"x")
            while True:  # a signal that comes before a sleep does not end it
                pass
        """
    )
    reading, writing = os.pipe()
    with subprocess.Popen(
        command("--imu-simulate"),
        cwd=pytester.path,
        env={**os.environ, "READY": str(writing)},
        pass_fds=[writing],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(writing)
        assert b"x" == os.read(reading, 1)
        os.close(reading)
        process.send_signal(ending)
        try:
            output, _ = process.communicate(timeout=100)
        finally:
            process.kill()  # it has ended, unless the test has failed
    expected = pytest.ExitCode.INTERRUPTED if ending == signal.SIGINT else -ending
    assert expected == process.returncode
    assert (ending == signal.SIGINT) == ("KeyboardInterrupt" in output)
    assert_nothing_left(pytester)


HOSTILE = """
    import glob
    import os
    import shutil
    import tempfile

    import pytest

    pytestmark = pytest.mark.max_events("instructions", 10**9)

    def test_before(): pass

    def test_closes_all_descriptors():
        os.closerange(3, 256)

    def test_removes_the_dumps_folder():
        for folder in glob.glob(f"{tempfile.gettempdir()}/imu-*"):
            shutil.rmtree(folder)

    def test_between(): pass

    def test_removes_all_temporary_files():
        shutil.rmtree(tempfile.gettempdir())

    def test_after(): pass
"""
CANNOT_WRITE = "callgrind cannot write into * any more: No such file or directory"


@pytest.mark.needs_valgrind
def test_what_tests_do_to_valgrinds_files(pytester: pytest.Pytester) -> None:
    """The run goes on to its own end; what could be counted was, and for the rest it is said why not."""
    pytester.makepyfile(HOSTILE)
    # These hold descriptors of their own, which they miss at the end.
    without = ("-s", "-p", "no:logging", "-p", "no:faulthandler")
    result = simulate(pytester, *without, "--imu-json=out.json", "--imu-simulate")
    result.assert_outcomes(passed=6)
    assert pytest.ExitCode.OK == result.ret
    tests = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))["tests"]
    verdicts = [test["budgets"][0]["verdict"] for test in tests]
    assert [*["kept"] * 4, "unchecked", "unchecked"] == verdicts
    result.stdout.fnmatch_lines([f"2 budgets not checked: instructions: {CANNOT_WRITE}"])
