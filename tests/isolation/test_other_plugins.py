"""--imu-isolate with other plugins: each does in the children what it does without."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from running import read_tests, run_isolated

pytestmark = pytest.mark.needs_fork


def needs(module: str, distribution: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where *module* cannot be found."""
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"{distribution} is not installed"
    )


needs_anyio = needs("anyio", "anyio")
needs_benchmark = needs("pytest_benchmark", "pytest-benchmark")
needs_asyncio = needs("pytest_asyncio", "pytest-asyncio")
needs_cov = needs("pytest_cov", "pytest-cov")
needs_rerunfailures = needs("pytest_rerunfailures", "pytest-rerunfailures")
needs_xdist = needs("xdist", "pytest-xdist")


@needs_xdist
def test_xdist(pytester: pytest.Pytester) -> None:
    """Under xdist each worker has children of its own: a crash costs one test, and no worker."""
    pytester.makepyfile(
        """
        import os
        import signal
        import warnings

        import pytest

        @pytest.mark.parametrize("number", range(6))
        def test_it(number):
            with open("pids", "a") as pids:
                pids.write(f"{os.getpid()}\\n")

        def test_crashes():
            print("said before")
            os.kill(os.getpid(), signal.SIGSEGV)

        @pytest.mark.max_peak_mib(10)
        def test_over():
            b"x" * (20 << 20)

        def test_warns(record_property):
            record_property("an object", object)
            warnings.warn("take care")
        """
    )

    result = run_isolated(pytester, "-p", "xdist", "-n", "2")
    tests = read_tests(pytester)

    result.assert_outcomes(passed=7, failed=2, warnings=1)
    result.stdout.fnmatch_lines(
        ["*was killed by SIGSEGV (signal 11)", "*Captured stdout call*", "said before"]
    )
    result.stdout.fnmatch_lines(["*UserWarning: take care"])
    result.stdout.no_fnmatch_line("*crashed while running*")
    assert 6 == len(set(pytester.path.joinpath("pids").read_text(encoding="ascii").split()))
    outcomes = {test["nodeid"].rpartition("::")[2]: test["outcome"] for test in tests}
    assert 9 == len(outcomes)
    assert ("crashed", "failed") == (outcomes["test_crashes"], outcomes["test_over"])
    assert {"gw0", "gw1"} == {test["worker"] for test in tests}


@needs_rerunfailures
def test_reruns(pytester: pytest.Pytester) -> None:
    """A test that is run again is so in its child, with a row for each attempt."""
    pytester.makepyfile(
        """
        import os

        NUMBERS = []

        def test_passes_at_last():
            NUMBERS.append(os.getpid())
            assert len(NUMBERS) == 3

        def test_never_passes():
            assert NUMBERS == ["of this child"]
        """
    )

    result = run_isolated(pytester, "-p", "rerunfailures", "--reruns=2")
    tests = read_tests(pytester)

    result.assert_outcomes(passed=1, failed=1)
    assert 4 == result.parseoutcomes()["rerun"]
    assert [(1, "rerun"), (2, "rerun"), (3, "passed"), (1, "rerun"), (2, "rerun"), (3, "failed")] == [
        (test["attempt"], test["outcome"]) for test in tests
    ]


COVERED = """
    def first(number):
        if number:
            return 1
        return 2

    def second(number):
        for one in range(number):
            if one == 3:
                break
        return number

    def never():
        return 3
"""
COVERING = """
    import pytest
    from covered import first, second

    @pytest.fixture(scope="session")
    def one():
        return first(1)

    def test_first(one):
        assert 1 == one

    @pytest.mark.max_peak_mib(50)
    def test_first_again():
        assert 2 == first(0)

    @pytest.mark.parametrize("number", [2, 6])
    def test_second(number):
        assert number == second(number)
"""


def covered_files(folder: Path) -> Any:
    """Return what coverage tells of each file."""
    import coverage

    data = coverage.Coverage(data_file=str(folder / ".coverage"))
    data.load()
    data.json_report(outfile=str(folder / "coverage.json"))
    return json.loads(folder.joinpath("coverage.json").read_text(encoding="utf-8"))["files"]


@needs_cov
@pytest.mark.parametrize(
    ("command", "isolated"),
    [
        pytest.param(["--cov=.", "--cov-branch"], ["budgets", "all"], id="pytest-cov"),
        pytest.param(["--cov=.", "--cov-branch", "-n", "2"], ["all"], id="workers", marks=needs_xdist),
        pytest.param([], ["all"], id="coverage run"),
    ],
)
def test_coverage(pytester: pytest.Pytester, command: list[str], isolated: list[str]) -> None:
    """Lines and branches are those that were covered without, and no other file lies about."""
    pytester.makepyfile(covered=COVERED, test_it=COVERING)

    covered = []
    for which in ("off", *isolated):
        imu = ["-p", "imu", f"--imu-isolate={which}", "-p", "no:cacheprovider"]
        plugins = ["-p", "pytest_cov", *(["-p", "xdist"] if "-n" in command else [])] if command else []
        begin = ["-m"] if command else ["-m", "coverage", "run", "--branch", "--source=.", "-m"]
        done = pytester.run(sys.executable, *begin, "pytest", *plugins, *imu, *command)
        done.assert_outcomes(passed=4)
        assert [".coverage"] == [path.name for path in pytester.path.glob(".cov*")]
        covered.append(covered_files(pytester.path))
        pytester.path.joinpath(".coverage").unlink()

    without, *within = covered
    assert [without] * len(isolated) == within
    assert 1 == len(without["covered.py"]["missing_lines"])


@needs_cov
def test_coverage_leaves_nothing_open(pytester: pytest.Pytester) -> None:
    """With warnings as errors a run passes as it does without: Python 3.13 tells of open databases."""
    pytester.makepyfile(covered=COVERED, test_it=COVERING)

    for isolate in ("off", "all"):
        imu = ["-p", "imu", f"--imu-isolate={isolate}"]
        done = pytester.run(
            sys.executable, "-m", "pytest", "-W", "error", "-p", "pytest_cov", "--cov=.", *imu
        )
        assert pytest.ExitCode.OK == done.ret


@needs_anyio
def test_anyio(pytester: pytest.Pytester) -> None:
    """Coroutines run in a child, with fixtures that are coroutines too."""
    pytester.makepyfile(
        """
        import anyio
        import pytest

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.fixture
        async def value():
            await anyio.sleep(0)
            yield 3
            await anyio.sleep(0)

        @pytest.mark.anyio
        async def test_it(value):
            await anyio.sleep(0)
            assert 3 == value
        """
    )

    run_isolated(pytester, "-p", "anyio").assert_outcomes(passed=1)


@needs_asyncio
def test_asyncio(pytester: pytest.Pytester) -> None:
    """Coroutines run in a child, also in the one event loop of a session."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = session\n")
    pytester.makepyfile(
        """
        import asyncio

        import pytest
        import pytest_asyncio

        @pytest_asyncio.fixture(scope="session")
        async def value():
            await asyncio.sleep(0)
            yield 3

        @pytest.mark.parametrize("number", range(2))
        @pytest.mark.asyncio(loop_scope="session")
        async def test_it(value, number):
            await asyncio.sleep(0)
            assert 3 == value
        """
    )

    run_isolated(pytester, "-p", "asyncio").assert_outcomes(passed=2)


def test_plugin_that_fails_what_waits(pytester: pytest.Pytester) -> None:
    """A plugin that fails a test by a signal, as pytest-timeout does, fails it where it waits: with the
    child's own report where that gets the signal too, else with what the plugin says.
    """
    pytester.makeconftest(
        """
        import os
        import signal
        from pathlib import Path

        import pytest
        from pytest_imu.isolation import parent

        SESSION = os.getpid()

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_protocol(item):
            def too_long(number, frame):
                pytest.fail("took too long")

            signal.signal(signal.SIGALRM, too_long)
            # The one that hears ends by itself, however slow the machine; nobody waits for the other.
            parent.OWN_END_LOOKS = 60 if item.name == "test_hears" else 0
            return (yield)

        @pytest.fixture
        def session_is_told():
            def tell():
                # Once it sleeps it has taken in all that came, and waits.
                status = Path(f"/proc/{SESSION}/status")
                while status.exists() and "State:\\tS" not in status.read_text():
                    pass
                os.kill(SESSION, signal.SIGALRM)

            return tell
        """
    )
    pytester.makepyfile(
        """
        import signal

        def test_hears(session_is_told):
            session_is_told()
            signal.raise_signal(signal.SIGALRM)

        def test_is_deaf(session_is_told):
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            session_is_told()
            signal.pause()

        def test_next():
            pass
        """
    )

    result = run_isolated(pytester)

    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        ["*_ test_hears _*", ">*signal.raise_signal(signal.SIGALRM)", "E*Failed: took too long"]
    )
    result.stdout.fnmatch_lines(["*_ test_is_deaf _*", "took too long"])


@needs_benchmark
def test_plugin_that_loses_its_state(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that gathers results in each test's own process is named in one warning, and only where
    an isolated test uses it.
    """
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # it would write nothing in a worker
    pytester.makepyfile(
        """
        import pytest

        def test_plain(benchmark):
            benchmark(lambda: None)

        @pytest.mark.parametrize("number", range(2))
        @pytest.mark.max_peak_mib(50)
        def test_budget(number):
            pass
        """
    )
    plugin = (
        *("-p", "pytest_benchmark.plugin", "--benchmark-json=benchmarks.json"),
        *("--benchmark-max-time=0.001", "--benchmark-min-time=0.000001", "--benchmark-min-rounds=1"),
    )
    warning = "*imu: pytest-benchmark loses the results of isolated tests: *"

    in_children = run_isolated(pytester, *plugin)
    file = pytester.path / "benchmarks.json"
    assert not (file.exists() and file.stat().st_size)  # old ones make it before the tests
    here = run_isolated(pytester, *plugin, isolate="budgets")

    for result in (in_children, here):
        assert 3 == result.parseoutcomes()["passed"]
    assert 1 == sum("imu: pytest-benchmark" in line for line in in_children.outlines)
    in_children.stdout.fnmatch_lines([warning])
    here.stdout.no_fnmatch_line(warning)
    assert 1 == len(json.loads(file.read_text(encoding="utf-8"))["benchmarks"])
