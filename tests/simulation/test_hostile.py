"""Simulated runs that are interrupted, killed, or whose files a test removes."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from simulating import assert_nothing_left, by_name, command, simulate


@pytest.mark.needs_valgrind
@pytest.mark.usefixtures("interrupts_are_heard")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
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

    def test_hostile():
        {}

    def test_after(): pass
"""
CANNOT_WRITE = "callgrind cannot write into * any more: No such file or directory"


@pytest.mark.needs_valgrind
@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        ("os.closerange(3, 256)", None),
        ("[shutil.rmtree(one) for one in glob.glob(f'{tempfile.gettempdir()}/imu-*')]", None),
        ("shutil.rmtree(tempfile.gettempdir())", CANNOT_WRITE),
    ],
    ids=["closes all descriptors", "removes the dumps' folder", "removes all temporary files"],
)
def test_what_a_test_does_to_valgrinds_files(
    pytester: pytest.Pytester, hostile: str, reason: str | None
) -> None:
    """The run goes on to its own end; what could be counted was, and for the rest it is said why not."""
    pytester.makepyfile(HOSTILE.format(hostile))
    # These hold descriptors of their own, which they miss at the end.
    without = ("-s", "-p", "no:logging", "-p", "no:faulthandler")
    result = simulate(pytester, *without, "--imu-json=out.json", "--imu-simulate")
    result.assert_outcomes(passed=3)
    assert pytest.ExitCode.OK == result.ret
    tests = by_name(json.loads((pytester.path / "out.json").read_text(encoding="utf-8")))
    names = ("test_before", "test_hostile", "test_after")
    verdicts = [tests[name]["budgets"][0]["verdict"] for name in names]
    assert ["kept", *["unchecked" if reason else "kept"] * 2] == verdicts
    if reason:
        result.stdout.fnmatch_lines([f"2 budgets not checked: instructions: {reason}"])
