"""`--imu-simulate`: what is counted under callgrind, what is left alone, and what is refused."""

from __future__ import annotations

import json
import os
import sys

import pytest

from pytest_imu.simulation import restart
from running import run_here
from simulating import CACHES, assert_nothing_left, command, count, simulate


@pytest.mark.needs_valgrind
def test_workers_are_simulated(pytester: pytest.Pytester) -> None:
    """Under `-n` the workers count; `budgets` leaves the tests that have one on events."""
    pytester.makeini("[pytest]\nimu_caches = D1=65536,8,64")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.max_cache_misses(1_000_000)
        @pytest.mark.max_events("L1-dcache-load-misses", 10)
        def test_broken(): assert bytearray(2**20).count(1) == 0

        @pytest.mark.max_peak_mib(10)
        def test_memory(): pass

        def test_plain(): pass
        """
    )
    result = simulate(
        pytester, "-p", "xdist", "-n", "1", "--imu-json=out.json", "--imu-simulate=budgets"
    )
    result.assert_outcomes(failed=1)
    caches = CACHES.replace("D1=32768", "D1=65536")
    result.stdout.fnmatch_lines([f"counts simulated by callgrind: {caches}, baseline CPU"])
    result.stdout.no_fnmatch_line("counts of several workers*")
    document = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))
    assert f"callgrind, simulated caches {caches}" == document["environment"]["counter_source"]
    [broken] = document["tests"]
    assert ("test_workers_are_simulated.py::test_broken", "gw0") == (broken["nodeid"], broken["worker"])
    assert {("cache-misses", "kept"), ("L1-dcache-load-misses", "broken")} == {
        (one["event"], one["verdict"]) for one in broken["budgets"]
    }
    assert 2**20 / 64 < count(broken, "cache-misses") < 2**20 / 64 + 10_000


VALGRIND = """#!/bin/sh
test "$1" = --version && echo valgrind-3.19.0 && exit
while test "${1#-}" != "$1"; do shift; done
STARTED=$$ exec "$@"
"""
"""A scripted valgrind, which does nothing but run the program, and tell it that it did."""


@pytest.mark.needs_proc
def test_each_worker_is_started_by_valgrind(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under `-n 2` both are: the process that runs the tests is the one that was valgrind."""
    valgrind = pytester.path / "valgrind"
    valgrind.write_text(VALGRIND, encoding="utf-8")
    valgrind.chmod(0o755)
    monkeypatch.setenv("PATH", str(pytester.path), prepend=os.pathsep)
    pytester.makepyfile(
        """
        import os
        import pytest

        @pytest.mark.parametrize("number", [1, 2])
        def test_it(number): assert str(os.getpid()) == os.environ["STARTED"]
        """
    )
    options = ("--imu-json=out.json", "--imu-simulate", "-o", "imu_simulate_cpu=host")
    result = simulate(pytester, "-p", "xdist", "-n", "2", *options)
    result.assert_outcomes(passed=2)
    tests = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))["tests"]
    assert ["gw0", "gw1"] == sorted(test["worker"] for test in tests)


def test_nothing_to_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `budgets`, where no test has a budget on events, the exit status is pytest's for no tests."""
    monkeypatch.setattr(restart, "running_tool", lambda: "callgrind")  # as in the run that is simulated
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.max_peak_mib(10)
        @pytest.mark.max_cache_misses(None)
        def test_memory(): pass
        """
    )
    result = run_here(pytester, "--imu-simulate=budgets")
    assert pytest.ExitCode.NO_TESTS_COLLECTED == result.ret
    result.assert_outcomes(deselected=1)


def test_warmup_is_the_tests_own(pytester: pytest.Pytester) -> None:
    """A body is called as often as its marker, or the ini file, asks for; what fails there fails it."""
    pytester.makeini("[pytest]\nimu_warmup = 1")
    pytester.makepyfile(
        """
        import pytest

        calls = {}

        def call(name):
            calls[name] = calls.get(name, 0) + 1
            return calls[name]

        @pytest.mark.max_events("page-faults", 1e9)
        def test_by_ini(): call("ini")

        @pytest.mark.max_events("page-faults", 1e9, warmup=3)
        def test_by_marker(): call("marker")

        @pytest.mark.max_events("page-faults", 1e9, warmup=0)
        def test_not(): call("not")

        @pytest.mark.max_peak_mib(100)
        def test_memory(): call("memory")

        @pytest.mark.max_events("page-faults", 1e9)
        def test_fails_first(): assert call("fails") > 1

        def test_calls():
            assert {"ini": 2, "marker": 4, "not": 1, "memory": 1, "fails": 1} == calls
        """
    )
    result = run_here(pytester)
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_fails_first - *"])


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "not installed"),
        ("echo valgrind-3.15.0", "*/valgrind is valgrind-3.15.0, and too old"),
        ("echo nonsense; exit 3", "*/valgrind --version ends with status 3 and says 'nonsense'"),
    ],
)
@pytest.mark.needs_proc
def test_valgrind_that_will_not_do(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, script: str | None, reason: str
) -> None:
    """Without a valgrind that is new enough the flag is a usage error, which says what to install."""
    folder = pytester.path / "bin"
    folder.mkdir()
    if script is not None:
        (folder / "valgrind").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "valgrind").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    result = run_here(pytester, "--imu-simulate")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(
        [f"ERROR: --imu-simulate: valgrind: {reason}; install valgrind, 3.19 or newer"]
    )


@pytest.mark.parametrize("flag", ["-I", "-E"])
def test_python_that_hears_no_environment_is_refused(pytester: pytest.Pytester, flag: str) -> None:
    """Where the hash seed cannot be fixed the flag is a usage error that says why."""
    python, *rest = command("--imu-simulate")
    result = pytester.run(python, flag, *rest)
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(["ERROR: --imu-simulate: with python -I or -E the hash seed *"])


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--imu-simulate=some"], "'some' for --imu-simulate: expected off, budgets or all"),
        (
            ["--imu-simulate", "."],
            "'.' for --imu-simulate: expected off, budgets or all, not a path; write --imu-simulate=*",
        ),
        (["-o", "imu_simulate=x"], "'x' for -o imu_simulate: expected off, budgets or all"),
        (["-o", "imu_caches=L2=1,2,3"], "'L2=1,2,3' for -o imu_caches: expected caches such as I1=*"),
        (["-o", "imu_warmup=-1"], "'-1' for -o imu_warmup: expected a whole number, 0 or more"),
    ],
)
def test_option_that_makes_no_sense(pytester: pytest.Pytester, arguments: list[str], fault: str) -> None:
    """A value that is not accepted is a usage error that names its source, before any test runs."""
    pytester.makepyfile("def test_it(): pass")
    result = run_here(pytester, *arguments)
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines([f"ERROR: invalid value {fault}"])


@pytest.mark.needs_valgrind
@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n", "1")], ids=["alone", "workers"])
def test_caches_that_valgrind_refuses(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    """Sizes that valgrind refuses are a usage error with its own words, before any test runs."""
    pytester.makepyfile("def test_it(): pass")
    result = run_here(pytester, *workers, "--imu-simulate", "-o", "imu_caches=D1=32768,3,64")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    caches = CACHES.replace("D1=32768,8", "D1=32768,3")
    result.stderr.fnmatch_lines(
        [f"ERROR: --imu-simulate: valgrind refuses {caches}: Cache set count is not a power of two. *"]
    )


@pytest.mark.parametrize("warmup", ["-1", "True", "1.5", "None"])
def test_warmup_that_makes_no_sense(pytester: pytest.Pytester, warmup: str) -> None:
    """A warm-up that is no whole number from 0 is a usage error that names the test."""
    pytester.makepyfile(
        f"import pytest\n@pytest.mark.max_cache_misses(1, warmup={warmup})\ndef test_it(): pass\n"
    )
    result = run_here(pytester)
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(
        [f"ERROR: *::test_it: invalid max_cache_misses(1, warmup={warmup}): expected warmup to be a *"]
    )


@pytest.mark.needs_valgrind
def test_other_program_that_calls_pytest(pytester: pytest.Pytester) -> None:
    """A program that calls pytest.main() is not started twice: it is told to start pytest itself."""
    program = pytester.makepyfile(
        program="""
        import pytest, sys
        sys.exit(pytest.main(["-p", "imu", "--imu-simulate"]))
        """
    )
    result = pytester.run(sys.executable, str(program))
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(["ERROR: --imu-simulate: another program called pytest.main(); *"])
    assert_nothing_left(pytester.path)


@pytest.mark.needs_valgrind
def test_mark_without_valgrind_is_no_loop(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was started to be simulated, and is not, does not start itself again."""
    monkeypatch.setenv("PYTEST_IMU_SIMULATED", "")
    result = simulate(pytester, "--imu-simulate")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(["ERROR: --imu-simulate: valgrind started this process, and cannot *"])


@pytest.mark.parametrize("flag", ["--collect-only", "--help", "--version", "--no-imu", "--fixtures"])
def test_run_without_measuring_needs_no_valgrind(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    """Where no test runs, or nothing is to be measured, valgrind is neither looked for nor started."""
    monkeypatch.setenv("PATH", "")
    pytester.makepyfile("def test_it(): pass")
    assert pytest.ExitCode.OK == run_here(pytester, flag, "--imu-simulate").ret


def test_worker_elsewhere_is_refused(pytester: pytest.Pytester) -> None:
    """A worker with an interpreter of its own, or on another machine, cannot be simulated."""
    arguments = ["-p", "xdist", "--tx", "popen//python=python3", "--dist", "load", "--imu-simulate"]
    result = run_here(pytester, *arguments)
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(["ERROR: --imu-simulate: *"])
