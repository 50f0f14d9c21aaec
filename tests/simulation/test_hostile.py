"""Simulated runs that are interrupted, killed, or whose files a test removes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pytest_imu.simulation import cpu
from simulating import assert_nothing_left, command

HOSTILE = """
    import glob
    import os
    import shutil
    import sys
    import tempfile

    import pytest

    pytestmark = pytest.mark.max_events("instructions", 10**9)

    def test_removes_the_dumps_folder():
        for folder in glob.glob(f"{tempfile.gettempdir()}/imu-*"):
            shutil.rmtree(folder)

    def test_closes_all_descriptors():
        os.closerange(3, 256)
        assert not {"GLIBC_TUNABLES", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES"} & {*os.environ}
        assert "AtImport" not in [type(finder).__name__ for finder in sys.meta_path]

    def test_removes_all_temporary_files():
        shutil.rmtree(tempfile.gettempdir())

    def test_after(): pass

    def test_waits():
        print("it waits", flush=True)
        while True:  # a signal that comes before a sleep does not end it
            pass
"""
LIMIT_S = 300
"""A run that has not ended by then hangs, and is killed."""
CANNOT_WRITE = "callgrind cannot write into * any more: No such file or directory"


@pytest.mark.needs_valgrind
@pytest.mark.usefixtures("interrupts_are_heard")
def test_what_tests_do_to_valgrinds_files(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on until it is interrupted, as ever, since the process that was started runs the
    tests; what could be counted was, and for the rest it is said why not. No CPU is imitated here.
    """
    for name in cpu.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    pytester.makepyfile(HOSTILE)
    # These hold descriptors of their own, which they miss at the end.
    without = ("-s", "-p", "no:logging", "-p", "no:faulthandler")
    simulated = ("--imu-json=out.json", "--imu-simulate", "-o", "imu_simulate_cpu=host")
    lines = []
    with subprocess.Popen(
        command(*without, *simulated), cwd=pytester.path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        limit = threading.Timer(LIMIT_S, process.kill)
        limit.start()
        for line in process.stdout:
            lines.append(line.rstrip())
            if lines[-1].endswith("it waits"):
                process.send_signal(signal.SIGINT)
        limit.cancel()
    assert pytest.ExitCode.INTERRUPTED == process.returncode
    assert_nothing_left(pytester.path)
    output = pytest.LineMatcher(lines)
    output.fnmatch_lines(
        [
            "imu: simulated caches *, host CPU; memory is not measured",
            "counts simulated by callgrind: *, host CPU",
            f"2 budgets not checked: instructions: {CANNOT_WRITE}",
            "*KeyboardInterrupt*",
            "*4 passed*",
        ]
    )
    document = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))
    *ended, _ = document["tests"]  # the last was interrupted
    verdicts = [test["budgets"][0]["verdict"] for test in ended]
    assert ["kept", "kept", "unchecked", "unchecked"] == verdicts


REPLACED = """
import os
import sys

from pytest_imu.simulation.restart import _private_folder

print(_private_folder(), flush=True)
os.execv(sys.executable, [sys.executable, "-c", "while True: pass"])
"""


@pytest.mark.needs_fork
def test_killed_run_leaves_no_files(pytester: pytest.Pytester) -> None:
    """The folder that was made before another program took the process's place goes with that."""
    with subprocess.Popen(
        [sys.executable, "-c", REPLACED], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().rstrip())
        assert folder.parent == pytester.path / "temporary"
        assert folder.is_dir()
        process.kill()
    assert -signal.SIGKILL == process.returncode
    assert_nothing_left(pytester.path)
