"""Verdicts in doubt are decided by one more run of the test, alone, and nobody hears of that run."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from running import JSON, Test, read_tests, run, run_and_read

pytestmark = [
    pytest.mark.needs_kernel_peaks,
    pytest.mark.needs_malloc_trim,
    pytest.mark.needs_fork,
]

GROWS = """
    import contextlib, mmap, os, signal, sys, time, unittest, warnings, logging

    import pytest

    def grow(mib=16):
        # Each growth may move the block. Once a large block was freed glibc moves by copying.
        one, other = bytearray(), bytearray()
        for _ in range(mib * 16):
            one += bytes(2**16)
            other += bytes(2**16)

    def test_frees_a_large_block():
        bytes(31 * 2**20)

    FIRST = os.getpid()

    def is_second():
        return os.getpid() != FIRST
"""
"""`grow()` peaks at 32 MiB in a fresh process, and at 56 to 65 after the first test."""


def run_suite(
    pytester: pytest.Pytester, tests: str, *args: str
) -> tuple[pytest.RunResult, dict[str, Test]]:
    """Run a suite that begins with `GROWS`; return the result and the JSON file's tests by name."""
    pytester.makepyfile(test_it=GROWS + tests)
    return run_and_read(pytester, "-p", "no:cacheprovider", "--imu", *args)


def test_the_run_alone_decides(pytester: pytest.Pytester) -> None:
    """A budget that only earlier tests have broken is kept, one that is broken alone fails the test."""
    result, tests = run_suite(
        pytester,
        """
    @pytest.mark.max_peak_mib(40)
    def test_kept_alone():
        grow()

    @pytest.mark.max_peak_mib(20)
    def test_broken_alone(request):
        request.node.user_properties.append(("imu", "kept"))
        grow()

    @pytest.mark.max_peak_mib(100)
    def test_not_in_doubt():
        Path = open(f"pid-{os.getpid()}", "w")
        grow()

    @pytest.mark.xfail(strict=True)
    @pytest.mark.max_peak_mib(20)
    def test_expected():
        grow()
    """,
        "--junit-xml=junit.xml",
    )

    result.assert_outcomes(passed=3, failed=1, xfailed=1)
    result.stdout.re_match_lines(
        [
            r"peak 3\d\.\d MiB is over max_peak_mib\(20\) by .*; [56]\d\.\d after earlier tests",
            r"1 budget kept alone: .*_alone: max_peak_mib\(40\): 3\d\.\d alone, [56]\d\.\d after .*",
        ]
    )
    [kept], [broken], [sure] = (
        tests[name]["budgets"] for name in ("test_kept_alone", "test_broken_alone", "test_not_in_doubt")
    )
    assert ["kept", "broken", "kept"] == [one["verdict"] for one in (kept, broken, sure)]
    assert ["alone", "alone", "first"] == [one["decided_by"] for one in (kept, broken, sure)]
    for verdict in (kept, broken):
        assert abs(verdict["actual"] - 32) < 1
        assert verdict["first"] > 50
    assert sure["first"] is None
    assert 1 == len([*Path.cwd().glob("pid-*")])
    cases = ET.parse("junit.xml").getroot().iter("testcase")  # noqa: S314 - pytest has written it
    assert 5 == len([*cases])


def test_nobody_hears_of_it(pytester: pytest.Pytester) -> None:
    """What the second run prints, logs, warns of and reports goes nowhere, and its folder is removed."""
    pytester.makeconftest(
        """
        import atexit, os

        def pytest_runtest_logreport(report):
            with open("reports", "a") as file:
                print(report.nodeid, report.when, file=file)

        atexit.register(lambda: open("ends", "a").write("x"))
        """
    )
    tests = """
    READER, WRITER = os.pipe()  # a run alone must not hold the other end of it

    @pytest.mark.max_peak_mib(40)
    def test_loud(tmp_path, capfd):
        print("from stdout")
        print("from stderr", file=sys.stderr)
        os.write(1, b"from one")
        logging.getLogger().error("from the log")
        warnings.warn("from a warning")
        assert "from one" in capfd.readouterr().out
        tmp_path.joinpath("file").write_text("x")
        grow()
        with capfd.disabled():
            print("from", "disabled capturing")

    def test_pipe():
        os.close(WRITER)
        assert os.read(READER, 1) == b""
    """

    for capture in ("fd", "sys", "no"):
        for path in map(Path, ("reports", "log", "run.jsonl")):
            path.unlink(missing_ok=True)
        result, found = run_suite(
            pytester,
            tests,
            *(f"--capture={capture}", "--log-file=log", "--log-cli-level=ERROR", "--imu-log=run.jsonl"),
            *("-o", "log_cli=true"),
        )
        result.assert_outcomes(passed=3, warnings=1)
        assert "alone" == found["test_loud"]["budgets"][0]["decided_by"]
        out = result.stdout.str() + result.stderr.str()
        assert 1 == out.count("from disabled capturing")
        assert 1 == Path("log").read_text(encoding="utf-8").count("from the log")
        assert 9 == len(Path("reports").read_text(encoding="utf-8").splitlines())
        assert 7 == len(Path("run.jsonl").read_text(encoding="ascii").splitlines())
    assert "xxx" == Path("ends").read_text(encoding="utf-8")
    assert [] == [*Path(pytester.path).glob("**/imu-alone*")]


def test_where_it_cannot_be_run_alone(pytester: pytest.Pytester) -> None:
    """The first number stands, and the line says why there is no other."""
    pytester.makeconftest(
        """
        import pytest
        from pytest_imu.isolation import confirm

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_setup(item):
            # Only the one that hangs is hurried: the others take their time on a busy machine.
            hangs = item.name == "test_hangs_there"
            confirm.LEAST_LIMIT_S, confirm.TIMES_THE_FIRST = (1, 0) if hangs else (60, 10)
        """
    )
    result, tests = run_suite(
        pytester,
        """
    fails = pytest.mark.max_peak_mib(40)

    @fails
    def test_fails_there():
        grow()
        assert not is_second(), "the port is in use"

    @fails
    def test_skips_there():
        grow()
        if is_second():
            pytest.skip("not twice")

    @fails
    def test_dies_there():
        grow()
        if is_second():
            os.kill(os.getpid(), signal.SIGKILL)

    @fails
    def test_hangs_there():
        grow()
        while is_second():
            time.sleep(1)

    @fails
    def test_exits_there():
        grow()
        if is_second():
            pytest.exit("there")

    @fails
    @pytest.mark.imu_no_rerun
    def test_must_not_run_twice():
        assert not is_second()
        grow()

    class TestCase(unittest.TestCase):
        @fails
        def test_failed_by_itself(self):
            open("ran", "a").write("x")
            grow()
            self.assertEqual(1, 2)

        @fails
        def test_case(self):
            grow()
    """,
    )

    result.assert_outcomes(passed=2, failed=7)
    reasons = {name: test["budgets"][0]["not_alone"] for name, test in tests.items() if test["budgets"]}
    # Ten times the first run, and at least what the conftest says: on a busy machine that may be more.
    assert re.fullmatch(r"it had not ended after \d+ s", reasons.pop("test_hangs_there"))
    assert {
        "test_fails_there": "it failed in its call: the port is in use",
        "test_skips_there": "it was skipped in its call: not twice",
        "test_dies_there": "the child process was killed by SIGKILL (signal 9)",
        "test_exits_there": "it was left by exit",
        "test_must_not_run_twice": "it is marked imu_no_rerun",
        "test_failed_by_itself": None,
        "test_case": None,
    } == reasons
    result.stdout.re_match_lines(
        [r"peak [56]\d\.\d MiB .*; not run alone: it failed in its call: the port is in use"]
    )
    assert "x" == Path("ran").read_text(encoding="utf-8")
    assert "alone" == tests["test_case"]["budgets"][0]["decided_by"]


@pytest.mark.parametrize("workers", [(), ("-n", "1", "-p", "xdist")], ids=["here", "xdist"])
def test_fixtures_phases_and_parameters(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    """Fixtures of every scope are set up anew, and each phase's budget has its own number."""
    if workers:
        pytest.importorskip("xdist")
    result, tests = run_suite(
        pytester,
        """
    MADE = []

    @pytest.fixture(scope="session", autouse=True)
    def made():
        MADE.append(1)
        yield MADE
        MADE.pop()

    @pytest.fixture
    def grown(made):
        assert made == [1]
        grow()

    @pytest.mark.max_peak_mib(40, phase="setup")
    def test_setup(grown):
        pass

    @pytest.mark.max_peak_mib(40, phase="all")
    def test_all(grown):
        grow(8)

    @pytest.mark.max_peak_mib(20, phase="all")
    def test_all_broken(grown):
        pass

    @pytest.mark.max_peak_mib(40)
    @pytest.mark.parametrize("mib", [15, 16])
    def test_parameters(mib, made):
        grow(mib)
    """,
        *workers,
    )

    result.assert_outcomes(passed=5, failed=1)
    for name in ("test_setup", "test_all", "test_parameters[15]", "test_parameters[16]"):
        [verdict] = tests[name]["budgets"]
        assert ("kept", "alone") == (verdict["verdict"], verdict["decided_by"]), name
        assert abs(verdict["actual"] - (30 if "15" in name else 32)) < 1
    [verdict] = tests["test_all_broken"]["budgets"]
    assert ("broken", "alone") == (verdict["verdict"], verdict["decided_by"])


def test_mocks_timeouts_and_a_killed_process(pytester: pytest.Pytester) -> None:
    """Active mocks do not reach it, no timeout counts it, and without its process it says so."""
    pytest.importorskip("pytest_timeout")
    result, tests = run_suite(
        pytester,
        """
    class Name(str):
        pass

    class Lazy:
        def __getattr__(self, name):
            raise RuntimeError(name)

    @pytest.mark.max_peak_mib(40)
    def test_mocked(monkeypatch):
        grow()
        for name in ("fork", "write", "read", "getpid", "waitpid", "kill", "close"):
            monkeypatch.setattr(os, name, lambda *_: 1 / 0)
        monkeypatch.setattr(time, "monotonic", lambda: 1 / 0)
        monkeypatch.setattr(signal, "setitimer", lambda *_: 1 / 0)
        monkeypatch.setitem(sys.modules, Name("lazy"), Lazy())

    @pytest.mark.timeout(3, method="signal")
    @pytest.mark.max_peak_mib(40)
    def test_slow_there():
        grow()
        until = time.monotonic() + (4 if is_second() else 0)
        while time.monotonic() < until:
            time.sleep(0.01)

    with open("mark", "wb+") as mark:
        mark.truncate(1)
        MARK = mmap.mmap(mark.fileno(), 1)  # forks of this process have it, and nobody else

    @pytest.mark.max_peak_mib(40)
    def test_kills_it():
        grow()
        for pid in set(filter(str.isdecimal, os.listdir("/proc"))) - {str(os.getpid())}:
            with contextlib.suppress(OSError):  # others come and go
                if os.path.abspath("mark") in open(f"/proc/{pid}/maps").read():
                    os.kill(int(pid), signal.SIGKILL)
    """,
        *("-p", "timeout"),
    )

    result.assert_outcomes(passed=2, failed=2)
    assert "alone" == tests["test_mocked"]["budgets"][0]["decided_by"]
    assert "it failed in its call" in tests["test_slow_there"]["budgets"][0]["not_alone"]
    assert "the clean process was lost" == tests["test_kills_it"]["budgets"][0]["not_alone"]


def test_off(pytester: pytest.Pytester) -> None:
    """With imu_confirm off nothing runs twice, and the first number stands."""
    result, tests = run_suite(
        pytester,
        """
    @pytest.mark.max_peak_mib(40)
    def test_grows():
        assert not is_second()
        grow()
    """,
        *("-o", "imu_confirm=false"),
    )

    result.assert_outcomes(passed=1, failed=1)
    [verdict] = tests["test_grows"]["budgets"]
    assert ("broken", "first", None) == tuple(
        verdict[key] for key in ("verdict", "decided_by", "not_alone")
    )


def test_other_plugins_see_one_run(pytester: pytest.Pytester) -> None:
    """Coroutines are run alone too; reruns, -x and --lf see the failure of the test's own call alone."""
    for package in ("pytest_asyncio", "pytest_rerunfailures"):
        pytest.importorskip(package)
    tests = """
    @pytest.mark.asyncio
    @pytest.mark.max_peak_mib(40)
    async def test_coroutine():
        grow()

    @pytest.mark.flaky(reruns=1)
    @pytest.mark.max_peak_mib(20)
    def test_broken():
        with open("ran", "a") as file:
            print("again" if is_second() else "here", file=file)
        grow()

    def test_never():
        pass
    """
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    pytester.makepyfile(test_it=GROWS + tests)

    result = run(pytester, "-p", "asyncio", "-p", "rerunfailures", "-x", JSON)

    assert {"passed": 2, "failed": 1, "rerun": 1} == result.parseoutcomes()
    _, coroutine, *attempts = [test["budgets"] for test in read_tests(pytester)]
    assert ("kept", "alone") == (coroutine[0]["verdict"], coroutine[0]["decided_by"])
    assert [("broken", "alone")] * 2 == [(one["verdict"], one["decided_by"]) for [one] in attempts]
    assert ["here", "again"] * 2 == Path("ran").read_text(encoding="utf-8").split()
    last = run(pytester, "-p", "asyncio", "--lf", "--collect-only", "-q")
    assert ["test_it.py::test_broken"] == [line for line in last.outlines if "::" in line]


def test_allure_gets_one_attachment(pytester: pytest.Pytester) -> None:
    """What the second run attaches to allure's report goes nowhere."""
    pytest.importorskip("allure_pytest")
    tests = """
    import allure

    @pytest.mark.max_peak_mib(40)
    def test_attaches():
        allure.attach("text", "of the test")
        grow()
    """

    result, found = run_suite(pytester, tests, "-p", "allure_pytest", "--alluredir=allure")

    result.assert_outcomes(passed=2)
    assert "alone" == found["test_attaches"]["budgets"][0]["decided_by"]
    written = [path.name for path in Path("allure").iterdir()]
    assert 2 == sum(name.endswith("-result.json") for name in written)
    texts = [path.read_text(encoding="utf-8") for path in Path("allure").glob("*-attachment*")]
    assert 1 == texts.count("text")
