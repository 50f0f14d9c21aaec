"""The command line: `python -m pytest_imu doctor` and `python -m pytest_imu perf`."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.__main__ import main
from pytest_imu.core.counters.perf.command import PerfCommand
from pytest_imu.core.counters.source import CannotCountError
from pytest_imu.doctor import checks as doctor


@functools.cache
def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does; the same one only once, since the doctor takes seconds."""
    return subprocess.run(
        [sys.executable, "-m", "pytest_imu", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,  # some of it runs under valgrind
        env={**os.environ, **environment},
    )


def checks_of_this_machine(**environment: str) -> dict[str, Any]:
    """Return the doctor's checks by name; without PATH="" it tries valgrind, which takes seconds."""
    document = json.loads(run("doctor", "--json", **environment).stdout)
    assert 1 == document["schema"]
    return {check["name"]: check for check in document["checks"]}


def names_in(text: str) -> list[str]:
    """Return the names of the checks in what the doctor prints for people."""
    return re.findall(r"^(?:yes|no ) {2}(\S+(?: \S+)?)  ", text, re.MULTILINE)


def test_doctor_for_people_and_programs() -> None:
    """The doctor names every part of the machine and how to fix each "no"; --json agrees."""
    done = run("doctor", PATH="")
    assert (0, "") == (done.returncode, done.stderr)
    assert [*checks_of_this_machine(PATH="")] == names_in(done.stdout)
    checks = checks_of_this_machine()
    assert ["memory", "peak", "trim", "reusable"] == [*checks][:4]
    lines = doctor.text_lines([doctor.Check(**check) for check in checks.values()])
    assert [*checks] == names_in("\n".join(lines))
    for check in checks.values():
        assert {"name", "ok", "value", "fix"} == check.keys()
        assert check["ok"] or check["fix"] or check["name"] == "trim"


@pytest.mark.needs_kernel_peaks
def test_doctor_names_where_numbers_come_from() -> None:
    """The source of the RSS and that of the peaks are named."""
    checks = checks_of_this_machine()
    assert checks["memory"]["value"].endswith(" MiB now, from /proc/self/statm")
    assert checks["peak"]["value"].startswith("kernel high-water mark, to ")


@pytest.mark.parametrize(
    ("in_python", "in_thread_heaps", "gil_disabled", "expected"),
    [
        (0, 0, 0, "the allocators report their free memory"),
        (None, 0, 1, "this free-threaded build's allocator does not report its free memory"),
        (None, 0, 0, "this Python's allocator does not report its free memory"),
        (None, 0, None, "this Python's allocator does not report its free memory"),
        (0, None, 0, "this C library reports its free memory in an unknown format"),
    ],
    ids=["all tell", "free-threaded", "PYTHONMALLOC", "another interpreter", "another C library"],
)
def test_doctor_says_whose_free_memory_is_unknown(
    in_python: int | None, in_thread_heaps: int | None, gil_disabled: int | None, expected: str
) -> None:
    """Where an allocator does not report its free memory, the doctor says which, and what to do."""
    check = doctor.reusable_check(
        in_python=lambda: in_python,
        in_thread_heaps=lambda: in_thread_heaps,
        build={"Py_GIL_DISABLED": gil_disabled}.get,
    )
    assert expected == check.value.partition(": ")[0]
    assert check.ok is (check.fix is None)
    assert check.ok is (in_python == in_thread_heaps == 0)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python has mimalloc since 3.13")
@pytest.mark.skipif(sys.platform == "win32", reason="needs a Unix: nothing is told on Windows")
def test_doctor_under_mimalloc() -> None:
    """What mimalloc holds free is not known, and what another allocator tells is not taken for it."""
    checks = checks_of_this_machine(PYTHONMALLOC="mimalloc", PATH="")
    assert not checks["reusable"]["ok"]
    assert checks["reusable"]["value"].startswith("this Python's allocator does not report")


@pytest.mark.needs_perf
@pytest.mark.needs_kernel_counts
def test_doctor_tries_every_event_for_real() -> None:
    """Page faults are counted on the doctor's own process: 256 or more for a MiB that is filled; by the
    kernel, and by perf too.
    """
    checks = checks_of_this_machine()
    for name in ("page-faults", "perf page-faults"):
        assert checks[name]["ok"]
        assert int(checks[name]["value"].split()[0]) >= 256
    assert set(doctor.EVENTS) <= checks.keys()


@pytest.mark.needs_proc
def test_doctor_without_perf_names_the_packages(tmp_path: Path) -> None:
    """Where perf is the distribution's wrapper the doctor says so, and which package to install."""
    perf = tmp_path / "perf"
    perf.write_text("#!/bin/sh\necho 'WARNING: perf not found for kernel 6.5' >&2; exit 2\n")
    perf.chmod(0o755)
    done = run("doctor", PATH=str(tmp_path))
    assert 0 == done.returncode
    assert (
        f"no   perf                 {perf} is the distribution's wrapper, without a perf for this kernel"
        in done.stdout
    )
    assert "fix: install perf: linux-perf (Debian), linux-tools-generic (Ubuntu)" in done.stdout
    assert "no   valgrind             not installed" in done.stdout


@pytest.mark.needs_proc
@pytest.mark.parametrize(
    ("hangs_at", "line", "tries"),
    [
        ("--version", r"no   perf  .*perf --version did not end within 5 s", 1),
        ("stat", r"no   perf page-faults  .*perf did not answer within 5 s", 2),
    ],
)
def test_doctor_waits_for_a_hung_perf_once(tmp_path: Path, hangs_at: str, line: str, tries: int) -> None:
    """A perf that hangs is waited for once, for a few seconds, whatever of it hangs."""
    perf = tmp_path / "perf"
    perf.write_text(
        f"#!/bin/sh\necho x >>{tmp_path}/tries\n"
        f"if test $1 = {hangs_at}; then /bin/sleep 100; fi\necho perf version 6.1\n"
    )
    perf.chmod(0o755)
    done = run("doctor", PATH=str(tmp_path))
    assert (0, "") == (done.returncode, done.stderr)
    assert re.search(line, done.stdout), done.stdout
    assert tries == len((tmp_path / "tries").read_text().split())


@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "--json"], ["perf", "--seconds", "9"]])
def test_nobody_reads_on(arguments: list[str]) -> None:
    """Where the output goes to a program that has ended, as `head` does, there is no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    # The doctor's trial of valgrind takes seconds, and prints no more than the others.
    environment = {**os.environ, "PATH": ""} if arguments[0] == "doctor" else None
    done = subprocess.run(
        [sys.executable, "-m", "pytest_imu", *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
        env=environment,
    )
    os.close(writing)
    # A machine without perf has nothing to print there.
    assert (141, "") == (done.returncode, done.stderr) or done.stderr.startswith("perf: ")


@pytest.mark.needs_valgrind
def test_doctor_simulates_for_real() -> None:
    """Where valgrind is installed the doctor counts the misses of reading 1 MiB: 16,384 and some."""
    checks = checks_of_this_machine()
    assert checks["valgrind"]["ok"]
    simulated = checks["simulated cache-misses"]
    assert simulated["ok"]
    assert 16_384 <= int(simulated["value"].split()[0].replace(",", "")) <= 20_000


@pytest.mark.needs_proc
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo valgrind-3.15.0", "no   valgrind             {} is valgrind-3.15.0, and too old"),
        (
            'test "$1" = --version && echo valgrind-3.19.0 || { echo broken >&2; exit 3; }',
            "no   simulated cache-misses  status 3: broken",
        ),
        (
            # It runs the program, and does not simulate it.
            """if test "$1" = --version; then echo valgrind-3.19.0; exit; fi
            while test "${1#-}" != "$1"; do shift; done; exec "$@" """,
            "no   simulated cache-misses  no valgrind runs this process, not callgrind",
        ),
    ],
)
def test_doctor_with_a_valgrind_that_will_not_do(tmp_path: Path, script: str, expected: str) -> None:
    """One that is too old, or that simulates nothing, is a "no" with the reason and what to install."""
    valgrind = tmp_path / "valgrind"
    valgrind.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    valgrind.chmod(0o755)
    said = run("doctor", PATH=str(tmp_path)).stdout
    assert expected.format(valgrind) in said
    assert "fix: install valgrind, 3.19 or newer" in said


def no_valgrind() -> tuple[str, str]:
    """Stand for a search that finds none; a real one is tried for seconds."""
    reason = "not installed"
    raise CannotCountError(reason)


def test_doctor_says_how_a_refusal_is_fixed() -> None:
    """A high perf_event_paranoid is a "no" with the sysctl and the docker option that fix it."""

    def find() -> PerfCommand:
        return PerfCommand(path="/nowhere/perf", version=(6, 1))

    examined = doctor.examine(platform="linux", find=find, paranoid=lambda: 4, find_valgrind=no_valgrind)
    checks = {one.name: one for one in examined}
    refused = checks["perf_event_paranoid"]
    assert (False, "4") == (refused.ok, refused.value)
    assert refused.fix is not None
    assert "kernel.perf_event_paranoid=2" in refused.fix
    assert "--cap-add PERFMON" in refused.fix
    assert checks["perf page-faults"].value.startswith("perf ended: ")


def test_doctor_names_an_old_perf() -> None:
    """A perf without --control is a "no" of its own."""

    def find() -> PerfCommand:
        return PerfCommand(path="/nowhere/perf", version=(4, 19))

    examined = doctor.examine(platform="linux", find=find, paranoid=lambda: 2, find_valgrind=no_valgrind)
    checks = {one.name: one for one in examined}
    assert not checks["perf --control"].ok
    assert "no: it needs perf 5.10" == checks["perf --control"].value


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_doctor_elsewhere_looks_for_no_perf(platform: str) -> None:
    """Where there is no perf the doctor does not look for one."""

    def find() -> PerfCommand:
        raise CannotCountError(platform)

    *_, last = doctor.examine(platform=platform, find=find)
    assert f"perf is part of Linux, and this is {platform}" == last.value


def test_exit_status_is_that_of_the_memory() -> None:
    """The doctor ends with 1 only where memory cannot be measured."""
    fine, bad = (doctor.Check(name="memory", ok=ok, value="") for ok in (True, False))
    no_perf = doctor.Check(name="perf", ok=False, value="")
    assert doctor.memory_can_be_measured([fine, no_perf])
    assert not doctor.memory_can_be_measured([bad, no_perf])


@pytest.mark.needs_perf
def test_trial_prints_samples_and_their_average() -> None:
    """The trial prints a sample for each tenth of a second and the average, in the ancestor's words."""
    start_s = time.monotonic()
    done = run("perf", "--event", "page-faults", "--seconds", "1")
    took_s = time.monotonic() - start_s
    assert (0, "") == (done.returncode, done.stderr)
    first, *samples, last = done.stdout.splitlines()
    assert first.startswith("page-faults of this process")
    # On a busy machine perf comes late to some of the ten, and the trial to its end.
    assert 5 <= len(samples) <= 10 * took_s + 1
    assert re.fullmatch(r"perf value for page-faults averages to [1-9][\d,]*/second", last)


@pytest.mark.needs_perf
def test_trial_of_another_process() -> None:
    """--pid counts a process of one's own, and one that is not there is a fault with its reason."""
    with subprocess.Popen([sys.executable, "-c", "while True: bytes(1 << 24)"]) as other:
        done = run("perf", "--event", "page-faults", "--seconds", "0.2", "--pid", str(other.pid))
        other.kill()
    assert (0, "") == (done.returncode, done.stderr)
    assert f"page-faults of process {other.pid}:" in done.stdout
    gone = run("perf", "--event", "page-faults", "--pid", str(other.pid))
    assert 1 == gone.returncode
    assert gone.stderr.startswith("perf: perf ended: ")


@pytest.mark.needs_perf
def test_trial_that_counts_nothing_is_a_fault() -> None:
    """Where no sample has a value the trial ends with 1 and the reason: here of a program that waits."""
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        done = run("perf", "--event", "task-clock", "--seconds", "0.3", "--pid", str(other.pid))
        other.communicate()
    assert (1, "perf: task-clock is n/a, not counted\n") == (done.returncode, done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ["perf", "--event", "x; id"],
        ["perf", "--seconds", "nan"],
        ["perf", "--seconds", "0"],
        ["perf", "--pid", "-1"],
        ["perf", "--pid", "one"],
    ],
)
def test_bad_argument_is_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A value that makes no sense ends with 2 and is named with what is accepted."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert 2 == ended.value.code
    assert f"invalid value {arguments[-1]!r}: expected " in capsys.readouterr().err


def test_no_command_is_an_error_that_lists_them() -> None:
    """Without a command the usage says which there are."""
    done = run()
    assert 2 == done.returncode
    assert "{doctor,perf,compare,report,merge,summary,approve,html,trace}" in done.stderr
