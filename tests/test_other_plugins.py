"""With other plugins and other kinds of tests: each is really measured, and goes on as without."""

from __future__ import annotations

import importlib.util
import json

import pytest

from running import JSON, Test, read_by_name, read_tests, run

BOUND_BYTES = 2**19
"""How far a peak may be off on Linux: 0.5 MiB."""


def needs(module: str, distribution: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where *module* cannot be found."""
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"{distribution} is not installed"
    )


needs_anyio = needs("anyio", "anyio")
needs_asyncio = needs("pytest_asyncio", "pytest-asyncio")
needs_cov = needs("pytest_cov", "pytest-cov")
needs_hypothesis = needs("hypothesis", "hypothesis")
needs_rerunfailures = needs("pytest_rerunfailures", "pytest-rerunfailures")
needs_trio = needs("trio", "trio")


def assert_peak(expected_mib: int, test: Test, phase: str = "call") -> None:
    """Assert that a phase's peak is exact, to the stated bound."""
    measurement = test["phases"][phase]
    off_bytes = measurement["peak_bytes"] - expected_mib * 2**20
    assert abs(off_bytes) <= BOUND_BYTES, (test["nodeid"], phase, measurement)


@needs_asyncio
@pytest.mark.needs_kernel_peaks
def test_pytest_asyncio(pytester: pytest.Pytester) -> None:
    """A coroutine is measured while it runs, also across its waits, and held to its budget."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(
        """
        import asyncio

        import pytest
        import pytest_asyncio

        class Held:
            pass

        @pytest_asyncio.fixture
        async def held():
            await asyncio.sleep(0)
            held = Held()
            held.bytes = b"x" * (30 << 20)
            yield held

        @pytest.mark.asyncio
        async def test_warm_up(held):
            await asyncio.sleep(0.001)

        @pytest.mark.asyncio
        async def test_holds():
            held = b"x" * (40 << 20)
            await asyncio.sleep(0.001)
            assert held

        @pytest.mark.asyncio
        async def test_tasks():
            async def task(mib):
                held = b"x" * (mib << 20)
                await asyncio.sleep(0.01)
                return len(held)

            await asyncio.gather(task(33), task(34))

        @pytest.mark.asyncio
        async def test_with_fixture(held):
            assert held

        @pytest.mark.asyncio
        @pytest.mark.max_peak_mib(10)
        async def test_over():
            b"x" * (20 << 20)
            await asyncio.sleep(0)
        """
    )

    result = run(pytester, "--imu", JSON, "-p", "asyncio")
    tests = read_by_name(pytester)

    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["peak * MiB is over max_peak_mib(10) by *"])
    assert_peak(40, tests["test_holds"])
    assert_peak(67, tests["test_tasks"])
    assert_peak(30, tests["test_with_fixture"], "setup")
    assert_peak(0, tests["test_with_fixture"])
    assert_peak(20, tests["test_over"])
    assert "broken" == tests["test_over"]["budgets"][0]["verdict"]


@needs_anyio
@pytest.mark.needs_kernel_peaks
@pytest.mark.parametrize("backend", ["asyncio", pytest.param("trio", marks=needs_trio)])
def test_anyio(pytester: pytest.Pytester, backend: str) -> None:
    """A coroutine is measured while it runs, on either back end, and held to its budget."""
    pytester.makepyfile(
        f"""
        import anyio
        import pytest

        pytestmark = pytest.mark.anyio

        @pytest.fixture(scope="module")
        def anyio_backend():
            return "{backend}"

        async def test_warm_up():
            await anyio.sleep(0.001)

        async def test_holds():
            held = b"x" * (40 << 20)
            await anyio.sleep(0.001)
            assert held

        @pytest.mark.max_peak_mib(10)
        async def test_over():
            b"x" * (20 << 20)
            await anyio.sleep(0)
        """
    )

    result = run(pytester, "--imu", JSON, "-p", "anyio")
    tests = read_by_name(pytester)

    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["peak * MiB is over max_peak_mib(10) by *"])
    assert_peak(40, tests["test_holds"])
    assert_peak(20, tests["test_over"])


@pytest.mark.needs_kernel_peaks
def test_unittest(pytester: pytest.Pytester) -> None:
    """A TestCase is measured with its setUp, held to its budget, and keeps its own errors and skips."""
    pytester.makepyfile(
        """
        import unittest

        import pytest

        class TestIt(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                cls.shared = b"x" * (30 << 20)

            def setUp(self):
                self.held = b"x" * (20 << 20)

            def test_with_set_up(self):
                self.assertEqual(120, self.held[0])

            def test_with_subtests(self):
                for number in range(3):
                    with self.subTest(number=number):
                        b"x" * (20 << 20)

            @pytest.mark.max_peak_mib(30)
            def test_kept(self):
                pass

            @pytest.mark.max_peak_mib(10)
            def test_over(self):
                pass

            @pytest.mark.max_peak_mib(10)
            def test_over_and_fails(self):
                self.assertEqual(1, 2)

            @pytest.mark.max_peak_mib(10)
            def test_over_and_skips(self):
                self.skipTest("by itself")

            @pytest.mark.max_peak_mib(30)
            def test_under_and_fails(self):
                self.assertEqual(3, 4)

            @pytest.mark.max_peak_mib(30)
            def test_under_and_skips(self):
                self.skipTest("by itself")

            @unittest.expectedFailure
            def test_expected_failure(self):
                self.assertEqual(5, 6)
        """
    )

    result = run(pytester, "--imu", JSON)
    tests = read_by_name(pytester)

    result.assert_outcomes(passed=3, failed=3, skipped=2, xfailed=1)
    result.stdout.fnmatch_lines(
        [
            "*_ TestIt.test_over _*",
            "peak * MiB is over max_peak_mib(10) by *",
            "*_ TestIt.test_over_and_fails _*",
            "E * AssertionError: 1 != 2",
            "*_ TestIt.test_under_and_fails _*",
            "E * AssertionError: 3 != 4",
        ]
    )
    assert_peak(30, tests["test_expected_failure"], "setup")
    assert_peak(20, tests["test_with_set_up"])
    assert_peak(40, tests["test_with_subtests"])
    assert {
        "test_expected_failure": ("xfailed", []),
        "test_kept": ("passed", ["kept"]),
        "test_over": ("failed", ["broken"]),
        "test_over_and_fails": ("failed", ["broken"]),
        "test_over_and_skips": ("skipped", ["broken"]),
        "test_under_and_fails": ("failed", ["unchecked"]),
        "test_under_and_skips": ("skipped", ["unchecked"]),
        "test_with_set_up": ("passed", []),
        "test_with_subtests": ("passed", []),
    } == {
        name: (test["outcome"], [budget["verdict"] for budget in test["budgets"]])
        for name, test in sorted(tests.items())
    }


@pytest.mark.needs_kernel_peaks
@pytest.mark.skipif(pytest.version_tuple < (9,), reason="pytest has subtests since 9.0")
def test_subtests(pytester: pytest.Pytester) -> None:
    """What a subtest reports on its way neither decides the test's outcome, unless it failed, nor
    takes away from its measurement, its blocks and its budgets.
    """
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.max_peak_mib(30)
        def test_skips_and_passes(subtests, imu):
            with subtests.test("skips"):
                with imu.measure("first"):
                    b"x" * (20 << 20)
                pytest.skip("a part of it")
            with imu.measure("second"):
                b"x" * (10 << 20)

        @pytest.mark.max_peak_mib(10)
        def test_skips_and_is_over(subtests):
            with subtests.test("skips"):
                pytest.skip("a part of it")
            b"x" * (20 << 20)

        @pytest.mark.max_peak_mib(10)
        def test_fails_and_skips(subtests):
            with subtests.test("fails"):
                assert False
            with subtests.test("skips"):
                pytest.skip("a part of it")
        """
    )

    result = run(pytester, "--imu", JSON, "--imu-log=run.jsonl")
    tests = read_by_name(pytester)
    log = pytester.path.joinpath("run.jsonl").read_text(encoding="ascii")

    result.stdout.fnmatch_lines(["peak * MiB is over max_peak_mib(10) by *", "E * assert False"])
    outcomes = {
        "test_skips_and_passes": ("passed", ["kept"]),
        "test_skips_and_is_over": ("failed", ["broken"]),
        "test_fails_and_skips": ("failed", ["kept"]),
    }
    assert outcomes == {
        name: (test["outcome"], [budget["verdict"] for budget in test["budgets"]])
        for name, test in tests.items()
    }
    assert [outcome for outcome, _ in outcomes.values()] == [
        line["outcome"] for line in map(json.loads, log.splitlines()) if line["event"] == "end"
    ]
    blocks = tests["test_skips_and_passes"]["blocks"]
    assert ["first", "second"] == [block["name"] for block in blocks]
    assert_peak(20, tests["test_skips_and_passes"])


@pytest.mark.needs_kernel_peaks
def test_items_that_are_no_functions(pytester: pytest.Pytester) -> None:
    """Doctests and a plugin's own items are measured and held to the default budget, or their own."""
    pytester.makepyfile(
        module='''
        def a_warm_up():
            """
            >>> print("The first doctest loads what all of them need.")
            The first doctest loads what all of them need.
            """

        def documented():
            """
            >>> held = b"x" * (20 << 20)
            >>> held[0]
            120
            """

        def documented_too_large():
            """
            >>> b"x" * (40 << 20) == b""
            False
            """
        '''
    )
    pytester.makeconftest(
        """
        import pytest

        class AllocationItem(pytest.Item):
            def runtest(self):
                b"x" * (int(self.name) << 20)

            def reportinfo(self):
                return self.path, None, f"allocation of {self.name} MiB"

        class AllocationFile(pytest.File):
            def collect(self):
                for line in self.path.read_text().splitlines():
                    mib, _, limit = line.partition(" under ")
                    item = AllocationItem.from_parent(self, name=mib)
                    if limit:
                        item.add_marker(pytest.mark.max_peak_mib(int(limit)))
                    yield item

        def pytest_collect_file(file_path, parent):
            if file_path.suffix == ".alloc":
                return AllocationFile.from_parent(parent, path=file_path)
        """
    )
    pytester.path.joinpath("sizes.alloc").write_text(
        "10\n40\n41 under 50\n20 under 15\n", encoding="ascii"
    )

    result = run(
        pytester, "--imu", JSON, "--doctest-modules", "--imu-max-peak-mib=30", "--junit-xml=junit.xml"
    )
    tests = read_by_name(pytester)

    result.assert_outcomes(passed=4, failed=3)
    result.stdout.fnmatch_lines(
        ["*::40: peak * is over max_peak_mib(30) by *; limit from --imu-max-peak-mib"]
    )
    for name, peak_mib, outcome in (
        ("module.documented", 20, "passed"),
        ("module.documented_too_large", 40, "failed"),
        ("10", 10, "passed"),
        ("40", 40, "failed"),
        ("41", 41, "passed"),
        ("20", 20, "failed"),
    ):
        assert outcome == tests[name]["outcome"]
        assert_peak(peak_mib, tests[name])


@needs_hypothesis
@pytest.mark.needs_kernel_peaks
def test_hypothesis(pytester: pytest.Pytester) -> None:
    """A test of many examples is one row, with the peak of its largest, and keeps its deadline."""
    pytester.makepyfile(
        """
        import datetime as dt

        import pytest
        from hypothesis import given, settings
        from hypothesis import strategies as st

        seen = []

        @settings(derandomize=True, database=None, deadline=dt.timedelta(minutes=1))
        @given(st.sampled_from([34, 40, 35]))
        def test_examples(mib):
            seen.append(mib)
            b"x" * (mib << 20)

        def test_all_were_tried():
            assert {34, 40, 35} == set(seen)

        @pytest.mark.max_peak_mib(20)
        @settings(derandomize=True, database=None, deadline=dt.timedelta(minutes=1))
        @given(st.sampled_from([34, 40, 35]))
        def test_over(mib):
            b"x" * (mib << 20)
        """
    )
    # The first use of hypothesis loads much of it; that is not the first test's own need.
    pytester.makeconftest(
        """
        from hypothesis import given, settings
        from hypothesis import strategies as st

        @settings(derandomize=True, database=None, deadline=None)
        @given(st.sampled_from([1, 2, 3]))
        def warm_up(number):
            pass

        warm_up()
        """
    )

    result = run(pytester, "--imu", JSON, "-p", "hypothesispytest")
    tests = read_by_name(pytester)

    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["peak * MiB is over max_peak_mib(20) by *"])
    result.stdout.no_fnmatch_line("*Falsifying*")
    assert ["test_examples", "test_all_were_tried", "test_over"] == list(tests)
    assert_peak(40, tests["test_examples"])
    assert_peak(40, tests["test_over"])


@needs_rerunfailures
@pytest.mark.needs_kernel_peaks
def test_rerunfailures(pytester: pytest.Pytester) -> None:
    """Each attempt is a row and has its lines in the log; a broken budget is run again, and stays a
    failure if it stays broken; the section shows the last attempt alone.
    """
    pytester.makepyfile(
        """
        import pytest

        SMALLER_EACH_TIME = [5, 40, 60]
        FAILS_ONCE = [False, True]

        @pytest.mark.max_peak_mib(20)
        def test_settles():
            b"x" * (SMALLER_EACH_TIME.pop() << 20)

        @pytest.mark.max_peak_mib(20)
        def test_never_settles():
            b"x" * (30 << 20)

        def test_flaky():
            assert not FAILS_ONCE.pop()

        def test_steady():
            pass
        """
    )

    result = run(pytester, "--imu", JSON, "-p", "rerunfailures", "--reruns=2", "--imu-log=run.jsonl")
    tests = read_tests(pytester)
    log = pytester.path.joinpath("run.jsonl").read_text(encoding="ascii")

    assert pytest.ExitCode.TESTS_FAILED == result.ret
    assert {"passed": 3, "failed": 1, "rerun": 5} == {
        word: count for word, count in result.parseoutcomes().items() if "warning" not in word
    }
    attempts = [
        ("test_settles", 1, "rerun", ["broken"]),
        ("test_settles", 2, "rerun", ["broken"]),
        ("test_settles", 3, "passed", ["kept"]),
        ("test_never_settles", 1, "rerun", ["broken"]),
        ("test_never_settles", 2, "rerun", ["broken"]),
        ("test_never_settles", 3, "failed", ["broken"]),
        ("test_flaky", 1, "rerun", []),
        ("test_flaky", 2, "passed", []),
        ("test_steady", 1, "passed", []),
    ]
    assert attempts == [
        (
            test["nodeid"].rpartition("::")[2],
            test["attempt"],
            test["outcome"],
            [budget["verdict"] for budget in test["budgets"]],
        )
        for test in tests
    ]
    for test, peak_mib in zip(tests, (60, 40, 5, 30, 30, 30), strict=False):
        assert_peak(peak_mib, test)
    lines = [json.loads(line) for line in log.splitlines()[1:]]
    assert [(event, name, attempt) for name, attempt, *_ in attempts for event in ("start", "end")] == [
        (line["event"], line["nodeid"].rpartition("::")[2], line["attempt"]) for line in lines
    ]
    result.stdout.fnmatch_lines(["*[ (]4 tests, *largest peak first*"])


@pytest.mark.needs_kernel_peaks
def test_hooks_of_others(pytester: pytest.Pytester) -> None:
    """What other plugins need around a phase is not the test's, and they see a broken budget fail."""
    pytester.makeconftest(
        """
        import pytest

        failures = []

        def around(item):
            before = b"x" * (30 << 20)
            try:
                return (yield)
            except BaseException as error:
                failures.append(type(error).__name__)
                raise
            finally:
                del before
                b"x" * (40 << 20)

        pytest_runtest_setup = pytest.hookimpl(wrapper=True)(around)
        pytest_runtest_call = pytest.hookimpl(wrapper=True)(around)
        pytest_runtest_teardown = pytest.hookimpl(wrapper=True)(around)

        def pytest_terminal_summary(terminalreporter):
            terminalreporter.write_line(f"the others saw {failures}")
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.max_peak_mib(15)
        def test_kept():
            b"x" * (10 << 20)

        @pytest.mark.max_peak_mib(15)
        def test_over():
            b"x" * (20 << 20)
        """
    )

    result = run(pytester, "--imu", JSON)
    tests = read_by_name(pytester)

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["the others saw ['Failed']"])
    for name, peak_mib in (("test_kept", 10), ("test_over", 20)):
        assert_peak(0, tests[name], "setup")
        assert_peak(peak_mib, tests[name])


@needs_cov
def test_pytest_cov(pytester: pytest.Pytester) -> None:
    """The coverage report says the same with the measuring as without, and budgets are enforced."""
    pytester.makepyfile(
        covered="""
        def choose(flag):
            if flag:
                return "yes"
            return "no"

        def never():
            return "called"
        """,
        test_it="""
        import pytest
        from covered import choose

        def test_choose():
            assert choose(True) == "yes"

        @pytest.mark.max_peak_mib(10)
        def test_over():
            b"x" * (20 << 20)
        """,
    )
    options = ("-p", "pytest_cov", "--cov=covered", "--cov-branch", "--cov-report=term-missing")

    without = run(pytester, "--imu", JSON, *options, "--no-imu")
    measured = run(pytester, "--imu", JSON, *options)

    without.assert_outcomes(passed=2)
    measured.assert_outcomes(passed=1, failed=1)
    for result in (without, measured):
        result.stdout.fnmatch_lines(["covered.py * 4, 7"])
    assert coverage_lines(without) == coverage_lines(measured)


def coverage_lines(result: pytest.RunResult) -> list[str]:
    """Return the lines of the coverage table."""
    return [line for line in result.outlines if line.startswith(("Name", "covered.py", "TOTAL"))]


def test_stop_at_first_and_last_failed(pytester: pytest.Pytester) -> None:
    """A broken budget stops a run under -x, and is all that --lf runs the next time."""
    pytester.makepyfile(
        """
        import pytest

        def test_first():
            pass

        @pytest.mark.max_peak_mib(10)
        def test_over():
            b"x" * (20 << 20)

        def test_last():
            pass
        """
    )

    result = run(pytester, "--imu", JSON, "-x")
    result.assert_outcomes(passed=1, failed=1)
    assert ["test_first", "test_over"] == list(read_by_name(pytester))

    result = run(pytester, "--imu", JSON, "--lf")
    result.assert_outcomes(failed=1)
    assert ["test_over"] == list(read_by_name(pytester))


def test_blocked(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed it enforces budgets by itself; with -p no:imu the same tests run, their markers are
    unknown, and its options are not there.
    """
    # Found as users have it, by its entry point; the others that are slow to load stay out.
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    slow = (
        *("allure_pytest", "anyio", "asyncio", "benchmark", "fakefs", "html", "hypothesispytest"),
        *("pytest_cov", "xdist", "xdist.looponfail"),
    )
    out = [f"-pno:{name}" for name in slow]
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.max_peak_mib(10)
        def test_over():
            b"x" * (20 << 20)
        """
    )

    installed = pytester.runpytest_subprocess(*out)
    blocked = pytester.runpytest_subprocess(*out, "-p", "no:imu")
    asked_for = pytester.runpytest_subprocess(*out, "-p", "no:imu", "--imu")

    installed.assert_outcomes(failed=1)
    blocked.assert_outcomes(passed=1, warnings=1)
    blocked.stdout.fnmatch_lines(["*PytestUnknownMarkWarning: Unknown pytest.mark.max_peak_mib*"])
    assert pytest.ExitCode.USAGE_ERROR == asked_for.ret
    asked_for.stderr.fnmatch_lines(["*unrecognized arguments: --imu"])
