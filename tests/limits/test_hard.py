"""Hard budgets and the limit of a run: the allocation that goes past them fails, and its test alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from running import read_by_name, run, run_here

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux refuses memory in a way that Python survives"
)

HARD = """
    import os
    import resource
    import subprocess
    import sys
    import unittest
    from concurrent.futures import ThreadPoolExecutor

    import pytest

    TELL = "import resource; print(resource.getrlimit(resource.RLIMIT_DATA)[0])"
    BEFORE = resource.getrlimit(resource.RLIMIT_DATA)
    hard = pytest.mark.max_peak_mib(50, hard=True)

    def limit():
        return resource.getrlimit(resource.RLIMIT_DATA)

    @hard
    def test_over():
        first = bytearray(30 * 2**20)
        second = bytearray(200 * 2**20)

    @hard
    def test_limited():
        assert limit() < BEFORE or BEFORE[0] == -1 != limit()[0]

    def test_free():
        assert BEFORE == limit()
        assert len(bytearray(200 * 2**20))

    @hard
    def test_caught():
        with pytest.raises(MemoryError):
            bytearray(500 * 2**20)

    @hard
    def test_between():
        assert bytearray(60 * 2**20)

    class TestUnit(unittest.TestCase):
        @hard
        def test_unit(self):
            bytearray(200 * 2**20)

    @hard
    @pytest.mark.xfail(raises=MemoryError, strict=True)
    def test_expected():
        bytearray(200 * 2**20)

    @hard
    def test_other_error():
        raise ValueError("its own")

    @hard
    def test_programs():
        told = subprocess.check_output([sys.executable, "-c", TELL], text=True)
        assert BEFORE[0] == int(told)
        assert 0 == os.system(f"{sys.executable} -c '{TELL}' | grep -q -x -e {BEFORE[0]}")
        pid = os.fork()
        if pid == 0:
            os._exit(0 if BEFORE == limit() else 1)
        assert 0 == os.waitpid(pid, 0)[1]
        assert BEFORE != limit()

    @hard
    def test_pool():
        with ThreadPoolExecutor(6) as pool:
            assert 100 == len(list(pool.map(abs, range(100))))

    def test_nothing_is_left():
        assert BEFORE == limit()
        for start in (os.system, os.posix_spawn, subprocess._fork_exec):
            assert not hasattr(start, "__wrapped__")

    @pytest.mark.max_peak_mib(2, hard=True)
    def test_threads():
        import threading
        end = threading.Event()
        started = []
        try:
            for _ in range(100):
                started.append(threading.Thread(target=end.wait))
                started[-1].start()
        finally:
            end.set()
"""
STOPPED = "stopped by max_peak_mib(50, hard=True)"


@pytest.mark.needs_fork
def test_hard_budgets(pytester: pytest.Pytester) -> None:
    """The budget's line stands before the traceback of the line that went past it."""
    pytester.makepyfile(test_it=HARD)

    result = run(pytester, "-W", "ignore::DeprecationWarning", "--imu-json=run.json")
    tests = read_by_name(pytester)

    result.assert_outcomes(passed=6, failed=5, xfailed=1)
    result.stdout.fnmatch_lines(
        [
            "*___ test_over ___*",
            f"{STOPPED}, [23]?.? MiB above its start: the next allocation would have gone past it",
            "",
            "    @hard",
            "    def test_over():",
            "        first = bytearray(30 * 2**20)",
            ">       second = bytearray(200 * 2**20)",
            "E       MemoryError",
            "*___ test_between ___*",
            "peak [56]?.? MiB is over max_peak_mib(50, hard=True) by *.? MiB *",
            "*___ TestUnit.test_unit ___*",
            f"{STOPPED}, ?.? MiB above its start: *",
            "*___ test_other_error ___*",
            "*___ test_threads ___*",
            "stopped by max_peak_mib(2, hard=True), *: a new thread would have gone past it",
            "*FAILED test_it.py::test_over - stopped by max_peak_mib(50*",
        ]
    )
    verdicts = {name: test["budgets"][0]["verdict"] for name, test in tests.items() if test["budgets"]}
    assert {
        "test_over": "broken",
        "test_limited": "kept",
        "test_caught": "kept",
        "test_between": "broken",
        "test_unit": "broken",
        "test_expected": "broken",
        "test_other_error": "unchecked",
        "test_programs": "kept",
        "test_pool": "kept",
        "test_threads": "broken",
    } == verdicts
    assert tests["test_over"]["budgets"][0]["hard"] is True


@pytest.mark.parametrize("how", ["workers", "isolated"])
def test_workers_and_children(pytester: pytest.Pytester, how: str) -> None:
    """The line comes home; where an allocator aborts, an isolated test fails alone, with the reason."""
    pytester.makeini("[pytest]\nimu_hard = true\nimu_max_peak_mib = 50\n")
    pytester.makepyfile(
        test_it="""
        import os

        def test_over():
            bytearray(200 * 2**20)

        def test_next():
            pass
        """,
        test_abort="""
        import os

        def test_aborts():
            try:
                bytearray(200 * 2**20)
            except MemoryError:
                os.abort()
        """,
    )
    pytest.importorskip("xdist")
    args = ["-p", "xdist", "-n1", "test_it.py"] if how == "workers" else ["--imu-isolate"]

    result = run(pytester, "--imu-json=run.json", *args)
    tests = read_by_name(pytester)

    result.assert_outcomes(passed=1, failed=1 if how == "workers" else 2)
    result.stdout.fnmatch_lines([f"{STOPPED}, ?.? MiB above its start: *", "> *bytearray(200 *"])
    assert "broken" == tests["test_over"]["budgets"][0]["verdict"]
    assert "kept" == tests["test_next"]["budgets"][0]["verdict"]
    if how == "isolated":
        [budget] = tests["test_aborts"]["budgets"]
        line = (
            f"{STOPPED}: the child process that ran this test was killed by SIGABRT (signal 6), as "
            "allocators do that cannot refuse memory"
        )
        assert ("broken", line) == (budget["verdict"], budget["reason"])
        result.stdout.fnmatch_lines([line])


def test_what_would_abort_needs_isolation(pytester: pytest.Pytester) -> None:
    """Where such a library is loaded no limit is set, and that is said; the budget is checked still."""
    pytester.makepyfile(
        polars="",
        test_it="""
        import resource

        import polars
        import pytest

        @pytest.mark.max_peak_mib(50, hard=True)
        def test_it():
            assert len(bytearray(200 * 2**20))
        """,
    )
    result = run(pytester)
    result.assert_outcomes(failed=1, warnings=1)
    result.stdout.fnmatch_lines(
        [
            "peak * MiB is over max_peak_mib(50, hard=True) *",
            "*imu: max_peak_mib(50, hard=True) needs --imu-isolate and sets no limit here: polars *",
        ]
    )
    run(pytester, "--imu-isolate").assert_outcomes(failed=1)


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("max_peak_mib(1, hard=1)", 'hard to be True or False, and True only with phase="call"'),
        (
            "max_peak_mib(1, phase='all', hard=True)",
            'hard to be True or False, and True only with phase="call"',
        ),
        ("max_delta_mib(1, hard=True)", "one limit without a name, and optionally phase="),
        ("max_peak_mib(1, soft=True)", "one limit without a name, and optionally phase= and hard="),
    ],
)
def test_marker_at_fault(pytester: pytest.Pytester, marker: str, expected: str) -> None:
    """A marker that makes no sense is refused before any test runs."""
    pytester.makepyfile(test_it=f"import pytest\n@pytest.mark.{marker}\ndef test_it(): ...")
    result = run_here(pytester)
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines([f"ERROR: test_it.py::test_it: invalid *: expected {expected}"])


LARGE = """
    import pytest

    def test_small():
        assert bytearray(2**20)

    def test_large():
        assert bytearray(400 * 2**20)

    @pytest.fixture
    def large():
        return bytearray(400 * 2**20)

    def test_large_setup(large):
        pass

    def test_after():
        assert bytearray(2**20)
"""


@pytest.mark.parametrize("how", ["alone", "measured", "workers"])
def test_limit_of_the_run(pytester: pytest.Pytester, how: str) -> None:
    """The test that takes the run past its limit fails, and is named; a setup that does is an error."""
    pytester.makepyfile(test_it=LARGE)
    pytest.importorskip("xdist")
    more = {"alone": [], "measured": ["--imu"], "workers": ["-p", "xdist", "-n2"]}[how]
    limit = "600MiB" if how == "workers" else "300MiB"

    result = run(pytester, f"--imu-limit={limit}", *more)

    result.assert_outcomes(passed=2, failed=1, errors=1)
    line = (
        f"stopped by --imu-limit={limit}, while this process held * MiB: the next allocation would have "
    )
    result.stdout.fnmatch_lines([f"{line}gone past it", f"{line}gone past it"])


def test_share_of_the_limit(pytester: pytest.Pytester) -> None:
    """From half of the limit on the report says how near the run came, and which test."""
    pytester.makepyfile(test_it=LARGE.replace("400", "100"))
    pytester.makeini("[pytest]\nimu_limit = 200MiB\n")
    result = run(pytester, "--imu")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        ["peak 1??.? MiB of 200.0 MiB (?? %), the limit of --imu-limit=200MiB: test_it.py::test_large*"]
    )
    assert "the limit of" not in str(run(pytester, "--imu", "-o", "imu_limit=100%").stdout)


def test_option_at_fault(pytester: pytest.Pytester) -> None:
    """What is no size is refused."""
    pytester.makepyfile(test_it=LARGE)
    result = run_here(pytester, "--imu-limit=lots")
    result.stderr.fnmatch_lines(
        ["ERROR: invalid value 'lots' for --imu-limit: expected a size with its *"]
    )


@pytest.mark.needs_fork
def test_stacks_have_room(in_fork: Callable[[Callable[[], object]], Any]) -> None:
    """A process whose limit is set to nothing more can still start a pool's threads.

    In a child: after a refused allocation glibc serves a thread from another arena, for ever.
    """
    from pytest_imu.core.memory.data_limit import DataLimit, stacks_bytes

    def refused_and_lifted() -> bool:
        limit = DataLimit()
        try:
            limit.set(0)
            with pytest.raises(MemoryError):
                bytearray(2**28)
        finally:
            limit.lift()
        limit.lift()  # once more is no harm
        return len(bytearray(2**28)) == 2**28

    assert 2**20 <= stacks_bytes() <= 64 * 2**20
    assert in_fork(refused_and_lifted)


def test_what_tests_patch(pytester: pytest.Pytester) -> None:
    """A patched `getrlimit` fails no test, and patches that are undone late leave no layers of ours."""
    pytester.makepyfile(
        test_it="""
        import os
        import resource

        import pytest

        @pytest.fixture
        def patched(monkeypatch):
            monkeypatch.setattr(resource, "getrlimit", lambda *_: None)

        @pytest.mark.max_peak_mib(100, hard=True)
        def test_patched(patched):
            pass

        @pytest.mark.parametrize("number", range(3))
        @pytest.mark.max_peak_mib(100, hard=True)
        def test_system(monkeypatch, number):
            depth, function = 0, os.system
            while (function := getattr(function, "__wrapped__", None)) is not None:
                depth += 1
            assert depth <= 1
            monkeypatch.setattr(os, "system", print)
        """
    )
    run(pytester).assert_outcomes(passed=4)
